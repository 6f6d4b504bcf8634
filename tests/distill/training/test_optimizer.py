import copy

import pytest
import torch

from distill.training.optimizer import StudentOptimizer, rate_factor, without_companions
from kernels.optimization.muon import orthogonalised
from settings.training import TrainConfig
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings, KiloUniformStudent

SETTINGS = {
    "levels": 2,
    "features": 2,
    "table_size": 512,
    "base_resolution": 4,
    "finest_resolution": 16,
    "hidden_width": 8,
    "density_layers": 1,
    "color_layers": 1,
    "geo_features": 3,
    "direction_degree": 1,
}


@pytest.fixture
def student():
    return HashGridStudent(((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), HashGridSettings(**SETTINGS))


def backward(student, count=3, seed=0):
    """Gradients of a few samples, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(count, 3, generator=generator)
    density, rgb = student(positions, torch.tensor([[0.0, 0, 1]]), torch.zeros(count, dtype=torch.int64))
    (density.sum() + (rgb * torch.rand(count, 3, generator=generator)).sum()).backward()


def snapshot(student):
    return {name: parameter.detach().clone() for name, parameter in student.named_parameters()}


@pytest.mark.parametrize(
    ("step", "progress", "expected"),
    [(0, 0, 0.25), (1, 0, 0.5), (3, 0, 1), (50, 0, 1), (50, 0.5, 0.505), (50, 1, 0.01), (50, 1.2, 0.01)],
)
def test_rate_warms_up_in_steps_and_decays_over_the_run(step, progress, expected):
    train = TrainConfig(lr_warmup_steps=4, lr_final_ratio=0.01)
    assert rate_factor(step, progress, train) == pytest.approx(expected)


def test_no_warmup_starts_at_the_full_rate():
    assert rate_factor(0, 0, TrainConfig(lr_warmup_steps=0)) == 1


def test_an_entry_moves_as_far_by_the_faintest_gradient_as_by_any(student):
    optimizer, before = StudentOptimizer(student, TrainConfig(lr=0.02)), student.table.detach().clone()
    optimizer.set_rate(0.5)
    student.table.grad = torch.zeros_like(student.table)
    student.table.grad[0], student.table.grad[9] = 1e-10, 1.0
    student.touched_rows()[student.table].flags.fill_(1)
    optimizer.step()
    moved = before - student.table.detach()
    torch.testing.assert_close(moved[[0, 9]], torch.full((2, 2), 0.01), atol=1e-6, rtol=1e-3)
    assert moved.count_nonzero() == 4


def test_first_step_moves_by_each_groups_rate(student):
    before = snapshot(student)
    optimizer = StudentOptimizer(
        student, TrainConfig(lr=0.02, lr_mlp=0.001, mlp_weight_decay=0.0, mlp_optimizer="adam")
    )
    optimizer.set_rate(0.5)
    backward(student)
    grads = {name: parameter.grad.clone() for name, parameter in student.named_parameters()}
    optimizer.step()
    for name, parameter in student.named_parameters():
        rate = 0.01 if name == "table" else 0.0005
        moved = before[name] - parameter.detach()
        torch.testing.assert_close(moved, rate * grads[name].sign(), atol=1e-6, rtol=1e-3)
        assert not parameter.grad.any()


def test_the_mlps_follow_the_tables_rate_by_default(student):
    optimizer = StudentOptimizer(student, TrainConfig(lr=0.02))
    optimizer.set_rate(0.1)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.002, 0.002])


def test_mlps_equal_torch_optim_adam_with_weight_decay(student):
    twin = copy.deepcopy(student)
    optimizer = StudentOptimizer(student, TrainConfig(lr=0.01, mlp_weight_decay=0.1, mlp_optimizer="adam"))
    optimizer.set_rate(1.0)
    mlps = twin.parameter_groups()["mlp"]
    reference = torch.optim.Adam(mlps, lr=0.01, betas=(0.9, 0.99), eps=1e-15, weight_decay=0.1)
    for seed in range(8):
        backward(student, seed=seed)
        for ours, theirs in zip(student.parameter_groups()["mlp"], mlps, strict=True):
            theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    for ours, theirs in zip(student.parameter_groups()["mlp"], mlps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_muon_moves_the_matrices_of_student_and_far_field(student):
    far = copy.deepcopy(student)
    optimizer = StudentOptimizer(student, TrainConfig(lr=0.02, lr_mlp=0.001, mlp_weight_decay=0.0), far_field=far)
    optimizer.set_rate(0.5)
    for field in (student, far):
        backward(field)
        matrices = field.matrices()
        assert [*matrices] == field.parameter_groups()["mlp"] and len(matrices) == 4
    before = [matrix.detach().clone() for field in (student, far) for matrix in field.matrices()]
    steps = [orthogonalised(matrix.grad) for field in (student, far) for matrix in field.matrices()]
    grads = student.table.grad.clone()
    table = student.table.detach().clone()
    optimizer.step()
    after = [matrix.detach() for field in (student, far) for matrix in field.matrices()]
    for new, old, step in zip(after, before, steps, strict=True):
        expected = old - 0.0005 * 0.2 * max(old.shape) ** 0.5 * step
        torch.testing.assert_close(new, expected, atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(table - student.table.detach(), 0.01 * grads.sign(), atol=1e-6, rtol=1e-3)


def test_table_rows_that_no_sample_touched_do_not_move(student):
    optimizer = StudentOptimizer(student, TrainConfig(lr=0.01))
    optimizer.set_rate(1.0)
    for seed in range(3):
        backward(student, seed=seed)
        optimizer.step()
    before = student.table.detach().clone()
    moments = {name: value.clone() for name, value in optimizer.state[student.table].items() if name != "step"}
    backward(student, count=1, seed=9)
    still = student.table.grad == 0
    optimizer.step()
    assert 0.9 < still.float().mean() < 1
    assert torch.equal(student.table[still], before[still])
    assert (student.table != before)[~still].all()
    for name, value in moments.items():
        assert torch.equal(optimizer.state[student.table][name][still], value[still])
    assert not student.touched_rows()[student.table].flags.any()


def test_restored_state_goes_on_bit_for_bit(student):
    train = TrainConfig(lr=0.01)
    optimizer = StudentOptimizer(student, train)

    def go_on(student, optimizer, seeds):
        for seed in seeds:
            optimizer.set_rate(rate_factor(seed, seed / 6, train))
            backward(student, seed=seed)
            optimizer.step()
        return snapshot(student)

    go_on(student, optimizer, range(3))
    twin, state = copy.deepcopy(student), copy.deepcopy(optimizer.state_dict())
    for parameter in twin.parameters():
        parameter.grad = None
    restored = StudentOptimizer(twin, train)
    restored.load_state_dict(state)
    expected, found = go_on(student, optimizer, range(3, 6)), go_on(twin, restored, range(3, 6))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_rates_of_a_changed_config_outlive_the_restored_state(student):
    state = StudentOptimizer(student, TrainConfig(lr=0.01, mlp_weight_decay=0.0)).state_dict()
    optimizer = StudentOptimizer(student, TrainConfig(lr=0.5, lr_mlp=0.25, mlp_weight_decay=0.125))
    optimizer.load_state_dict(state)
    optimizer.set_rate(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.125]


def test_the_state_of_other_parameters_is_refused(student):
    state = StudentOptimizer(student, TrainConfig(lr=0.01)).state_dict()
    other = StudentOptimizer(student, TrainConfig(lr=0.01), companions=[torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="found groups of .* parameters, expected .*1]"):
        other.load_state_dict(state)


def test_a_state_without_its_companions_is_that_of_the_student_alone(cells):
    train = TrainConfig(lr=0.01, lr_common=0.03)
    companions = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(5))]
    twin = copy.deepcopy(cells)
    alone, beside = StudentOptimizer(twin, train), StudentOptimizer(cells, train, companions=companions)
    for student, optimizer in ((cells, beside), (twin, alone)):
        give_gradients(student, 0)
        for companion in companions:
            companion.grad = torch.ones_like(companion)
        optimizer.set_rate(1.0)
        optimizer.step()
    state, expected = without_companions(beside.state_dict()), alone.state_dict()
    assert state["param_groups"] == expected["param_groups"] and {*state["state"]} == {*expected["state"]}
    for place, values in expected["state"].items():
        assert all(
            torch.equal(torch.as_tensor(state["state"][place][name]), torch.as_tensor(values[name])) for name in values
        )
    restored = StudentOptimizer(copy.deepcopy(cells), train)
    restored.load_state_dict(state)
    with pytest.raises(ValueError):
        without_companions(StudentOptimizer(student, TrainConfig(lr=0.01)).state_dict())


def test_tiny_gradients_move_hash_tables_but_not_tiny_networks(student):
    kilo = KiloUniformStudent(
        ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), KiloUniformSettings(**{**CELLS, "grid": (1, 1, 2)})
    )
    for model, least, most in ((student, 0.0099, 0.0101), (kilo, 0, 1e-5)):
        parameter = model.parameter_groups()["table"][0]
        before = parameter.detach().clone()
        optimizer = StudentOptimizer(model, TrainConfig(lr=0.01))
        optimizer.set_rate(1.0)
        parameter.grad = torch.full_like(parameter, 1e-12)
        model.touched_rows()[parameter].flags.fill_(1)
        optimizer.step()
        moved = (before - parameter.detach()).abs()
        assert least <= moved.min() and moved.max() <= most


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_steps_decided_on_the_device_equal_those_of_the_host(student, implementation):
    train = TrainConfig(lr=0.01, mlp_weight_decay=0.1)
    twin = copy.deepcopy(student)
    optimizer, other = StudentOptimizer(student, train, implementation), StudentOptimizer(twin, train, implementation)
    go, scale = torch.tensor(False), torch.tensor(1.0)
    for seed in range(4):
        for each in (optimizer, other):
            each.set_rate(0.5 + 0.1 * seed)
        backward(student, seed=seed)
        backward(twin, seed=seed)
        optimizer.step()
        other.step_unless(go, scale)
    for ours, theirs in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-7, rtol=1e-5)
    counts = [{key: state["step"] for key, state in each.state_dict()["state"].items()} for each in (optimizer, other)]
    assert counts[0] == counts[1] and set(counts[0].values()) == {4}


def test_a_skipped_step_is_not_counted_and_a_factor_on_the_device_is_the_rate(student):
    optimizer = StudentOptimizer(student, TrainConfig(lr=0.01, mlp_optimizer="adam"))
    optimizer.set_rate(1.0)
    go, skip, scale = torch.tensor(False), torch.tensor(True), torch.tensor(1.0)
    before = snapshot(student)
    backward(student)
    optimizer.step_unless(skip, scale)
    assert all(torch.equal(value, before[name]) for name, value in snapshot(student).items())
    backward(student)
    assert student.color_weights[0].grad.any()
    optimizer.step_unless(go, scale, torch.tensor(0.25, dtype=torch.float64))
    # Bias correction makes a first step as long as the rate.
    moved = (student.color_weights[0].detach() - before["color_weights.0"]).abs()
    torch.testing.assert_close(moved[moved > 0], torch.full_like(moved[moved > 0], 0.0025), atol=1e-6, rtol=1e-3)
    assert {state["step"] for state in optimizer.state_dict()["state"].values()} == {1}


CELLS = {
    "grid": (2, 2, 1),
    "frequencies": 1,
    "hidden_width": 16,
    "density_layers": 1,
    "color_layers": 1,
    "geo_features": 3,
    "direction_degree": 1,
}


@pytest.fixture
def cells():
    return KiloUniformStudent(((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), KiloUniformSettings(**CELLS))


def give_gradients(student, seed):
    """Random ones, the same for the same seed, of every row."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in student.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    for touched in student.touched_rows().values():
        touched.flags.fill_(1)


def test_a_common_step_is_that_of_a_part_all_rows_contain(cells):
    alone = copy.deepcopy(cells)
    common = torch.nn.Parameter(torch.zeros_like(cells.color_networks[0]))
    reference = torch.optim.Adam([common], lr=0.03, betas=(0.9, 0.99), eps=cells.adam_eps)
    optimizers = [
        StudentOptimizer(student, TrainConfig(lr=0.01, mlp_weight_decay=0.0, lr_common=rate))
        for student, rate in ((cells, 0.03), (alone, None))
    ]
    for seed in range(5):
        for student, optimizer in zip((cells, alone), optimizers, strict=True):
            give_gradients(student, seed)
            common.grad = student.color_networks.grad.sum(0)
            optimizer.set_rate(1.0)
            optimizer.step()
        reference.step()
    assert torch.equal(cells.density_networks, alone.density_networks)
    moved = cells.color_networks - alone.color_networks
    assert common.abs().mean() > 1e-2
    torch.testing.assert_close(moved, common.expand_as(moved), atol=1e-5, rtol=1e-4)


def test_common_steps_go_on_from_a_state_and_are_skipped_with_the_others(cells):
    optimizer = StudentOptimizer(cells, TrainConfig(lr_common=0.03))
    optimizer.set_rate(1.0)
    give_gradients(cells, 0)
    optimizer.step()
    twin = copy.deepcopy(cells)
    resumed = StudentOptimizer(twin, TrainConfig(lr_common=0.03))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for student, run in ((cells, optimizer), (twin, resumed)):
        give_gradients(student, 1)
        run.set_rate(1.0)
        run.step()
    assert torch.equal(cells.color_networks, twin.color_networks)

    before = cells.color_networks.detach().clone()
    for skip in (True, False):
        give_gradients(cells, 2)
        optimizer.step_unless(torch.tensor(skip), torch.tensor(2.0))
        assert torch.equal(cells.color_networks, before) == skip


def test_a_hash_grid_has_no_common_part(student):
    assert len(StudentOptimizer(student, TrainConfig(lr_common=0.03)).param_groups) == 2
