"""Muon in Triton for several matrices in one launch, a program for each, since each is small."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from kernels.optimization.muon import COEFFICIENTS, LEAST_NORM, MARGIN, SIZE
from kernels.triton_support import LEAST_DOT, launch_on, padded

_LEAST_NORM, _MARGIN = tl.constexpr(LEAST_NORM), tl.constexpr(MARGIN)
_LINEAR, _CUBIC, _QUINTIC = zip(*COEFFICIENTS, strict=True)
_WARPS = 8


@triton.jit
def _product(a, b):
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _muon(
    parameter, grad, first, second, rate, factor, beta1, beta2, DECAY: tl.constexpr, SCALE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALONG: tl.constexpr, ACROSS: tl.constexpr, HIGH: tl.constexpr,
    WIDE: tl.constexpr, LINEAR: tl.constexpr, CUBIC: tl.constexpr, QUINTIC: tl.constexpr,
):  # fmt: skip
    row, column = tl.arange(0, HIGH)[:, None], tl.arange(0, WIDE)[None, :]
    there = (row < ROWS) & (column < COLUMNS)
    i = row * ALONG + column * ACROSS
    weights = tl.load(parameter + i, mask=there, other=0.0)
    g = tl.load(grad + i, mask=there, other=0.0) * factor + weights * DECAY
    m = tl.load(first + i, mask=there, other=0.0) * beta1 + g * (1.0 - beta1)
    v = tl.load(second + i, mask=there, other=0.0) * beta2 + g * g * (1.0 - beta2)
    tl.store(first + i, m, mask=there)
    tl.store(second + i, v, mask=there)
    step = m * beta1 + g * (1.0 - beta1)
    step = step / tl.maximum(tl.sqrt(tl.sum(step * step)) * _MARGIN, _LEAST_NORM)
    for n in tl.static_range(len(LINEAR)):
        gram = _product(step, tl.trans(step))
        step = step * LINEAR[n] + _product(gram * CUBIC[n] + _product(gram, gram) * QUINTIC[n], step)
    tl.store(parameter + i, weights - step * (rate * SCALE), mask=there)


@triton.jit
def _controlled_muon_several(
    parameters, grads, firsts, seconds, controls, beta1, beta2, PLACES: tl.constexpr, DECAYS: tl.constexpr,
    SCALES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALONG: tl.constexpr, ACROSS: tl.constexpr,
    HIGH: tl.constexpr, WIDE: tl.constexpr, LINEAR: tl.constexpr, CUBIC: tl.constexpr, QUINTIC: tl.constexpr,
):  # fmt: skip
    for k in tl.static_range(len(PLACES)):
        if tl.program_id(0) == k:
            own = controls + 4 * PLACES[k]
            rate, factor = tl.load(own), tl.load(own + 2)
            if tl.load(own + 3) == 0.0:
                _muon(
                    parameters[k], grads[k], firsts[k], seconds[k], rate, factor, beta1, beta2, DECAYS[k], SCALES[k],
                    ROWS[k], COLUMNS[k], ALONG[k], ACROSS[k], HIGH[k], WIDE[k], LINEAR, CUBIC, QUINTIC,
                )  # fmt: skip


def controlled_muon(
    matrices: Sequence[Sequence[Tensor]],
    controls: Tensor,
    places: Sequence[int],
    betas: tuple[float, float],
    decays: Sequence[float],
) -> None:
    """As ``kernels.optimization.muon.controlled_muon_step`` for several matrices; gradients stay.

    Args:
        matrices: each one's parameter, gradient and moments, contiguous; no side beyond ``WIDEST``.
        controls: (R, 4) contiguous; places: a matrix's own in it; decays: its weight decay.
    """
    columns = (tuple(tensor.detach() for tensor in column) for column in zip(*matrices, strict=True))
    shapes = [tuple(tensors[0].shape) for tensors in matrices]
    # Read along its shorter side, a matrix has the smaller square of the two.
    layouts = [(n, k, k, 1) if n <= k else (k, n, 1, k) for n, k in shapes]
    layouts = [(*layout, *(padded(side, LEAST_DOT) for side in layout[:2])) for layout in layouts]
    rows, across_rows, along, across, high, wide = zip(*layouts, strict=True)
    scales = tuple(SIZE * max(shape) ** 0.5 for shape in shapes)
    with launch_on(controls.device):
        _controlled_muon_several[(len(shapes),)](
            *columns, controls, *betas, PLACES=tuple(places), DECAYS=tuple(decays), SCALES=scales, ROWS=rows,
            COLUMNS=across_rows, ALONG=along, ACROSS=across, HIGH=high, WIDE=wide, LINEAR=_LINEAR, CUBIC=_CUBIC,
            QUINTIC=_QUINTIC, num_warps=_WARPS,
        )  # fmt: skip
