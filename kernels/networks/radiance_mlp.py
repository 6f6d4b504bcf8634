"""The two bias-free MLPs of a radiance field in one pass: features -> density, geometry; + direction -> colour.

Density network: ReLU layers, linear output ``(raw, geometry...)``; density is a truncated exponential of ``raw``
(Müller et al. 2022). Colour network: ReLU layers on ``[geometry, direction basis]``, sigmoid output. With deferred
shading (Hedman et al. 2021, "SNeRG") the two stand apart: ``geometry_mlp`` for samples, ``color_mlp`` for rays.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import resolve
from kernels.networks import radiance_mlp_numba
from kernels.networks.deferred_numba import LEAST_ALPHA, ShadeNumba
from kernels.triton_support import MAX_WIDTHS

MAX_RAW_DENSITY = 15.0
TAPS = ("hidden", "geo")


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


def twins_of(precision: torch.dtype, widest: int, tapped: bool = False) -> tuple[str, ...]:
    """Implementations of networks whose layers have at most so many channels.

    Args:
        precision: type of the products' factors; numba's have no half precision.
        tapped: whether activations are asked for that Triton's keep to themselves.
    """
    twins = ("torch", "numba") if precision.itemsize >= 4 else ("torch",)
    return twins if tapped or widest > MAX_WIDTHS.get(precision.itemsize, 0) else (*twins, "triton")


def radiance_mlp(
    features: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    density_weights: Sequence[Tensor],
    color_weights: Sequence[Tensor],
    taps: Sequence[str] = (),
    *,
    harmonics: Tensor | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Density and colour of samples, and what flows inside, differentiable like them and in the same backward pass.

    Args:
        features: (N, C) encoded positions; float32, or with torch and Triton also float16 or bfloat16: then factors of
            products are rounded to that type, sums remain float32 (with torch, those of one product).
        basis: (R, S) encoded directions, one row per ray. Not differentiated.
        ray_index: (N,) int64 row of ``basis`` for each sample.
        density_weights: layers (out, in); the last has 1 + G rows: raw density, then G geometry features.
        color_weights: layers (out, in); the first takes G + S channels, the last has 3 rows.
        taps: ``hidden``, the density network's first hidden layer after its ReLU, and ``geo``, the geometry features.
        harmonics: (R, H) what the density network takes of each ray's direction, behind the features; None: nothing.
            Not differentiated.
        implementation: "auto", "torch", "numba" or "triton" (on CUDA torch where layers are more than 64 wide, or
            32 in full precision; harmonics do not count). The Triton twin keeps its activations to itself: with taps it
            is none.

    Returns:
        density (N,) >= 0, rgb (N, 3) in (0, 1), and each tap (N, width).

    Raises:
        ValueError: the implementation cannot run there, or a layer is too wide for it; an unknown tap, or ``hidden`` of
            a density network without a hidden layer.
    """
    check_taps(taps, len(density_weights) - 1)
    available = _available(features.dtype, [*density_weights, *color_weights], harmonics, tapped=bool(taps))
    kernel = "tapped_radiance_mlp" if taps else "radiance_mlp"
    name = resolve(kernel, implementation, features.device, available)
    arguments = (basis, ray_index, len(density_weights), *density_weights, *color_weights)
    if name == "numba":
        harmonics = _no_columns(features) if harmonics is None else harmonics
        wanted = tuple(tap in taps for tap in TAPS)
        density, rgb, *inside = radiance_mlp_numba.RadianceMLPNumba.apply(wanted, features, harmonics, *arguments)
    elif name == "triton":
        from kernels.networks.radiance_mlp_triton import RadianceMLPTriton

        return *RadianceMLPTriton.apply(features, _in_rows(harmonics), *arguments), {}
    else:
        inputs = _beside(features, harmonics, ray_index)
        density, rgb, *inside = _radiance_torch(inputs, basis, ray_index, density_weights, color_weights)
    return density, rgb, {tap: values for tap, values in zip(TAPS, inside, strict=True) if tap in taps}


