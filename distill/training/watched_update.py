"""From a step's loss to new parameters where nothing may wait for the device: what is not finite is found out later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill.training.optimizer import StudentOptimizer
from distill.training.precision import LossScale
from kernels.dispatch import by_triton
from kernels.optimization.adam import BETAS
from settings.errors import TrainingDiverged
from settings.losses import INTERNAL_TERMS, PICTURE_TERMS

GRADIENT = "gradient"
_NEVER = 2**62


def largest_of_each(parameters: Iterable[nn.Parameter]) -> Tensor:
    """(P,) largest magnitude of the gradient of each parameter that has one; NaN or infinite exactly if a value is.

    One 0 where none has.
    """
    parameters = [*parameters]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.stack(torch._foreach_norm(gradients, float("inf"))) if gradients else parameters[0].new_zeros(1)


class StepWatch:
    """The first step at which each loss term, or the gradient, was not finite.

    Args:
        terms: names of all terms there can be.
        device: where they are computed.
    """

    def __init__(self, terms: Sequence[str], device: torch.device) -> None:
        self._names = (*terms, GRADIENT)
        self._first = torch.full((len(self._names),), _NEVER, dtype=torch.int64, device=device)
        self._value = torch.zeros(len(self._names), device=device)

    @property
    def memory(self) -> tuple[Tensor, Tensor, int]:
        """What ``note`` changes: the step and the value of each name's first, and what stands for no step."""
        return self._first, self._value, _NEVER

    def places(self, names: Iterable[str]) -> list[int]:
        """Where they are in ``memory``."""
        return [self._names.index(name) for name in names]

    @torch.no_grad()
    def note(self, step: int | Tensor, terms: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
        """() bool, on the device: whether something of this step is not finite.

        Args:
            step: the number of this step; () int64 where it is on the device.
            gradient: () the largest magnitude of all gradients; NaN or infinite exactly if one of them is.
        """
        known = {**terms, GRADIENT: gradient}
        values = torch.stack([known[name] if name in known else torch.zeros_like(gradient) for name in self._names])
        broken = ~values.isfinite()
        first = broken & (self._first == _NEVER)
        # Not masked_fill_: it has the host read a value that is a tensor, which a recorded step must not.
        self._first.copy_(torch.where(first, step, self._first))
        self._value.copy_(torch.where(first, values, self._value))
        return broken.any()

    def first(self) -> tuple[int, str, float] | None:
        """Step, name and value of what was first not finite; None if all was. Waits for the device.

        Of one step's, a term is named rather than the gradient, which it breaks.
        """
        steps, values = self._first.tolist(), self._value.tolist()
        step, index = min((step, index) for index, step in enumerate(steps))
        return None if step == _NEVER else (step, self._names[index], values[index])

    def forget(self) -> None:
        """Forgets what was not finite so far."""
        self._first.fill_(_NEVER)


class WatchedUpdate:
    """Decides on the device: a step whose terms or gradients are not finite leaves the parameters as they are.

    Nothing waits for the device but ``settle``, which then ends training, with the step and term at which it was
    broken. With a loss scale steps may be skipped, but not for ever: see ``LossScale``.

    Args:
        device: where the optimizer's parameters are.
        scale: of float16; None: losses are taken as they are.
        eager: settle after every step.
    """

    def __init__(self, optimizer: StudentOptimizer, device: torch.device, scale: LossScale | None, eager: bool) -> None:
        self.optimizer, self.scale, self._eager = optimizer, scale, eager
        self._watch = StepWatch((*PICTURE_TERMS, *INTERNAL_TERMS), device)
        self._one = torch.ones((), device=device)
        self._in_one_launch = by_triton("step_control", optimizer.implementation, device)
        self._figures: dict[str, float] = {}

    def backward(self, loss: Tensor) -> None:
        """The backward pass of a loss, multiplied by the loss scale."""
        loss.backward(self._scale)

    def apply(self, step: int | Tensor, terms: Mapping[str, Tensor], factor: Tensor | None = None) -> None:
        """The update by the gradients of ``backward``; they are zero afterwards.

        Args:
            step, factor: the step's number and, in the place of that of ``set_rate``, its learning rate's factor, on
                the device, where a recorded step finds them.
        """
        if self._in_one_launch:
            self._decide_in_one_launch(step, terms, factor)
        else:
            broken = self._watch.note(step, terms, largest_of_each(self.optimizer.parameters()).amax())
            self.optimizer.step_unless(broken, self._scale, factor)
            if self.scale is not None:
                self.scale.update(broken)
        if self._eager:
            self.settle(step)

    @property
    def _scale(self) -> Tensor:
        return self._one if self.scale is None else self.scale.value

    @torch.no_grad()
    def _decide_in_one_launch(self, step: int | Tensor, terms: Mapping[str, Tensor], factor: Tensor | None) -> None:
        """As ``StepWatch.note``, ``StudentOptimizer.step_unless`` and ``LossScale.update`` one after another."""
        from kernels.optimization.step_control_triton import control

        optimizer, first = self.optimizer, self._watch.memory[0]
        optimizer.sum_gradients()
        optimizer.update(
            control(
                [term.detach() for term in terms.values()], self._watch.places(terms),
                largest_of_each(optimizer.parameters()), step, optimizer.factor if factor is None else factor,
                *self._watch.memory, None if self.scale is None else self.scale.scaling,
                optimizer.updates(first.device), optimizer.rates(first.device), optimizer.uncorrected(first.device),
                BETAS, optimizer.eps,
            )
        )  # fmt: skip

    def settle(self, step: int) -> None:
        """Makes sure of all steps up to ``step``; waits for the device.

        Raises:
            TrainingDiverged: one of them was not finite, or too many overflowed.
        """
        first = self._watch.first()
        if self.scale is None:
            if first is not None:
                raise not_finite(*first)
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
        """What losses are multiplied by before their backward pass; waits for the device."""
        return 1.0 if self.scale is None else self.scale.value.item()

    def figures(self) -> dict[str, float]:
        """Columns of training_metrics.csv about the loss scale, as of the last ``settle``; empty without one."""
        return self._figures

    def state(self) -> dict[str, Any] | None:
        """What ``restore`` needs to go on from here; plain values."""
        return None if self.scale is None else self.scale.state()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Restores what ``state`` gave; None: a run without a loss scale."""
        if self.scale is not None and state is not None:
            self.scale.restore(state)


def make_watched(
    optimizer: StudentOptimizer, device: torch.device, precision: torch.dtype, asynchronous: bool
) -> WatchedUpdate | None:
    """What decides about a run's updates on the device; None: each step is looked at before it is taken.

    Args:
        precision: of the training steps; float16 takes a loss scale.
        asynchronous: nothing may wait for the device between two rows of the log.
    """
    scale = LossScale(device) if precision == torch.float16 else None
    if scale is None and not asynchronous:
        return None
    return WatchedUpdate(optimizer, device, scale, eager=not asynchronous)


def not_finite(step: int, name: str, value: float) -> TrainingDiverged:
    """The error of a term, or of the gradient, that is no number."""
    hint = "start anew with a lower train.lr"
    return TrainingDiverged(f"step {step}: {_named(name)} is {value}; {hint}")


def _named(name: str) -> str:
    return "the gradient" if name == GRADIENT else f"loss term '{name}'"
