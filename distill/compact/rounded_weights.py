"""A student in training whose weights are those that its compact file will hold.

A step is taken at the rounded weights (``show``); what it changes is added to weights that are not rounded, which the
next step's are rounded from (``keep``: a straight-through estimate). Then the bits pull: a step of Adam's down the
slope of the code length, to zero. What no ray needs is zero in the end, and takes next to no bits. How fine steps are
follows from how much the loss depends on a weight; a table's features are decorrelated first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.compact.compact_file import compact_bytes, compact_parts
from distill.compact.parts import Integers
from distill.compact.rounded_networks import nothing_of
from distill.compact.rounded_part import RoundedPart
from distill.compact.rounding import compile_rounding
from distill.compact.setting_search import nearest_without_excess
from distill.compact.transform_coding import decorrelate_features
from settings.compact import CompactConfig
from settings.errors import InputError
from settings.losses import RateLossConfig
from students.base import Student
from students.hash_grid import HashGridStudent

# Steps of the rounding are first tried this fine; twice as coarse is a bit less for each weight.
FINEST, COARSEST = 1e-12, 1.0
FROM_AFAR, NEARBY = 4.0, 1.1
"""Factors of the coarseness for the first move of a search: of any size, and of one that training has followed."""
_LEAST_LOSS = 1e-8  # below it nothing is divided by the colour loss


class RoundedWeights:
    """The weights of a student that is trained on, rounded.

    Args:
        student: what is trained.
        moments: of Adam, by parameter.
        header: gives a checkpoint, for all that a compact file holds beside weights.
        path: of the checkpoint, for messages.
        compact: the settings.
        rate: of the bits that training is charged for.
        implementation: of the kernels ``straight_through`` and ``map_matrices``.

    Raises:
        InputError: the student is too large for a compact file.
    """

    def __init__(
        self,
        student: Student,
        moments: Mapping[nn.Parameter, dict[str, Tensor]],
        header: Callable[[], Mapping[str, Any]],
        path: str | Path,
        compact: CompactConfig,
        rate: RateLossConfig,
        implementation: str = "auto",
    ) -> None:
        self._student, self._moments, self._header, self._path = student, moments, header, path
        self._compact, self._rate, self._implementation = compact, rate, implementation
        self.parts = compact_parts(header(), path)
        self.coarseness = 1e-7
        """See ``exponents_of``."""
        self.bits = 0.0
        """What the integers of the last ``round`` take."""
        self.fixed = 0.0
        """Bytes of the file beside the integers."""
        self.rounded_parts: list[RoundedPart] = []
        """The student's parameters, from ``begin`` or ``restore`` on."""
        self._shown = False

    @property
    def integers(self) -> int:
        """How many there are."""
        return sum(part.integers for part in self.parts)

    def size(self) -> float:
        """Bytes of the file, nearly."""
        return self.fixed + self.bits / 8

    def least_bytes(self) -> int:
        """Bytes of a file whose integers are all zero."""
        nothing = [nothing_of(part) for part in self.parts]
        return len(compact_bytes(self._header(), nothing, self._path))

    def compile(self) -> None:
        """Has compiled what chooses integers, which a run's clock is not to count."""
        for part in self.parts:
            compile_rounding(part)

    def file(self) -> bytes:
        """The file, of the integers of the last ``round``; the student is given its weights."""
        return compact_bytes(self._header(), self.content(), self._path)

    @torch.no_grad()
    def begin(self, decorrelate: bool = True) -> None:
        """Takes the student's weights as they are.

        Args:
            decorrelate: a table's features may be mapped, see ``transform_coding``.

        Raises:
            InputError: a weight, or what Adam knows of it, is not finite.
        """
        self._check_finite()
        if decorrelate and isinstance(self._student, HashGridStudent):
            stored = next(part.stored for part in self.parts if part.name == "table")
            decorrelate_features(self._student, self._moments, torch.from_numpy(stored).to(self._student.table.device))
        self.rounded_parts = self._parts_to_round()
        for each in self.rounded_parts:
            each.begin()
        self.round()
        self.fixed = len(self.file()) - self.bits / 8

    def _parts_to_round(self) -> list[RoundedPart]:
        touched, pairs = self._student.touched_rows(), zip(self._student.parameters(), self.parts, strict=True)
        return [
            RoundedPart(parameter, part, self._moments[parameter], parameter in touched, self._implementation)
            for parameter, part in pairs
        ]

    def _check_finite(self) -> None:
        broken = []
        for name, parameter in self._student.named_parameters():
            first, second = (self._moments[parameter][each] for each in ("first_moment", "second_moment"))
            known = {name: parameter, f"{name}'s first moment": first, f"{name}'s second moment": second}
            counts = {each: int((~values.isfinite()).sum()) for each, values in known.items()}
            broken += [f"{count:,} of {each}" for each, count in counts.items() if count]
        if broken:
            hint = "Take an earlier checkpoint."
            raise InputError(self._path, "student", f"not finite: {', '.join(broken)}", "finite weights", hint)

    @torch.no_grad()
    def restart(self) -> None:
        """Goes back to the weights of ``begin``."""
        for each in self.rounded_parts:
            each.restart()
        self._shown = False

    @torch.no_grad()
    def round(self) -> None:
        """Chooses steps and integers anew."""
        self._shown, price = False, self._compact.price * self.coarseness**2
        self.bits = sum(each.round(self.coarseness, price) for each in self.rounded_parts)

    def follow(self, most_bytes: int) -> None:
        """Rounds anew, and makes steps finer or coarser as the size asks."""
        self.round()
        room = (most_bytes - self.fixed) * 8
        self.coarseness *= float(np.clip(self.bits / room, 0.5, 2.0)) ** 0.5

    def seek_size(self, most_bytes: int) -> None:
        """Finds the coarseness at which the file takes nearly as many bytes, from any other."""
        self.seek(lambda: math.log(self.size() / most_bytes), FROM_AFAR)

    def file_within(self, most_bytes: int) -> bytes:
        """The largest file of so many bytes, where any coarseness gives one; the student is given its weights."""
        self.seek(lambda: math.log(len(self.file()) / most_bytes), NEARBY)
        return self.file()

    def seek(self, excess: Callable[[], float], factor: float) -> None:
        """Finds the coarseness nearest to where something is no longer in excess, and rounds by it.

        Args:
            excess: of the weights as they are rounded; monotone in the coarseness, at most 0 where all is well.
            factor: of coarseness, for the first move from what is in excess.
        """
        within = math.log(FINEST), math.log(COARSEST)
        first, move = math.log(self.coarseness), math.log(factor)
        place = nearest_without_excess(lambda place: self._excess_at(place, excess), first, move, within)
        self._excess_at(place, excess)

    def _excess_at(self, place: float, excess: Callable[[], float]) -> float:
        self.coarseness = math.exp(place)
        self.round()
        return excess()

    @torch.no_grad()
    def show(self) -> None:
        """Gives the student the rounded weights, for a training step, where it has not got them from the last."""
        if not self._shown:
            for each in self.rounded_parts:
                each.show()
        self._shown = True

    @torch.no_grad()
    def keep(self, lr: float, rays: int, rgb_loss: Tensor) -> None:
        """Takes over what the training step has changed since ``show``, lets the bits pull, and shows the next weights.

        Args:
            lr: the step's learning rate.
            rays: that it was taken with.
            rgb_loss: () that it found; where it is not finite, no step was taken, and nothing pulls.
        """
        # A mean of errors squared, of residuals that are independent, has this many times its gradients' squares as
        # curvature (Gauss and Newton's); of absolute errors nearly so.
        curvature = 1.5 * rays / (rgb_loss.nan_to_num(torch.inf) + _LEAST_LOSS)
        strength = self._rate.weight * lr * curvature
        for each in self.rounded_parts:
            each.keep(strength)

    @torch.no_grad()
    def content(self) -> list[Integers]:
        """What the compact file will hold; the student is given these weights."""
        self._shown = False
        return [each.content() for each in self.rounded_parts]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        weights = {each.part.name: each.state() for each in self.rounded_parts}
        return {"coarseness": self.coarseness, "bits": self.bits, "fixed": self.fixed, "weights": weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state`` gave; there is no ``restart`` from there.

        Raises:
            KeyError, RuntimeError: it is of another student.
        """
        self.coarseness, self.bits, self.fixed = state["coarseness"], state["bits"], state["fixed"]
        self.rounded_parts, self._shown = self._parts_to_round(), False
        for each in self.rounded_parts:
            each.restore(state["weights"][each.part.name])
