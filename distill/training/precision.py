"""The type that training steps compute in, and float16's loss scale (Micikevicius et al. 2018).

The scale is kept on the device, and unable to stop training in silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.optimization.step_control import Scaling
from settings.config import Config
from settings.errors import InputError

INITIAL = 2.0**16
CEILING = 2.0**24
FLOOR = 1.0  # below it gradients would be made smaller than they are: then it is not the scale that overflows
GROWTH_EVERY = 1000  # steps in a row without an overflow
MOST_SKIPPED = 20  # steps in a row
_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def training_precision(config: Config, device: torch.device) -> torch.dtype:
    """The type of the factors in a training step; sums, parameters and Adam's moments are float32 always.

    Raises:
        InputError: half precision on a CPU whose kernels have none.
    """
    name = config.train.precision
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name != "float32" and device.type == "cpu" and config.kernels not in ("torch", "triton"):
        hint = "Half precision is for CUDA; with kernels: torch a CPU can try it out, slowly."
        expected = f"auto or float32, since kernels is {config.kernels} on the CPU"
        raise InputError("config", "train.precision", name, expected, hint)
    return _TYPES[name]


@dataclass(frozen=True)
class ScaleFigures:
    """Where a loss scale stands.

    Attributes:
        scale: what the next loss is multiplied by.
        skipped: steps that overflowed and were not taken, so far.
        in_a_row: how many of them came last; 0 where the last step was taken.
        trouble: why training cannot go on; None while it can.
    """

    scale: float
    skipped: int
    in_a_row: int
    trouble: str | None


class LossScale:
    """Halves at an overflow, doubles after ``growth_every`` steps without one.

    Args:
        device: where steps are computed; ``update`` never waits for it.
        initial, growth_every: where to begin, and how soon to dare more.
    """

    def __init__(self, device: torch.device, initial: float = INITIAL, growth_every: int = GROWTH_EVERY) -> None:
        self.growth_every = growth_every
        self.value = torch.full((), initial, device=device)
        self._counts = torch.zeros(5, dtype=torch.int64, device=device)
        self._calm, self._in_a_row, self._longest, self._skipped, self._overflows_at_floor = self._counts.unbind()

    @property
    def scaling(self) -> Scaling:
        """What ``update`` changes and goes by, for the kernel that does so too."""
        return Scaling(self.value, self._counts, self.growth_every, FLOOR, CEILING)

    @torch.no_grad()
    def update(self, overflow: Tensor) -> None:
        """Takes note of a step; ``overflow`` () bool: whether it was skipped. All is changed in place."""
        self._overflows_at_floor += overflow & (self.value <= FLOOR)
        self._skipped += overflow
        self._in_a_row.add_(1).mul_(overflow)
        torch.maximum(self._longest, self._in_a_row, out=self._longest)
        self._calm.add_(1).mul_(~overflow)
        grows = self._calm >= self.growth_every
        self._calm.mul_(~grows)
        self.value.mul_(1 - 0.5 * overflow).mul_(1.0 + grows).clamp_(FLOOR, CEILING)

    def figures(self) -> ScaleFigures:
        """How it stands; waits for the device."""
        counts = torch.stack([self._skipped, self._in_a_row, self._longest, self._overflows_at_floor])
        (skipped, in_a_row, longest, at_floor), scale = counts.tolist(), self.value.item()
        trouble = None
        if at_floor:
            trouble = f"the loss scale is at its floor of {FLOOR:g} and float16 still overflows"
        elif longest > MOST_SKIPPED:
            trouble = f"{longest} steps in a row overflowed float16 and were skipped (at most {MOST_SKIPPED} may)"
        return ScaleFigures(scale, skipped, in_a_row, trouble)

    def state(self) -> dict[str, float]:
        """What ``restore`` needs to go on from here; plain values. Waits for the device."""
        names = ("calm", "in_a_row", "skipped")
        counts = torch.stack([self._calm, self._in_a_row, self._skipped]).tolist()
        return {"scale": self.value.item(), **dict(zip(names, counts, strict=True))}

    def restore(self, state: dict[str, float]) -> None:
        """Restores what another's ``state`` gave."""
        self.value.fill_(state["scale"])
        for name in ("calm", "in_a_row", "skipped"):
            getattr(self, f"_{name}").fill_(state[name])
