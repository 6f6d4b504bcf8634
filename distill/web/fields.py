"""Students as shaders know them: what of a shader is written for this one, and its values as textures hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from distill.web.shader_source import Layer, glsl, in_fours, stored_network, written_network
from kernels.encoding.hash_layout import HashLayout
from kernels.networks.grouped_layout import LEAK
from kernels.rendering.fused_render import GroupedField, HashField
from settings.errors import InputError

ROW = 2048
"""Texels in a row of a texture: the least that WebGL 2 promises."""
_MOST_ROWS = 8192  # that most devices have
_MOST_PRODUCTS = 1 << 14  # multiplications for a sample that a shader spells out: more take long to compile
_TOGETHER = 4  # samples that a network is evaluated for at once


@dataclass(frozen=True)
class Texture:
    """Values as the GPU reads them.

    Attributes:
        name: the shader's.
        type: "float16", in rows of ``ROW`` texels; "uint8", a 3D texture.
        channels: of a texel.
        size: texels along x, y, z.
        values: in any shape, x fastest.
        widened: whether the GPU is to hold float16 as float32, four channels of it: without a GPU each look-up is a
            third faster then.
    """

    name: str
    type: str
    channels: int
    size: tuple[int, int, int]
    values: np.ndarray
    widened: bool = False


@dataclass(frozen=True)
class WebField:
    """A field for a shader.

    Attributes:
        files: of the shader; the first stands before ``source``, the second behind it.
        constants: by the names that the shader has for them.
        source: GLSL functions of this student.
        texture: its table, or its networks.
    """

    files: tuple[str, str]
    constants: dict[str, Any]
    source: str
    texture: Texture


def hash_grid(field: HashField, stored: np.ndarray, path: Path) -> WebField:
    """A hash grid for ``hash_grid.glsl``, its networks written out.

    Args:
        stored: (entries,) bool, those that a sample can reach; the others are 0.
        path: of the student, for messages.

    Raises:
        InputError: its table is too large for a texture, or its networks for a shader.
    """
    density, color = (
        [Layer(_array(weight).T) for weight in part] for part in (field.density_weights, field.color_weights)
    )
    geometry = density[-1].matrix.shape[1] - 1
    products = sum(layer.matrix.size for layer in (*density, *color))
    if products > _MOST_PRODUCTS:
        found, most = f"networks of {products:,} weights", f"at most {_MOST_PRODUCTS:,} in a page"
        raise InputError(path, "student.hidden_width", found, most, "Distil one with narrower or fewer layers.")
    color[0].matrix = _color_inputs(color[0].matrix, geometry, raw=0)
    layout, sizes = field.layout, _sizes(density, color, field.direction_degree)
    encoding, harmonics = np.split(density[0].matrix, [layout.output_width])
    encoding, harmonics = in_fours(encoding), _direction_inputs(harmonics)
    density[0].matrix = np.concatenate([encoding, harmonics])
    sizes |= {"ENCODING": len(encoding) // 4, "HARMONICS": len(harmonics) // 4}
    source = [
        _encoding(layout),
        written_network("density_network", density),
        written_network("color_network", color),
    ]
    constants = {"TOGETHER": 1, "TEXELS": -(-layout.features // 4), **sizes}
    table = (_array(field.table) * stored[:, None]).reshape(-1, min(4, layout.features))
    files = "hash_table.glsl", "hash_grid.glsl"
    return WebField(files, constants, "\n\n".join(source), _texture("entries", table, path))


def kilo_uniform(field: GroupedField, stored: np.ndarray, path: Path) -> WebField:
    """A grid of networks for ``kilo_uniform.glsl``.

    Args:
        stored: (cells,) bool, those that a sample can reach; the others' networks are 0.
        path: of the student, for messages.

    Raises:
        InputError: its networks are too large for a texture.
    """
    layout = field.layout
    density = [_layers(row, layout.density_dims) for row in _array(field.density_parameters) * stored[:, None]]
    color = _array(field.color_parameters) * (1 if field.deferred else stored[:, None])
    color = [_layers(row, layout.color_dims) for row in color]
    for first, *_ in density:
        position, harmonics = np.split(first.matrix, [layout.position_width])
        position, harmonics = _position_inputs(position), _direction_inputs(harmonics)
        first.matrix = np.concatenate([position, harmonics])
    for first, *_ in color:
        first.matrix = _color_inputs(first.matrix, layout.geo_features, raw=layout.geo_features)
    # All density networks, then all colour networks, or the one that all cells share.
    density_texels, color_texels = ([_texels(network) for network in part] for part in (density, color))
    constants = {
        "GRID": tuple(field.grid),
        "TOGETHER": _TOGETHER,
        "LEAK": LEAK,
        "OCTAVES": layout.frequencies,
        "RAW": layout.geo_features,
        "DENSITY_TEXELS": len(density_texels[0]),
        "COLOR_TEXELS": len(color_texels[0]),
        **_sizes(density[0], color[0], field.direction_degree),
        "ENCODING": len(position) // 4,
        "HARMONICS": len(harmonics) // 4,
    }
    source = [
        stored_network("density_network", density[0], _TOGETHER, used=4 if layout.harmonics else 3),
        stored_network("color_network", color[0], 1 if field.deferred else _TOGETHER),
    ]
    texels = np.concatenate([*density_texels, *color_texels])
    files = "kilo_texels.glsl", "kilo_uniform.glsl"
    return WebField(files, constants, "\n\n".join(source), _texture("networks", texels, path, widened=True))


def _encoding(layout: HashLayout) -> str:
    """A function that encodes a place of the unit cube, level after level."""
    parts, features, offsets = [], layout.features, layout.offsets
    for level, scale in enumerate(layout.scales):
        table = f"{offsets[level]}u, {offsets[level + 1] - offsets[level]}u, {layout.resolutions[level]}u"
        hashed = "true" if layout.hashed[level] else "false"
        axes = "".join("xyz"[axis] for axis in layout.axes(level))
        call = f"{'level' if axes == 'xyz' else 'plane'}(unit.{axes}, {glsl(scale)}, {table}, {hashed}"
        parts += [f"{call}, {part}).{'xyzw'[: min(4, features)]}" for part in range(-(-features // 4))]
    together = max(1, 4 // features)  # levels in a vector
    parts += [f"vec{features}(0.0)" if features > 1 else "0.0"] * (-len(parts) % together)
    vectors = [", ".join(parts[first : first + together]) for first in range(0, len(parts), together)]
    lines = [f"  encoding[{number}] = vec4({vector});" for number, vector in enumerate(vectors)]
    return "\n".join([f"void encode(vec3 unit, out vec4 encoding[{len(vectors)}]) {{", *lines, "}"])


def _layers(parameters: np.ndarray, dims: np.ndarray) -> list[Layer]:
    """The layers of one network's flat parameters, see ``kernels.networks.grouped_mlp``."""
    parts = np.split(parameters, np.cumsum(dims.prod(axis=1))[:-1])
    matrices = [part.reshape(shape) for part, shape in zip(parts, dims.tolist(), strict=True)]
    return [Layer(matrix[:-1], matrix[-1]) for matrix in matrices]


