"""From a step's loss to new parameters, provided it is finite: asked at once, or watched on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distill.training.loss_scale import LossScale
from distill.training.optimizer import StudentAdam
from distill.training.step_watch import GRADIENT, StepWatch, largest_gradient
from settings.errors import TrainingDiverged
from settings.losses import INTERNAL_TERMS, PICTURE_TERMS


class Update:
    """Takes the steps of an optimizer."""

    def __init__(self, optimizer: StudentAdam) -> None:
        self.optimizer = optimizer

    def check(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Before anything is made of a step's terms.

        Raises:
            TrainingDiverged: a term is not finite, where that is found out at once.
        """
        raise NotImplementedError

    def apply(
        self, step: int | Tensor, loss: Tensor, terms: Mapping[str, Tensor], factor: Tensor | None = None
    ) -> None:
        """Backward pass and update; gradients are zero afterwards.

        Args:
            step, factor: the step's number and, in the place of that of ``set_rate``, its learning rate's factor, on
                the device, where a recorded step finds them.
        """
        raise NotImplementedError

    def settle(self, step: int) -> None:
        """Makes sure of all steps up to ``step``; may wait for the device.

        Raises:
            TrainingDiverged: one of them was not finite, or too many overflowed.
        """
        raise NotImplementedError

    def gradient_scale(self) -> float:
        """What losses are multiplied by before their backward pass; may wait for the device."""
        return 1.0

    def figures(self) -> dict[str, float]:
        """Columns of training_metrics.csv about the loss scale, as of the last ``settle``; empty without one."""
        return {}

    def state(self) -> dict[str, Any] | None:
        """What ``restore`` needs to go on from here; plain values."""
        return None

    def restore(self, state: dict[str, Any] | None) -> None:
        """Goes on where another was when it gave ``state``; None: from the beginning."""


class CheckedUpdate(Update):
    """Looks at every step's terms before it is taken: costs nothing where they are computed, on the CPU."""

    def check(self, step: int, terms: Mapping[str, Tensor]) -> None:
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise _not_finite(step, name, term.item())

    def apply(
        self, step: int | Tensor, loss: Tensor, terms: Mapping[str, Tensor], factor: Tensor | None = None
    ) -> None:
        if factor is not None:
            raise ValueError("a step that is checked at once cannot be recorded")
        loss.backward()
        self.optimizer.step()

    def settle(self, step: int) -> None:
        """Nothing is left open."""


class WatchedUpdate(Update):
    """Decides on the device: a step whose terms or gradients are not finite leaves the parameters as they are.

    Nothing waits for the device but ``settle``, which then ends training, with the step and term at which it was
    broken. With a loss scale steps may be skipped, but not for ever: see ``LossScale``.

    Args:
        device: where the optimizer's parameters are.
        scale: of float16; None: losses are taken as they are.
        eager: settle after every step.
    """

    def __init__(self, optimizer: StudentAdam, device: torch.device, scale: LossScale | None, eager: bool) -> None:
        super().__init__(optimizer)
        self.scale, self._eager = scale, eager
        self._watch = StepWatch((*PICTURE_TERMS, *INTERNAL_TERMS), device)
        self._one = torch.ones((), device=device)
        self._figures: dict[str, float] = {}

    def check(self, step: int, terms: Mapping[str, Tensor]) -> None:
        """Left to ``settle``."""

    def apply(
        self, step: int | Tensor, loss: Tensor, terms: Mapping[str, Tensor], factor: Tensor | None = None
    ) -> None:
        scale = self._one if self.scale is None else self.scale.value
        (loss * scale).backward()
        parameters = (parameter for group in self.optimizer.param_groups for parameter in group["params"])
        broken = self._watch.note(step, terms, largest_gradient(parameters))
        self.optimizer.step_unless(broken, scale, factor)
        if self.scale is not None:
            self.scale.update(broken)
        if self._eager:
            self.settle(step)

    def settle(self, step: int) -> None:
        first = self._watch.first()
        if self.scale is None:
            if first is not None:
                raise _not_finite(*first)
            return
        figures = self.scale.figures()
        if figures.trouble is not None:
            began, name, value = first
            raise TrainingDiverged(
                f"step {step}: {figures.trouble}; {_named(name)} is {value} at step {began}; "
                "use train.precision: bfloat16 or float32, or lower train.lr"
            )
        self._figures = {"loss_scale": figures.scale, "skipped_steps": figures.skipped}
        if not figures.in_a_row:
            self._watch.forget()  # what is told is the first of the steps that are skipped without an end

    def gradient_scale(self) -> float:
        return 1.0 if self.scale is None else self.scale.value.item()

    def figures(self) -> dict[str, float]:
        return self._figures

    def state(self) -> dict[str, Any] | None:
        return None if self.scale is None else self.scale.state()

    def restore(self, state: dict[str, Any] | None) -> None:
        if self.scale is not None and state is not None:
            self.scale.restore(state)


def make_update(optimizer: StudentAdam, device: torch.device, precision: torch.dtype, resident: bool) -> Update:
    """How a run takes its steps.

    Args:
        precision: of the training steps; float16 takes a loss scale.
        resident: nothing may wait for the device between two rows of the log.
    """
    scale = LossScale(device) if precision == torch.float16 else None
    if scale is None and not resident:
        return CheckedUpdate(optimizer)
    return WatchedUpdate(optimizer, device, scale, eager=not resident)


def _not_finite(step: int, name: str, value: float) -> TrainingDiverged:
    hint = "lower train.lr, or resume from the last checkpoint with a lower one"
    return TrainingDiverged(f"step {step}: {_named(name)} is {value}; {hint}")


def _named(name: str) -> str:
    return "the gradient" if name == GRADIENT else f"loss term '{name}'"
