"""Steps of one parameter by hand, watched and with a loss scale."""

import copy

import pytest
import torch
from torch import nn

from distill.training.optimizer import StudentOptimizer
from distill.training.precision import INITIAL
from distill.training.watched_update import StepWatch, largest_of_each, make_watched
from settings.errors import TrainingDiverged
from settings.training import TrainConfig
from students.hash_grid import HashGridSettings, HashGridStudent
from tests.distill.training.test_optimizer import SETTINGS
from tests.triton_device import DEVICE, needs_triton

CPU = torch.device("cpu")
NAN = float("nan")


@pytest.fixture
def student():
    return HashGridStudent(((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), HashGridSettings(**SETTINGS))


def optimizer_of(student, implementation="torch", mlp_optimizer="muon"):
    optimizer = StudentOptimizer(student, TrainConfig(lr=0.01, mlp_optimizer=mlp_optimizer), implementation)
    optimizer.set_rate(1.0)
    return optimizer


def loss_of(student, factor=1.0):
    return factor * sum((weight**2).sum() for weight in student.color_weights)


def take(update, step, loss):
    update.backward(loss)
    update.apply(step, {"rgb": loss.detach()})


@pytest.mark.parametrize(
    ("precision", "asynchronous", "watched", "scaled"),
    [
        (torch.float32, False, False, False),
        (torch.bfloat16, False, False, False),
        (torch.float16, False, True, True),
        (torch.float32, True, True, False),
        (torch.bfloat16, True, True, False),
        (torch.float16, True, True, True),
    ],
)
def test_float16_alone_has_a_scale_and_what_does_not_wait_is_watched(student, precision, asynchronous, watched, scaled):
    update = make_watched(optimizer_of(student), CPU, precision, asynchronous)
    assert (update is not None) == watched
    if not watched:
        return
    take(update, 1, loss_of(student))
    update.settle(1)
    assert update.figures() == ({"loss_scale": INITIAL, "skipped_steps": 0} if scaled else {})
    assert update.gradient_scale() == (INITIAL if scaled else 1)
    assert (update.state() is not None) == scaled


@pytest.mark.parametrize(
    ("precision", "asynchronous"), [(torch.float32, True), (torch.float16, False), (torch.float16, True)]
)
def test_all_take_the_same_steps(student, precision, asynchronous):
    update = make_watched(optimizer_of(student, mlp_optimizer="adam"), CPU, precision, asynchronous)
    before = [weight.detach().clone() for weight in student.color_weights]
    take(update, 1, loss_of(student))
    for weight, old in zip(student.color_weights, before, strict=True):
        torch.testing.assert_close(weight.detach(), old - 0.01 * old.sign(), atol=1e-5, rtol=1e-4)
        assert not weight.grad.any()


def test_a_broken_term_is_found_when_asked(student):
    watched = make_watched(optimizer_of(student), CPU, torch.float32, asynchronous=True)
    before = [weight.detach().clone() for weight in student.color_weights]
    take(watched, 7, loss_of(student, NAN))
    assert all(torch.equal(weight, old) for weight, old in zip(student.color_weights, before, strict=True))
    with pytest.raises(TrainingDiverged, match="step 7: loss term 'rgb' is nan; start anew with a lower train.lr"):
        watched.settle(9)


def test_a_broken_gradient_is_not_taken_either(student):
    watched = make_watched(optimizer_of(student), CPU, torch.float32, asynchronous=True)
    loss = loss_of(student)
    broken = loss + 0 * (student.color_weights[0] - student.color_weights[0].detach()).sqrt().sum()
    watched.backward(broken)
    watched.apply(3, {"rgb": loss.detach()})
    assert all(weight.isfinite().all() for weight in student.color_weights)
    with pytest.raises(TrainingDiverged, match="step 3: the gradient is nan"):
        watched.settle(3)


def test_what_is_told_of_an_endless_overflow_is_where_it_began(student):
    update = make_watched(optimizer_of(student), CPU, torch.float16, asynchronous=True)
    take(update, 1, loss_of(student, float("inf")))
    for step in range(2, 5):
        take(update, step, loss_of(student))
    update.settle(4)
    assert update.figures() == {"loss_scale": INITIAL / 2, "skipped_steps": 1}
    for step in range(5, 40):
        take(update, step, loss_of(student, float("inf")))
    message = (
        "step 39: the loss scale is at its floor of 1 and float16 still overflows; loss term 'rgb' is inf at step 5;"
    )
    with pytest.raises(TrainingDiverged, match=message):
        update.settle(39)


@needs_triton
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter, of what is not finite
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
@pytest.mark.parametrize("recorded", [False, True])
def test_one_launch_decides_as_all_the_others_do(monkeypatch, student, precision, recorded):
    """Sound steps, broken terms, overflows of the gradient alone, growth of the scale and its floor."""
    monkeypatch.setattr("distill.training.precision.FLOOR", 2.0**14)
    students = [copy.deepcopy(student).to(DEVICE) for _ in range(2)]
    updates = [
        make_watched(optimizer_of(each, by), DEVICE, precision, asynchronous=True)
        for each, by in zip(students, ("torch", "triton"), strict=True)
    ]
    assert [update._in_one_launch for update in updates] == [False, True]
    for step, factor in enumerate([1.0, 1.0, 1.0, NAN, 1.0, float("inf"), 3e38, 1.0, 1e-30, NAN, NAN, 1.0, 1.0], 1):
        for update, each in zip(updates, students, strict=True):
            if update.scale is not None:
                update.scale.growth_every = 2
            update.optimizer.set_rate(0.9**step)
            loss = loss_of(each, factor)
            terms = {"rgb": loss.detach(), "depth": torch.tensor(2.0, device=DEVICE)}
            given = torch.tensor(0.9**step, dtype=torch.float64, device=DEVICE) if recorded else None
            update.backward(loss)
            update.apply(torch.tensor(step, device=DEVICE) if recorded else step, terms, given)
        reference, found = (update._watch.memory[:2] for update in updates)
        assert torch.equal(found[0], reference[0])
        torch.testing.assert_close(found[1], reference[1], equal_nan=True, rtol=1e-4, atol=0)
        if precision == torch.float16:
            scales = [update.scale.scaling for update in updates]
            assert scales[0].value == scales[1].value and torch.equal(scales[0].counts, scales[1].counts)
    first, second = (each.state_dict() for each in students)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-7)
    counts, others = ([value["step"] for value in each.optimizer.state_dict()["state"].values()] for each in updates)
    assert counts == others and 0 < counts[0] < 13


