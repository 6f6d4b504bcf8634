import pytest
import torch
from torch import nn

from distill.training.step_watch import StepWatch, largest_gradient

CPU = torch.device("cpu")
FINE = torch.tensor(1.5)


def parameters_with(*gradients):
    parameters = []
    for gradient in gradients:
        parameter = nn.Parameter(torch.zeros(3))
        parameter.grad = None if gradient is None else torch.tensor(gradient)
        parameters.append(parameter)
    return parameters


def test_the_largest_gradient_by_hand():
    assert largest_gradient(parameters_with([1.0, -7.0, 2.0], None, [3.0, 0.0, 0.0])) == 7
    assert largest_gradient(parameters_with(None)) == 0


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_broken_value_anywhere_shows(broken, place):
    values = [1e30, 1e30, 1e30]
    values[place] = broken
    assert not largest_gradient(parameters_with([0.0, 1.0, 2.0], values)).isfinite()


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
