"""A student's parameters as rows of integers: which are stored, which belong together, what predicts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kernels.encoding.hash_layout import HashLayout
from kernels.encoding.reached_entries import reached_entries
from scene.rays import SceneBox
from students.base import Student
from students.hash_grid import HashGridStudent
from students.kilo_uniform import KiloUniformStudent

EIGHTHS = (1.0, 1.0905077, 1.1892071, 1.2968396, 1.4142135, 1.5422108, 1.6817929, 1.8340081)
"""2**(k / 8) to float32's last digits, written down: powers differ from machine to machine."""
LARGEST_EXPONENT = 8 * 100
CENTRE_STEP = 2.0**-6
"""Of the integers of a centre; what it is rounded by, the differences from it make up for."""
_EXACT = 2.0**53
_LARGEST_WEIGHT = 2.0**127
# How far beyond a cell's face a sample that belongs to it may lie by rounding, in cells.
_MARGIN = 1e-3


@dataclass(frozen=True)
class Block:
    """Rows ``first .. last - 1`` with statistics of their own; ``strides`` as in ``kernels.coding.row_coding``."""

    first: int
    last: int
    strides: tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """How a parameter is stored.

    Attributes:
        name: the parameter's, in the student's state.
        stored: (rows,) bool; other rows are 0, or the centre.
        blocks: that make up the rows; none where there are ``matrices``.
        groups: (rows,) int64, rows of one number, neighbours all, have their steps in common.
        classes: (columns,) int64, columns of one number likewise, and their statistics.
        matrices: that a row consists of, rows and columns of each, where integers are coordinates of differences from
            a row that is stored too, see ``network_transforms``; each matrix is one class.
        along: with ``matrices``, how many rows back a row's neighbours are.
    """

    name: str
    stored: np.ndarray
    blocks: tuple[Block, ...]
    groups: np.ndarray
    classes: np.ndarray
    matrices: tuple[tuple[int, int], ...] = ()
    along: tuple[int, int, int] = (1, 1, 1)

    @property
    def strides(self) -> np.ndarray:
        """(3,) int64 ``along``, for the kernels."""
        return np.array(self.along, dtype=np.int64)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return len(self.stored), len(self.classes)

    @cached_property
    def firsts(self) -> np.ndarray:
        """(groups,) int64 the first row of each group."""
        return np.flatnonzero(np.diff(self.groups, prepend=-1))

    @cached_property
    def counts(self) -> np.ndarray:
        """(groups,) float64 how many rows of each group are stored."""
        return np.bincount(self.groups, self.stored, int(self.groups.max()) + 1)

    @cached_property
    def exponents_shape(self) -> tuple[int, int]:
        """Groups, classes."""
        return int(self.groups.max()) + 1, int(self.classes.max()) + 1

    @cached_property
    def integers(self) -> int:
        """How many are stored."""
        return int(self.stored.sum()) * len(self.classes)

    @property
    def common_integers(self) -> int:
        """How many rows have in common: the centre and the maps."""
        return sum(rows * columns + rows**2 + columns**2 for rows, columns in self.matrices)

    def spread(self, per_group: np.ndarray) -> np.ndarray:
        """Values of groups and classes as those of all rows and columns."""
        return np.take(per_group[:, self.classes], self.groups, axis=0)


@dataclass(frozen=True)
class Integers:
    """A part's content: values (rows, columns) int32, exponents (groups, classes) int32.

    A step, the difference between neighbouring integers, is 2**(exponent / 8). Where the part has ``matrices``, there
    are a centre (columns,) int32, in steps of ``CENTRE_STEP``, and the maps from values to differences from it, left
    and right of each matrix, int32.
    """

    values: np.ndarray
    exponents: np.ndarray
    centre: np.ndarray | None = None
    maps: tuple[np.ndarray, ...] = ()

    def weights(self, part: Part) -> np.ndarray:
        """(rows, columns) float32, the same on any machine.

        Raises:
            ValueError: sums of integers' products are so large that they could be rounded, or beyond float32's range.
        """
        steps = part.spread(steps_of(self.exponents))
        if self.centre is None:
            return self.values.astype(np.float32) * steps
        found, start = np.empty(part.shape), 0
        for (rows, columns), left, right in zip(part.matrices, self.maps[::2], self.maps[1::2], strict=True):
            place = slice(start, start + rows * columns)
            values = self.values[:, place].reshape(-1, rows, columns).astype(np.float64)
            most = (np.abs(left).sum(1).max() * float(np.abs(values).max(initial=0))) * np.abs(right).sum(1).max()
            if most >= _EXACT or most * steps.max() > _LARGEST_WEIGHT:
                raise ValueError(f"{part.name}: integers of which sums of products are up to {most:.0f}")
            # Whole numbers that float64 holds exactly, whatever the order of the sums.
            found[:, place] = (left.astype(np.float64) @ (values @ right.T.astype(np.float64))).reshape(len(found), -1)
            start = place.stop
        return (found * steps).astype(np.float32) + self.centre.astype(np.float32) * np.float32(CENTRE_STEP)


