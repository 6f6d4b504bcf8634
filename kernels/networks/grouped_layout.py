"""Shape of KiloUniform's networks, and the position encoding in front of them (KiloNeRF, Reiser et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

WIDTHS = (16, 32, 64, 128)  # multiples of a matrix unit's tile, small enough for one block's activations in cache
# Slope of a neuron that is off: a cell sees few points, and a plain ReLU that none of them reaches stays dead.
LEAK = 0.01


@dataclass(frozen=True)
class GroupedLayout:
    """Shape of one cell's two networks.

    Args:
        frequencies: octaves of the position's Fourier features, 0 for the position alone.
        hidden_width: neurons of every hidden layer, one of ``WIDTHS``.
        density_layers, color_layers: hidden layers of the two networks.
        geo_features: channels the density network hands to the colour network.
        direction_width: channels of the encoded direction.
        harmonics: channels of the direction that the density network takes behind the encoded position.

    Raises:
        ValueError: a width the kernel does not support, or a size that makes no network.
    """

    frequencies: int
    hidden_width: int
    density_layers: int
    color_layers: int
    geo_features: int
    direction_width: int
    harmonics: int = 0

    def __post_init__(self) -> None:
        if self.hidden_width not in WIDTHS:
            raise ValueError(f"hidden_width: found {self.hidden_width}, expected one of {list(WIDTHS)}")
        least_of = {"frequencies": 0, "density_layers": 0, "color_layers": 0, "geo_features": 1, "harmonics": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected at least {least}")

    @property
    def position_width(self) -> int:
        """Channels of the encoded position."""
        return 3 + 6 * self.frequencies

    @cached_property
    def density_dims(self) -> np.ndarray:
        """(density_layers + 1, 2) int64: rows (bias included) and columns of the density network's matrices."""
        hidden = [self.hidden_width] * self.density_layers
        return _dims([self.position_width + self.harmonics, *hidden, self.geo_features + 1])

    @cached_property
    def color_dims(self) -> np.ndarray:
        """(color_layers + 1, 2) int64: rows (bias included) and columns of the colour network's matrices."""
        hidden = [self.hidden_width] * self.color_layers
        return _dims([self.geo_features + self.direction_width, *hidden, 3])

    @property
    def widest(self) -> int:
        """Channels of the widest layer of both networks, inputs and outputs included."""
        dims = np.concatenate([self.density_dims, self.color_dims])
        return int(max((dims[:, 0] - 1).max(), dims[:, 1].max()))

    @property
    def density_size(self) -> int:
        """Parameters of a cell's density network."""
        return int(self.density_dims.prod(axis=1).sum())

    @property
    def color_size(self) -> int:
        """Parameters of a cell's colour network."""
        return int(self.color_dims.prod(axis=1).sum())


def _dims(widths: Sequence[int]) -> np.ndarray:
    return np.array([(inputs + 1, out) for inputs, out in zip(widths[:-1], widths[1:], strict=True)], dtype=np.int64)


def fourier_features(x: Tensor, frequencies: int) -> Tensor:
    """Position encoding (Mildenhall et al. 2020), half an octave lower: sin and cos of 2**k * pi/2 * x.

    The longest wave spans two cells, so a position beyond its cell's face differs from every position inside.

    Args:
        x: (N, 3), [-1, 1] inside the cell.

    Returns:
        (N, 3 + 6 * frequencies): x, then per octave the sines and the cosines of the three coordinates.
    """
    angles = [x * (2.0**octave * math.pi / 2) for octave in range(frequencies)]
    return torch.cat([x, *(part for angle in angles for part in (angle.sin(), angle.cos()))], dim=-1)
