"""The rows of a 3DGS PLY, mapped and not read: a few looked at, all gone through once, some copied to other files.

For scenes that memory does not hold. Rows are copied as they are, whatever else they hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from kernels.gaussians.covariances import gaussian_covariances
from machine.files import atomic_path
from scene.world_offset import Offset, moved_positions
from settings.errors import InputError
from teacher.gaussian_files.checks import checked_gaussians
from teacher.gaussian_files.ply import rest_names, stored_arrays
from teacher.gaussian_files.ply_elements import read_elements, read_header
from teacher.gaussians import Gaussians

_ROWS = 1 << 16  # looked at together
_NAMES = {"i1": "char", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint"}
_NAMES |= {"f4": "float", "f8": "double"}


class Reach(NamedTuple):
    """How far N Gaussians reach: the box around their ellipsoids, (N, 3) float32 ends on each axis, world units."""

    lower: np.ndarray
    upper: np.ndarray


class PlyRows:
    """The Gaussians of a PLY in graphdeco's layout.

    Args:
        offset: ``data.offset``: see ``moved_positions``.

    Raises:
        InputError: the file is missing, no such PLY, or holds fewer or more rows than it announces.
    """

    def __init__(self, path: str | Path, offset: Offset | None = None) -> None:
        self.path = Path(path)
        try:
            self._header = read_header(path)
            rest_names(path, self._header)
            self._rows = read_elements(path, self._header).get("vertex")
        except OSError as error:
            raise InputError(path, "PLY file", error.strerror or error, "a readable 3DGS point_cloud.ply") from None
        if self._rows is None:
            raise InputError(path, "element vertex", "0 Gaussians", "at least 1", "Did the teacher's training finish?")
        self._offset = offset
        self._shift = self._found_shift()

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, most: int) -> Gaussians:
        """At most so many Gaussians, evenly spread, without their view-dependent colour; checked as ``read_ply``."""
        rows = self._rows[:: -(-len(self) // most)]
        return checked_gaussians(self.path, stored_arrays(self.path, rows, ()), self._offset)

    def parts(self, deviations: float) -> Iterator[tuple[slice, Reach]]:
        """Goes through all Gaussians once: which, and how far they reach.

        Args:
            deviations: standard deviations at which a Gaussian ends.
        """
        for start in range(0, len(self), _ROWS):
            part = slice(start, min(start + _ROWS, len(self)))
            arrays = stored_arrays(self.path, self._rows[part], ())
            means = arrays["means"].astype(np.float64) - self._shift
            shapes = (torch.from_numpy(arrays[name]) for name in ("log_scales", "rotations"))
            deviation = gaussian_covariances(*shapes).diagonal(dim1=1, dim2=2).sqrt().numpy()
            yield part, Reach(*(means + sign * deviations * deviation for sign in (-1, 1)))

    def copy_to(self, paths: Sequence[Path], chosen: Iterable[tuple[slice, np.ndarray]]) -> list[int]:
        """Copies rows to new PLYs with the same properties and comments, all whole or none; returns how many each has.

        Args:
            chosen: some rows, and (rows, paths) bool: the files that each of them goes to.
        """
        counts = [0] * len(paths)
        with ExitStack() as stack:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
            temporary = [stack.enter_context(atomic_path(path)) for path in paths]
            for path in temporary:
                path.write_bytes(self._header_of(0))
            for part, belongs in chosen:
                numbers, files = belongs.nonzero()
                order = files.argsort(kind="stable")  # by file, and in each as they were
                numbers, starts = numbers[order], np.searchsorted(files[order], np.arange(len(paths) + 1))
                for index in np.diff(starts).nonzero()[0]:
                    rows = self._rows[part][numbers[starts[index] : starts[index + 1]]]
                    counts[index] += len(rows)
                    with open(temporary[index], "ab") as file:  # one at a time: there may be more than may be open
                        file.write(rows.tobytes())
            for path, count in zip(temporary, counts, strict=True):
                with open(path, "r+b") as file:
                    file.write(self._header_of(count))
        return counts

    def _header_of(self, count: int) -> bytes:
        """The header of a file of so many rows; as long for any number."""
        order = "big" if self._rows.dtype[0].str[0] == ">" else "little"
        lines = ["ply", f"format binary_{order}_endian 1.0", *(f"comment {text}" for text in self._header.comments)]
        lines.append(f"element vertex {count:012d}")
        lines += [f"property {_NAMES[kind.str[1:]]} {name}" for name, (kind, _) in self._rows.dtype.fields.items()]
        return "\n".join([*lines, "end_header\n"]).encode()

    def _found_shift(self) -> np.ndarray:
        """(3,) float64 what is taken off all positions: the offset, or 0 where it has been taken off already."""
        if self._offset is None:
            return np.zeros(3)
        stored = stored_arrays(self.path, self._rows[:: max(1, len(self) // 1000)], ())["means"]
        finite = stored[np.isfinite(stored).all(axis=1)]
        moved = moved_positions(self.path, "Gaussians", finite, self._offset, least_width=1e-3)
        taken_off = np.abs(finite - moved).max() > 0.5 * np.abs(self._offset).max()
        return np.array(self._offset) if taken_off else np.zeros(3)