def _texels(network: Sequence[Layer]) -> np.ndarray:
    return np.concatenate([layer.texels() for layer in network])


def _color_inputs(matrix: np.ndarray, geometry: int, raw: int) -> np.ndarray:
    """Rows for what the density network puts out, whole vectors of four, and then those of the direction.

    Args:
        geometry: number of features.
        raw: which output is the raw density, whose row is 0.
    """
    features = np.insert(matrix[:geometry], raw, 0, axis=0)
    return np.concatenate([in_fours(features), matrix[geometry:]])


def _position_inputs(matrix: np.ndarray) -> np.ndarray:
    """Rows of three, the place itself and each octave's sines and cosines, as vectors of four."""
    parts = matrix.reshape(-1, 3, matrix.shape[1])
    return np.concatenate([parts, np.zeros_like(parts[:, :1])], axis=1).reshape(-1, matrix.shape[1])


def _direction_inputs(matrix: np.ndarray) -> np.ndarray:
    """Rows of harmonics, if there are any, behind one of 0 for the constant that pages have before them, in fours."""
    return in_fours(np.pad(matrix, ((min(1, len(matrix)), 0), (0, 0))))


def _sizes(density: Sequence[Layer], color: Sequence[Layer], degree: int) -> dict[str, int]:
    """Vectors of four that go into and come out of the networks."""
    inputs, outputs = density[0].vectors[0], density[-1].vectors[1]
    return {
        "DEGREE": degree,
        "ENCODING": inputs,
        "OUTPUTS": outputs,
        "BASIS": color[0].vectors[0] - outputs,
        "COLORS": color[-1].vectors[1],
    }


def _texture(name: str, texels: np.ndarray, path: Path, widened: bool = False) -> Texture:
    """(N, channels) in rows of ``ROW``.

    Raises:
        InputError: more rows than a texture has.
    """
    rows = -(-len(texels) // ROW)
    if rows > _MOST_ROWS:
        found, most = f"{name} of {len(texels):,} texels", f"at most {ROW * _MOST_ROWS:,} in a page"
        raise InputError(path, "student", found, most, "Distil a smaller student.")
    filled = np.concatenate([texels, np.zeros((rows * ROW - len(texels), texels.shape[1]), texels.dtype)])
    return Texture(name, "float16", texels.shape[1], (ROW, rows, 1), filled, widened)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