FINE = torch.tensor(1.5)


def parameters_with(*gradients):
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(3))
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        parameters.append(parameter)
    return parameters


def test_the_largest_gradient_by_hand():
    assert largest_of_each(parameters_with([1.0, -7.0, 2.0], None, [3.0, 0.0, 0.0])).tolist() == [7, 3]
    assert largest_of_each(parameters_with(None)).tolist() == [0]


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_broken_value_anywhere_shows(broken, place):
    values = [1e30, 1e30, 1e30]
    values[place] = broken
    assert largest_of_each(parameters_with([0.0, 1.0, 2.0], values)).isfinite().tolist() == [True, False]


def test_sound_steps_leave_nothing_to_tell():
    watch = StepWatch(("rgb", "depth"), CPU)
    assert not watch.note(1, {"rgb": FINE, "depth": FINE}, FINE)
    assert not watch.note(2, {"rgb": FINE}, FINE)
    assert watch.first() is None


def test_the_first_broken_term_is_told_with_its_step_and_value():
    watch = StepWatch(("rgb", "depth"), CPU)
    nan, infinite = torch.tensor(float("nan")), torch.tensor(float("inf"))
    watch.note(3, {"rgb": FINE, "depth": FINE}, FINE)
    assert watch.note(4, {"rgb": FINE, "depth": infinite}, nan)
    assert watch.note(5, {"rgb": nan, "depth": nan}, nan)
    assert not watch.note(6, {"rgb": FINE, "depth": FINE}, FINE)
    assert watch.first() == (4, "depth", float("inf"))


def test_a_gradient_alone_may_break():
    watch = StepWatch(("rgb",), CPU)
    assert watch.note(9, {"rgb": FINE}, torch.tensor(float("inf")))
    assert watch.first() == (9, "gradient", float("inf"))
    watch.forget()
    assert watch.first() is None
