"""Volume rendering of packed samples by emission and absorption (Max 1995): front to back along each ray."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.dispatch import resolve
from kernels.threads import parallel_for

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_GRAIN = 512


class Composite(NamedTuple):
    """Result of compositing: per ray, and the weight of every sample."""

    rgb: Tensor  # (R, 3) accumulated colour, no background added
    alpha: Tensor  # (R,) in [0, 1]
    distance: Tensor  # (R,) sum of weight * t, not divided by alpha
    weights: Tensor  # (N,) transmittance * alpha of each sample


def composite(
    density: Tensor, rgb: Tensor, t: Tensor, dt: Tensor, offsets: Tensor, *, implementation: str = "auto"
) -> Composite:
    """Composites samples; those of ray r are ``offsets[r] : offsets[r + 1]``, ordered front to back.

    Args:
        density: (N,) in 1 / world unit, float32; with triton float16 or bfloat16 too, summed in float32.
        rgb: (N, 3), as ``density``.
        t: (N,) distance of the sample along its ray. Not differentiated.
        dt: (N,) length of the sample's interval. Not differentiated.
        offsets: (R + 1,) int64, offsets[0] = 0, offsets[R] at most N. Rays without samples give zeros; samples from
            offsets[R] on belong to no ray: their weight is 0, and so is their gradient.
        implementation: "auto", "torch", "numba" or "triton".
    """
    composite_by = {"torch": _composite_torch, "numba": _CompositeNumba.apply, "triton": _CompositeTriton.apply}
    name = resolve("compositing", implementation, density.device, tuple(composite_by))
    return Composite(*composite_by[name](density, rgb, t, dt, offsets))


def _composite_torch(density, rgb, t, dt, offsets):
    rays = len(offsets) - 1
    ray = torch.searchsorted(offsets, torch.arange(len(t), device=t.device), right=True) - 1  # ``rays``: of none
    # float64: the difference of two running sums over all rays must still resolve one ray's thickness.
    thickness = (density * dt).double()
    before = torch.cat([thickness.new_zeros(1), thickness.cumsum(0)])
    start = before[offsets][ray]
    transmittance = torch.exp(start - before[:-1]).to(density.dtype)
    weights = torch.where(ray < rays, transmittance * -torch.expm1(-density * dt), 0.0)
    zeros = density.new_zeros(rays + 1)
    return (
        density.new_zeros(rays + 1, 3).index_add(0, ray, weights[:, None] * rgb)[:rays],
        zeros.index_add(0, ray, weights)[:rays],
        zeros.index_add(0, ray, weights * t)[:rays],
        weights,
    )


@njit(**_OPTIONS)
def _forward(start, stop, density, rgb, t, dt, offsets, out_rgb, out_alpha, out_distance, weights):
    for ray in range(start, stop):
        transmittance = np.float32(1)
        r = g = b = alpha = distance = np.float32(0)
        for i in range(offsets[ray], offsets[ray + 1]):
            # Spelled with the same product as the next transmittance, so that weights sum to 1 - T exactly.
            through = np.exp(-density[i] * dt[i])
            weight = transmittance * (np.float32(1) - through)
            transmittance *= through
            weights[i] = weight
            r += weight * rgb[i, 0]
            g += weight * rgb[i, 1]
            b += weight * rgb[i, 2]
            alpha += weight
            distance += weight * t[i]
        out_rgb[ray, 0], out_rgb[ray, 1], out_rgb[ray, 2] = r, g, b
        out_alpha[ray], out_distance[ray] = alpha, distance


@njit(**_OPTIONS)
def _backward(
    start,
    stop,
    density,
    rgb,
    t,
    dt,
    offsets,
    weights,
    grad_rgb,
    grad_alpha,
    grad_distance,
    grad_weights,
    grad_density,
    grad_sample_rgb,
):
    for ray in range(start, stop):
        gr, gg, gb = grad_rgb[ray, 0], grad_rgb[ray, 1], grad_rgb[ray, 2]
        ga, gd = grad_alpha[ray], grad_distance[ray]
        # dL/d density_i = dt_i * (T_(i+1) * v_i - sum over j > i of w_j v_j), v = dL/d weight.
        behind = np.float32(0)
        for i in range(offsets[ray], offsets[ray + 1]):
            behind += weights[i] * (gr * rgb[i, 0] + gg * rgb[i, 1] + gb * rgb[i, 2] + ga + gd * t[i] + grad_weights[i])
        transmittance = np.float32(1)
        for i in range(offsets[ray], offsets[ray + 1]):
            weight = weights[i]
            value = gr * rgb[i, 0] + gg * rgb[i, 1] + gb * rgb[i, 2] + ga + gd * t[i] + grad_weights[i]
            transmittance -= weight
            behind -= weight * value
            grad_density[i] = dt[i] * (max(transmittance, np.float32(0)) * value - behind)
            grad_sample_rgb[i, 0] = weight * gr
            grad_sample_rgb[i, 1] = weight * gg
            grad_sample_rgb[i, 2] = weight * gb


class _CompositeNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, rgb, t, dt, offsets):
        rays = len(offsets) - 1
        outputs = [torch.empty(rays, 3), torch.empty(rays), torch.empty(rays), torch.empty(len(t))]
        inputs = [tensor.detach().contiguous() for tensor in (density, rgb, t, dt, offsets)]
        arrays = [tensor.numpy() for tensor in inputs]
        outputs[3][int(arrays[4][-1]) :] = 0
        parallel_for(_forward, rays, *arrays, *(out.numpy() for out in outputs), grain=_GRAIN)
        ctx.arrays, ctx.weights = arrays, outputs[3].numpy()
        return tuple(outputs)

    @staticmethod
    def backward(ctx, grad_rgb, grad_alpha, grad_distance, grad_weights):
        grads = [grad.contiguous().numpy() for grad in (grad_rgb, grad_alpha, grad_distance, grad_weights)]
        grad_density, grad_sample_rgb = torch.empty(len(ctx.weights)), torch.empty(len(ctx.weights), 3)
        last = int(ctx.arrays[4][-1])
        grad_density[last:], grad_sample_rgb[last:] = 0, 0
        parallel_for(
            _backward,
            len(grad_rgb),
            *ctx.arrays,
            ctx.weights,
            *grads,
            grad_density.numpy(),
            grad_sample_rgb.numpy(),
            grain=_GRAIN,
        )
        return grad_density, grad_sample_rgb, None, None, None


class _CompositeTriton(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, rgb, t, dt, offsets):
        from kernels import compositing_triton as triton_twin

        inputs = density.contiguous(), rgb, t.contiguous(), dt.contiguous(), offsets.contiguous()
        shapes = (len(offsets) - 1, 3), (len(offsets) - 1,), (len(offsets) - 1,), (len(t),)
        outputs = tuple(torch.zeros(shape, device=t.device) for shape in shapes)
        triton_twin.forward(*inputs, outputs)
        ctx.save_for_backward(*inputs, outputs[3])
        return outputs

    @staticmethod
    def backward(ctx, *grads):
        from kernels import compositing_triton as triton_twin

        density, rgb = ctx.saved_tensors[:2]
        grad_density = torch.zeros_like(density)
        grad_sample_rgb = torch.zeros(rgb.shape, dtype=rgb.dtype, device=rgb.device)
        grads = tuple(grad.contiguous() for grad in grads)
        triton_twin.backward(*ctx.saved_tensors, grads, grad_density, grad_sample_rgb)
        return grad_density, grad_sample_rgb, None, None, None
