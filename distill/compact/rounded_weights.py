"""A student in training whose weights are those that its compact file will hold.

A step is taken at the rounded weights (``show``); what it changes is added to weights that are not rounded, which the
next step's are rounded from (``keep``: a straight-through estimate). Then these shrink towards zero, or their part's
centre, as the rate asks: by a share of their step. What no ray needs is zero in the end, and takes next to no bits. How
fine steps are follows from Adam's second moments, which say how much the loss depends on a weight; a table's features
are decorrelated first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.compact.compact_file import compact_bytes, compact_parts
from distill.compact.parts import Integers, Part, steps_of
from distill.compact.rounding import exponents_of, means_of, round_part
from distill.compact.transform_coding import decorrelate_features
from settings.compact import CompactConfig
from students.base import Student
from students.hash_grid import HashGridStudent

# Steps of the rounding are first tried this fine; twice as coarse is a bit less for each weight.
FINEST, COARSEST = 1e-12, 1.0
TRIES, TRIES_FROM_AFAR = 8, 20
# Of the mean importance of its kind, what each weight is taken to have at least: single moments are noisy.
_SHARED = np.float32(0.5)


@dataclass
class _Rounded:
    """A parameter on its way: its part, its weights less the centre at first and now, these in steps of the rounding
    (rows, columns), and what they are rounded with.
    """

    parameter: nn.Parameter
    part: Part
    initial: Tensor
    scaled: Tensor
    centre: Tensor | None
    exponents: np.ndarray
    steps: Tensor
    zero: Tensor
    values: np.ndarray
    shown: Tensor | None = None

    def put(self, integers: Tensor) -> Tensor:
        """Gives the parameter the weights of some integers; returns them."""
        weights = integers * self.steps
        weights = weights if self.centre is None else weights + self.centre
        self.parameter.data.copy_(weights.view(self.parameter.shape))
        return weights


class RoundedWeights:
    """The weights of a student that is trained on, rounded.

    Args:
        student: what is trained.
        moments: of Adam, by parameter.
        header: gives a checkpoint, for all that a compact file holds beside weights.
        path: of the checkpoint, for messages.
        compact: the settings.

    Raises:
        InputError: the student is too large for a compact file.
    """

    def __init__(
        self,
        student: Student,
        moments: Mapping[nn.Parameter, dict[str, Tensor]],
        header: Callable[[], Mapping[str, Any]],
        path: Path,
        compact: CompactConfig,
    ) -> None:
        self._student, self._moments, self._header, self._path, self._compact = student, moments, header, path, compact
        self._device = next(student.parameters()).device
        self.parts = compact_parts(header(), path)
        self.coarseness = 1e-7
        """See ``exponents_of``."""
        self.bits = 0.0
        """What the integers of the last ``round`` take."""
        self._rounded: list[_Rounded] = []
        self._fixed = 0.0

    @property
    def integers(self) -> int:
        """How many there are."""
        return sum(part.integers for part in self.parts)

    @property
    def fixed(self) -> float:
        """Bytes of the file beside the integers."""
        return self._fixed

    def size(self) -> float:
        """Bytes of the file, nearly."""
        return self._fixed + self.bits / 8

    def least_bytes(self) -> int:
        """Bytes of a file whose integers are all zero."""
        nothing = [
            Integers(
                np.zeros(part.shape, dtype=np.int32),
                np.zeros(part.exponents_shape, dtype=np.int32),
                np.zeros(part.shape[1], dtype=np.float16) if part.centred else None,
            )
            for part in self.parts
        ]
        return len(compact_bytes(self._header(), nothing, self._path))

    def file(self) -> bytes:
        """The file, of the integers of the last ``round``; the student is given its weights."""
        return compact_bytes(self._header(), self.content(), self._path)

    @torch.no_grad()
    def begin(self, decorrelate: bool = True) -> None:
        """Takes the student's weights as they are.

        Args:
            decorrelate: a table's features may be mapped, see ``transform_coding``.
        """
        parameters = dict(self._student.named_parameters())
        if decorrelate and isinstance(self._student, HashGridStudent):
            stored = next(part.stored for part in self.parts if part.name == "table")
            decorrelate_features(self._student, self._moments, torch.from_numpy(stored).to(self._device))
        self._rounded = [self._begin(parameters[part.name], part) for part in self.parts]
        self.round()
        self._fixed = len(self.file()) - self.bits / 8

    def _begin(self, parameter: nn.Parameter, part: Part) -> _Rounded:
        weights = parameter.detach().reshape(part.shape)
        stored = torch.from_numpy(part.stored).to(self._device)
        centre = weights[stored].mean(0).half().float() if part.centred else None
        initial = torch.where(stored[:, None], weights - (0 if centre is None else centre), 0.0)
        none = np.zeros(part.exponents_shape, dtype=np.int32)
        ones, values = torch.ones_like(initial), np.zeros(part.shape, dtype=np.int32)
        return _Rounded(parameter, part, initial, initial.clone(), centre, none, ones, ones == 0, values)

    @torch.no_grad()
    def restart(self) -> None:
        """Goes back to the weights of ``begin``."""
        for each in self._rounded:
            each.scaled = each.initial / each.steps

    @torch.no_grad()
    def round(self) -> None:
        """Chooses steps and integers anew."""
        self.bits = 0.0
        price = self._compact.price * self.coarseness**2
        for each in self._rounded:
            importance = self._importance(each)
            largest = float((each.scaled * each.steps).abs().max())
            exponents = exponents_of(each.part, importance, self.coarseness, largest)
            steps = self._spread(each.part, exponents)
            each.scaled *= each.steps / steps
            each.exponents, each.steps = exponents, steps
            scaled = each.scaled.cpu().numpy()
            each.values, bits = round_part(each.part, scaled, importance, exponents, price)
            self.bits += bits
            each.zero = torch.from_numpy(each.values == 0).to(self._device)

    def follow(self, most_bytes: int) -> None:
        """Rounds anew, and makes steps finer or coarser as the size asks."""
        self.round()
        room = (most_bytes - self._fixed) * 8
        self.coarseness *= float(np.clip(self.bits / room, 0.5, 2.0)) ** 0.5

    def bisect(self, good: float, bad: float, is_good: Callable[[], bool], tries: int) -> None:
        """Halves the range from a good coarseness to a bad one, on a logarithmic scale; rounds by its good end."""
        for _ in range(tries):
            self.coarseness = float(np.sqrt(good * bad))
            self.round()
            if is_good():
                good = self.coarseness
            else:
                bad = self.coarseness
        self.coarseness = good
        self.round()

    @torch.no_grad()
    def show(self) -> None:
        """Gives the student the rounded weights, for a training step."""
        for each in self._rounded:
            each.shown = each.put(each.scaled.round().masked_fill_(each.zero, 0))

    @torch.no_grad()
    def keep(self, lr: float) -> None:
        """Takes over what the training step has changed since ``show``.

        Args:
            lr: the step's learning rate.
        """
        for each in self._rounded:
            each.scaled += (each.parameter.view(each.part.shape) - each.shown) / each.steps
            each.scaled.copy_(nn.functional.softshrink(each.scaled, self._compact.shrink * lr))

    @torch.no_grad()
    def content(self) -> list[Integers]:
        """What the compact file will hold; the student is given these weights."""
        content = []
        for each in self._rounded:
            each.put(torch.from_numpy(each.values).to(self._device))
            centre = None if each.centre is None else each.centre.cpu().numpy().astype(np.float16)
            content.append(Integers(each.values, each.exponents, centre))
        return content

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        weights = {
            each.part.name: {
                "scaled": each.scaled,
                "centre": each.centre,
                "exponents": torch.from_numpy(each.exponents),
                "values": torch.from_numpy(each.values),
            }
            for each in self._rounded
        }
        return {"coarseness": self.coarseness, "bits": self.bits, "fixed": self._fixed, "weights": weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state`` gave; there is no ``restart`` from there.

        Raises:
            KeyError, RuntimeError: it is of another student.
        """
        self.coarseness, self.bits, self._fixed = state["coarseness"], state["bits"], state["fixed"]
        parameters, self._rounded = dict(self._student.named_parameters()), []
        for part in self.parts:
            stored = state["weights"][part.name]
            scaled, centre = stored["scaled"].view(part.shape), stored["centre"]
            exponents = stored["exponents"].cpu().numpy().reshape(part.exponents_shape)
            values, steps = stored["values"].cpu().numpy().reshape(part.shape), self._spread(part, exponents)
            zero = torch.from_numpy(values == 0).to(self._device)
            each = _Rounded(parameters[part.name], part, scaled, scaled, centre, exponents, steps, zero, values)
            self._rounded.append(each)

    def _spread(self, part: Part, exponents: np.ndarray) -> Tensor:
        return torch.from_numpy(part.spread(steps_of(exponents))).to(self._device)

    def _importance(self, each: _Rounded) -> np.ndarray:
        moment = self._moments[each.parameter]["second_moment"]
        importance = moment.reshape(each.part.shape).cpu().numpy()
        means = means_of(each.part, importance).astype(np.float32)
        return importance + _SHARED * each.part.spread(means)
