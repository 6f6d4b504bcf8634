"""The teacher at every point of its box: features, density and how well both are known, in a sparse voxel volume.

A cell holds the extinction that the Gaussians add up to in it (``kernels.gaussians.gaussian_statistics``): what a ray
loses to them per world unit, averaged over the cell and over directions. It is the density that a radiance field must
have to look alike from anywhere, not just near Gaussians' centres: a Gaussian's optical thickness -log(1 - alpha) on a
ray grows without bound as alpha nears 1 and is spread over the length its standard deviation has along the ray.
Features are means weighted by the same extinction: opacity times the Gaussian's value at the point, per unit of length,
which is the weight that volume rendering gives to each of several things at one place.

Both are measured on a grid of half the cell size. Cells are means of eight of its cells, and the confidence says how
well interpolating between such means gives back the eight: it is 0.45 / (0.45 + e), where e is an estimate of the
largest relative error in the cell, twice (what an error of first order, at the rim of a Gaussian's footprint, is of
its change from one grid to the other; smooth ones are of second order and overestimated by half) the largest of

- the difference in density, relative to the cell's mean density,
- the difference in features (RMS over the channels, in standard deviations of each over the scene).

So it is 0.9 where the error is 5 % and 0.31 where it is 100 %, as at a surface much thinner than a cell. It is 0 in
empty cells: the density is known to be 0 there, features there are none. The finer grid is most of the work, so a
volume whose confidence nobody asks for is measured on its own cells, and its confidence is 1 in those that hold
anything.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.gaussians.gaussian_statistics import CellStatistics, gaussian_statistics, touched_cells
from kernels.gaussians.sparse_volume import VolumeSample, sparse_volume
from kernels.gaussians.sparse_volume_numba import FIXED_COLUMNS
from machine.memory import GIB, size_in_words
from scene.cells import CellGrid
from scene.rays import SceneBox
from settings.errors import InputError
from settings.words import counted
from teacher.features.channels import gaussian_features, select_channels
from teacher.gaussians import Gaussians

MAX_GIB = 4.0
_HALF_CONFIDENCE = 0.45  # relative error at which confidence is 0.5; 0.9 at an error of 5 %
_BEYOND_FINER = 2.0
_CONSTANT = 1e-6  # standard deviation under which a channel is taken for constant
_CHUNK = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChannelStatistics:
    """Mean and standard deviation of C channels over a scene, each cell weighted by its alpha over its own size.

    Attributes:
        mean, std: (C,) float32; std is 0 for a constant channel, such as a coefficient above the file's degree.
    """

    mean: Tensor
    std: Tensor

    def normalize(self, features: Tensor) -> Tensor:
        """(..., C) features of mean 0 and deviation 1; constant channels become 0."""
        used = self.std > _CONSTANT
        return (features - self.mean) * torch.where(used, 1 / self.std.clamp(min=_CONSTANT), 0)


class VolumeMemory(NamedTuple):
    """Bytes that a volume takes.

    Attributes:
        kept: its index and table, exactly.
        building: at most, beside ``kept``, while it is built.
    """

    kept: int
    building: int


@dataclass(frozen=True)
class FeatureVolume(CellGrid):
    """Features of the teacher in the cells that its Gaussians touch; see ``kernels.gaussians.sparse_volume`` too.

    Attributes:
        channels: C names out of ``FEATURE_CHANNELS``.
        index: (X + 2, Y + 2, Z + 2) int32; table: (M + 1, 2 + C) float32.
        statistics: of the channels.
    """

    channels: tuple[str, ...]
    index: Tensor
    table: Tensor
    statistics: ChannelStatistics

    @property
    def nbytes(self) -> int:
        """Bytes of index and table."""
        return self.index.nbytes + self.table.nbytes

    def query(self, x: Tensor, implementation: str = "auto") -> VolumeSample:
        """features (N, C), density (N,) in 1 / world unit and confidence (N,) in [0, 1] at world positions (N, 3).

        Zeros where the teacher is empty. No gradient; computed on the volume's device.
        """
        x = x.to(self.table.device)
        return sparse_volume(x, self.index, self.table, self.box.lower, self.cell_size, implementation=implementation)

    def selected(self, channels: Sequence[str]) -> FeatureVolume:
        """The volume with some of its channels. The confidence stays that of all.

        Raises:
            InputError: a name is unknown, or the volume lacks that channel.
        """
        names = select_channels(channels)
        if missing := [name for name in names if name not in self.channels]:
            hint = "Build or export the features again with these channels."
            raise InputError("features", "channels", f"no {', '.join(missing)}", ", ".join(names), hint)
        columns = torch.tensor([self.channels.index(name) for name in names], device=self.table.device)
        table = torch.cat([self.table[:, :FIXED_COLUMNS], self.table[:, FIXED_COLUMNS + columns]], dim=1)
        statistics = ChannelStatistics(self.statistics.mean[columns], self.statistics.std[columns])
        return replace(self, channels=names, table=table, statistics=statistics)

    def to(self, device: torch.device | str) -> FeatureVolume:
        statistics = ChannelStatistics(self.statistics.mean.to(device), self.statistics.std.to(device))
        return replace(self, index=self.index.to(device), table=self.table.to(device), statistics=statistics)


def volume_memory(grid: CellGrid, cells: int, channels: int, gaussians: int, confidence: bool) -> VolumeMemory:
    """What ``build_volume`` takes, known before it is built: from the number of cells that some Gaussian touches."""
    kept = 4 * math.prod(extent + 2 for extent in grid.shape) + 4 * (cells + 1) * (FIXED_COLUMNS + channels)
    # Each cell, or up to eight finer ones: its statistics, those as they are put in order, its parent and its error.
    measured = (8 if confidence else 1) * cells * (24 + 4 * channels + 80 + 8 + 8)
    rows = 8 * _CHUNK * (4 * channels + 64)
    return VolumeMemory(kept, measured + rows + gaussians * (8 + 4) * channels)


def build_volume(
    gaussians: Gaussians,
    box: SceneBox,
    resolution: int,
    channels: Sequence[str] = ("all",),
    *,
    confidence: bool = True,
    max_gib: float = MAX_GIB,
) -> FeatureVolume:
    """Volume of the teacher in a box; the memory is said in the log before it is taken.

    Args:
        resolution: cells along the longest side of the box.
        channels: see ``select_channels``.
        confidence: whether it is measured, which takes some four times as long.

    Raises:
        InputError: a channel is unknown; building needs more than ``max_gib``.
    """
    names, grid = select_channels(channels), CellGrid(box, resolution)
    cell_size, shape = grid.cell_size, grid.shape
    # Of many cells finding those that are touched takes minutes.
    _check_memory(volume_memory(grid, 0, len(names), len(gaussians), confidence), grid, names, max_gib)
    indices = touched_cells(*_drawn(gaussians), box.lower, cell_size, shape)
    memory = volume_memory(grid, len(indices), len(names), len(gaussians), confidence)
    _check_memory(memory, grid, names, max_gib, len(indices))
    _log.info(
        "feature volume: %s cells, %s touched, %s: %s, and up to %s while it is built",
        _size(grid), f"{len(indices):,}", counted(len(names), "channel"), *map(size_in_words, memory),
    )  # fmt: skip

    index = cell_index(indices, shape)
    parts = 2 if confidence else 1
    measured = gaussian_statistics(
        *_drawn(gaussians), box.lower, cell_size / parts, tuple(parts * extent for extent in shape),
        channels=gaussian_features(gaussians, names),
    )  # fmt: skip
    parents = index[tuple(measured.coordinates().div(parts, rounding_mode="floor").add(1).unbind(1))].long()
    table = torch.zeros(len(indices) + 1, FIXED_COLUMNS + len(names))
    _mean_of_children(measured, parents, parts**3, table)
    weights = -torch.expm1(-table[:, 0].double() * cell_size)
    statistics = _channel_statistics(table[:, FIXED_COLUMNS:], weights)
    volume = FeatureVolume(box, resolution, names, index, table, statistics)
    table[:, 1] = _confidence(measured, parents, indices, volume) if confidence else (table[:, 0] > 0).float()
    return volume


def _check_memory(
    memory: VolumeMemory, grid: CellGrid, names: Sequence[str], max_gib: float, touched: int | None = None
) -> None:
    needed = (memory.kept + memory.building) / GIB
    if needed > max_gib:
        words = "even if none of them were touched" if touched is None else f"{touched:,} of them touched"
        found = f"{_size(grid)} cells, {words}, with {len(names)} channels: {needed:.1f} GiB"
        hint = "Use a lower resolution or fewer channels."
        raise InputError("features", "memory of the volume", found, f"at most {max_gib:g} GiB", hint)


def _size(grid: CellGrid) -> str:
    return "x".join(map(str, grid.shape))


def cell_index(indices: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(X + 2, Y + 2, Z + 2) int32 for ``kernels.gaussians.sparse_volume``: the row of each of cells (M,), else 0."""
    index = torch.zeros([extent + 2 for extent in shape], dtype=torch.int32)
    x, y, z = torch.unravel_index(indices, shape)
    index[x + 1, y + 1, z + 1] = torch.arange(1, len(indices) + 1, dtype=torch.int32)
    return index


