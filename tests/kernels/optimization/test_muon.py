"""Muon's step by the singular value decomposition, its moments as Adam's, and Triton's twin against torch's."""

import pytest
import torch

from kernels.optimization.adam import Moving, adam_step, controlled_adam_steps
from kernels.optimization.muon import muon_step, orthogonalised
from tests.triton_device import DEVICE, TRITON, device_of, needs_triton

BETAS, EPS = (0.9, 0.99), 1e-15
SHAPES = ((3, 20), (17, 5), (16, 16), (33, 70), (1, 1))


def matrix_of(height, width, seed=0):
    """A parameter, a gradient and moments."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(height, width, generator=generator) for _ in range(4)]
    tensors[3].square_()
    return tensors


@pytest.mark.parametrize("shape", SHAPES)
def test_all_that_is_not_tiny_ends_at_one(shape):
    u, _, v = torch.linalg.svd(matrix_of(*shape)[0], full_matrices=False)
    values = torch.logspace(0, -4, len(v))
    found = orthogonalised(u.double() @ torch.diag(1000 * values).double() @ v.double())
    torch.testing.assert_close(found, (u @ v).double(), atol=0.01, rtol=0)


def test_of_nothing_it_is_nothing():
    assert not orthogonalised(torch.zeros(4, 3)).any()


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_a_step_by_hand(implementation):
    """Of the identity with a gradient along one of its entries: the step is that entry's, times 0.2 sqrt(3)."""
    parameter, grad, first, second = torch.eye(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)
    grad[1, 2] = 0.003
    muon_step((parameter, grad, first, second), 0.1, BETAS, implementation=implementation)
    expected = torch.eye(2, 3)
    expected[1, 2] = -0.1 * 0.2 * 3**0.5
    torch.testing.assert_close(parameter, expected, atol=1e-4, rtol=0)
    assert not grad.any()


@pytest.mark.parametrize("shape", SHAPES)
def test_numba_moves_a_matrix_as_torch_does(shape):
    ours, theirs = matrix_of(*shape), matrix_of(*shape)
    for step in range(1, 4):
        for tensors, implementation in ((ours, "numba"), (theirs, "torch")):
            tensors[1].copy_(matrix_of(*shape, step)[1])
            muon_step(tensors, 0.1, BETAS, 0.1, implementation)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_numba_of_nothing_it_is_nothing():
    tensors = [torch.ones(4, 3), *(torch.zeros(4, 3) for _ in range(3))]
    muon_step(tensors, 0.1, BETAS, implementation="numba")
    assert torch.equal(tensors[0], torch.ones(4, 3))


def test_its_moments_are_adam_s():
    ours, theirs = matrix_of(5, 3), matrix_of(5, 3)
    for step in range(1, 4):
        for tensors in (ours, theirs):
            tensors[1].copy_(matrix_of(5, 3, step)[1])
            tensors[0].copy_(matrix_of(5, 3)[0])
        muon_step(ours, 0.01, BETAS, weight_decay=0.1)
        adam_step(*theirs, step=step, lr=0.01, betas=BETAS, eps=EPS, weight_decay=0.1, implementation="torch")
    for found, expected in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(found, expected)


def moving_of(device="cpu"):
    """Matrices, and a vector between."""
    entries = [Moving(*(t.to(device) for t in matrix_of(*shape)), 0.1, None, True) for shape in SHAPES]
    plain = [torch.linspace(-1, 1, 7).to(device) for _ in range(4)]
    plain[3].square_()
    return [*entries[:1], Moving(*plain), *entries[1:]]


def changing(entries):
    return [tensor.detach().cpu() for entry in entries for tensor in (entry.parameter, *entry[2:4])]


@needs_triton
def test_triton_moves_several_matrices_as_torch_does():
    controls = torch.tensor([[0.01 * (1 + k), 1e-9, 0.5 + k, float(k == 4)] for k in range(6)])
    ours, theirs = moving_of(DEVICE), moving_of()
    controlled_adam_steps(ours, controls.to(DEVICE), betas=BETAS, implementation="triton")
    controlled_adam_steps(theirs, controls, betas=BETAS, implementation="torch")
    for found, expected in zip(changing(ours), changing(theirs), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
def test_a_step_not_taken_changes_nothing_whatever_the_gradient(implementation):
    entries = moving_of(device_of(implementation))
    for entry in entries:
        entry.grad.fill_(torch.nan)
    before = [tensor.clone() for tensor in changing(entries)]
    controls = torch.tensor([[0.01, 1e-9, 1.0, 1.0]] * len(entries), device=entries[0].grad.device)
    controlled_adam_steps(entries, controls, betas=BETAS, implementation=implementation)
    for found, expected in zip(changing(entries), before, strict=True):
        assert torch.equal(found, expected)
    assert all(entry.parameter.grad is None or not entry.grad.any() for entry in entries)


@needs_triton
def test_a_matrix_too_wide_for_triton_is_moved_by_torch():
    entries = [Moving(*(t.to(DEVICE) for t in matrix_of(2, 200)), 0.1, None, True)]
    expected = matrix_of(2, 200)
    muon_step(expected, 0.01, BETAS, weight_decay=0.1)
    controls = torch.tensor([[0.01, 1e-9, 1.0, 0.0]], device=DEVICE)
    controlled_adam_steps(entries, controls, betas=BETAS, implementation="triton")
    torch.testing.assert_close(entries[0].parameter.cpu(), expected[0])
