"""A run whose student becomes a compact file of a wanted size: in its last part weights are trained rounded.

Before that a hash table's values are pulled to zero: what the loss hardly needs is not there any more when bits begin
to count, and the rest has learnt to do without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from distill.compact.container import check_size
from distill.compact.rounded_weights import RoundedWeights
from distill.compact.rounding_pace import RoundingPace
from distill.training.step import StepResult, TrainingStep
from kernels.optimization.shrinkage import shrink, typical_gradient
from kernels.optimization.straight_through import average_moved, straight_through
from machine import ranks
from machine.files import write_atomically
from machine.memory import MIB
from settings.compact import CompactConfig
from students.hash_grid import HashGridStudent

_SOURCE = "config"  # of what is wanted, in messages
_SHRINK_EVERY = 16  # steps: it goes through the whole table
_HARDEST = 0.2  # of a typical gradient


class Compaction:
    """Rounds the weights of a training step's student, once its time has come, after the first step at the earliest.

    Args:
        compact: the settings, of which ``target_mib`` is not None.
        step: takes the steps.
        header: gives what a checkpoint holds, the states of training apart.
    """

    def __init__(self, compact: CompactConfig, step: TrainingStep, header: Callable[[], dict[str, Any]]) -> None:
        self._compact, self._step, self._header = compact, step, header
        self._most_bytes = int(compact.target_mib * MIB)
        self._weights: RoundedWeights | None = None
        self._steps = 0
        self._pace = RoundingPace(compact.round_every, step.config.train.max_seconds is not None)

    def check(self) -> None:
        """Finds out before anything is trained whether the wanted size can be had; compiles what training will call.

        Raises:
            InputError: header and occupied cells alone take more, or the student is too large for a compact file.
        """
        step, weights = self._step, self._rounded()
        self._check_size(weights.least_bytes())
        weights.compile()
        # Triton compiles for sizes that are multiples of 16, for others, and for 1, which none has.
        for count in {16 if parameter.numel() % 16 == 0 else 17 for parameter in step.student.parameters()}:
            some = torch.zeros(1, count, device=next(step.student.parameters()).device)
            rounded = some.clone(), some.clone(), torch.ones_like(some), some.byte()
            average_moved(*rounded, some, some.clone(), 0.5, step.config.kernels)
            straight_through(*rounded, some, some[0, 0], step.config.kernels)
            shrink(some, some.clone(), some[0, 0], step.config.kernels)

    def before_step(self, done: float) -> None:
        """Gives the student rounded weights, in the run's last part.

        Args:
            done: how far the run is, 0 to 1.

        Raises:
            InputError: header and occupied cells alone take more than is wanted.
        """
        if self._weights is None and done >= 1 - self._compact.share and self._step.optimizer.state:
            self._begin()
        elif self._weights is not None and self._pace.is_due(self._steps):
            with self._pace.choosing():
                self._weights.follow(self._most_bytes)
        if self._weights is not None:
            self._weights.show()
            self._steps += 1

    def after_step(self, result: StepResult, step: int) -> None:
        """Takes over what a step has changed, after which ``step`` of the run's are taken."""
        if self._weights is not None:
            self._weights.keep(result.lr, result.rays, result.terms["rgb"])
        elif step % _SHRINK_EVERY == 0:
            self._shrink(result)

    def figures(self) -> dict[str, float]:
        """For a row of training_metrics.csv: nothing before weights are rounded."""
        if self._weights is None:
            return {}
        bits, size = self._weights.bits / max(1, self._weights.integers), self._weights.size() / MIB
        return {"bits_per_entry": round(bits, 4), "size_estimate_mib": round(size, 5)}

    def finish(self, path: Path) -> None:
        """Writes the file, as large as is wanted at most; the student has its weights then.

        Raises:
            OSError: it cannot be written.
        """
        if self._weights is None:
            self._begin()
        file = self._weights.file_within(self._most_bytes)
        if ranks.is_first():
            write_atomically(path, file)

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint keeps, None before weights are rounded; the student is given those last rounded."""
        if self._weights is None:
            return None
        self._weights.content()
        return {"steps": self._steps, **self._weights.state()}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Restores what ``state`` gave."""
        if state is not None:
            self._make()
            self._steps = state["steps"]
            self._weights.restore(state)

    @torch.no_grad()
    def _shrink(self, result: StepResult) -> None:
        """Pulls a table to zero, unless the loss was not finite and no step was taken."""
        student, states = self._step.student, self._step.optimizer.state
        if self._compact.sparsity > 0 and isinstance(student, HashGridStudent) and student.table in states:
            moment = states[student.table]["second_moment"]
            bits_each = 8 * self._most_bytes / student.table.numel()
            share = min(self._compact.sparsity / bits_each**2, _HARDEST)
            strength = share * _SHRINK_EVERY * result.lr * typical_gradient(moment)
            shrink(student.table, moment, strength * result.loss.isfinite(), self._step.config.kernels)

    def _begin(self) -> None:
        self._make()
        # Losses on the encoding know its features; nothing else does.
        self._weights.begin(decorrelate=self._step.features is None)
        self._check_size(self._weights.fixed)
        self._weights.seek_size(self._most_bytes)

    def _check_size(self, taken: float) -> None:
        check_size(_SOURCE, "compact.target_mib", self._compact.target_mib, taken)

    def _make(self) -> None:
        self._step.cells_stay = True  # which entries are stored, and what the file says of them, is settled
        self._weights = self._rounded()

    def _rounded(self) -> RoundedWeights:
        step = self._step
        settings = self._compact, step.config.loss.rate, step.config.kernels
        return RoundedWeights(step.student, step.optimizer.state, self._header, _SOURCE, *settings)