def _drawn(gaussians: Gaussians) -> tuple[Tensor, Tensor, Tensor]:
    return gaussians.means, gaussians.half_axes(), gaussians.opacities


def _mean_of_children(measured: CellStatistics, parents: Tensor, children: int, table: Tensor) -> None:
    """Fills density and features of each cell from those it is divided into, empty ones included."""
    density = torch.zeros(len(table), dtype=torch.float64).index_add_(0, parents, measured.density.double())
    density[0] = 0
    table[:, 0] = density / children
    share = measured.density / density[parents].clamp(min=1e-30).float()
    for first in range(0, len(measured), _CHUNK):
        part = slice(first, first + _CHUNK)
        table[:, FIXED_COLUMNS:].index_add_(0, parents[part], share[part, None] * measured.channels[part])
    table[0] = 0


def _channel_statistics(features: Tensor, weights: Tensor) -> ChannelStatistics:
    shares = weights / weights.sum().clamp(min=1e-30)
    # By column: in double precision all of them at once would be the largest thing in memory.
    mean = torch.stack([column.double() @ shares for column in features.unbind(1)])
    square = [((column.double() - m) ** 2) @ shares for column, m in zip(features.unbind(1), mean, strict=True)]
    std = torch.stack(square).sqrt().float()
    return ChannelStatistics(mean.float(), torch.where(std > _CONSTANT, std, 0))


