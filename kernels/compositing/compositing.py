"""Volume rendering of packed samples by emission and absorption (Max 1995): front to back along each ray."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.compositing.compositing_numba import LEAST_ALPHA, CompositeNumba, finish_in_place
from kernels.device_constants import constant
from kernels.dispatch import resolve


class Composite(NamedTuple):
    """Result of compositing: per ray, and the weight of every sample."""

    rgb: Tensor  # (R, C) accumulated colour, no background added; or what else was composited
    alpha: Tensor  # (R,) in [0, 1]
    distance: Tensor  # (R,) sum of weight * t, not divided by alpha
    weights: Tensor  # (N,) transmittance * alpha of each sample; not differentiated


def composite(
    density: Tensor,
    rgb: Tensor,
    t: Tensor,
    dt: Tensor,
    offsets: Tensor,
    *,
    least_share: float = 0.0,
    implementation: str = "auto",
) -> Composite:
    """Composites samples; those of ray r are ``offsets[r] : offsets[r + 1]``, ordered front to back.

    Args:
        density: (N,) in 1 / world unit, float32; with triton float16 or bfloat16 too, summed in float32.
        rgb: (N, C), as ``density``: colours, or any other channels whose weighted sums are wanted.
        t: (N,) distance of the sample along its ray. Not differentiated.
        dt: (N,) length of the sample's interval. Not differentiated.
        offsets: (R + 1,) int64, offsets[0] = 0, offsets[R] at most N. Rays without samples give zeros; samples from
            offsets[R] on belong to no ray: their weight is 0, and so is their gradient.
        least_share: samples that weigh less than this share of their ray's mean have a gradient of exactly 0, so that
            what comes before in a backward pass need not look at them. All of a ray's together weigh less than this
            share of its alpha, however many there are. By the weight w of a sample its colour would have w times the
            ray's gradient, and the logarithm of its density at most 2 w max |dL/dw|, as x exp(-x) <= 1 - exp(-x) for a
            thickness x.
        implementation: "auto", "torch", "numba" or "triton".
    """
    name = resolve("compositing", implementation, density.device, ("torch", "numba", "triton"))
    if name == "torch":
        run = _composite_torch
    elif name == "numba":
        run = CompositeNumba.apply
    else:
        from kernels.compositing.compositing_triton import CompositeTriton

        run = CompositeTriton.apply
    return Composite(*run(density, rgb, t, dt, offsets, least_share))


def finish(
    rgb: Tensor,
    alpha: Tensor,
    distance: Tensor,
    termination: float,
    background: tuple[float, float, float],
    *,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """A picture of accumulated rays: rgb (R, 3) on the background, in [0, 1]; alpha (R,); expected distance (R,).

    Args:
        rgb, alpha, distance: as ``Composite`` has them; overwritten.
        termination: a ray whose transmittance is no more was ended, and would have met more: what it has met stands
            for all of it (as in instant-ngp).
        implementation: "torch", "triton" or, on the CPU, "numba"; the latter two take contiguous tensors.
    """
    if implementation == "triton":
        from kernels.compositing import finish_triton

        finish_triton.finish_in_place(rgb, alpha, distance, termination, background)
        return rgb, alpha, distance
    if implementation == "numba":
        finish_in_place(rgb, alpha, distance, termination, background)
        return rgb, alpha, distance
    share = torch.where(1 - alpha <= termination, 1 / alpha, 1.0)
    rgb, alpha, distance = rgb * share[:, None], alpha * share, distance * share
    rgb = rgb + (1 - alpha)[:, None] * constant(tuple(background), rgb.device, rgb.dtype)
    distance = torch.where(alpha > LEAST_ALPHA, distance / alpha.clamp(min=LEAST_ALPHA), 0.0)
    return rgb.clamp(0, 1), alpha, distance


def _composite_torch(density, rgb, t, dt, offsets, least_share):
    rays = len(offsets) - 1
    ray = torch.searchsorted(offsets, torch.arange(len(t), device=t.device), right=True) - 1  # ``rays``: of none
    if least_share > 0:
        with torch.no_grad():
            _, alpha, _, weights = _composite_torch(density, rgb, t, dt, offsets, 0.0)
            least = torch.cat([least_share * alpha / offsets.diff().clamp(min=1), alpha.new_zeros(1)])
            light = weights < least[ray]
        density, rgb = torch.where(light, density.detach(), density), torch.where(light[:, None], rgb.detach(), rgb)
    # float64: the difference of two running sums over all rays must still resolve one ray's thickness.
    thickness = (density * dt).double()
    before = torch.cat([thickness.new_zeros(1), thickness.cumsum(0)])
    start = before[offsets][ray]
    transmittance = torch.exp(start - before[:-1]).to(density.dtype)
    weights = torch.where(ray < rays, transmittance * -torch.expm1(-density * dt), 0.0)
    zeros = density.new_zeros(rays + 1)
    return (
        density.new_zeros(rays + 1, rgb.shape[1]).index_add(0, ray, weights[:, None] * rgb)[:rays],
        zeros.index_add(0, ray, weights)[:rays],
        zeros.index_add(0, ray, weights * t)[:rays],
        weights.detach(),
    )
