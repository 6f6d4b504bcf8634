"""A parameter of a student in training with rounded weights: its steps, its integers, and how the bits pull at it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.compact.importance import Importance
from distill.compact.parts import Integers, Part, steps_of
from distill.compact.rounded_networks import RoundedNetworks
from distill.compact.rounding import exponents_of, means_of, round_part
from kernels.optimization.straight_through import ALL, average_moved, rounded, straight_through

# Of magnitudes, in steps, and of Adam's second moments: below these nothing is divided by them.
_LEAST_MEAN, _LEAST_MOMENT = 0.01, 1e-30


class RoundedPart:
    """A parameter that is trained on, rounded; ``begin`` or ``restore`` comes first.

    Args:
        parameter: of the student.
        part: how a compact file stores it.
        moments: Adam's, of it.
        touched: whether Adam passes over rows of it, see ``Importance``.
        implementation: of the kernels ``straight_through`` and ``map_matrices``.

    Attributes:
        initial: (rows, columns) the weights that it began with.
        scaled: (rows, columns) those that are not rounded, or a network's coordinates, in steps.
        exponents, steps: of the rounding, (groups, classes), and the same spread to (rows, columns).
        values: (rows, columns) int32 the integers last chosen.
        less: (rows, columns) uint8 how they differ from the nearest, see ``straight_through``.
        pull: (rows, columns) how far bits pull, see ``_pull``.
        networks: of a part with ``matrices``; None of others.
    """

    initial: Tensor
    scaled: Tensor
    exponents: np.ndarray
    steps: Tensor
    values: np.ndarray
    less: Tensor
    pull: Tensor

    def __init__(
        self,
        parameter: nn.Parameter,
        part: Part,
        moments: Mapping[str, Tensor],
        touched: bool,
        implementation: str = "auto",
    ) -> None:
        self.parameter, self.part, self.moments, self._implementation = parameter, part, moments, implementation
        averaged = touched and not part.matrices
        self.importance = Importance(part, lambda: moments["second_moment"].view(part.shape), averaged)
        self.networks: RoundedNetworks | None = None

    @property
    def weights(self) -> Tensor:
        """(rows, columns) the parameter's, without its gradient."""
        return self.parameter.data.view(self.part.shape)

    def begin(self) -> None:
        """Takes the parameter's weights as they are."""
        self.initial, part = self.weights.clone(), self.part
        if part.matrices:
            self.networks = RoundedNetworks(part, self.initial, self.moments, self._implementation)
        self.steps = torch.ones_like(self.initial)
        self.restart()

    def restart(self) -> None:
        """Goes back to the weights of ``begin``."""
        stored = self._on_device(self.part.stored)[:, None]
        coordinates = self.initial if self.networks is None else self.networks.coordinates(self.initial)
        self.scaled = torch.where(stored, coordinates, 0.0) / self.steps

    def round(self, coarseness: float, price: float) -> float:
        """Chooses steps and integers anew; returns the bits that these take.

        Args:
            coarseness: see ``exponents_of``.
            price: see ``round_part``.
        """
        if self.networks is None:
            importance = self.importance.values()
        else:
            if self.networks.due:
                self.scaled = self.networks.renew(self.scaled * self.steps) / self.steps
            importance = self.networks.importance().cpu().numpy()
        largest = float((self.scaled * self.steps).abs().max())
        self.exponents = exponents_of(self.part, importance, coarseness, largest)
        steps = self._spread_steps()
        self.scaled *= self.steps / steps
        self.steps = steps
        scaled = self.scaled.cpu().numpy()
        self.values, bits = round_part(self.part, scaled, importance, self.exponents, price)
        self.less, self.pull = self._less(), self._pull(price)
        return bits

    def show(self) -> None:
        """Gives the parameter the rounded weights."""
        values = rounded(self.scaled, self.steps, self.less)
        self.weights.copy_(values if self.networks is None else self.networks.show(values))

    def keep(self, strength: Tensor) -> None:
        """Takes over what a training step has changed since the weights were shown, lets the bits pull, and shows the
        next.

        Args:
            strength: () of the pull.
        """
        rounding, networks = (self.scaled, self.steps, self.less), self.networks
        if networks is None:
            at = self.weights
            self.importance.note(partial(average_moved, at, *rounding, implementation=self._implementation))
        else:
            at = networks.moved(self.weights, self.moments)
        straight_through(at, *rounding, self.pull, strength, self._implementation)
        if networks is not None:
            self.weights.copy_(networks.show(at))

    def content(self) -> Integers:
        """What the compact file will hold; the parameter is given these weights."""
        common = () if self.networks is None else self.networks.common()
        integers = Integers(self.values, self.exponents, *common)
        self.weights.copy_(torch.from_numpy(integers.weights(self.part)))
        return integers

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "scaled": self.scaled,
            "networks": None if self.networks is None else self.networks.state(),
            "exponents": torch.from_numpy(self.exponents),
            "values": torch.from_numpy(self.values),
            "less": self.less,
            "pull": self.pull,
            "importance": self.importance.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state`` gave; there is no ``restart`` from there.

        Raises:
            KeyError, RuntimeError: it is of another student.
        """
        part, device = self.part, self.parameter.device
        self.scaled, self.less, self.pull = (state[name].view(part.shape) for name in ("scaled", "less", "pull"))
        if part.matrices:
            self.networks = RoundedNetworks.restored(part, state["networks"], device, self._implementation)
        self.exponents = state["exponents"].cpu().numpy().reshape(part.exponents_shape)
        self.values, self.steps = state["values"].cpu().numpy().reshape(part.shape), self._spread_steps()
        self.importance.restore(state["importance"])

    def _pull(self, price: float) -> Tensor:
        """(rows, columns) how far, in steps, Adam moves a weight towards zero for the bits it takes, at a learning rate
        and a curvature of 1.

        The slope of the code length is that of integers whose magnitudes are distributed geometrically, with the mean
        of their group and class; bits cost in training what they cost in rounding.
        """
        part = self.part
        sizes = np.abs(self.values).astype(np.float32)
        means, squares = means_of(part, sizes).astype(np.float32), steps_of(self.exponents) ** 2
        if self.networks is None:
            speed = 1 / np.sqrt(self.importance.of_moments() + np.float32(_LEAST_MOMENT))
            slope = part.spread(_slopes_of(means) / squares)  # the same in all of a group: worked out for it alone
        else:
            speed = self.networks.speed(self.moments["second_moment"] + _LEAST_MOMENT).cpu().numpy()
            # Of a cell's matrix, and how its coordinates differ in all cells.
            of_columns = sizes[part.stored].mean(0)
            classes = np.bincount(part.classes, of_columns) / np.bincount(part.classes)
            own = part.spread(means)
            own *= of_columns / np.maximum(classes[part.classes], np.float32(1e-6))
            slope = _slopes_of(own) / part.spread(squares)
        pull = 0.5 * price * slope * speed
        return self._on_device(pull.astype(np.float32))

    def _less(self) -> Tensor:
        """(rows, columns) uint8 how much nearer to zero those chosen are than the nearest; what is zero stays so."""
        nearer = self.scaled.round().abs() - self._on_device(self.values).abs()
        zero = self._on_device(self.values == 0)
        return nearer.clamp_(0, ALL - 1).masked_fill_(zero, ALL).to(torch.uint8)

    def _spread_steps(self) -> Tensor:
        return self._on_device(self.part.spread(steps_of(self.exponents)))

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.parameter.device)


def _slopes_of(means: np.ndarray) -> np.ndarray:
    """Bits that an integer takes for each that it is larger, of a mean magnitude."""
    return np.log2(1 + 1 / np.maximum(means, _LEAST_MEAN))
