"""A student in training whose weights are those that its compact file will hold.

A step is taken at the rounded weights (``show``); what it changes is added to weights that are not rounded, which the
next step's are rounded from (``keep``: a straight-through estimate). Then the bits pull: a step of Adam's down the
slope of the code length, to zero. What no ray needs is zero in the end, and takes next to no bits. How fine steps are
follows from how much the loss depends on a weight; a table's features are decorrelated first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.compact.compact_file import compact_bytes, compact_parts
from distill.compact.importance import Importance
from distill.compact.parts import Integers, Part, steps_of
from distill.compact.rounded_networks import RoundedNetworks, nothing_of
from distill.compact.rounding import exponents_of, means_of, round_part
from distill.compact.setting_search import nearest_without_excess
from distill.compact.transform_coding import decorrelate_features
from kernels.optimization.straight_through import ALL, average_moved, rounded, straight_through
from settings.compact import CompactConfig
from settings.errors import InputError
from settings.losses import RateLossConfig
from students.base import Student
from students.hash_grid import HashGridStudent

# Steps of the rounding are first tried this fine; twice as coarse is a bit less for each weight.
FINEST, COARSEST = 1e-12, 1.0
FROM_AFAR, NEARBY = 4.0, 1.1
"""Factors of the coarseness for the first move of a search: of any size, and of one that training has followed."""
# Of magnitudes, in steps, of Adam's second moments, and of the colour loss: below these nothing is divided by them.
_LEAST_MEAN, _LEAST_MOMENT, _LEAST_LOSS = 0.01, 1e-30, 1e-8


@dataclass
class _Rounded:
    """A parameter on its way: its part, its weights at first, what they are now in steps of the rounding
    (rows, columns), what they are rounded with, and how far the bits pull them, see ``RoundedWeights.keep``.
    """

    parameter: nn.Parameter
    part: Part
    initial: Tensor
    scaled: Tensor
    exponents: np.ndarray
    steps: Tensor
    less: Tensor
    values: np.ndarray
    importance: Importance
    networks: RoundedNetworks | None
    pull: Tensor | None = None

    @property
    def weights(self) -> Tensor:
        """(rows, columns) the parameter's, without its gradient."""
        return self.parameter.data.view(self.part.shape)

    def integers(self) -> Integers:
        """What the compact file will hold."""
        common = () if self.networks is None else self.networks.common()
        return Integers(self.values, self.exponents, *common)


