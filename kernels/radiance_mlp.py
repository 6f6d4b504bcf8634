"""The two bias-free MLPs of a radiance field in one pass: features -> density, geometry; + direction -> colour.

Density network: ReLU layers, linear output ``(raw, geometry...)``; density is a truncated exponential of ``raw``
(Mueller et al. 2022). Colour network: ReLU layers on ``[geometry, direction basis]``, sigmoid output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import radiance_mlp_numba as numba_twin
from kernels.dispatch import resolve
from kernels.threads import parallel_for

MAX_RAW_DENSITY = 15.0
TAPS = ("hidden", "geo")
_GRAIN = 4096
# Widest layer up to which ``auto`` takes Triton on CUDA, by the bytes of a value. A narrow network's time is that of
# reading and writing activations, which the fused kernel keeps in registers; the backward pass of wider ones no longer
# fits them. A rule by what the compiler says; a measurement may overrule it.
_FUSED_WIDTH = {2: 64, 4: 32}
# OpenBLAS multiplies matrices up to this many multiply-adds on the calling thread; larger ones would make our
# threads wait for its own pool.
_SINGLE_THREAD_GEMM = 262144


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, raw: Tensor) -> Tensor:
        ctx.save_for_backward(raw)
        return raw.clamp(max=MAX_RAW_DENSITY).exp()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].clamp(-MAX_RAW_DENSITY, MAX_RAW_DENSITY).exp()


def truncated_exp(raw: Tensor) -> Tensor:
    """exp(min(raw, 15)), whose gradient never vanishes: it uses raw clamped to [-15, 15]."""
    return _TruncatedExp.apply(raw)


def widened(values: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; other types as they are."""
    return values.float() if values.element_size() < 4 else values


def twins_without_triton(values: Tensor) -> tuple[str, ...]:
    """Implementations on the CPU of what takes ``values``: numba's have no half precision."""
    return ("torch", "numba") if values.element_size() >= 4 else ("torch",)