def steps_of(exponents: np.ndarray) -> np.ndarray:
    """float32 steps, of exponents of any shape."""
    return np.ldexp(np.array(EIGHTHS, dtype=np.float32)[exponents % 8], exponents // 8)


def scales_of(student: Student) -> list[float]:
    """What both sides must agree on to the last bit and a formula does not give: see ``reached_entries``."""
    return student.layout.scales.tolist() if isinstance(student, HashGridStudent) else []


def parts_of(
    student: Student, box: SceneBox, cells: np.ndarray, resolution: int, scales: Sequence[float]
) -> list[Part]:
    """The parts of a student, of which only its parameters' shapes are looked at: one for each parameter, in order.

    Args:
        box: the scene box.
        cells: (X, Y, Z) uint8, nonzero where samples may be.
        resolution: cells along the box's longest side.
        scales: ``scales_of`` where the file was written.
    """
    described: dict[str, Callable[[str], Part]] = {}
    if isinstance(student, HashGridStudent):
        reached = reached_entries(cells, resolution, student.layout, np.array(scales, dtype=np.float32))
        described["table"] = lambda name: _table(name, student.layout, reached)
    elif isinstance(student, KiloUniformStudent):
        sampled = _sampled_networks(student, box, cells, resolution)
        described["density_networks"] = lambda name: _networks(name, student, sampled, student.layout.density_dims)
        if not student.deferred:
            described["color_networks"] = lambda name: _networks(name, student, sampled, student.layout.color_dims)
    parameters = student.named_parameters()
    return [described.get(name, lambda name, p=p: _matrix(name, *p.shape))(name) for name, p in parameters]


def _table(name: str, layout: HashLayout, reached: np.ndarray) -> Part:
    blocks = []
    for level, resolution in enumerate(layout.resolutions.tolist()):
        # The next entry of a hashed level is, in most pairs, that of the next vertex along x.
        along_z = resolution**2 if layout.normals[level] < 0 else 0
        strides = (1, 2, 0) if layout.hashed[level] else (1, resolution, along_z)
        blocks.append(Block(int(layout.offsets[level]), int(layout.offsets[level + 1]), strides))
    levels = np.repeat(np.arange(layout.count), np.diff(layout.offsets))
    return Part(name, reached, tuple(blocks), levels, np.arange(layout.features))


def _networks(name: str, student: KiloUniformStudent, sampled: np.ndarray, dims: np.ndarray) -> Part:
    """A row is a cell's network; its columns are of one class with those of the same matrix."""
    matrices = tuple(map(tuple, dims.tolist()))
    classes = np.repeat(np.arange(len(matrices)), dims.prod(axis=1))
    _, along_y, along_z = student.grid
    along = 1, along_z, along_y * along_z
    return Part(name, sampled, (), np.arange(len(sampled)), classes, matrices, along)


def _matrix(name: str, rows: int, columns: int) -> Part:
    zeros = np.zeros(max(rows, columns), dtype=np.int64)
    return Part(name, np.ones(rows, dtype=np.bool_), (Block(0, rows, (1, 0, 0)),), zeros[:rows], zeros[:columns])


def _sampled_networks(student: KiloUniformStudent, box: SceneBox, cells: np.ndarray, resolution: int) -> np.ndarray:
    """(networks,) bool, z fastest: which have an occupied cell in them."""
    extent = np.array(box.extent)
    sampled = cells != 0
    for axis, count in enumerate(student.grid):
        edges = np.arange(cells.shape[axis] + 1) * (extent.max() / resolution) * (count / extent[axis])
        first = np.clip(np.floor(edges[:-1] - _MARGIN), 0, count - 1)
        last = np.clip(np.floor(edges[1:] + _MARGIN), 0, count - 1)
        network = np.arange(count)
        overlaps = (first[:, None] <= network) & (network <= last[:, None])  # (cells, networks) along this axis
        counts = np.tensordot(sampled.astype(np.float32), overlaps.astype(np.float32), axes=(axis, 0))
        sampled = np.moveaxis(counts > 0, -1, axis)
    return sampled.reshape(-1)
