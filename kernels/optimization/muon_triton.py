"""Muon in Triton for several matrices in one launch, a program for each, since each is small."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, chain
from operator import mul

import triton
import triton.language as tl
from torch import Tensor

from kernels.device_constants import constant
from kernels.optimization.muon import COEFFICIENTS, LEAST_NORM, MARGIN, size_of, turns_of
from kernels.optimization.updates import Update
from kernels.triton_support import LEAST_DOT, launch_on, padded

_LEAST_NORM, _MARGIN = tl.constexpr(LEAST_NORM), tl.constexpr(MARGIN)
_COEFFICIENTS = tuple(chain.from_iterable(COEFFICIENTS))
_WARPS, _WARPS_OF_LARGE = 4, 16  # what keeps a square of 32, and one of 64, in registers
_LARGE = 64 * 64  # values


@triton.jit
def _product(a, b):
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _muon(
    i, there, g, parameter, first, second, rate, least, factor, moves, coefficients, beta1, beta2, DECAY: tl.constexpr,
    SCALE: tl.constexpr, ITERATIONS: tl.constexpr,
):  # fmt: skip
    weights = tl.load(parameter + i, mask=there, other=0.0)
    g = g * factor + weights * DECAY
    m = tl.load(first + i, mask=there, other=0.0) * beta1 + g * (1.0 - beta1)
    v = tl.load(second + i, mask=there, other=0.0) * beta2 + g * g * (1.0 - beta2)
    tl.store(first + i, m, mask=there)
    tl.store(second + i, v, mask=there)
    if moves:
        step = m * beta1 + g * (1.0 - beta1)
        norm = tl.sqrt(tl.sum(step * step))
        step = step / tl.maximum(norm * _MARGIN, _LEAST_NORM)
        # No static_range: its products are written out for every thread, and those of one matrix 64 wide, times ten,
        # took ptxas minutes.
        for n in range(ITERATIONS):
            own = coefficients + 3 * n
            gram = _product(step, tl.trans(step))
            even = gram * tl.load(own + 1) + _product(gram, gram) * tl.load(own + 2)
            step = step * tl.load(own) + _product(even, step)
        tl.store(parameter + i, weights - step * (rate * SCALE * norm / tl.maximum(norm, least)), mask=there)


@triton.jit
def _controlled_muon_several(
    parameters, grads, firsts, seconds, updates, controls, coefficients, beta1, beta2, PLACES: tl.constexpr,
    DECAYS: tl.constexpr, TURNS: tl.constexpr, COUNTS: tl.constexpr, SPANS: tl.constexpr, LAZY: tl.constexpr,
    SCALES: tl.constexpr, ROOTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALONG: tl.constexpr,
    ACROSS: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr, ITERATIONS: tl.constexpr,
):  # fmt: skip
    for k in tl.static_range(len(PLACES)):
        if (tl.program_id(1) == k) & (tl.program_id(0) < COUNTS[k]):
            row, column = tl.arange(0, HIGH[k])[:, None], tl.arange(0, WIDE[k])[None, :]
            there = (row < ROWS[k]) & (column < COLUMNS[k])
            i = tl.program_id(0).to(tl.int64) * SPANS[k] + row * ALONG[k] + column * ACROSS[k]
            g = tl.load(grads[k] + i, mask=there, other=0.0)
            own = controls + 4 * PLACES[k]
            taken = tl.load(own + 3) == 0.0
            if LAZY[k]:
                taken = taken & (tl.sum((g != 0).to(tl.int32)) > 0)
            moves = (tl.load(updates[k]).to(tl.int64) + tl.program_id(0)) % TURNS[k] == 0
            if taken:
                _muon(
                    i, there, g, parameters[k], firsts[k], seconds[k], tl.load(own),
                    tl.load(own + 1) * ROOTS[k] + _LEAST_NORM, tl.load(own + 2), moves, coefficients, beta1, beta2,
                    DECAYS[k], SCALES[k], ITERATIONS,
                )  # fmt: skip


def controlled_muon(parameters: Mapping[int, Update], controls: Tensor, betas: tuple[float, float]) -> None:
    """As ``kernels.optimization.muon.controlled_muon_step`` for several parameters; gradients stay.

    Args:
        parameters: by their places in ``controls``; their matrices are ``taken_by_triton``.
        controls: (R, 4) contiguous.
    """
    starts, matrices = [], []
    for place, entry in parameters.items():
        shapes = entry.matrices
        ends = [*accumulate(height * width for height, width in shapes)]
        tensors = [tensor.detach().view(-1) for tensor in entry[:4]]
        turns, updates = turns_of(len(tensors[0]), shapes), controls if entry.number is None else entry.number
        own = place, entry.weight_decay, turns, len(tensors[0]) // ends[-1], ends[-1], entry.touched is not None
        for (height, width), start in zip(shapes, [0, *ends], strict=False):
            # Read along its shorter side, a matrix has the smaller square of the two.
            layout = (height, width, width, 1) if height <= width else (width, height, 1, width)
            sides = (padded(side, LEAST_DOT) for side in layout[:2])
            starts.append([*(tensor[start:] for tensor in tensors), updates])
            matrices.append((*own, turns * size_of((height, width)), (height * width) ** 0.5, *layout, *sides))
    columns = (tuple(column) for column in zip(*starts, strict=True))
    places, decays, turns, counts, spans, lazy, scales, roots, rows, across_rows, along, across, high, wide = zip(
        *matrices, strict=True
    )
    coefficients = constant(_COEFFICIENTS, controls.device)
    large = max(map(mul, high, wide)) >= _LARGE
    with launch_on(controls.device):
        _controlled_muon_several[(max(counts), len(matrices))](
            *columns, controls, coefficients, *betas, PLACES=places, DECAYS=decays, TURNS=turns, COUNTS=counts,
            SPANS=spans, LAZY=lazy, SCALES=scales, ROOTS=roots, ROWS=rows, COLUMNS=across_rows, ALONG=along,
            ACROSS=across, HIGH=high, WIDE=wide, ITERATIONS=len(COEFFICIENTS),
            num_warps=_WARPS_OF_LARGE if large else _WARPS, num_stages=1,
        )  # fmt: skip
