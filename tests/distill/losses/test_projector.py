"""The projector: its shape, its own seed, and what it refuses of a checkpoint."""

from __future__ import annotations

import pytest
import torch

from distill.losses.projector import fresh_projector
from settings.errors import InputError

CHANNELS = ("opacity", "sh_0_r", "sh_0_g")


def test_it_is_linear() -> None:
    linear = fresh_projector("geo", 5, CHANNELS, 0)
    assert sum(parameter.numel() for parameter in linear.parameters()) == 5 * 3 + 3
    assert linear(torch.zeros(4, 5)).shape == (4, 3)


def test_making_one_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = fresh_projector("geo", 5, CHANNELS, 1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.layers[0].weight, fresh_projector("geo", 5, CHANNELS, 1).layers[0].weight)


def test_it_comes_back_from_its_state() -> None:
    first, second = (fresh_projector("geo", 5, CHANNELS, seed) for seed in (0, 1))
    second.restore(first.state(), "step.pth")
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize(
    ("tap", "inputs", "channels", "field"),
    [
        ("hidden", 5, CHANNELS, "projector.tap"),
        ("geo", 5, CHANNELS[:2], "projector.channels"),
        ("geo", 6, CHANNELS, "projector.weights"),
    ],
)
def test_another_projectors_checkpoint_is_refused(tap, inputs, channels, field) -> None:
    stored = fresh_projector(tap, inputs, channels, 0).state()
    with pytest.raises(InputError, match=field):
        fresh_projector("geo", 5, CHANNELS, 0).restore(stored, "step.pth")


def test_a_checkpoint_without_one_is_refused() -> None:
    with pytest.raises(InputError, match="step.pth.*projector.*none"):
        fresh_projector("geo", 5, CHANNELS, 0).restore(None, "step.pth")
