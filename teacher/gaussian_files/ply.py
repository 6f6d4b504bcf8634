"""graphdeco's 3DGS point clouds, ``.ply``, and what others add to them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from machine.file_kinds import file_kind
from machine.files import atomic_path, output_errors
from scene.world_offset import Offset
from settings.errors import InputError
from teacher.gaussian_files.checks import FIELDS, FITTED_WIDTH, checked_gaussians, warn_of_antialiasing
from teacher.gaussian_files.compressed_ply import is_compressed, unpacked
from teacher.gaussian_files.ply_elements import Header, read_elements, read_header
from teacher.gaussian_files.ply_layouts import refuse_other_layouts
from teacher.gaussians import Gaussians

_log = logging.getLogger(__name__)
_MEANS = ("x", "y", "z")
_NORMALS = ("nx", "ny", "nz")
_DC = tuple(f"f_dc_{c}" for c in range(3))
_OPACITY = "opacity"
_SCALES = tuple(f"scale_{i}" for i in range(3))
_ROTATIONS = tuple(f"rot_{i}" for i in range(4))
_REQUIRED = (*_MEANS, *_DC, _OPACITY, *_SCALES, *_ROTATIONS)
_REST_COUNTS = (0, 9, 24, 45)
_FILTER = "filter_3D"
_ROWS = 1 << 14  # taken together: what is beside each other in the file is fetched once
_COUNT_DIGITS = 20
_HEADER_BYTES = 1 << 16
_LAYOUT = "graphdeco's 3DGS layout"
# As Brush, Postshot and others write it; "antialiased 0" says the opposite.
_ANTIALIASED = re.compile(
    r"splatrendermode:\s*mip|mip.?splatting|anti-?alias(ed|ing)?\b(?!\W*(0|false|no|off)\b)", re.IGNORECASE
)


def read_ply(path: str | Path, offset: Offset | None = None) -> Gaussians:
    """Reads a 3DGS point cloud in graphdeco's layout, or one that SuperSplat compressed.

    Binary or ascii, properties in any order and of any scalar type; properties the layout does not have are
    ignored. ``f_rest_*`` is channel-major: all coefficients of red, then of green, then of blue. ``filter_3D``
    (Mip-Splatting) is applied to scales and opacities.

    Args:
        offset: ``data.offset``: see ``moved_positions``.

    Raises:
        InputError: the file is missing, not a PLY, or holds fewer or more rows than it announces; it is another layout;
            a property is missing; the number of ``f_rest_*`` is not that of a degree 0 to 3; and see
            ``checked_gaussians``.
    """
    try:
        header = read_header(path)
        refuse_other_layouts(path, header, _LAYOUT)
        rest = () if is_compressed(header) else rest_names(path, header)
        elements = read_elements(path, header)
        _refuse_lists(path, header, elements)
    except FileNotFoundError:
        raise InputError(path, "PLY file", "no such file", "a 3DGS point_cloud.ply", "Check the path.") from None
    except OSError as error:
        raise InputError(path, "PLY file", error.strerror or error, "a readable 3DGS point_cloud.ply") from None
    if any(_ANTIALIASED.search(comment) for comment in header.comments):
        warn_of_antialiasing(path, "its header says so")
    if is_compressed(header):
        return checked_gaussians(path, unpacked(path, elements), offset)
    return checked_gaussians(path, stored_arrays(path, elements.get("vertex"), rest), offset)


def _refuse_lists(path: str | Path, header: Header, elements: Mapping[str, np.ndarray]) -> None:
    """InputError where rows cannot be found because something before or in them is a list."""
    unread = [name for name, element in header.elements.items() if element.count and name not in elements]
    if "vertex" in unread:
        first = header.elements[unread[0]]
        found = f"a list, property {first.lists[0]} of element {first.name}: where rows of vertex are, nothing says"
        hint = "Write the file without lists, or with element vertex before what has them."
        raise InputError(path, "PLY header", found, "Gaussians of scalar properties", hint)


def is_plain_ply(path: str | Path) -> bool:
    """Whether a file is a PLY whose rows hold each Gaussian's values as they are, none of them compressed.

    Raises:
        InputError: it begins as a PLY and has no header of one.
        OSError: it cannot be read.
    """
    kind = file_kind(path)
    return kind is not None and kind.key == "ply" and not is_compressed(read_header(path))


def write_ply(path: str | Path, gaussians: Gaussians, fitted_width: int | None = None) -> None:
    """Writes graphdeco's binary little-endian layout, float32, normals zero; reads back equal bit for bit.

    The file appears under its name only when complete.

    Args:
        fitted_width: of the pictures that the Gaussians were fitted to, pixels; a comment of the header holds it.

    Raises:
        InputError: the folder is missing or cannot be written.
    """
    count, comments = len(gaussians), [] if fitted_width is None else [f"{FITTED_WIDTH} {fitted_width}"]
    with output_errors(path), atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(_header(_vertices(gaussians[:0]).dtype.names, count, comments))
        for start in range(0, count, _ROWS):
            file.write(_vertices(gaussians[start : start + _ROWS]).tobytes())


def fitted_width_of_ply(path: str | Path) -> int | None:
    """What ``write_ply`` wrote; None where the header of a PLY does not say."""
    with open(path, "rb") as file:
        header = file.read(_HEADER_BYTES).partition(b"end_header")[0]
    comment = re.search(rf"^comment {FITTED_WIDTH} (\d+)\s*$".encode(), header, re.MULTILINE)
    return int(comment[1]) if comment else None


def write_ply_parts(path: str | Path, parts: Iterable[Gaussians]) -> int:
    """As ``write_ply``, of Gaussians that come part by part, of which one at a time is in memory; returns their number.

    Args:
        parts: at least one, all of one SH degree.

    Raises:
        InputError: the folder is missing or cannot be written.
    """
    count, names = 0, ()
    with output_errors(path), atomic_path(path) as temporary, open(temporary, "wb") as file:
        for part in parts:
            vertices = _vertices(part)
            if not names:
                names = vertices.dtype.names
                file.write(_header(names, 0, [_filled(0)]))
            file.write(vertices.tobytes())
            count += len(part)
        file.seek(0)
        file.write(_header(names, count, [_filled(count)]))
    return count


def _vertices(gaussians: Gaussians) -> np.ndarray:
    """(N,) rows of graphdeco's layout."""
    count = len(gaussians)
    rest = gaussians.sh[:, 1:].transpose(1, 2).flatten(1)
    groups = (
        (_MEANS, gaussians.means),
        (_NORMALS, torch.zeros(count, 3)),
        (_DC, gaussians.sh[:, 0]),
        (tuple(f"f_rest_{i}" for i in range(rest.shape[1])), rest),
        ((_OPACITY,), gaussians.opacity_logits[:, None]),
        (_SCALES, gaussians.log_scales),
        (_ROTATIONS, gaussians.rotations),
    )
    table = torch.cat([values.detach().cpu().float() for _, values in groups], dim=1).contiguous().numpy()
    names = [name for properties, _ in groups for name in properties]
    return table.view(np.dtype([(name, "<f4") for name in names]))[:, 0]