class RoundedWeights:
    """The weights of a student that is trained on, rounded.

    Args:
        student: what is trained.
        moments: of Adam, by parameter.
        header: gives a checkpoint, for all that a compact file holds beside weights.
        path: of the checkpoint, for messages.
        compact: the settings.
        rate: of the bits that training is charged for.
        implementation: of the kernel ``straight_through``.

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
        self._device = next(student.parameters()).device
        self.parts = compact_parts(header(), path)
        self.coarseness = 1e-7
        """See ``exponents_of``."""
        self.bits = 0.0
        """What the integers of the last ``round`` take."""
        self._rounded: list[_Rounded] = []
        self._fixed, self._shown = 0.0, False

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
        nothing = [nothing_of(part) for part in self.parts]
        return len(compact_bytes(self._header(), nothing, self._path))

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
        parameters = dict(self._student.named_parameters())
        if decorrelate and isinstance(self._student, HashGridStudent):
            stored = next(part.stored for part in self.parts if part.name == "table")
            decorrelate_features(self._student, self._moments, torch.from_numpy(stored).to(self._device))
        self._rounded = [self._begin(parameters[part.name], part) for part in self.parts]
        self.round()
        self._fixed = len(self.file()) - self.bits / 8

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

    def _begin(self, parameter: nn.Parameter, part: Part) -> _Rounded:
        weights = parameter.detach().reshape(part.shape)
        networks = None
        if part.matrices:
            networks = RoundedNetworks(part, weights, self._moments[parameter], self._implementation)
        none = np.zeros(part.exponents_shape, dtype=np.int32)
        ones, values = torch.ones_like(weights), np.zeros(part.shape, dtype=np.int32)
        found = none, ones, ones.byte(), values, self._importance(parameter, part), networks
        each = _Rounded(parameter, part, weights.clone(), weights, *found)
        self._start(each)
        return each

    def _start(self, each: _Rounded) -> None:
        """Takes the weights of ``begin``."""
        stored = torch.from_numpy(each.part.stored).to(self._device)[:, None]
        coordinates = each.initial if each.networks is None else each.networks.coordinates(each.initial)
        each.scaled = torch.where(stored, coordinates, 0.0) / each.steps

    @torch.no_grad()
    def restart(self) -> None:
        """Goes back to the weights of ``begin``."""
        for each in self._rounded:
            self._start(each)
        self._shown = False

    @torch.no_grad()
    def round(self) -> None:
        """Chooses steps and integers anew."""
        self._shown, self.bits = False, 0.0
        price = self._compact.price * self.coarseness**2
        for each in self._rounded:
            if each.networks is None:
                importance = each.importance.values()
            else:
                if each.networks.due:
                    each.scaled = each.networks.renew(each.scaled * each.steps) / each.steps
                importance = each.networks.importance().cpu().numpy()
            largest = float((each.scaled * each.steps).abs().max())
            exponents = exponents_of(each.part, importance, self.coarseness, largest)
            steps = self._spread(each.part, exponents)
            each.scaled *= each.steps / steps
            each.exponents, each.steps = exponents, steps
            scaled = each.scaled.cpu().numpy()
            each.values, bits = round_part(each.part, scaled, importance, exponents, price)
            self.bits += bits
            each.less = self._less(each)
            each.pull = self._pull(each, price)

    def follow(self, most_bytes: int) -> None:
        """Rounds anew, and makes steps finer or coarser as the size asks."""
        self.round()
        room = (most_bytes - self._fixed) * 8
        self.coarseness *= float(np.clip(self.bits / room, 0.5, 2.0)) ** 0.5

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
            for each in self._rounded:
                values = rounded(each.scaled, each.steps, each.less)
                each.weights.copy_(values if each.networks is None else each.networks.show(values))
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
        for each in self._rounded:
            values, networks = (each.scaled, each.steps, each.less), each.networks
            if networks is None:
                at = each.weights
                each.importance.note(partial(average_moved, at, *values, implementation=self._implementation))
            else:
                at = networks.moved(each.weights, self._moments[each.parameter])
            straight_through(at, *values, each.pull, strength, self._implementation)
            if networks is not None:
                each.weights.copy_(networks.show(at))

    @torch.no_grad()
    def content(self) -> list[Integers]:
        """What the compact file will hold; the student is given these weights."""
        self._shown, content = False, [each.integers() for each in self._rounded]
        for each, integers in zip(self._rounded, content, strict=True):
            each.weights.copy_(torch.from_numpy(integers.weights(each.part)))
        return content

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        weights = {
            each.part.name: {
                "scaled": each.scaled,
                "networks": None if each.networks is None else each.networks.state(),
                "exponents": torch.from_numpy(each.exponents),
                "values": torch.from_numpy(each.values),
                "less": each.less,
                "pull": each.pull,
                "importance": each.importance.state(),
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
        parameters, self._rounded, self._shown = dict(self._student.named_parameters()), [], False
        for part in self.parts:
            stored = state["weights"][part.name]
            scaled, networks = stored["scaled"].view(part.shape), None
            if part.matrices:
                networks = RoundedNetworks.restored(part, stored["networks"], self._device, self._implementation)
            exponents = stored["exponents"].cpu().numpy().reshape(part.exponents_shape)
            values, steps = stored["values"].cpu().numpy().reshape(part.shape), self._spread(part, exponents)
            parameter, less = parameters[part.name], stored["less"].view(part.shape)
            importance = self._importance(parameter, part)
            importance.restore(stored["importance"])
            weights = parameter, part, scaled, scaled, exponents, steps, less, values, importance, networks
            self._rounded.append(_Rounded(*weights, stored["pull"].view(part.shape)))

    def _pull(self, each: _Rounded, price: float) -> Tensor:
        """(rows, columns) how far, in steps, Adam moves a weight towards zero for the bits it takes, at a learning rate
        and a curvature of 1.

        The slope of the code length is that of integers whose magnitudes are distributed geometrically, with the mean
        of their group and class; bits cost in training what they cost in rounding.
        """
        part, networks = each.part, each.networks
        sizes = np.abs(each.values).astype(np.float32)
        means, squares = means_of(part, sizes).astype(np.float32), steps_of(each.exponents) ** 2
        if networks is None:
            speed = 1 / np.sqrt(each.importance.of_moments() + np.float32(_LEAST_MOMENT))
            slope = part.spread(_slopes_of(means) / squares)  # the same in all of a group: worked out for it alone
        else:
            moment = self._moments[each.parameter]["second_moment"]
            speed = networks.speed(moment + _LEAST_MOMENT).cpu().numpy()
            # Of a cell's matrix, and how its coordinates differ in all cells.
            of_columns = sizes[part.stored].mean(0)
            classes = np.bincount(part.classes, of_columns) / np.bincount(part.classes)
            own = part.spread(means)
            own *= of_columns / np.maximum(classes[part.classes], np.float32(1e-6))
            slope = _slopes_of(own) / part.spread(squares)
        pull = 0.5 * price * slope * speed
        return torch.from_numpy(pull.astype(np.float32)).to(self._device)

    def _less(self, each: _Rounded) -> Tensor:
        """(rows, columns) uint8 how much nearer to zero those chosen are than the nearest; what is zero stays so."""
        nearer = each.scaled.round().abs() - torch.from_numpy(each.values).to(self._device).abs()
        zero = torch.from_numpy(each.values == 0).to(self._device)
        return nearer.clamp_(0, ALL - 1).masked_fill_(zero, ALL).to(torch.uint8)

    def _spread(self, part: Part, exponents: np.ndarray) -> Tensor:
        return torch.from_numpy(part.spread(steps_of(exponents))).to(self._device)

    def _importance(self, parameter: nn.Parameter, part: Part) -> Importance:
        averaged = parameter in self._student.touched_rows() and not part.matrices
        return Importance(part, lambda: self._moments[parameter]["second_moment"].view(part.shape), averaged)


def _slopes_of(means: np.ndarray) -> np.ndarray:
    """Bits that an integer takes for each that it is larger, of a mean magnitude."""
    return np.log2(1 + 1 / np.maximum(means, _LEAST_MEAN))
