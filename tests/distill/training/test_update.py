"""Steps of one parameter by hand: checked at once, watched, and with a loss scale."""

import pytest
import torch

from distill.training.loss_scale import INITIAL
from distill.training.optimizer import StudentAdam
from distill.training.update import CheckedUpdate, WatchedUpdate, make_update
from settings.errors import TrainingDiverged
from settings.training import TrainConfig
from students.hash_grid import HashGridSettings, HashGridStudent
from tests.distill.training.test_optimizer import SETTINGS

CPU = torch.device("cpu")
NAN = float("nan")


@pytest.fixture
def student():
    return HashGridStudent(((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)), HashGridSettings(**SETTINGS))


def optimizer_of(student):
    optimizer = StudentAdam(student, TrainConfig(lr=0.01), "torch")
    optimizer.set_rate(1.0)
    return optimizer


def loss_of(student, factor=1.0):
    return factor * sum((weight**2).sum() for weight in student.color_weights)


def take(update, step, loss):
    update.check(step, {"rgb": loss})
    update.apply(step, loss, {"rgb": loss.detach()})


@pytest.mark.parametrize(
    ("precision", "resident", "kind", "scaled"),
    [
        (torch.float32, False, CheckedUpdate, False),
        (torch.bfloat16, False, CheckedUpdate, False),
        (torch.float16, False, WatchedUpdate, True),
        (torch.float32, True, WatchedUpdate, False),
        (torch.bfloat16, True, WatchedUpdate, False),
        (torch.float16, True, WatchedUpdate, True),
    ],
)
def test_float16_alone_has_a_scale_and_who_waits_not_is_watched(student, precision, resident, kind, scaled):
    update = make_update(optimizer_of(student), CPU, precision, resident)
    assert type(update) is kind
    take(update, 1, loss_of(student))
    update.settle(1)
    assert update.figures() == ({"loss_scale": INITIAL, "skipped_steps": 0} if scaled else {})
    assert update.gradient_scale() == (INITIAL if scaled else 1)
    assert (update.state() is not None) == scaled


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.float16])
def test_all_take_the_same_steps(student, precision, resident):
    update = make_update(optimizer_of(student), CPU, precision, resident)
    before = [weight.detach().clone() for weight in student.color_weights]
    take(update, 1, loss_of(student))
    for weight, old in zip(student.color_weights, before, strict=True):
        torch.testing.assert_close(weight.detach(), old - 0.01 * old.sign(), atol=1e-5, rtol=1e-4)
        assert not weight.grad.any()


def test_a_broken_term_is_found_before_its_step_or_when_asked(student):
    checked = make_update(optimizer_of(student), CPU, torch.float32, resident=False)
    with pytest.raises(TrainingDiverged, match="step 7: loss term 'rgb' is nan; lower train.lr, or resume"):
        take(checked, 7, loss_of(student, NAN))
    watched = make_update(optimizer_of(student), CPU, torch.float32, resident=True)
    before = [weight.detach().clone() for weight in student.color_weights]
    take(watched, 7, loss_of(student, NAN))
    assert all(torch.equal(weight, old) for weight, old in zip(student.color_weights, before, strict=True))
    with pytest.raises(TrainingDiverged, match="step 7: loss term 'rgb' is nan; lower train.lr, or resume"):
        watched.settle(9)


def test_a_broken_gradient_is_not_taken_either(student):
    watched = make_update(optimizer_of(student), CPU, torch.float32, resident=True)
    loss = loss_of(student)
    broken = loss + 0 * (student.color_weights[0] - student.color_weights[0].detach()).sqrt().sum()
    watched.apply(3, broken, {"rgb": loss.detach()})
    assert all(weight.isfinite().all() for weight in student.color_weights)
    with pytest.raises(TrainingDiverged, match="step 3: the gradient is nan"):
        watched.settle(3)


def test_what_is_told_of_an_endless_overflow_is_where_it_began(student):
    update = make_update(optimizer_of(student), CPU, torch.float16, resident=True)
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


def test_a_checked_step_is_not_for_recording(student):
    update = make_update(optimizer_of(student), CPU, torch.float32, resident=False)
    with pytest.raises(ValueError, match="cannot be recorded"):
        update.apply(1, loss_of(student), {}, torch.ones(()))
