"""Triton twin of what comes after the compositing of whole pictures: the background."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.compositing.compositing_numba import LEAST_ALPHA
from kernels.triton_support import launch_on

_BLOCK = 256
_LEAST = tl.constexpr(LEAST_ALPHA)


@triton.jit(do_not_specialize=["count"])
def _finish(rgb, alpha, distance, count, termination, red, green, blue, BLOCK: tl.constexpr):
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = ray < count
    met = tl.load(alpha + ray, mask=live, other=0.0)
    share = tl.where(1.0 - met <= termination, 1.0 / met, 1.0)
    opacity = met * share
    for channel in tl.static_range(3):
        behind = red if channel == 0 else (green if channel == 1 else blue)
        value = tl.load(rgb + ray * 3 + channel, mask=live, other=0.0) * share + (1.0 - opacity) * behind
        # Both comparisons fail for what is no number, and leave it.
        value = tl.where(value < 0.0, 0.0, tl.where(value > 1.0, 1.0, value))
        tl.store(rgb + ray * 3 + channel, value, mask=live)
    mean = tl.load(distance + ray, mask=live, other=0.0) * share / tl.where(opacity > _LEAST, opacity, 1.0)
    tl.store(distance + ray, tl.where(opacity > _LEAST, mean, 0.0), mask=live)
    tl.store(alpha + ray, opacity, mask=live)


def finish_in_place(rgb: Tensor, alpha: Tensor, distance: Tensor, termination: float, background) -> None:
    """See ``kernels.compositing.compositing.finish``."""
    count = len(alpha)
    if count:
        with launch_on(alpha.device):
            _finish[(triton.cdiv(count, _BLOCK),)](
                rgb, alpha, distance, count, float(termination), *map(float, background), BLOCK=_BLOCK
            )
