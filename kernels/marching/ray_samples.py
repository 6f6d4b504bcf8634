"""What ray marching takes and gives: the occupied cells of a grid, packed samples, and the room made for these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from kernels.threads import COMPILED, INNER, parallel_for

COARSE = 4  # fine cells per axis of a coarse cell, by which empty space is skipped


@dataclass(frozen=True)
class Cells:
    """Occupancy of a grid of cubic cells.

    Args:
        lower: (3,) world position of the grid's corner.
        size: edge of a cell in world units.
        occupied: (X, Y, Z) uint8, nonzero where samples are wanted.
    """

    lower: tuple[float, float, float]
    size: float
    occupied: Tensor

    def most_bins(self, step: float) -> int:
        """Bins of ``step`` world units that a ray can have in the grid: its diagonal's, and one more at either end."""
        return math.ceil(math.hypot(*self.occupied.shape) * self.size / step) + 2

    @cached_property
    def coarse(self) -> Tensor:
        """(ceil(X/4), ceil(Y/4), ceil(Z/4)) uint8: whether any fine cell of the block is occupied."""
        pad = [amount for extent in reversed(self.occupied.shape) for amount in (0, -extent % COARSE)]
        padded = F.pad(self.occupied, pad)
        x, y, z = (extent // COARSE for extent in padded.shape)
        return padded.view(x, COARSE, y, COARSE, z, COARSE).amax((1, 3, 5)).contiguous()

    @cached_property
    def blocks(self) -> np.ndarray:
        """As large as ``coarse``, on the CPU, uint64: a block's cells, a bit each, see ``cell_bit``.

        The caches hold it where they do not hold a byte for every cell.
        """
        blocks = np.zeros([-(-extent // COARSE) for extent in self.occupied.shape], np.uint64)
        parallel_for(_pack, len(blocks), self.occupied, blocks, grain=4)
        return blocks

    @cached_property
    def empty_blocks(self) -> np.ndarray:
        """Like ``blocks``, uint8: how many blocks away the nearest occupied one is (chessboard metric)."""
        return _blocks_away(self.blocks == 0)

    @cached_property
    def block_distances(self) -> Tensor:
        """``empty_blocks`` where ``occupied`` is; a GPU is waited for."""
        return torch.from_numpy(_blocks_away(self.coarse.cpu().numpy() == 0)).to(self.occupied.device)

    def follow(self) -> None:
        """After a change of ``occupied`` in place, where recorded graphs read it: what follows from it is made anew."""
        for name in ("coarse", "places", "blocks", "empty_blocks", "block_distances"):
            self.__dict__.pop(name, None)

    @cached_property
    def places(self) -> Tensor:
        """(N, 3) int64 indices of the occupied cells."""
        return self.occupied.nonzero()


def _blocks_away(empty: np.ndarray) -> np.ndarray:
    """How many blocks away, at most 255, the nearest that is not empty is, uint8."""
    # A border, so that every block has all its neighbours.
    away = np.pad(np.where(empty, np.uint8(255), np.uint8(0)), 1, constant_values=255)
    _spread_distances(away.reshape(-1), *away.shape)
    return np.ascontiguousarray(away[1:-1, 1:-1, 1:-1])


@njit(**COMPILED, **INNER)
def cell_bit(x, y, z):
    """A cell's bit in its block, from its place in the grid, int32."""
    mask, edge = np.int32(COARSE - 1), np.int32(COARSE)
    layer = np.int32(np.int32(np.int32(x & mask) * edge) + np.int32(y & mask))
    return np.int32(np.int32(layer * edge) + np.int32(z & mask))


@njit(**COMPILED)
def _pack(start, stop, occupied, blocks):
    """Sets the bits of ``blocks[start:stop]``."""
    for x in range(start * COARSE, min(stop * COARSE, occupied.shape[0])):
        for y in range(occupied.shape[1]):
            row, packed = occupied[x, y], blocks[x // COARSE, y // COARSE]
            for z in range(len(row)):
                if row[z]:
                    packed[z // COARSE] |= np.uint64(1) << np.uint64(cell_bit(np.int32(x), np.int32(y), np.int32(z)))


@njit(**COMPILED)
def _spread_distances(away, nx, ny, nz):
    """Two sweeps (Rosenfeld and Pfaltz 1966), there and back, over the neighbours that a sweep has passed; exact in
    the chessboard metric. In place, flat (nx, ny, nz), but for its border: 0 is where distances are counted from, 255
    elsewhere."""
    layer = ny * nz
    for way in (1, -1):
        for i in range(1, nx - 1):
            for j in range(1, ny - 1):
                at = (i * ny + j) * nz if way > 0 else ((nx - 1 - i) * ny + ny - 1 - j) * nz + nz - 1
                for _ in range(nz - 2):
                    at += way
                    if away[at] == 0:
                        continue
                    least = away[at - way]
                    for row in (at - way * nz, at - way * (layer - nz), at - way * layer, at - way * (layer + nz)):
                        least = min(least, away[row - 1], away[row], away[row + 1])
                    if least < away[at] - 1:
                        away[at] = least + 1


class Samples(NamedTuple):
    """Packed samples; those of ray r are ``offsets[r] : offsets[r + 1]``, front to back.

    With a capacity, samples from ``offsets[-1]`` on are padding that belongs to no ray: at the grid's lower corner,
    with t, dt and ray_index 0.
    """

    positions: Tensor  # (N, 3) world; memory is channel-major
    t: Tensor  # (N,) distance along the ray
    dt: Tensor  # (N,) interval length
    ray_index: Tensor  # (N,) int64
    offsets: Tensor  # (R + 1,) int64
    next_bin: Tensor  # (R,) int64 bin to go on from; -1 when the ray has left its interval
    kept: Tensor | None = None  # (R,) bool, rays whose samples fit into the capacity; None without one
    wanted: Tensor | None = None  # () int64, samples of all rays, those that did not fit among them; None likewise


def fit(counts: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets of the samples that fit, the rays they belong to, and how many samples all rays have."""
    ends = counts.cumsum(0)
    kept = (ends <= capacity) | (counts == 0)
    return F.pad((counts * kept).cumsum(0), (1, 0)), kept, ends[-1:].sum()


def padding(capacity: int, cells: Cells, step: float, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions (3, N), t, dt and ray index, to be filled up to ``offsets[-1]``; dt is whole already."""
    device = offsets.device
    positions = torch.empty(3, capacity, device=device)
    for axis, corner in zip(positions, cells.lower, strict=True):
        axis.fill_(corner)
    dt = (torch.arange(capacity, device=device) < offsets[-1]) * step
    return positions, torch.zeros(capacity, device=device), dt, torch.zeros_like(dt, dtype=torch.int64)


def room_for(counts: Tensor, next_bin: Tensor, cells: Cells, step: float, capacity: int | None) -> Samples:
    """Samples whose positions, t and ray index are still to be filled in, up to ``offsets[-1]``.

    Args:
        counts: (R,) int64 samples of each ray.
        capacity: as for ``march``.
    """
    if capacity is not None:
        offsets, kept, wanted = fit(counts, capacity)
        positions, t, dt, ray_index = padding(capacity, cells, step, offsets)
        return Samples(positions.t(), t, dt, ray_index, offsets, next_bin, kept, wanted)
    offsets = F.pad(counts.cumsum(0), (1, 0))
    t = torch.empty(int(offsets[-1]), device=counts.device)
    positions, ray_index = t.new_empty(3, len(t)), torch.empty_like(t, dtype=torch.int64)
    return Samples(positions.t(), t, torch.full_like(t, step), ray_index, offsets, next_bin)
