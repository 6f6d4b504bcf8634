"""Numba twin of compositing: one ray after another, its transmittance carried along."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.threads import COMPILED, parallel_for

LEAST_ALPHA = 1e-4  # less has no distance
_GRAIN, _GRAIN_OF_PIXELS = 512, 16384


class CompositeNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, rgb, t, dt, offsets, least_share):
        rays = len(offsets) - 1
        outputs = torch.zeros(rays, rgb.shape[1]), torch.empty(rays), torch.empty(rays), torch.empty(len(t))
        ctx.inputs = [tensor.detach().contiguous() for tensor in (density, rgb, t, dt, offsets)]
        outputs[3][int(offsets[-1]) :] = 0
        parallel_for(_forward, rays, *ctx.inputs, *outputs, grain=_GRAIN)
        ctx.mark_non_differentiable(outputs[3])
        ctx.alpha, ctx.weights, ctx.least_share = outputs[1].detach(), outputs[3].detach(), np.float32(least_share)
        return outputs

    @staticmethod
    def backward(ctx, grad_rgb, grad_alpha, grad_distance, _):
        density, *samples = ctx.inputs
        rgb, _, _, offsets = samples
        grad_density, grad_sample_rgb = torch.empty(len(density)), torch.empty(rgb.shape)
        last = int(offsets[-1])
        grad_density[last:], grad_sample_rgb[last:] = 0, 0
        grads = [grad.contiguous() for grad in (grad_rgb, grad_alpha, grad_distance)]
        outputs = grad_density, grad_sample_rgb
        where = *samples, ctx.alpha, ctx.weights, ctx.least_share
        parallel_for(_backward, len(offsets) - 1, *where, *grads, *outputs, grain=_GRAIN)
        return *outputs, None, None, None, None


@njit(**COMPILED)
def _forward(start, stop, density, rgb, t, dt, offsets, out_rgb, out_alpha, out_distance, weights):
    """Adds to ``out_rgb``, fills the others."""
    channels = rgb.shape[1]
    for ray in range(start, stop):
        transmittance = np.float32(1)
        alpha = distance = np.float32(0)
        for i in range(offsets[ray], offsets[ray + 1]):
            # Spelled with the same product as the next transmittance, so that weights sum to 1 - T exactly.
            through = np.exp(-density[i] * dt[i])
            weight = transmittance * (np.float32(1) - through)
            transmittance *= through
            weights[i] = weight
            for c in range(channels):
                out_rgb[ray, c] += weight * rgb[i, c]
            alpha += weight
            distance += weight * t[i]
        out_alpha[ray], out_distance[ray] = alpha, distance


@njit(**COMPILED)
def _backward(
    start, stop, rgb, t, dt, offsets, alpha, weights, least_share, grad_rgb, grad_alpha, grad_distance, grad_density,
    grad_sample_rgb,
):  # fmt: skip
    channels = rgb.shape[1]
    for ray in range(start, stop):
        ga, gd = grad_alpha[ray], grad_distance[ray]
        least = least_share * alpha[ray] / np.float32(max(1, offsets[ray + 1] - offsets[ray]))
        # dL/d density_i = dt_i * (T_(i+1) * v_i - sum over j > i of w_j v_j), v = dL/d weight.
        behind = np.float32(0)
        for i in range(offsets[ray], offsets[ray + 1]):
            value = np.float32(0)
            for c in range(channels):
                value += grad_rgb[ray, c] * rgb[i, c]
                grad_sample_rgb[i, c] = weights[i] * grad_rgb[ray, c] if weights[i] >= least else np.float32(0)
            value = value + ga + gd * t[i]
            behind += weights[i] * value
            grad_density[i] = value
        transmittance = np.float32(1)
        for i in range(offsets[ray], offsets[ray + 1]):
            weight, value = weights[i], grad_density[i]
            transmittance -= weight
            behind -= weight * value
            grad = dt[i] * (max(transmittance, np.float32(0)) * value - behind)
            grad_density[i] = grad if weight >= least else np.float32(0)


def finish_in_place(rgb, alpha, distance, termination, background) -> None:
    """See ``kernels.compositing.compositing.finish``."""
    numbers = (np.float32(value) for value in (termination, *background))
    parallel_for(_finish, len(alpha), rgb, alpha, distance, *numbers, grain=_GRAIN_OF_PIXELS)


@njit(**COMPILED)
def _finish(start, stop, rgb, alpha, distance, termination, red, green, blue):
    zero, one, least = np.float32(0), np.float32(1), np.float32(LEAST_ALPHA)
    for ray in range(start, stop):
        share = one / alpha[ray] if one - alpha[ray] <= termination else one
        opacity = alpha[ray] * share
        through = one - opacity
        rgb[ray, 0] = min(max(rgb[ray, 0] * share + through * red, zero), one)
        rgb[ray, 1] = min(max(rgb[ray, 1] * share + through * green, zero), one)
        rgb[ray, 2] = min(max(rgb[ray, 2] * share + through * blue, zero), one)
        distance[ray] = distance[ray] * share / opacity if opacity > least else zero
        alpha[ray] = opacity
