"""Triton twin of compositing: a program takes several rays and a run of samples of each at a time.

Along a run the transmittance is a running sum of optical thickness; between runs it is carried. Neighbouring samples
are neighbouring lanes, so what is read and written lies side by side. (Loops are written with while: the interpreter
of Triton 3.6 has no range up to a tensor.)
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.triton_support import launch_on

_RAYS = 8
_SAMPLES = 32
_WARPS = 4


@triton.jit
def _range(ray, live, offsets):
    """First sample of each ray and the one after its last."""
    return tl.load(offsets + ray, mask=live, other=0), tl.load(offsets + ray + 1, mask=live, other=0)


@triton.jit
def _column(values, index, live):
    return tl.load(values + index, mask=live, other=0.0).to(tl.float32)


@triton.jit
def _thickness(density, dt, index, end, carried, SAMPLES: tl.constexpr):
    """Optical thickness in front of each sample (RAYS, SAMPLES) and of the sample itself.

    The one in front is summed from the samples before, not taken as a difference of sums: behind the empty space an
    opaque sample's own thickness, up to thousands, would drown it.
    """
    live = index < end[:, None]
    own = _column(density, index, live) * _column(dt, index, live)
    ahead = live & (tl.arange(0, SAMPLES) > 0)[None, :]
    before = _column(density, index - 1, ahead) * _column(dt, index - 1, ahead)
    return carried[:, None] + tl.cumsum(before, axis=1), own, live


@triton.jit
def _added(sums, weight, color, channel, live, CHANNELS: tl.constexpr):
    """A run's weighted channels, added to their sums so far."""
    result = (sums[0] + tl.sum(weight * _column(color, 0, live), axis=1),)
    for c in tl.static_range(1, CHANNELS):
        result = result + (sums[c] + tl.sum(weight * _column(color, c * channel, live), axis=1),)
    return result


@triton.jit
def _nothing(RAYS: tl.constexpr, CHANNELS: tl.constexpr):
    result = (tl.zeros((RAYS,), tl.float32),)
    for _ in tl.static_range(1, CHANNELS):
        result = result + (tl.zeros((RAYS,), tl.float32),)
    return result


@triton.jit
def _of_channels(row, live, CHANNELS: tl.constexpr):
    """(RAYS,) of every channel, from contiguous rows."""
    result = (_column(row, 0, live),)
    for c in tl.static_range(1, CHANNELS):
        result = result + (_column(row, c, live),)
    return result


