"""SuperSplat's compressed PLY: chunks of 256 Gaussians, each Gaussian packed into four 32-bit words.

An element ``chunk`` holds the least and the greatest position, log-scale and colour of its Gaussians. The words of the
element ``vertex`` lie between: 11-10-11 bits of a position, as many of log-scales, 8 of each colour and of the opacity,
and of a rotation the three smallest of w, x, y, z in 10 bits each and 2 bits that say which is the largest. An element
``sh``, where there is one, holds 8 bits of each higher coefficient, channel-major.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from settings.errors import InputError
from teacher.gaussian_files.ply_elements import Header
from teacher.gaussians import sh_of_colors

_CHUNK = 256
_TOGETHER = 64 * _CHUNK  # Gaussians unpacked at a time: what is in between takes three times the result
_LEAST_OPACITY = 1e-6  # stands for 0, and its complement for 1: their logits are infinite
_VECTOR_BITS = ((21, 11), (11, 10), (0, 11))
_ROTATION_BITS = ((20, 10), (10, 10), (0, 10))
_COLOR_BITS = ((24, 8), (16, 8), (8, 8))
_COLORS = tuple(f"{end}_{name}" for end in ("min", "max") for name in "rgb")
_BOUNDS = tuple(f"{end}_{scale}{axis}" for scale in ("", "scale_") for end in ("min", "max") for axis in "xyz")
# The middle of a byte's step of 1/32, but for the ends, which are the ends of the range.
_HARMONICS = np.array([-4.0, *((np.arange(1, 255) + 0.5) / 32 - 4), 4.0], np.float32)
_PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")


def is_compressed(header: Header) -> bool:
    """Whether the header is that of a compressed PLY."""
    vertex = header.elements.get("vertex")
    return "chunk" in header.elements and vertex is not None and "packed_position" in vertex.types


def unpacked(path: str | Path, elements: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of ``Gaussians`` from the elements.

    Raises:
        InputError: there are no Gaussians; chunks or properties are missing.
    """
    chunks, vertices = elements.get("chunk"), elements.get("vertex")
    count, chunk_count = (0 if rows is None else len(rows) for rows in (vertices, chunks))
    if count == 0 or chunk_count != -(-count // _CHUNK):
        expected = f"one chunk for every {_CHUNK} Gaussians, at least one"
        raise InputError(path, "compressed PLY", f"{chunk_count} chunks for {count} Gaussians", expected)
    for rows, names in ((chunks, _BOUNDS), (vertices, _PACKED)):
        if missing := [name for name in names if name not in rows.dtype.names]:
            raise InputError(path, "properties", f"no {', '.join(missing)}", "SuperSplat's compressed layout")
    if (rest := elements.get("sh")) is not None:
        names = _rest_names(rest)
        if len(rest) != count or len(names) not in (9, 24, 45) or not _has(rest, names):
            found = f"{len(rest)} rows of {', '.join(rest.dtype.names[:3])}, ..."
            raise InputError(path, "element sh", found, f"{count} rows of 9, 24 or 45 f_rest_*")
    arrays: dict[str, np.ndarray] = {}
    for start in range(0, count, _TOGETHER):
        part = slice(start, min(start + _TOGETHER, count))
        of_part = chunks[start // _CHUNK : -(-part.stop // _CHUNK)]
        for name, values in _part(of_part, vertices[part], None if rest is None else rest[part]).items():
            if name not in arrays:
                arrays[name] = np.empty((count, *values.shape[1:]), np.float32)
            arrays[name][part] = values
    return arrays


def _part(chunks: np.ndarray, vertices: np.ndarray, rest: np.ndarray | None) -> dict[str, np.ndarray]:
    """The arrays of the Gaussians of some chunks."""
    position, rotation, scale, color = (vertices[name].astype(np.uint32) for name in _PACKED)
    of_chunk = np.arange(len(vertices)) // _CHUNK

    def between(words: np.ndarray, bits: tuple[tuple[int, int], ...], names: tuple[str, ...]) -> np.ndarray:
        bounds = np.stack([chunks[name].astype(np.float32) for name in names], axis=1)[of_chunk]
        shares = _shares(words, bits)
        return bounds[:, :3] * (1 - shares) + bounds[:, 3:] * shares

    colors = between(color, _COLOR_BITS, _COLORS) if _has(chunks, _COLORS) else _shares(color, _COLOR_BITS)
    sh = sh_of_colors(colors)
    if rest is not None:
        values = _HARMONICS[np.stack([rest[name].astype(np.uint8) for name in _rest_names(rest)], axis=1)]
        sh = np.concatenate([sh, values.reshape(len(values), 3, -1).transpose(0, 2, 1)], axis=1)
    return {
        "means": between(position, _VECTOR_BITS, _BOUNDS[:6]),
        "log_scales": between(scale, _VECTOR_BITS, _BOUNDS[6:]),
        "rotations": _rotations(rotation),
        "opacity_logits": logits_of_opacities((color & 255) / 255),
        "sh": sh,
    }


def _rest_names(rest: np.ndarray) -> list[str]:
    """The properties of the higher harmonics, as many as there are."""
    return [f"f_rest_{i}" for i in range(len(rest.dtype.names))]


def logits_of_opacities(opacities: np.ndarray) -> np.ndarray:
    """(N,) logits of opacities that a file rounds; 0 and 1 stand for what is near them."""
    opacities = opacities.clip(_LEAST_OPACITY, 1 - _LEAST_OPACITY)
    return np.log(opacities / (1 - opacities))


def _has(rows: np.ndarray, names: tuple[str, ...] | list[str]) -> bool:
    return set(names) <= set(rows.dtype.names)


def _shares(words: np.ndarray, bits: tuple[tuple[int, int], ...]) -> np.ndarray:
    """(N, 3) float32 in [0, 1]: fields of the words, each given by its shift and its number of bits."""
    fields = [((words >> shift) & ((1 << size) - 1)) / np.float32((1 << size) - 1) for shift, size in bits]
    return np.stack(fields, axis=1).astype(np.float32)


def _rotations(words: np.ndarray) -> np.ndarray:
    """(N, 4) float32 unit quaternions w, x, y, z."""
    smallest = (_shares(words, _ROTATION_BITS) - 0.5) * np.float32(np.sqrt(2))
    return quaternions_of_smallest(smallest, (words >> 30).astype(np.int64))


def quaternions_of_smallest(smallest: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(N, 4) float32 unit quaternions from their three smallest parts (N, 3), in order, and where the largest is."""
    largest = np.sqrt(np.maximum(1 - np.square(smallest).sum(axis=1), 0))
    quaternions = np.empty((len(place), 4), np.float32)
    others = np.arange(4)[None, :] != place[:, None]
    quaternions[others] = smallest.reshape(-1)
    quaternions[~others] = largest
    return quaternions
