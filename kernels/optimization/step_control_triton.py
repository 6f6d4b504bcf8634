"""What a step that nothing waits for decides, in one launch: whether all is finite, the next loss scale, Adam's rates.

Its reference is ``distill.training.watched_update`` with its ``LossScale`` and ``kernels.optimization.adam.corrected``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from kernels.optimization.step_control import Scaling
from kernels.triton_support import launch_on, padded

_LARGEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def _note(value, place, step, first, values, NEVER: tl.constexpr):
    """Whether a value is not finite; the first of its kind is kept with its step."""
    broken = (tl.abs(value) <= _LARGEST) == 0
    before = tl.load(first + place)
    if broken & (before == NEVER):
        tl.store(first + place, step)
        tl.store(values + place, value)
    return broken


@triton.jit
def _rescale(broken, scale, counts, growth_every, FLOOR: tl.constexpr, CEILING: tl.constexpr):
    """As ``LossScale.update``; counts are calm, in a row, longest, skipped, overflows at the floor."""
    old = tl.load(scale)
    overflow = broken.to(tl.int64)
    calm = (tl.load(counts) + 1) * (1 - overflow)
    in_a_row = (tl.load(counts + 1) + 1) * overflow
    grows = calm >= growth_every
    tl.store(counts, tl.where(grows, 0, calm))
    tl.store(counts + 1, in_a_row)
    tl.store(counts + 2, tl.maximum(tl.load(counts + 2), in_a_row))
    tl.store(counts + 3, tl.load(counts + 3) + overflow)
    tl.store(counts + 4, tl.load(counts + 4) + overflow * (old <= FLOOR).to(tl.int64))
    new = old * tl.where(broken, 0.5, 1.0) * tl.where(grows, 2.0, 1.0)
    tl.store(scale, tl.minimum(tl.maximum(new, FLOOR), CEILING))


@triton.jit(do_not_specialize=["step", "factor", "growth_every"])
def _control(
    terms, norms, step, factor, first, values, scale, counts, growth_every, updates, rates, uncorrected, controls, eps,
    LOG_BETA1: tl.constexpr, LOG_BETA2: tl.constexpr, PLACES: tl.constexpr, GRADIENT: tl.constexpr, NEVER: tl.constexpr,
    FLOOR: tl.constexpr, CEILING: tl.constexpr, SCALED: tl.constexpr, IN_MEMORY: tl.constexpr,
    COUNT: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    if IN_MEMORY:
        step, factor = tl.load(step), tl.load(factor)
    parameter = tl.arange(0, PADDED)
    live = parameter < COUNT
    norm = tl.load(norms + parameter, mask=live, other=0.0)
    finite = tl.abs(norm) <= _LARGEST
    # The largest, unless one is not finite: then the sum of those, which tells an overflow from no number.
    spoilt = tl.sum(tl.where(finite, 0.0, norm), axis=0)
    gradient = tl.where(tl.min(finite.to(tl.int32), axis=0) == 1, tl.max(norm, axis=0), spoilt)
    broken = _note(gradient, GRADIENT, step, first, values, NEVER)
    for k in tl.static_range(len(PLACES)):
        broken = broken | _note(tl.load(terms[k]), PLACES[k], step, first, values, NEVER)
    unscale = 1.0
    if SCALED:
        unscale = 1.0 / tl.load(scale)
    # Adam's bias corrections, in float64: 1 - beta^n of the first and of the millionth update alike.
    update = tl.load(updates + parameter, mask=live, other=1.0) + tl.where(broken, 0.0, 1.0)
    tl.store(updates + parameter, update, mask=live)
    counted = tl.maximum(update, 1.0)
    correction1 = 1.0 - tl.exp(counted * LOG_BETA1)
    root = tl.sqrt(1.0 - tl.exp(counted * LOG_BETA2))
    correction = tl.where(tl.load(uncorrected + parameter, mask=live, other=0) != 0, 1.0, root / correction1)
    rate = tl.load(rates + parameter, mask=live, other=0.0) * factor * correction
    row = controls + parameter * 4
    tl.store(row, rate.to(tl.float32), mask=live)
    tl.store(row + 1, (eps * root).to(tl.float32), mask=live)
    tl.store(row + 2, tl.zeros((PADDED,), tl.float32) + unscale, mask=live)
    tl.store(row + 3, tl.zeros((PADDED,), tl.float32) + broken.to(tl.float32), mask=live)
    if SCALED:
        _rescale(broken, scale, counts, growth_every, FLOOR, CEILING)


def control(
    terms: Sequence[Tensor],
    places: Sequence[int],
    norms: Tensor,
    step: int | Tensor,
    factor: float | Tensor,
    first: Tensor,
    values: Tensor,
    never: int,
    scaling: Scaling | None,
    updates: Tensor,
    rates: Tensor,
    uncorrected: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> Tensor:
    """(P, 4) float32 of ``kernels.optimization.adam.controlled_adam_step`` for P parameters; all else changes in place.

    Args:
        terms: () float32 each, the step's loss terms; places: of each in ``first``.
        norms: (P,) float32, the largest magnitude of each parameter's gradient.
        step, factor: the step's number and the learning rates' factor; both numbers, or both tensors on the device.
        first: (T,) int64, the step at which each term, and last the gradient, was not finite first, else ``never``.
        values: (T,) float32, what it was then.
        updates: (P,) float64, how often Adam has updated each parameter.
        rates: (P,) float64, their learning rates but for the factor.
        uncorrected: (P,) uint8, 1 for those whose rate Adam's bias corrections leave alone: Muon's.
    """
    count = len(norms)
    controls = norms.new_empty(count, 4)
    scaled = scaling is not None
    value, counts, growth_every, floor, ceiling = scaling or Scaling(norms, first, 0, 0.0, 0.0)
    with launch_on(norms.device):
        _control[(1,)](
            tuple(terms), norms, step, factor, first, values, value, counts, growth_every, updates, rates,
            uncorrected, controls, eps, LOG_BETA1=math.log(betas[0]), LOG_BETA2=math.log(betas[1]),
            PLACES=tuple(places), GRADIENT=len(first) - 1, NEVER=never, FLOOR=floor, CEILING=ceiling, SCALED=scaled,
            IN_MEMORY=isinstance(step, Tensor), COUNT=count, PADDED=padded(count), num_warps=1,
        )  # fmt: skip
    return controls
