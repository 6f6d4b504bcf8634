"""GLSL written out: values, and networks layer by layer.

Nothing is looped over or looked up that need not be: a browser without a GPU renders such code several times faster,
and no device does it slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Layer:
    """One layer of a network: matrix (in, out), and bias (out,), None without one."""

    matrix: np.ndarray
    bias: np.ndarray | None = None

    @property
    def vectors(self) -> tuple[int, int]:
        """Vectors of four that hold its inputs, and its outputs."""
        rows, columns = self.matrix.shape
        return -(-rows // 4), -(-columns // 4)

    def products(self) -> np.ndarray:
        """(vectors in, vectors out, 4, 4): four inputs times four outputs, a column of them for each input."""
        padded = in_fours(in_fours(self.matrix).T).T
        ins, outs = self.vectors
        return padded.reshape(ins, 4, outs, 4).transpose(0, 2, 1, 3)

    def texels(self) -> np.ndarray:
        """(texels, 4): the bias, then the products."""
        return np.concatenate([in_fours(self.bias).reshape(-1, 4), self.products().reshape(-1, 4)])


def in_fours(rows: np.ndarray) -> np.ndarray:
    """With rows of 0 up to a multiple of four."""
    return np.concatenate([rows, np.zeros((-len(rows) % 4, *rows.shape[1:]), rows.dtype)])


def glsl(value: Any) -> str:
    """A number, or a vector (a tuple), as GLSL writes it; floats to their last bit."""
    if isinstance(value, tuple):
        kind = "vec" if isinstance(value[0], float) else "ivec"
        return f"{kind}{len(value)}({', '.join(map(glsl, value))})"
    if isinstance(value, np.floating):
        return np.format_float_scientific(value, unique=True, trim="0", exp_digits=1) if value else "0.0"
    return repr(value) if isinstance(value, float) else str(int(value))


def written_network(name: str, layers: Sequence[Layer]) -> str:
    """A function ``name(vec4 x[], out vec4 y[])`` of layers without biases, ReLUs between, whose float32 values are
    written in it.
    """
    values, lines = [f"x[{i}]" for i in range(layers[0].vectors[0])], []
    for number, layer in enumerate(layers):
        products, last = layer.products(), number == len(layers) - 1
        outputs = []
        for o in range(products.shape[1]):
            terms = [f"{_call('mat4', products[i, o].ravel())} * {value}" for i, value in enumerate(values)]
            total = " + ".join(terms)
            if last:
                lines.append(f"  y[{o}] = {total};")
            else:
                outputs.append(f"h{number}_{o}")
                lines.append(f"  vec4 {outputs[-1]} = relu({total});")
        values = outputs
    return _function(f"void {name}", layers, lines)


def stored_network(name: str, layers: Sequence[Layer], together: int = 1, used: int = 4) -> str:
    """A function ``name(int at, vec4 x[], out vec4 y[])`` of layers with biases, leaky ReLUs between, whose values
    are their ``texels`` from ``at`` on.

    Args:
        layers: one of the networks, for their sizes.
        together: how many places it is evaluated for at once, each with its own part of x and y: looking a texel up
            takes far longer than multiplying by it.
        used: how many of a vector's four inputs the first layer has values for.
    """
    lines, source, places = [], "x", range(together)
    for number, layer in enumerate(layers):
        (ins, outs), last = layer.vectors, number == len(layers) - 1
        target = "y" if last else f"h{number}"
        if not last:
            lines.append(f"  vec4 {target}[{together * outs}];")
        sums = [[f"s{number}_{o}_{place}" for place in places] for o in range(outs)]
        for o, totals in enumerate(sums):
            lines.append(f"  vec4 {totals[0]} = texel(at + {o});")
            lines += [f"  vec4 {total} = {totals[0]};" for total in totals[1:]]
        lines += [f"  at += {outs};", f"  for (int i = 0; i < {ins}; i++, at += {4 * outs}) {{"]
        columns = 4 if number else used
        vector, matrix, swizzle = f"vec{columns}", f"mat{columns}x4", "xyzw"[:columns]
        lines += [f"    {vector} v{place} = {source}[{place * ins} + i].{swizzle};" for place in places]
        lines.append(f"    {matrix} m;")
        for o, totals in enumerate(sums):
            values = ", ".join(f"texel(at + {4 * o + column})" for column in range(columns))
            lines.append(f"    m = {matrix}({values});")
            lines += [f"    {total} += m * v{place};" for place, total in enumerate(totals)]
        lines.append("  }")
        lines += [
            f"  {target}[{place * outs + o}] = {total if last else f'leaky_relu({total})'};"
            for o, totals in enumerate(sums)
            for place, total in enumerate(totals)
        ]
        source = target
    return _function(f"void {name}", layers, lines, "int at, ", together)


def _function(head: str, layers: Sequence[Layer], lines: Sequence[str], first: str = "", together: int = 1) -> str:
    ends = f"vec4 x[{together * layers[0].vectors[0]}], out vec4 y[{together * layers[-1].vectors[1]}]"
    return "\n".join([f"{head}({first}{ends}) {{", *lines, "}"])


def _call(name: str, values: np.ndarray) -> str:
    return f"{name}({', '.join(map(glsl, values))})"
