"""Adam in Triton for several parameters in one launch, where each alone would be too small to be worth one."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from kernels.optimization.adam_triton import places, update
from kernels.triton_support import launch_on

_BLOCK = 1024
_WARPS = 4


@triton.jit
def _controlled_adam_several(
    parameters, grads, firsts, seconds, controls, beta1, beta2, ROWS: tl.constexpr, COUNTS: tl.constexpr,
    DECAYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    for k in tl.static_range(len(COUNTS)):
        if tl.program_id(1) == k:
            row = controls + 4 * ROWS[k]
            rate, eps, factor = tl.load(row), tl.load(row + 1), tl.load(row + 2)
            i = places(BLOCK)
            there = i < COUNTS[k]
            taken = tl.zeros(i.shape, tl.float32) + tl.load(row + 3) == 0.0
            g = tl.load(grads[k] + i, mask=there, other=0.0)
            update(
                i, there & taken, g, factor, parameters[k], firsts[k], seconds[k], rate, beta1, beta2, eps, DECAYS[k],
                False,
            )  # fmt: skip


def controlled_adam(
    tensors: Sequence[tuple[Tensor, ...]],
    controls: Tensor,
    rows: Sequence[int],
    betas: tuple[float, float],
    decays: Sequence[float],
) -> None:
    """As ``kernels.optimization.adam_triton.controlled_adam``, never lazy, for several parameters; gradients stay.

    Args:
        controls: (R, 4) contiguous; rows: a parameter's own in it; decays: its weight decay.
    """
    counts = tuple(each[0].numel() for each in tensors)
    columns = (tuple(column) for column in zip(*tensors, strict=True))
    with launch_on(controls.device):
        _controlled_adam_several[(triton.cdiv(max(counts), _BLOCK), len(counts))](
            *columns, controls, *betas, ROWS=tuple(rows), COUNTS=counts, DECAYS=tuple(decays), BLOCK=_BLOCK,
            num_warps=_WARPS,
        )  # fmt: skip
