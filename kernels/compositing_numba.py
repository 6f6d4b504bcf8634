"""Numba twin of compositing: one ray after another, its transmittance carried along."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.threads import COMPILED, parallel_for

_GRAIN = 512


class CompositeNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density, rgb, t, dt, offsets):
        rays = len(offsets) - 1
        outputs = torch.empty(rays, 3), torch.empty(rays), torch.empty(rays), torch.empty(len(t))
        ctx.inputs = [tensor.detach().contiguous() for tensor in (density, rgb, t, dt, offsets)]
        outputs[3][int(offsets[-1]) :] = 0
        parallel_for(_forward, rays, *ctx.inputs, *outputs, grain=_GRAIN)
        ctx.weights = outputs[3].detach()
        return outputs

    @staticmethod
    def backward(ctx, *grads):
        density, rgb, _, _, offsets = ctx.inputs
        grad_density, grad_sample_rgb = torch.empty(len(density)), torch.empty(len(density), 3)
        last = int(offsets[-1])
        grad_density[last:], grad_sample_rgb[last:] = 0, 0
        grads = [grad.contiguous() for grad in grads]
        outputs = grad_density, grad_sample_rgb
        parallel_for(_backward, len(offsets) - 1, *ctx.inputs, ctx.weights, *grads, *outputs, grain=_GRAIN)
        return *outputs, None, None, None


@njit(**COMPILED)
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


@njit(**COMPILED)
def _backward(
    start, stop, density, rgb, t, dt, offsets, weights, grad_rgb, grad_alpha, grad_distance, grad_weights, grad_density,
    grad_sample_rgb,
):  # fmt: skip
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
