"""graphdeco's 3DGS point clouds, ``.ply``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from plyfile import PlyData, PlyElement, PlyParseError

from machine.files import atomic_path, output_errors
from settings.errors import InputError
from teacher.gaussians import Gaussians

FITTED_WIDTH = "fitted_width"
"""The comment in the header before the width of the pictures that the Gaussians were fitted to, pixels."""

_MEANS = ("x", "y", "z")
_NORMALS = ("nx", "ny", "nz")
_DC = tuple(f"f_dc_{c}" for c in range(3))
_OPACITY = ("opacity",)
_SCALES = tuple(f"scale_{i}" for i in range(3))
_ROTATIONS = tuple(f"rot_{i}" for i in range(4))
_REQUIRED = (*_MEANS, *_DC, *_OPACITY, *_SCALES, *_ROTATIONS)
_REST_COUNTS = (0, 9, 24, 45)
_LAYOUT_HINT = "A plain point cloud is not a 3DGS checkpoint: look in its point_cloud/iteration_*/ folder."


def read_ply(path: str | Path) -> Gaussians:
    """Reads a 3DGS point cloud in graphdeco's layout.

    Binary or ascii, properties in any order and of any scalar type; properties the layout does not have are
    ignored. ``f_rest_*`` is channel-major: all coefficients of red, then of green, then of blue.

    Raises:
        InputError: the file is missing, truncated or not a PLY; a property is missing; the number of ``f_rest_*``
            is not that of a degree 0 to 3; there are no Gaussians; a value is not finite; a rotation is zero.
    """
    vertices = _read_vertices(path)
    names = set(vertices.dtype.names or ())
    found_rest = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in names)
    if missing := [name for name in _REQUIRED if name not in names]:
        raise InputError(path, "properties", f"no {', '.join(missing)}", "graphdeco's 3DGS layout", _LAYOUT_HINT)
    if found_rest not in _REST_COUNTS:
        expected = "0, 9, 24 or 45 (spherical harmonics of degree 0, 1, 2 or 3)"
        raise InputError(path, "f_rest_* properties", found_rest, expected)
    rest = tuple(f"f_rest_{i}" for i in range(found_rest))
    if missing := [name for name in rest if name not in names]:
        raise InputError(path, "properties", f"no {', '.join(missing)}", f"f_rest_0 to f_rest_{found_rest - 1}")
    if len(vertices) == 0:
        raise InputError(path, "element vertex", "0 Gaussians", "at least 1", "Did the teacher's training finish?")

    def columns(properties: tuple[str, ...]) -> np.ndarray:
        return np.stack([_finite_column(path, vertices, name) for name in properties], axis=1)

    rotations = columns(_ROTATIONS)
    if (zero := np.flatnonzero(np.linalg.norm(rotations, axis=1) < 1e-12)).size:
        found = f"{zero.size} of length zero, the first at Gaussian {zero[0]}"
        raise InputError(path, "quaternions rot_0..rot_3", found, "non-zero quaternions")
    sh = columns(_DC)[:, None, :]
    if rest:
        sh = np.concatenate([sh, columns(rest).reshape(len(vertices), 3, -1).transpose(0, 2, 1)], axis=1)
    arrays = columns(_MEANS), columns(_SCALES), rotations, columns(_OPACITY)[:, 0], np.ascontiguousarray(sh)
    return Gaussians(*(torch.from_numpy(array) for array in arrays))


def write_ply(path: str | Path, gaussians: Gaussians, fitted_width: int | None = None) -> None:
    """Writes graphdeco's binary little-endian layout, float32, normals zero; reads back equal bit for bit.

    The file appears under its name only when complete.

    Args:
        fitted_width: of the pictures that the Gaussians were fitted to, pixels; a comment of the header holds it.

    Raises:
        InputError: the folder is missing or cannot be written.
    """
    count = len(gaussians)
    rest = gaussians.sh[:, 1:].transpose(1, 2).reshape(count, -1)
    groups = (
        (_MEANS, gaussians.means),
        (_NORMALS, torch.zeros(count, 3)),
        (_DC, gaussians.sh[:, 0]),
        (tuple(f"f_rest_{i}" for i in range(rest.shape[1])), rest),
        (_OPACITY, gaussians.opacity_logits[:, None]),
        (_SCALES, gaussians.log_scales),
        (_ROTATIONS, gaussians.rotations),
    )
    table = torch.cat([values.detach().cpu().float() for _, values in groups], dim=1).contiguous().numpy()
    names = [name for properties, _ in groups for name in properties]
    vertices = table.view(np.dtype([(name, "<f4") for name in names]))[:, 0]
    with output_errors(path), atomic_path(path) as temporary:
        comments = [] if fitted_width is None else [f"{FITTED_WIDTH} {fitted_width}"]
        PlyData([PlyElement.describe(vertices, "vertex")], byte_order="<", comments=comments).write(str(temporary))


def _read_vertices(path: str | Path) -> np.ndarray:
    """The structured array of element ``vertex``; a binary file is mapped, not read."""
    try:
        with open(path, "rb") as file:
            if (magic := file.read(4)) not in (b"ply\n", b"ply\r"):
                raise InputError(path, "first bytes", magic, "b'ply\\n'", "This is not a PLY file.")
        return PlyData.read(str(path))["vertex"].data
    except FileNotFoundError:
        raise InputError(path, "PLY file", "no such file", "a 3DGS point_cloud.ply", "Check the path.") from None
    except OSError as error:
        raise InputError(path, "PLY file", error.strerror or error, "a readable 3DGS point_cloud.ply") from None
    except KeyError:
        raise InputError(path, "elements", "no element vertex", "graphdeco's 3DGS layout", _LAYOUT_HINT) from None
    except (PlyParseError, ValueError, TypeError, OverflowError, MemoryError) as error:
        hint = "The file is truncated or was altered: copy it again."
        raise InputError(path, "PLY file", error, "a complete PLY file", hint) from None


def _finite_column(path: str | Path, vertices: np.ndarray, name: str) -> np.ndarray:
    """(N,) float32 values of a property, refused unless all are finite."""
    if vertices.dtype[name].hasobject:
        raise InputError(path, f"property {name}", "a list", "a scalar")
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite and is refused below
        values = vertices[name].astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        found = f"{bad.size} of {len(values)} values NaN or infinite, the first at Gaussian {bad[0]}"
        raise InputError(path, f"property {name}", found, "finite float32 values", "Use an earlier checkpoint.")
    return values
