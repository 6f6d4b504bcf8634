"""Muon's step by the singular value decomposition, its moments as Adam's, and Triton's twin against torch's."""

import pytest
import torch

from kernels.optimization.adam import adam_step, controlled_adam_steps
from kernels.optimization.muon import muon_step, orthogonalised
from kernels.optimization.updates import TouchedRows, Update
from tests.triton_device import DEVICE, TRITON, device_of, needs_triton

BETAS, EPS = (0.9, 0.99), 1e-15
GIVEN = {"step": 1, "betas": BETAS, "eps": EPS}
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
    muon_step((parameter, grad, first, second), [(2, 3)], 0.1, **GIVEN, implementation=implementation)
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
            muon_step(tensors, [shape], 0.1, **GIVEN, weight_decay=0.1, implementation=implementation)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_numba_of_nothing_it_is_nothing():
    tensors = [torch.ones(4, 3), *(torch.zeros(4, 3) for _ in range(3))]
    muon_step(tensors, [(4, 3)], 0.1, **GIVEN, implementation="numba")
    assert torch.equal(tensors[0], torch.ones(4, 3))


def test_its_moments_are_adam_s():
    ours, theirs = matrix_of(5, 3), matrix_of(5, 3)
    for step in range(1, 4):
        for tensors in (ours, theirs):
            tensors[1].copy_(matrix_of(5, 3, step)[1])
            tensors[0].copy_(matrix_of(5, 3)[0])
        muon_step(ours, [(5, 3)], 0.01, **GIVEN, weight_decay=0.1)
        adam_step(*theirs, step=step, lr=0.01, betas=BETAS, eps=EPS, weight_decay=0.1, implementation="torch")
    for found, expected in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(found, expected)


NETWORK = ((5, 8), (9, 3))
"""The layers of a network, biases among them."""


def networks(seed=0):
    """Six of them, one after another: a parameter, a gradient that the second has none of, and moments."""
    tensors = matrix_of(6, sum(height * width for height, width in NETWORK), seed)
    tensors[1][1] = 0
    return tensors


def layers(rows):
    """(6, N, K) of each layer of such networks."""
    parts = rows.split([height * width for height, width in NETWORK], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, NETWORK, strict=True)]


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_networks_take_turns_and_longer_steps(implementation):
    """Of six rows those move in the third update whose number and three are a multiple of four: 1 and 5."""
    tensors, touched = networks(), TouchedRows(6, rows_per_flag=1)
    touched.mark_all(torch.device("cpu"))
    tensors[2].zero_()
    before, grads = tensors[0].clone(), tensors[1].clone()
    muon_step(tensors, NETWORK, 0.1, **GIVEN | {"step": 3}, touched=touched, implementation=implementation)
    for old, new, grad, shape in zip(layers(before), layers(tensors[0]), layers(grads), NETWORK, strict=True):
        u, _, v = torch.linalg.svd(grad[5], full_matrices=False)
        expected = old[5] - 4 * 0.1 * 0.2 * max(shape) ** 0.5 * u @ v
        torch.testing.assert_close(new[5], expected, atol=2e-3, rtol=0)
    assert torch.equal(tensors[0][:5], before[:5])  # the second has no gradient
    torch.testing.assert_close(tensors[2], 0.1 * grads)  # what waits for its turn keeps its momentum
    assert not tensors[1].any() and not touched.flags.any()


def test_numba_moves_networks_as_torch_does_and_visits_what_is_flagged():
    ours, theirs, touched = networks(), networks(), TouchedRows(6, rows_per_flag=1)
    for step in range(1, 6):
        for tensors, implementation in ((ours, "numba"), (theirs, "torch")):
            tensors[1].copy_(networks(step)[1])
            tensors[1][3] = 0
            touched.flags[:] = torch.tensor([1, 1, 1, 0, 1, 1, 0])
            given = GIVEN | {"step": step, "touched": touched}
            muon_step(tensors, NETWORK, 0.1, **given, weight_decay=0.1, implementation=implementation)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert torch.equal(ours[0][3], networks()[0][3]) and not torch.equal(ours[0][4], networks()[0][4])


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_below_eps_a_step_shrinks_with_its_momentum(implementation):
    """A gradient of a hundredth of it, all alike, whose momentum with Nesterov's look ahead is 0.19 of that."""
    tensors = [torch.zeros(4, 3), torch.full((4, 3), 1e-10), torch.zeros(4, 3), torch.zeros(4, 3)]
    muon_step(tensors, [(4, 3)], 1.0, **GIVEN | {"eps": 1e-8}, implementation=implementation)
    expected = -0.0019 * 0.2 * 4**0.5 / 12**0.5
    torch.testing.assert_close(tensors[0], torch.full((4, 3), expected), atol=0, rtol=1e-3)


def moving_of(device="cpu"):
    """Matrices, and a vector and networks between."""
    entries = [Update(*(t.to(device) for t in matrix_of(*shape)), 0.1, None, [shape]) for shape in SHAPES]
    plain = [torch.linspace(-1, 1, 7).to(device) for _ in range(4)]
    plain[3].square_()
    cells = [tensor.to(device) for tensor in networks()]
    touched = TouchedRows(6, rows_per_flag=1)
    touched.mark_all(torch.device(device))
    updates = torch.tensor(3.0, dtype=torch.float64, device=device)
    return [*entries[:1], Update(*plain), Update(*cells, 0.1, touched, NETWORK, updates), *entries[1:]]


def changing(entries):
    return [tensor.detach().cpu() for entry in entries for tensor in (entry.parameter, *entry[2:4])]


@needs_triton
def test_triton_moves_several_matrices_as_torch_does():
    controls = torch.tensor([[0.01 * (1 + k), 1e-9, 0.5 + k, float(k == 4)] for k in range(7)])
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
@pytest.mark.parametrize("shape", [(2, 200), (65, 66)])
def test_a_matrix_too_wide_for_triton_is_moved_by_torch(shape, monkeypatch):
    """Of one 128 x 128 the kernel would ask for 128 KiB of shared memory, of which most GPUs have 99."""
    from kernels.optimization import muon_triton

    monkeypatch.setattr(muon_triton, "controlled_muon", None)
    entries = [Update(*(t.to(DEVICE) for t in matrix_of(*shape)), 0.1, None, [shape])]
    expected = matrix_of(*shape)
    muon_step(expected, [shape], 0.01, **GIVEN, weight_decay=0.1, implementation="torch")
    controls = torch.tensor([[0.01, 1e-9, 1.0, 0.0]], device=DEVICE)
    controlled_adam_steps(entries, controls, betas=BETAS, implementation="triton")
    torch.testing.assert_close(entries[0].parameter.cpu(), expected[0])
