"""Dense updates against torch.optim.Adam; lazy ones leave alone what has no gradient."""

import copy

import pytest
import torch

from kernels.optimization.adam import adam_step, controlled_adam_step, controlled_adam_steps, corrected
from kernels.optimization.updates import ROWS_PER_FLAG, TouchedRows, Update
from tests.triton_device import DEVICE, TRITON, device_of, needs_gpu, needs_triton

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
TWINS = pytest.mark.parametrize("twin", ["numba", TRITON])
BETAS, EPS = (0.9, 0.99), 1e-8


class Table:
    """A parameter with its moments, updated by the kernel."""

    def __init__(self, rows, features=2):
        self.parameter = torch.randn(rows, features)
        self.grad, self.first, self.second = (torch.zeros(rows, features) for _ in range(3))
        self.step = 0

    def copy(self):
        other = Table(0)
        for name, value in vars(self).items():
            setattr(other, name, value.clone() if isinstance(value, torch.Tensor) else value)
        return other

    def update(self, grad, implementation, touched=None, lr=0.01, weight_decay=0.0):
        self.grad.copy_(grad)
        self.step += 1
        # A copy where the implementation needs another device, the tensors themselves elsewhere.
        tensors = (self.parameter, self.grad, self.first, self.second)
        moved = [tensor.to(device_of(implementation)) for tensor in tensors]
        adam_step(
            *moved,
            step=self.step,
            lr=lr,
            betas=BETAS,
            eps=EPS,
            weight_decay=weight_decay,
            touched=touched,
            implementation=implementation,
        )
        for tensor, updated in zip(tensors, moved, strict=True):
            tensor.copy_(updated)

    @property
    def state(self):
        return torch.stack([self.parameter, self.first, self.second])


def sparse_grad(rows, features=2, share=0.1):
    """Gradients of a few rows, the rows they touch, and which elements move."""
    grad = torch.randn(rows, features) * (torch.rand(rows, 1) < share) * (torch.rand(rows, features) < 0.8)
    touched = TouchedRows(rows)
    touched.flags[(grad != 0).any(1).nonzero()[:, 0] // ROWS_PER_FLAG] = 1
    return grad, touched, grad != 0


def flags_left(touched, implementation):
    """Whether an update left flags, where it clears them: on a GPU, where nothing reads them, it does not."""
    return device_of(implementation).type == "cpu" and touched.flags.any()


@IMPLEMENTATIONS
def test_first_step_by_hand(implementation):
    table = Table(1, 3)
    table.parameter[:] = torch.tensor([[1.0, 2.0, 3.0]])
    table.update(torch.tensor([[0.5, -4.0, 0.0]]), implementation, lr=0.1)
    # With bias correction the first step is lr * sign(gradient).
    assert table.parameter[0].tolist() == pytest.approx([0.9, 2.1, 3.0], abs=1e-6)
    assert table.first[0].tolist() == pytest.approx([0.05, -0.4, 0], rel=1e-5)
    assert table.second[0].tolist() == pytest.approx([0.0025, 0.16, 0], rel=1e-5)
    assert not table.grad.any()


@IMPLEMENTATIONS
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("rows", "features"), [(1, 1), (63, 2), (64, 2), (65, 4), (1001, 8)])
def test_dense_steps_equal_torch_optim_adam(implementation, rows, features, weight_decay):
    table = Table(rows, features)
    reference = table.parameter.clone().requires_grad_()
    optimizer = torch.optim.Adam([reference], lr=0.01, betas=BETAS, eps=EPS, weight_decay=weight_decay)
    for step in range(12):
        grad = torch.randn(rows, features) * 10.0 ** (step % 4 - 2)
        reference.grad = grad.clone()
        optimizer.step()
        table.update(grad, implementation, weight_decay=weight_decay)
        assert not table.grad.any()
    torch.testing.assert_close(table.parameter, reference.detach(), atol=2e-6, rtol=1e-5)


