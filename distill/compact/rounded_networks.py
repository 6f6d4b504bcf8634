"""Cells' networks in training with rounded weights: their centre, their maps, and what is learnt of both on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.compact.network_transforms import GradientProducts, NetworkMaps, plain_maps
from distill.compact.parts import CENTRE_STEP, Integers, Part
from kernels.optimization.adam import BETAS

_SEEN_EVERY = 4  # of so many steps, one's gradients are taken into account
_NEWS = 0.03  # what each of them adds to means of squares
_RENEWED = (8, 30, 90, math.inf)  # after so many of them the maps are made anew


class RoundedNetworks:
    """The weights of a part with ``matrices`` as coordinates, see ``network_transforms``.

    Args:
        part: of the networks.
        weights: (rows, columns).
        moments: Adam's, of the weights; the first stand for gradients that have not been seen yet.
        implementation: of the kernel ``map_matrices``.
    """

    def __init__(
        self, part: Part, weights: Tensor, moments: Mapping[str, Tensor], implementation: str = "auto"
    ) -> None:
        self._prepare(part, weights.device, implementation)
        self._centre = (weights[self._rows].mean(0) / CENTRE_STEP).round()
        first, second = (moments[name][self._rows] for name in ("first_moment", "second_moment"))
        self._means = self._means_of(second)
        self._products.add(first, self._means)
        self._maps = self._products.maps((weights - self.centre)[self._rows], implementation)
        self._last = first, self._means.clone()
        self._squares = self._squares_by(*self._last)
        self._products = GradientProducts(part.matrices, weights.device)

    def _prepare(self, part: Part, device: torch.device, implementation: str) -> None:
        self._implementation = implementation
        self._part, self._rows = part, torch.from_numpy(np.flatnonzero(part.stored)).to(device)
        self._products = GradientProducts(part.matrices, device)
        self._steps = self._seen = self._renewals = 0
        self._before: Tensor | None = None
        self._at: Tensor | None = None
        self._shown: Tensor | None = None

    @property
    def centre(self) -> Tensor:
        """(columns,) the weights that differences are from."""
        return self._centre * CENTRE_STEP

    @property
    def due(self) -> bool:
        """Whether so much has been seen that maps should be made anew."""
        return self._seen >= _RENEWED[self._renewals]

    def common(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Centre and maps, of ``Integers``."""
        return self._centre.cpu().numpy().astype(np.int32), self._maps.integers

    def coordinates(self, weights: Tensor) -> Tensor:
        """(rows, columns) of weights."""
        return self._maps.coordinates(weights - self.centre)

    def show(self, coordinates: Tensor) -> Tensor:
        """(rows, columns) weights of coordinates, which ``moved`` will start from."""
        self._at, self._shown = coordinates, self._maps.weights(coordinates) + self.centre
        return self._shown

    def moved(self, weights: Tensor, moments: Mapping[str, Tensor]) -> Tensor:
        """(rows, columns) coordinates of those shown last, moved as far as a step has moved weights; it learns from the
        step's gradients.
        """
        self._see(moments)
        return self._at + self._maps.coordinates(weights - self._shown)

    def importance(self) -> Tensor:
        """(rows, columns) what an error in a coordinate, squared, costs: mean squares of slopes by coordinates, half of
        it the mean of their matrix.
        """
        means = [0.5 * (each + each.mean(1, keepdim=True)) for each in self._split(self._squares)]
        found = torch.zeros(self._part.shape, device=self._squares.device)
        found[self._rows] = torch.cat(means, dim=1)
        return found

    def speed(self, second_moment: Tensor) -> Tensor:
        """(rows, columns) how far a step of Adam's at the rate 1 moves a coordinate for a slope of 1."""
        means = [each.mean(1, keepdim=True) for each in self._split(second_moment)]
        return torch.cat([speed / mean.sqrt() for speed, mean in zip(self._maps.speeds(), means, strict=True)], dim=1)

    def renew(self, coordinates: Tensor) -> Tensor:
        """Makes the maps for what was seen, gives coordinates by them."""
        weights = self._maps.weights(coordinates) + self.centre
        self._centre = (weights[self._rows].mean(0) / CENTRE_STEP).round()
        differences = weights - self.centre
        self._maps = self._products.maps(differences[self._rows], self._implementation)
        self._squares = self._squares_by(*self._last)
        self._renewals += 1
        found = torch.zeros_like(weights)
        found[self._rows] = self._maps.coordinates(differences[self._rows])
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "centre": self._centre,
            "maps": [torch.from_numpy(each) for each in self._maps.integers],
            "squares": self._squares,
            "means": self._means,
            "sums": self._products.sums,
            "before": self._before,
            "last": self._last,
            "steps": self._steps,
            "seen": self._seen,
            "renewals": self._renewals,
        }

    @classmethod
    def restored(
        cls, part: Part, state: Mapping[str, Any], device: torch.device, implementation: str = "auto"
    ) -> RoundedNetworks:
        """From ``state``.

        Raises:
            KeyError, RuntimeError: it is of another student.
        """
        networks = cls.__new__(cls)
        networks._prepare(part, device, implementation)
        networks._centre, networks._squares = state["centre"].view(part.shape[1]), state["squares"]
        maps = [each.cpu().numpy() for each in state["maps"]]
        networks._maps = NetworkMaps(part.matrices, maps, device, implementation)
        networks._products.sums, networks._before, networks._last = state["sums"], state["before"], state["last"]
        networks._steps, networks._seen = state["steps"], state["seen"]
        networks._renewals, networks._means = state["renewals"], state["means"]
        return networks

    def _see(self, moments: Mapping[str, Tensor]) -> None:
        """A step's gradient is what the first moment gained, decay apart."""
        first = moments["first_moment"]
        if self._before is not None:
            gradients = (first - BETAS[0] * self._before) / (1 - BETAS[0])
            # Adam leaves the moments of what has no gradient alone, be it a cell that no ray has met or one weight.
            gradients = gradients.masked_fill(first == self._before, 0.0)[self._rows]
            # Adam's moments are of the steps that have met a cell, these means of all.
            met = self._means_of(moments["second_moment"][self._rows])
            self._products.add(gradients, met)
            self._means += (self._means_of(gradients.square()) - self._means) * _NEWS
            self._squares += (self._maps.slopes(gradients).square() - self._squares) * _NEWS
            self._last = gradients, met
            self._seen += 1
        self._steps += 1
        self._before = first.clone() if self._steps % _SEEN_EVERY == 0 else None

    def _squares_by(self, gradients: Tensor, met: Tensor) -> Tensor:
        """(stored rows, columns) mean squares of slopes by coordinates: by weights, times how these compare in all.

        Args:
            gradients: (stored rows, columns) of a step.
            met: (stored rows, matrices) means of their squares over steps like it.
        """
        slopes = self._maps.slopes(gradients)
        of_coordinates, of_weights = (
            (self._means_of(each.square()) / met).nan_to_num(0.0, 0.0).sum(0) for each in (slopes, gradients)
        )
        columns = torch.from_numpy(self._part.classes).to(gradients.device)
        return (self._means * (of_coordinates / of_weights).nan_to_num(1.0, 1.0))[:, columns]

    def _means_of(self, rows: Tensor) -> Tensor:
        """(stored rows, matrices)."""
        return torch.stack([each.mean(1) for each in self._split(rows)], dim=1)

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows.split([height * width for height, width in self._part.matrices], dim=1)


def nothing_of(part: Part) -> Integers:
    """The integers of a part, all of them zero."""
    centre = np.zeros(part.shape[1], dtype=np.int32) if part.matrices else None
    maps = plain_maps(part.matrices, torch.device("cpu")).integers
    return Integers(np.zeros(part.shape, np.int32), np.zeros(part.exponents_shape, np.int32), centre, maps)
