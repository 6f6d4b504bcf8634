"""A dataset's sparse points: COLMAP's, or a PLY's, which may hold Gaussians in their place."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from scene.formats.colmap_model import SparsePoints, read_points
from scene.frames import Frames
from scene.rays import SceneBox
from scene.world_offset import Offset, moved_positions
from settings.errors import InputError
from teacher.gaussian_files.ply import read_ply
from teacher.gaussian_files.ply_elements import Header, read_elements, read_header
from teacher.gaussians import Gaussians, colors_of_sh

_log = logging.getLogger(__name__)

_FEWEST = 16  # points that a scene can be told from
_CENTRAL = (0.05, 0.95)  # quantiles of the positions between which the scene is
_LEAST_SIDE = 1e-3  # of the box's widest, for points in a plane
_COLORS = ("red", "green", "blue")


def read_sparse_points(frames: Frames, offset: Offset | None) -> SparsePoints | Gaussians | None:
    """The sparse points of a dataset, positions float32 in the cameras' world; of a PLY of Gaussians these themselves.

    Gaussians of another world than the cameras' are given as points: their harmonics would have to turn.

    Args:
        offset: ``data.offset``: see ``moved_positions``.

    Returns:
        None where the dataset has none, or too few to tell a scene from, which is said.

    Raises:
        InputError: the file is damaged, or neither points nor Gaussians.
    """
    path, world = frames.points, frames.points_world
    if path is None:
        return None
    found = _read(path, offset if world is None else None)
    if isinstance(found, Gaussians):
        if world is None:
            return found
        _log.info("%s: Gaussians of another world than the cameras': their places and colours are taken.", path)
        found = SparsePoints(found.means.double().numpy(), colors_of_sh(found.sh).numpy())
    if len(found.positions) < _FEWEST:
        _log.warning("%s: %d points, which are too few to tell where the scene is.", path, len(found.positions))
        return None
    positions = found.positions
    if world is not None:
        positions = positions @ world.numpy()[:3, :3].T + world.numpy()[:3, 3]
    return SparsePoints(moved_positions(path, "points", positions, offset, least_width=1.0), found.colors)


def box_of_points(points: SparsePoints | Gaussians) -> SceneBox:
    """The box of most of the points: others may be far behind the scene, or mistakes."""
    positions = points.means.numpy() if isinstance(points, Gaussians) else points.positions
    lower, upper = np.quantile(positions.astype(np.float64), _CENTRAL, axis=0)
    least = _LEAST_SIDE * ((upper - lower).max() or 1.0)
    return SceneBox(tuple(lower.tolist()), tuple(np.maximum(upper, lower + least).tolist()))


def _read(path: Path, offset: Offset | None) -> SparsePoints | Gaussians:
    if path.suffix.lower() != ".ply":
        return read_points(path)
    try:
        header = read_header(path)
    except OSError as error:
        raise InputError(path, "PLY file", error.strerror or error, "a readable point cloud") from None
    vertex = header.elements.get("vertex")
    if vertex is None or {"scale_0", "packed_position"} & vertex.types.keys():
        return read_ply(path, offset)
    return _read_cloud(path, header)


def _read_cloud(path: Path, header: Header) -> SparsePoints:
    """The points of a PLY; grey where it has no colours."""
    types, rows = header.elements["vertex"].types, read_elements(path, header).get("vertex")
    if missing := [axis for axis in "xyz" if axis not in types]:
        raise InputError(path, "properties", f"no {', '.join(missing)}", "points: x, y, z, and red, green, blue")
    if rows is None:
        return SparsePoints(np.empty((0, 3)), np.empty((0, 3), np.uint8))
    positions = np.stack([rows[axis].astype(np.float64) for axis in "xyz"], axis=1)
    if not np.isfinite(positions).all():
        raise InputError(path, "points", "a position that is not finite", "finite numbers")
    if not types.keys() >= set(_COLORS):
        return SparsePoints(positions, np.full((len(rows), 3), 128, np.uint8))
    colors = np.stack([rows[name].astype(np.float64) for name in _COLORS], axis=1)
    most = {"u1": 255, "u2": 65535}.get(types["red"], 1)  # numbers with a point are in [0, 1]
    return SparsePoints(positions, np.rint((colors / most).clip(0, 1) * 255).astype(np.uint8))