@IMPLEMENTATIONS
@pytest.mark.parametrize("features", [1, 2, 4, 8])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 63, 64, 65, 1001])
def test_lazy_step_moves_the_elements_with_a_gradient_and_no_others(implementation, rows, features):
    table = Table(rows, features)
    for _ in range(3):
        table.update(torch.randn(rows, features), implementation)
    lazy, dense = table.copy(), table.copy()
    grad, touched, moving = sparse_grad(rows, features, share=0.3)
    lazy.update(grad, implementation, touched)
    dense.update(grad, implementation)
    # Bit for bit, moments included.
    assert torch.equal(lazy.state[:, ~moving], table.state[:, ~moving])
    torch.testing.assert_close(lazy.state[:, moving], dense.state[:, moving], atol=1e-7, rtol=1e-5)
    assert (lazy.parameter != table.parameter)[moving].all()
    assert not lazy.grad.any()
    assert not flags_left(touched, implementation)


@TWINS
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("rows", [0, 1, 65, 1001])
def test_twins_equal_torch_over_lazy_steps(twin, rows, weight_decay):
    ours = Table(rows)
    reference = ours.copy()
    for _ in range(10):
        grad, touched, _ = sparse_grad(rows)
        reference.update(grad, "torch", copy.deepcopy(touched), weight_decay=weight_decay)
        ours.update(grad, twin, touched, weight_decay=weight_decay)
    torch.testing.assert_close(ours.state, reference.state, atol=1e-6, rtol=1e-5)


def test_cost_follows_the_flags():
    # A block without a flag is not visited: a gradient put there by hand stays where it is.
    table = Table(10 * ROWS_PER_FLAG)
    touched = TouchedRows(len(table.parameter))
    touched.flags[3] = 1
    before = table.parameter.clone()
    table.update(torch.ones(10 * ROWS_PER_FLAG, 2), "numba", touched)
    moved = torch.zeros(10 * ROWS_PER_FLAG, dtype=torch.bool)
    moved[3 * ROWS_PER_FLAG : 4 * ROWS_PER_FLAG] = True
    assert (table.parameter != before).all(1).equal(moved)
    assert (table.grad == 0).all(1).equal(moved)


@IMPLEMENTATIONS
def test_a_flag_may_cover_one_wide_row(implementation):
    table, touched = Table(5, 37), TouchedRows(5, rows_per_flag=1)
    touched.flags[[1, 4]] = 1
    grad = torch.zeros(5, 37)
    grad[[1, 4]] = 1.0
    before = table.parameter.clone()
    table.update(grad, implementation, touched)
    assert (table.parameter != before).all(1).tolist() == [False, True, False, False, True]
    assert not flags_left(touched, implementation)


@TWINS
def test_tiny_gradients_make_whole_steps(twin):
    # With Adam's eps of 1e-15 for hash tables, a gradient of 1e-10 moves its entry by the whole rate.
    parameter, grad = torch.zeros(1, 2, device=device_of(twin)), torch.full((1, 2), 1e-10, device=device_of(twin))
    moments = torch.zeros_like(grad), torch.zeros_like(grad)
    adam_step(parameter, grad, *moments, step=1, lr=0.1, betas=BETAS, eps=1e-15, implementation=twin)
    assert parameter[0].tolist() == pytest.approx([-0.1, -0.1], rel=1e-3)


@TWINS
def test_a_gradient_that_is_not_finite_is_not_passed_over(twin):
    table = Table(3)
    grad = torch.zeros(3, 2)
    grad[1, 0] = float("nan")
    touched = TouchedRows(3)
    touched.flags[0] = 1
    table.update(grad, twin, touched)
    assert table.parameter.isnan().tolist() == [[False, False], [True, False], [False, False]]


@needs_gpu
@pytest.mark.parametrize("lazy", [False, True])
def test_triton_at_a_real_size(lazy):
    ours = Table(2**20 + 3)
    reference = ours.copy()
    for _ in range(3):
        grad, touched, _ = sparse_grad(len(ours.parameter))
        for table, name in ((ours, "triton"), (reference, "numba")):
            table.update(grad, name, copy.deepcopy(touched) if lazy else None)
    torch.testing.assert_close(ours.state, reference.state, atol=1e-6, rtol=1e-5)