@triton.jit
def _zero_padding(values, offsets, rays, count, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Zeros in rows (any, WIDTH) of the samples that belong to no ray, which all programs share."""
    first = tl.load(offsets + rays) + tl.program_id(0).to(tl.int64) * BLOCK
    while first < count:
        row = first + tl.arange(0, BLOCK)
        for c in tl.static_range(WIDTH):
            tl.store(values + row * WIDTH + c, tl.zeros((BLOCK,), values.dtype.element_ty), mask=row < count)
        first += tl.num_programs(0).to(tl.int64) * BLOCK


@triton.jit(do_not_specialize=["rays", "count"])
def _forward(
    density, rgb, rgb_row, rgb_channel, t, dt, offsets, rays, count, out_rgb, out_alpha, out_distance, weights,
    CHANNELS: tl.constexpr, RAYS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    live_ray = ray < rays
    first, end = _range(ray, live_ray, offsets)
    carried = tl.zeros((RAYS,), tl.float32)
    sums = _nothing(RAYS, CHANNELS)
    alpha, distance = tl.zeros((RAYS,), tl.float32), tl.zeros((RAYS,), tl.float32)
    longest, start = tl.max(end - first, axis=0), 0
    while start < longest:
        index = first[:, None] + start + tl.arange(0, SAMPLES)[None, :]
        before, own, live = _thickness(density, dt, index, end, carried, SAMPLES)
        weight = tl.where(live, tl.exp(-before) * (1.0 - tl.exp(-own)), 0.0)
        tl.store(weights + index, weight, mask=live)
        sums = _added(sums, weight, rgb + index * rgb_row, rgb_channel, live, CHANNELS)
        alpha += tl.sum(weight, axis=1)
        distance += tl.sum(weight * _column(t, index, live), axis=1)
        carried += tl.sum(own, axis=1)
        start += SAMPLES
    row = out_rgb + ray.to(tl.int64) * CHANNELS
    for c in tl.static_range(CHANNELS):
        tl.store(row + c, sums[c], mask=live_ray)
    tl.store(out_alpha + ray, alpha, mask=live_ray)
    tl.store(out_distance + ray, distance, mask=live_ray)
    _zero_padding(weights, offsets, rays, count, 1, RAYS * SAMPLES)


@triton.jit
def _value(rgb, rgb_row, rgb_channel, t, index, live, grads, ga, gd, CHANNELS: tl.constexpr):
    """dL/d weight of each sample."""
    color = rgb + index * rgb_row
    value = grads[0][:, None] * _column(color, 0, live)
    for c in tl.static_range(1, CHANNELS):
        value += grads[c][:, None] * _column(color, c * rgb_channel, live)
    return value + ga[:, None] + gd[:, None] * _column(t, index, live)


@triton.jit(do_not_specialize=["rays", "count"])
def _backward(
    density, rgb, rgb_row, rgb_channel, t, dt, offsets, rays, count, alpha, weights, least_share, grad_rgb, grad_alpha,
    grad_distance, grad_density, grad_sample_rgb,
    CHANNELS: tl.constexpr, RAYS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    live_ray = ray < rays
    first, end = _range(ray, live_ray, offsets)
    grads = _of_channels(grad_rgb + ray.to(tl.int64) * CHANNELS, live_ray, CHANNELS)
    ga, gd = _column(grad_alpha, ray, live_ray), _column(grad_distance, ray, live_ray)
    least = least_share * _column(alpha, ray, live_ray) / tl.maximum(end - first, 1).to(tl.float32)
    longest = tl.max(end - first, axis=0)
    # dL/d density_i = dt_i * (T_(i+1) * v_i - sum over j > i of w_j v_j), v = dL/d weight.
    behind, start = tl.zeros((RAYS,), tl.float32), 0
    while start < longest:
        index = first[:, None] + start + tl.arange(0, SAMPLES)[None, :]
        live = index < end[:, None]
        value = _value(rgb, rgb_row, rgb_channel, t, index, live, grads, ga, gd, CHANNELS)
        behind += tl.sum(_column(weights, index, live) * value, axis=1)
        start += SAMPLES
    carried, start = tl.zeros((RAYS,), tl.float32), 0
    while start < longest:
        index = first[:, None] + start + tl.arange(0, SAMPLES)[None, :]
        before, own, live = _thickness(density, dt, index, end, carried, SAMPLES)
        value = _value(rgb, rgb_row, rgb_channel, t, index, live, grads, ga, gd, CHANNELS)
        weight = _column(weights, index, live)
        further = behind[:, None] - tl.cumsum(weight * value, axis=1)
        grad = _column(dt, index, live) * (tl.exp(-(before + own)) * value - further)
        shown = live & (weight >= least[:, None])
        tl.store(grad_density + index, tl.where(shown, grad, 0.0), mask=live)
        color = grad_sample_rgb + index * CHANNELS
        for c in tl.static_range(CHANNELS):
            tl.store(color + c, tl.where(shown, weight * grads[c][:, None], 0.0), mask=live)
        carried += tl.sum(own, axis=1)
        behind -= tl.sum(weight * value, axis=1)
        start += SAMPLES
    _zero_padding(grad_density, offsets, rays, count, 1, RAYS * SAMPLES)
    _zero_padding(grad_sample_rgb, offsets, rays, count, CHANNELS, RAYS * SAMPLES)


class CompositeTriton(torch.autograd.Function):
    """``rgb`` may have any strides. Inputs are float32, float16 or bfloat16, outputs float32."""

    @staticmethod
    def forward(ctx, density, rgb, t, dt, offsets, least_share):
        rays = len(offsets) - 1
        density, t, dt, offsets = density.contiguous(), t.contiguous(), dt.contiguous(), offsets.contiguous()
        make = torch.empty if rays else torch.zeros  # written whole, where there is a program to write
        outputs = [make(shape, device=t.device) for shape in ((rays, rgb.shape[1]), rays, rays, len(t))]
        if rays:
            with launch_on(density.device):
                _forward[(triton.cdiv(rays, _RAYS),)](
                    density, rgb, *rgb.stride(), t, dt, offsets, rays, len(t), *outputs,
                    CHANNELS=rgb.shape[1], RAYS=_RAYS, SAMPLES=_SAMPLES, num_warps=_WARPS,
                )  # fmt: skip
        ctx.mark_non_differentiable(outputs[3])
        ctx.save_for_backward(density, rgb, t, dt, offsets, outputs[1], outputs[3])
        ctx.least_share = float(least_share)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, grad_rgb, grad_alpha, grad_distance, _):
        density, rgb, t, dt, offsets, alpha, weights = ctx.saved_tensors
        rays = len(offsets) - 1
        make = torch.empty if rays else torch.zeros
        grad_density, grad_sample_rgb = (make(of.shape, dtype=of.dtype, device=of.device) for of in (density, rgb))
        grads = [grad.contiguous() for grad in (grad_rgb, grad_alpha, grad_distance)]
        if rays:
            with launch_on(density.device):
                _backward[(triton.cdiv(rays, _RAYS),)](
                    density, rgb, *rgb.stride(), t, dt, offsets, rays, len(t), alpha, weights, ctx.least_share, *grads,
                    grad_density, grad_sample_rgb,
                    CHANNELS=rgb.shape[1], RAYS=_RAYS, SAMPLES=_SAMPLES, num_warps=_WARPS,
                )  # fmt: skip
        return grad_density, grad_sample_rgb, None, None, None, None
