"""Blocks that end as compact files, in their training together: its steps are taken at the weights of these files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from distill.city.manifest import Block
from distill.compact.rounded_weights import RoundedWeights
from distill.model.checkpoint import student_state
from distill.training.optimizer import StudentOptimizer
from machine.memory import MIB
from machine.weights_files import restoring
from settings.config import Config
from students.base import Student


class RoundedBlock:
    """A block's student, its weights rounded as at the end of its run, from where that goes on.

    Adam goes on from the run's moments, which say how finely each weight has to be rounded.

    Args:
        block: of a budget.
        state: the checkpoint that its run ended with.
        path: of the checkpoint.
        student: of the checkpoint.
        optimizer: of the student, new.
        config: the city's.

    Raises:
        InputError: the checkpoint is damaged, or the student too large for a compact file.
    """

    def __init__(
        self,
        block: Block,
        state: dict[str, Any],
        path: Path,
        student: Student,
        optimizer: StudentOptimizer,
        config: Config,
    ) -> None:
        self._student, self._optimizer, self._path, self._config = student, optimizer, path, config
        self._most_bytes, self._steps = int(block.budget_mib * MIB), 0
        self._header = {name: state[name] for name in ("step", "box", "occupancy", "config")}
        with restoring(path, "training state"):
            optimizer.load_state_dict(state["optimizer"])
            self._weights = self._rounded()
            if (rounded := state.get("compaction")) is not None:
                self._weights.restore(rounded)
            else:  # a run of a single step
                self._weights.begin()
                self._weights.seek_size(self._most_bytes)

    def before_step(self) -> None:
        """Gives the student rounded weights."""
        if self._steps and self._steps % self._config.compact.round_every == 0:
            self._weights.follow(self._most_bytes)
        self._weights.show()
        self._steps += 1

    def after_step(self, rays: int, rgb_loss: Tensor) -> None:
        """Takes over what a step of so many rays has changed; see ``RoundedWeights.keep``."""
        self._weights.keep(self._optimizer.param_groups[0]["lr"], rays, rgb_loss)

    def file(self) -> bytes:
        """The compact file, within the block's budget; the student has its weights then."""
        return self._weights.file_within(self._most_bytes)

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on after a stop; the student is given the weights last rounded."""
        self._weights.content()
        return {"steps": self._steps, **self._weights.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what ``state`` gave; Adam's state is restored before."""
        self._steps, self._weights = state["steps"], self._rounded()
        self._weights.restore(state)

    def _rounded(self) -> RoundedWeights:
        settings = self._config.compact, self._config.loss.rate, self._config.kernels
        return RoundedWeights(self._student, self._optimizer.state, self._checkpoint, self._path, *settings)

    def _checkpoint(self) -> dict[str, Any]:
        return {**self._header, "student": student_state(self._student)}
