"""Maps of matrices from both sides: by hand, and the twin against its reference."""

import pytest
import torch

from kernels.coding.matrix_maps import map_matrices


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_by_hand(implementation):
    rows = torch.tensor([[1.0, 2.0, 3.0, 4.0, 7.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    lefts, rights = (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[2.0]])), (torch.eye(2), torch.eye(1))
    rights[0][0, 1] = 10.0
    found = map_matrices(rows, lefts, rights, implementation)
    assert found.tolist() == [[43.0, 4.0, 21.0, 2.0, 14.0], [0.0, 0.0, 0.0, 0.0, 2.0]]


@pytest.mark.parametrize("rows", [0, 1, 37])
def test_numba_equals_torch(rows, use_threads):
    use_threads(2)
    generator = torch.Generator().manual_seed(rows)
    shapes = ((5, 7), (1, 3), (16, 1))
    matrices = torch.randn(rows, sum(height * width for height, width in shapes), generator=generator)
    matrices[:, :35][torch.rand(rows, generator=generator) < 0.3] = 0
    lefts, rights = (
        [torch.randn(shape[side], shape[side], generator=generator) for shape in shapes] for side in (0, 1)
    )
    expected = map_matrices(matrices, lefts, rights, "torch")
    torch.testing.assert_close(map_matrices(matrices, lefts, rights, "numba"), expected)