def geometry_mlp(
    features: Tensor,
    density_weights: Sequence[Tensor],
    taps: Sequence[str] = (),
    *,
    harmonics: Tensor | None = None,
    ray_index: Tensor | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The density network alone, differentiable: density (N,), geometry features (N, G), and each tap.

    Arguments are those of ``radiance_mlp``, but that the Triton twin gives ``geo`` too; of features in half
    precision the geometry features have their type. ``harmonics`` go with ``ray_index``.

    Raises:
        ValueError: as there.
    """
    check_taps(taps, len(density_weights) - 1)
    hidden_tap = "hidden" in taps
    available = _available(features.dtype, density_weights, harmonics, tapped=hidden_tap)
    name, hidden = resolve("geometry_mlp", implementation, features.device, available), None
    if name == "numba":
        # No colour network: its input has no direction, its output no channels.
        nothing = _no_columns(features)
        rays = torch.zeros(len(features), dtype=torch.int64) if ray_index is None else ray_index
        directions = nothing if harmonics is None else harmonics, nothing, rays
        asked = (hidden_tap, True), features, *directions, len(density_weights), *density_weights
        density, _, hidden, geo = radiance_mlp_numba.RadianceMLPNumba.apply(*asked)
    elif name == "triton":
        from kernels.networks.radiance_mlp_triton import GeometryMLPTriton

        density, geo = GeometryMLPTriton.apply(features, _in_rows(harmonics), ray_index, *density_weights)
    else:
        density, hidden, geo = _geometry_torch(_beside(features, harmonics, ray_index), density_weights)
    inside = {"hidden": hidden, "geo": geo}
    return density, geo, {tap: inside[tap] for tap in TAPS if tap in taps}


def color_mlp(geo: Tensor, basis: Tensor, color_weights: Sequence[Tensor]) -> Tensor:
    """The colour network alone: rgb (N, 3) in (0, 1) of geometry features (N, G) and encoded directions (N, S)."""
    return torch.sigmoid(widened(_mlp(torch.cat([geo, basis.to(geo.dtype)], dim=-1), color_weights)))


def color_of_rays(
    features: Tensor,
    alpha: Tensor,
    basis: Tensor,
    color_weights: Sequence[Tensor],
    *,
    precision: torch.dtype = torch.float32,
    implementation: str = "auto",
) -> Tensor:
    """Colour (R, 3) of rays, multiplied by alpha, by the colour network of their mean features; differentiable.

    Args:
        features: (R, G) float32, sums of weight * geometry features.
        alpha: (R,) sums of weight.
        basis: (R, S) encoded directions. Not differentiated.
        color_weights: as of ``radiance_mlp``.
        precision: type of the products' factors.
        implementation: "auto", "torch", "numba" or "triton"; see ``radiance_mlp``.
    """
    name = resolve("color_of_rays", implementation, features.device, _available(precision, color_weights))
    if name == "numba":
        return ShadeNumba.apply(features, alpha, basis, 0.0, len(color_weights), *(w.t() for w in color_weights))
    if name == "triton":
        from kernels.networks.deferred_triton import ShadeTriton
        from kernels.networks.radiance_mlp_triton import STYLE, network_of

        flat = torch.cat([weight.reshape(-1) for weight in color_weights])
        return ShadeTriton.apply(features, alpha, basis, network_of(color_weights), flat, STYLE, precision)
    return alpha[:, None] * color_mlp(mean_features(features, alpha).to(precision), basis, color_weights)


def mean_features(features: Tensor, alpha: Tensor) -> Tensor:
    """Features (R, G) of rays from their sums of weight * feature; those of a ray that meets nothing are zero."""
    return features / alpha.clamp(min=LEAST_ALPHA)[:, None]


def check_taps(taps: Sequence[str], hidden_layers: int) -> None:
    """Raises:
    ValueError: an unknown tap, or one of a layer that is not there.
    """
    for tap in taps:
        if tap not in TAPS or (tap == "hidden" and hidden_layers < 1):
            raise ValueError(f"taps: found {tap!r} with {hidden_layers} hidden layers, expected some of {list(TAPS)}")


def density_mlp(
    features: Tensor,
    density_weights: Sequence[Tensor],
    *,
    harmonics: Tensor | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Density (N,) alone, of features (N, C); differentiable with the torch implementation only.

    Args:
        harmonics: (N, H) what the network takes of each sample's direction, behind the features; None: zeros, their
            mean over all directions.
    """
    if harmonics is None:
        first, *others = density_weights
        density_weights = [first[:, : features.shape[1]], *others]
    else:
        features = torch.cat([features, harmonics.to(features.dtype)], dim=1)
    available = _available(features.dtype, density_weights)
    name = resolve("density_mlp", implementation, features.device, available)
    if name == "torch":
        return truncated_exp(widened(_mlp(features, density_weights)[:, 0]))
    if name == "triton":
        from kernels.networks import radiance_mlp_triton

        return radiance_mlp_triton.density(features.detach(), density_weights)
    return radiance_mlp_numba.density(features.detach(), density_weights)


def _beside(features: Tensor, harmonics: Tensor | None, ray_index: Tensor | None) -> Tensor:
    """(N, C + H) what the density network takes; its memory is channel-major, as encodings from a GPU are."""
    if harmonics is None:
        return features
    # Rows of both, one after another, would have kernels read and write two bytes at a time, and the encoding's
    # backward pass find a point's gradient far from its neighbour's.
    beside = harmonics.t().to(features.dtype).index_select(1, ray_index)
    return torch.cat([features.t(), beside]).t()


def _in_rows(harmonics: Tensor | None) -> Tensor | None:
    """As Triton's kernels read them: each row's side by side."""
    return harmonics if harmonics is None or harmonics.stride(1) == 1 else harmonics.contiguous()


def _no_columns(features: Tensor) -> Tensor:
    return features.new_empty(1, 0)


def _available(
    precision: torch.dtype, weights: Sequence[Tensor], harmonics: Tensor | None = None, tapped: bool = False
) -> tuple[str, ...]:
    outputs, inputs, *others = (channels for weight in weights for channels in weight.shape)
    encoded = inputs if harmonics is None else inputs - harmonics.shape[1]  # which come in a block of their own
    return twins_of(precision, max(outputs, encoded, *others), tapped)


def _radiance_torch(
    features: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    density_weights: Sequence[Tensor],
    color_weights: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Density, rgb, the first hidden layer if there is one, geometry features."""
    density, hidden, geo = _geometry_torch(features, density_weights)
    return density, color_mlp(geo, basis[ray_index], color_weights), hidden, geo


def _geometry_torch(features: Tensor, density_weights: Sequence[Tensor]) -> tuple[Tensor, Tensor | None, Tensor]:
    """Density, the first hidden layer if there is one, geometry features."""
    hidden = _mlp(features, density_weights[:1]).relu() if len(density_weights) > 1 else None
    output = _mlp(features, density_weights) if hidden is None else _mlp(hidden, density_weights[1:])
    return truncated_exp(widened(output[:, 0])), hidden, output[:, 1:]


def _mlp(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    for weight in weights[:-1]:
        x = F.relu(F.linear(x, weight.to(x.dtype)))
    return F.linear(x, weights[-1].to(x.dtype))