def _confidence(fine: CellStatistics, parents: Tensor, indices: Tensor, volume: FeatureVolume) -> Tensor:
    """(M + 1,) from the errors of interpolating at the centres of each cell's eight."""
    table, statistics = volume.table, volume.statistics
    if not len(fine):
        return torch.zeros(len(table))
    place = fine.coordinates() % 2
    children = torch.full((len(table), 8), -1, dtype=torch.int64)
    children[parents, place[:, 0] * 4 + place[:, 1] * 2 + place[:, 2]] = torch.arange(len(fine))
    corners = torch.stack(torch.unravel_index(indices, volume.shape), dim=-1) * volume.cell_size
    corners += torch.tensor(volume.box.lower)
    worst = torch.zeros(len(table))
    for first in range(0, len(indices), _CHUNK):
        rows = slice(1 + first, 1 + min(first + _CHUNK, len(indices)))
        for eighth, offset in enumerate(itertools.product((0.25, 0.75), repeat=3)):
            found = volume.query(corners[rows.start - 1 : rows.stop - 1] + torch.tensor(offset) * volume.cell_size)
            # An empty one has no row and no features, but what interpolation finds there is an error of density.
            there = children[rows, eighth] >= 0
            child = children[rows, eighth].clamp(min=0)
            density = torch.where(there, fine.density[child], 0)
            wrong_density = (found.density - density).abs() / table[rows, 0].clamp(min=1e-30)
            difference = statistics.normalize(found.features) - statistics.normalize(fine.channels[child])
            wrong_features = torch.where(there & (density > 0), difference.square().mean(1).sqrt(), 0)
            worst[rows] = worst[rows].maximum(wrong_density).maximum(wrong_features)
    return torch.where(table[:, 0] > 0, _HALF_CONFIDENCE / (_HALF_CONFIDENCE + _BEYOND_FINER * worst), 0)