def test_same_bits_for_any_number_of_threads(use_threads):
    table = Table(20_000, 8)
    grad, touched, _ = sparse_grad(20_000, 8)
    results = []
    for threads in (1, 2):
        use_threads(threads)
        dense, lazy = table.copy(), table.copy()
        dense.update(grad, "numba")
        lazy.update(grad, "numba", copy.deepcopy(touched))
        results.append((dense.state, lazy.state))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def controlled(table, grad, implementation, controls, touched=None, weight_decay=0.0):
    table.grad.copy_(grad)
    tensors = (table.parameter, table.grad, table.first, table.second)
    moved = [tensor.to(device_of(implementation)) for tensor in tensors]
    controls = torch.tensor(controls, dtype=torch.float32, device=device_of(implementation))
    controlled_adam_step(
        *moved, controls, betas=BETAS, weight_decay=weight_decay, touched=touched, implementation=implementation
    )
    for tensor, updated in zip(tensors, moved, strict=True):
        tensor.copy_(updated)


@IMPLEMENTATIONS
@pytest.mark.parametrize("lazy", [False, True])
def test_controls_on_the_device_do_what_numbers_do(implementation, lazy):
    plain = Table(1500)
    guided = plain.copy()
    for step in range(1, 4):
        grad, touched, _ = sparse_grad(1500)
        twice = copy.deepcopy(touched)
        plain.update(grad, implementation, touched if lazy else None, weight_decay=0.1)
        controls = (*corrected(step, 0.01, BETAS, EPS), 1 / 1024, 0.0)
        controlled(guided, grad * 1024, implementation, controls, twice if lazy else None, weight_decay=0.1)
        assert not guided.grad.any()
        assert not (lazy and flags_left(twice, implementation))
    torch.testing.assert_close(guided.state, plain.state, atol=1e-7, rtol=1e-5)


@IMPLEMENTATIONS
@pytest.mark.parametrize("lazy", [False, True])
def test_a_skipped_step_leaves_everything_but_a_gradient_of_zero(implementation, lazy):
    table = Table(130)
    grad, touched, _ = sparse_grad(130)
    table.update(grad, implementation, copy.deepcopy(touched) if lazy else None)
    before = table.state
    broken = torch.where(grad != 0, torch.tensor(float("nan")), grad)
    controlled(table, broken, implementation, (float("nan"), 0.0, 1.0, 1.0), touched if lazy else None)
    assert torch.equal(table.state, before)
    assert not table.grad.any()
    assert not (lazy and flags_left(touched, implementation))


def test_bias_corrections_of_a_tensor_are_those_of_a_number():
    steps = torch.tensor([1.0, 7.0, 5000.0], dtype=torch.float64)
    rates, epsilons = corrected(steps, 0.01, BETAS, EPS)
    expected = [corrected(step, 0.01, BETAS, EPS) for step in (1, 7, 5000)]
    assert rates.tolist() == pytest.approx([rate for rate, _ in expected], rel=1e-12)
    assert epsilons.tolist() == pytest.approx([eps for _, eps in expected], rel=1e-12)


@needs_triton
def test_several_at_once_are_each_alone():
    """A lazy table between others, of sizes around a block's; a row of controls says that its own stays as it is."""
    sizes = [(3, 5), (300, 2), (1, 1), (1024, 1), (41, 50)]
    controls = torch.tensor([[0.1, 1e-8, 0.5, 0.0], [0.2, 1e-15, 1.0, 0.0], [0.3, 1e-8, 2.0, 0.0]], device=DEVICE)
    controls = torch.cat([controls, controls[:1] * 2, controls[:1]])
    controls[3, 3] = 1.0
    decays, results = [0.0, 0.0, 0.1, 0.0, 0.2], []
    for together in (True, False):
        torch.manual_seed(3)
        entries = [[torch.randn(size).to(DEVICE) for _ in range(4)] for size in sizes]
        for place, tensors in enumerate(entries):
            tensors[3].abs_()
            if place == 1:
                tensors[1][::2] = 0
        touched = [TouchedRows(300) if place == 1 else None for place in range(len(sizes))]
        if together:
            moving = [Update(*tensors, *own) for tensors, *own in zip(entries, decays, touched, strict=True)]
            controlled_adam_steps(moving, controls, betas=BETAS, implementation="triton")
        else:
            for tensors, control, decay, rows in zip(entries, controls, decays, touched, strict=True):
                named = {"betas": BETAS, "weight_decay": decay, "touched": rows, "implementation": "triton"}
                controlled_adam_step(*tensors, control, **named)
        # The gradients of those that are taken together have had their use.
        results.append([tensor for tensors in entries for place, tensor in enumerate(tensors) if place != 1])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_nothing_moves_where_nothing_is_to_move():
    controlled_adam_steps([], torch.zeros(0, 4), betas=BETAS)