def _filled(count: int) -> str:
    """A comment with which the header is as long whatever the count is: it is written over once that is known."""
    return "." * (_COUNT_DIGITS - len(str(count)))


def _header(names: Sequence[str], count: int, comments: Sequence[str]) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {text}" for text in comments)]
    lines.append(f"element vertex {count}")
    return "\n".join([*lines, *(f"property float {name}" for name in names), "end_header\n"]).encode()


def rest_names(path: str | Path, header: Header) -> tuple[str, ...]:
    """The properties of the higher harmonics; InputError where the header lacks a property of the layout."""
    vertex = header.elements.get("vertex")
    if vertex is None:
        raise InputError(path, "elements", "no element vertex", _LAYOUT)
    if lists := [name for name in _REQUIRED if name in vertex.lists]:
        raise InputError(path, f"property {lists[0]}", "a list", "a scalar")
    if missing := [name for name in _REQUIRED if name not in vertex.types]:
        raise InputError(path, "properties", f"no {', '.join(missing)}", _LAYOUT)
    count = sum(re.fullmatch(r"f_rest_\d+", name) is not None for name in vertex.types)
    if count not in _REST_COUNTS:
        expected = "0, 9, 24 or 45 (spherical harmonics of degree 0, 1, 2 or 3)"
        hint = "Degree 4 is not supported: train or export with a degree of at most 3." if count == 72 else ""
        raise InputError(path, "f_rest_* properties", count, expected, hint)
    rest = tuple(f"f_rest_{i}" for i in range(count))
    if missing := [name for name in rest if name not in vertex.types]:
        raise InputError(path, "properties", f"no {', '.join(missing)}", f"f_rest_0 to f_rest_{count - 1}")
    return rest


def stored_arrays(path: str | Path, vertices: np.ndarray | None, rest: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of ``Gaussians`` as the file's values have them; means in the file's precision.

    Raises:
        InputError: there are no Gaussians.
    """
    if vertices is None:
        raise InputError(path, "element vertex", "0 Gaussians", "at least 1", "Did the teacher's training finish?")

    count, higher = len(vertices), len(rest) // 3
    precision = np.result_type(*(vertices.dtype[name] for name in _MEANS)).newbyteorder("=")
    shapes = {"means": (3,), "log_scales": (3,), "rotations": (4,), "opacity_logits": (), "sh": (1 + higher, 3)}
    stored = {name: np.empty((count, *shapes[name]), precision if name == "means" else np.float32) for name in FIELDS}
    groups = (_MEANS, "means"), (_SCALES, "log_scales"), (_ROTATIONS, "rotations")
    columns = {name: stored[field][:, i] for names, field in groups for i, name in enumerate(names)}
    columns |= {name: stored["sh"][:, 0, i] for i, name in enumerate(_DC)}
    columns |= {name: stored["sh"][:, 1 + i % higher, i // higher] for i, name in enumerate(rest)}
    columns[_OPACITY] = stored["opacity_logits"]
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinite, which is checked
        for start in range(0, count, _ROWS):
            part = slice(start, start + _ROWS)
            for name, column in columns.items():
                column[part] = vertices[part][name]
    if _FILTER in vertices.dtype.names:
        _apply_filter(path, stored, vertices[_FILTER].astype(np.float64))
    return stored


def _apply_filter(path: str | Path, arrays: dict[str, np.ndarray], width: np.ndarray) -> None:
    """Widens Gaussians by the 3D smoothing filter they were trained with (Yu et al. 2024, equation 8).

    Args:
        width: (N,) standard deviation of each Gaussian's filter, world units.
    """
    logarithms, squares = arrays["log_scales"].astype(np.float64), width[:, None] ** 2
    with np.errstate(all="ignore"):  # what is not finite then is checked
        wider = 0.5 * np.log(np.exp(2 * logarithms) + squares)
        loss = np.exp((logarithms - wider).sum(axis=1))
        opacities = loss / (1 + np.exp(-arrays["opacity_logits"].astype(np.float64)))
        arrays["opacity_logits"] = (np.log(opacities) - np.log1p(-opacities)).astype(np.float32)
    arrays["log_scales"] = wider.astype(np.float32)
    _log.info("%s: its 3D filter is applied: %.3g units in the median", path, np.median(width))
    warn_of_antialiasing(path, "it has a 3D filter, as Mip-Splatting's")