def radiance_mlp(
    features: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    density_weights: Sequence[Tensor],
    color_weights: Sequence[Tensor],
    *,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Density and colour of samples.

    Args:
        features: (N, C) encoded positions; float32, or with torch and Triton also float16 or bfloat16: then factors of
            products are rounded to that type, sums remain float32 (with torch, those of one product).
        basis: (R, S) encoded directions, one row per ray. Not differentiated.
        ray_index: (N,) int64 row of ``basis`` for each sample.
        density_weights: layers (out, in); the last has 1 + G rows: raw density, then G geometry features.
        color_weights: layers (out, in); the first takes G + S channels, the last has 3 rows.
        implementation: "auto", "torch", "numba" or "triton" (layers up to 128 wide; auto: up to 32, or 64 in
            half precision).

    Returns:
        density (N,) >= 0 and rgb (N, 3) in (0, 1).

    Raises:
        ValueError: the implementation cannot run there, or a layer is too wide for it.
    """
    available = _available(implementation, features, [*density_weights, *color_weights])
    name = resolve("radiance_mlp", implementation, features.device, available)
    if name == "torch":
        return _radiance_torch(features, basis, ray_index, density_weights, color_weights)[:2]
    arguments = (features, basis, ray_index, len(density_weights), *density_weights, *color_weights)
    if name == "triton":
        from kernels.radiance_mlp_triton import RadianceMLPTriton

        return RadianceMLPTriton.apply(*arguments)
    return _RadianceMLPNumba.apply((), *arguments)[:2]


def tapped_radiance_mlp(
    features: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    density_weights: Sequence[Tensor],
    color_weights: Sequence[Tensor],
    taps: Sequence[str],
    *,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """As ``radiance_mlp``, and what flows inside, differentiable like the outputs and in the same backward pass.

    Args:
        taps: ``hidden``, the density network's first hidden layer after its ReLU, and ``geo``, the geometry features.
        implementation: "auto", "torch" or "numba": the Triton twin keeps its activations to itself. Without taps, as
            there.

    Returns:
        density (N,), rgb (N, 3), and each tap (N, width).

    Raises:
        ValueError: an unknown tap, or ``hidden`` of a density network without a hidden layer.
    """
    check_taps(taps, len(density_weights) - 1)
    if not taps:
        plain = radiance_mlp(features, basis, ray_index, density_weights, color_weights, implementation=implementation)
        return *plain, {}
    name = resolve("tapped_radiance_mlp", implementation, features.device, twins_without_triton(features))
    if name == "torch":
        density, rgb, *inside = _radiance_torch(features, basis, ray_index, density_weights, color_weights)
    else:
        arguments = (features, basis, ray_index, len(density_weights), *density_weights, *color_weights)
        density, rgb, *inside = _RadianceMLPNumba.apply(tuple(taps), *arguments)
    return density, rgb, {tap: values for tap, values in zip(TAPS, inside, strict=True) if tap in taps}


def check_taps(taps: Sequence[str], hidden_layers: int) -> None:
    """Raises:
    ValueError: an unknown tap, or one of a layer that is not there.
    """
    for tap in taps:
        if tap not in TAPS or (tap == "hidden" and hidden_layers < 1):
            raise ValueError(f"taps: found {tap!r} with {hidden_layers} hidden layers, expected some of {list(TAPS)}")


def density_mlp(features: Tensor, density_weights: Sequence[Tensor], *, implementation: str = "auto") -> Tensor:
    """Density (N,) alone, of features (N, C); differentiable with the torch implementation only."""
    name = resolve(
        "density_mlp", implementation, features.device, _available(implementation, features, density_weights)
    )
    if name == "torch":
        return truncated_exp(widened(_mlp(features, density_weights)[:, 0]))
    if name == "triton":
        from kernels import radiance_mlp_triton

        return radiance_mlp_triton.density(features.detach(), density_weights)
    features = features.detach().t().contiguous()
    flat, dims = _flatten(density_weights)
    density = torch.empty(features.shape[1])
    parallel_for(
        numba_twin.density_forward,
        len(density),
        features.numpy(),
        flat,
        dims,
        _block(dims),
        density.numpy(),
        grain=_GRAIN,
    )
    return density


def _available(implementation: str, features: Tensor, weights: Sequence[Tensor]) -> tuple[str, ...]:
    widest = max(max(weight.shape) for weight in weights)
    twins = twins_without_triton(features)
    if implementation == "auto" and widest > _FUSED_WIDTH.get(features.element_size(), 0):
        return twins
    return (*twins, "triton")


def _radiance_torch(
    features: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    density_weights: Sequence[Tensor],
    color_weights: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Density, rgb, the first hidden layer if there is one, geometry features."""
    hidden = _mlp(features, density_weights[:1]).relu() if len(density_weights) > 1 else None
    output = _mlp(features, density_weights) if hidden is None else _mlp(hidden, density_weights[1:])
    color = _mlp(torch.cat([output[:, 1:], basis[ray_index].to(output.dtype)], dim=-1), color_weights)
    return truncated_exp(widened(output[:, 0])), torch.sigmoid(widened(color)), hidden, output[:, 1:]


def _mlp(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    for weight in weights[:-1]:
        x = F.relu(F.linear(x, weight.to(x.dtype)))
    return F.linear(x, weights[-1].to(x.dtype))


def _flatten(weights: Sequence[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights]).numpy()
    return flat, np.array([tuple(weight.shape) for weight in weights], dtype=np.int64)


def _block(dims: np.ndarray) -> int:
    """Samples per block: small enough for the caches and for single-threaded matrix products."""
    return int(np.clip(_SINGLE_THREAD_GEMM // int((dims[:, 0] * dims[:, 1]).max()) // 16 * 16, 16, 256))


class _RadianceMLPNumba(torch.autograd.Function):
    """Density, rgb and the two taps, channel by channel in memory; taps that are not asked for have no channels."""

    @staticmethod
    def forward(ctx, taps, features, basis, ray_index, density_layers, *weights):
        features = features.detach().t().contiguous()
        flat, dims = _flatten(weights)
        count = features.shape[1]
        density, rgb = torch.empty(count), torch.empty(count, 3)
        widths = int(dims[0, 0]), int(dims[density_layers - 1, 0]) - 1
        inside = [torch.empty(width if tap in taps else 0, count) for tap, width in zip(TAPS, widths, strict=True)]
        basis, ray_index = basis.detach().contiguous(), ray_index.contiguous()
        arguments = (features.numpy(), basis.numpy(), ray_index.numpy(), flat, dims, density_layers, _block(dims))
        outputs = (density.numpy(), rgb.numpy(), *(values.numpy() for values in inside))
        parallel_for(numba_twin.radiance_forward, count, *arguments, *outputs, grain=_GRAIN)
        ctx.arguments, ctx.shapes = arguments, [weight.shape for weight in weights]
        ctx.save_for_backward(density, rgb)
        return density, rgb, *(values.t() for values in inside)

    @staticmethod
    def backward(ctx, grad_density, grad_rgb, *grad_inside):
        features, flat = ctx.arguments[0], ctx.arguments[3]
        count = features.shape[1]
        grad_features = torch.empty(features.shape)
        # One partial sum per chunk, added in order: the same bits for any number of threads.
        partial = torch.zeros(max(1, -(-count // _GRAIN)), len(flat))
        parallel_for(
            numba_twin.radiance_backward,
            count,
            *ctx.arguments,
            *(output.numpy() for output in ctx.saved_tensors),
            grad_density.contiguous().numpy(),
            grad_rgb.contiguous().numpy(),
            *(grad.t().contiguous().numpy() for grad in grad_inside),
            grad_features.numpy(),
            partial.numpy(),
            _GRAIN,
            grain=_GRAIN,
        )
        grads = partial.sum(0).split([shape.numel() for shape in ctx.shapes])
        grads = [grad.view(shape) for grad, shape in zip(grads, ctx.shapes, strict=True)]
        return None, grad_features.t(), None, None, None, *grads
