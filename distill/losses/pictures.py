"""What training minimises: colour, alpha and depth of rays against the teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.compositing.compositing import Composite
from kernels.losses.picture_terms_numba import PictureTermsNumba
from scene.rays import Rays
from settings.losses import (
    PICTURE_TERMS,
    AlphaLossConfig,
    DepthLossConfig,
    LossConfig,
    RgbLossConfig,
    ScheduledTerm,
)


@dataclass
class RayBatch:
    """Rays and what the teacher shows along them.

    Attributes:
        rays: R rays.
        rgb: (R, 3) teacher colour composited on ``background``.
        background: (R, 3).
        coverage: (R,) teacher alpha where known, else the silhouette's share of the pixel.
        distance: (R,) expected distance, world units, 0 where unknown; None without teacher depth.
        reach: (R,) distance behind which the teacher shows nothing, world units, inf where it does; None: not known.
    """

    rays: Rays
    rgb: Tensor
    background: Tensor
    coverage: Tensor
    distance: Tensor | None
    reach: Tensor | None = None

    def __getitem__(self, index: slice | Tensor) -> RayBatch:
        parts = (getattr(self, field.name) for field in fields(self))
        return RayBatch(*(None if part is None else part[index] for part in parts))

    @property
    def sampled(self) -> Rays:
        """The rays as far as they are sampled."""
        if self.reach is None:
            return self.rays
        return replace(self.rays, far=torch.minimum(self.rays.far, self.reach))

    def with_depth_inside(self) -> RayBatch:
        """The same with distances that are not inside the box unknown: the depth term is relative to near and far."""
        if self.distance is None:
            return self
        inside = (self.distance >= self.rays.near) & (self.distance <= self.rays.far)
        return replace(self, distance=self.distance.where(inside, 0.0))


@dataclass
class DepthStatistics:
    """What the depth term saw of R rays; picking out those it used waits for the device, so it is left to the log.

    Attributes:
        valid: (R,) bool, the rays it used.
        all_distances, all_normalized: (R,) the teacher's distance, in world units and between near and far.
    """

    valid: Tensor
    all_distances: Tensor
    all_normalized: Tensor

    @property
    def valid_fraction(self) -> Tensor:
        """() share of rays used."""
        return self.valid.float().mean()

    @property
    def distance(self) -> Tensor:
        """The teacher's distances of the rays used, world units."""
        return self.all_distances[self.valid]

    @property
    def normalized(self) -> Tensor:
        """The same between near and far."""
        return self.all_normalized[self.valid]


def scheduled_weight(term: ScheduledTerm, progress: float) -> float:
    """The term's weight at ``progress`` in [0, 1]: it falls linearly to ``final``."""
    progress, factor = min(progress, 1.0), 1.0
    if progress >= term.decay_end < 1:
        factor = term.final
    elif progress > term.decay_start:
        done = (progress - term.decay_start) / (term.decay_end - term.decay_start)
        factor = 1 + (term.final - 1) * done
    return term.weight * factor


def normalize_distance(distance: Tensor, rays: Rays) -> Tensor:
    """Distance along the ray to [0, 1] between its near and far."""
    return (distance - rays.near) / (rays.far - rays.near).clamp(min=1e-6)


def rgb_loss(predicted: Tensor, target: Tensor, config: RgbLossConfig, kept: Tensor | None = None) -> Tensor:
    """Mean over rays and channels; of the rays ``kept`` (R,) bool alone, where given."""
    if config.kind == "l1":
        error = F.l1_loss(predicted, target, reduction="none")
    elif config.kind == "huber":
        error = F.huber_loss(predicted, target, reduction="none", delta=config.delta)
    else:
        error = F.mse_loss(predicted, target, reduction="none")
    return _mean(error.mean(-1), kept)


def alpha_loss(predicted: Tensor, target: Tensor, config: AlphaLossConfig, kept: Tensor | None = None) -> Tensor:
    """Mean over rays; of the rays ``kept`` (R,) bool alone, where given."""
    if config.kind == "bce":
        # Not the built-in: its logarithm is clamped at -100, so one wrong ray could outweigh thousands.
        # The clamp is kept out of the gradient, which an empty student needs most.
        opaque = predicted + (predicted.clamp(1e-4, 1 - 1e-4) - predicted).detach()
        gain = target * opaque.log() + (1 - target) * (1 - opaque).log()
        return -_mean(gain, kept)
    return _mean(F.mse_loss(predicted, target, reduction="none"), kept)


def _mean(values: Tensor, kept: Tensor | None) -> Tensor:
    return values.mean() if kept is None else torch.where(kept, values, 0.0).sum() / kept.sum().clamp(min=1)


def depth_counts(batch: RayBatch, config: DepthLossConfig, kept: Tensor | None = None) -> Tensor:
    """(R,) bool: rays, of those ``kept`` where given, whose teacher is opaque enough and whose distance is known."""
    rays = batch.rays
    valid = (batch.distance > 0) & (batch.coverage >= config.alpha_threshold) & (rays.far > rays.near)
    return valid if kept is None else valid & kept


def depth_loss(
    result: Composite, batch: RayBatch, config: DepthLossConfig, kept: Tensor | None = None
) -> tuple[Tensor, DepthStatistics]:
    """Mean over the rays whose teacher is opaque enough and whose distance is known; 0 when there is none.

    Args:
        kept: (R,) bool, rays to look at; None: all.
    """
    rays, distance = batch.rays, batch.distance
    valid = depth_counts(batch, config, kept)
    target = normalize_distance(distance, rays)
    expected = result.distance / result.alpha.clamp(min=1e-3)
    predicted = normalize_distance(expected, rays)
    if config.kind == "l1":
        error = (predicted - target).abs()
    elif config.kind == "l2":
        error = (predicted - target) ** 2
    else:
        error = F.smooth_l1_loss(predicted, target, beta=config.delta, reduction="none")
    # Where nothing has been composited yet, the expected distance says nothing.
    error = torch.where(valid & (result.alpha.detach() > 1e-3), error, 0.0)
    return error.sum() / valid.sum().clamp(min=1), DepthStatistics(valid, distance, target)


def term_weights(config: LossConfig, progress: float) -> dict[str, float]:
    """Weight of each of ``PICTURE_TERMS`` at ``progress`` in [0, 1]."""
    return {name: scheduled_weight(getattr(config, name), progress) for name in PICTURE_TERMS}


def total_loss(
    result: Composite,
    batch: RayBatch,
    config: LossConfig,
    weights: Mapping[str, float | Tensor],
    kept: Tensor | None = None,
    implementation: str = "torch",
) -> tuple[Tensor, dict[str, Tensor], DepthStatistics | None]:
    """The weighted sum and each unweighted term that is in use.

    Args:
        weights: of each term, see ``term_weights``.
        kept: (R,) bool, rays that were rendered; None: all.
        implementation: "torch", "numba", or with ``kept`` "triton".

    Returns:
        total, {"rgb": ..., "alpha": ..., "depth": ...} without the terms that are off, depth statistics.
    """
    if implementation != "torch":
        return _total_loss_fused(result, batch, config, weights, kept, implementation)
    predicted = result.rgb + (1 - result.alpha)[:, None] * batch.background
    terms = {"rgb": rgb_loss(predicted, batch.rgb, config.rgb, kept)}
    statistics = None
    if config.alpha.weight > 0:
        terms["alpha"] = alpha_loss(result.alpha, batch.coverage, config.alpha, kept)
    if batch.distance is not None:
        depth, statistics = depth_loss(result, batch, config.depth, kept)
        if config.depth.weight > 0:
            terms["depth"] = depth
    total = sum(weights[name] * term for name, term in terms.items())
    return total, terms, statistics


def _total_loss_fused(
    result: Composite,
    batch: RayBatch,
    config: LossConfig,
    weights: Mapping[str, float | Tensor],
    kept: Tensor | None,
    implementation: str,
) -> tuple[Tensor, dict[str, Tensor], DepthStatistics | None]:
    if implementation == "numba":
        apply = PictureTermsNumba.apply
    else:
        from kernels.losses.picture_terms_triton import PictureTermsTriton

        apply = PictureTermsTriton.apply
    rays, has_depth = batch.rays, batch.distance is not None
    used = {"rgb": True, "alpha": config.alpha.weight > 0, "depth": has_depth and config.depth.weight > 0}
    factors = [weights[name] if used[name] else 0.0 * weights["rgb"] for name in PICTURE_TERMS]
    options = {"RGB": config.rgb.kind, "RGB_DELTA": config.rgb.delta, "ALPHA": config.alpha.kind}
    options |= {"DEPTH": config.depth.kind, "DEPTH_DELTA": config.depth.delta}
    total, terms, valid, normalized = apply(
        *result[:3], batch.rgb, batch.background, batch.coverage, batch.distance, rays.near, rays.far, kept,
        torch.stack(factors) if isinstance(factors[0], Tensor) else factors,
        options | {"LEAST_COVERAGE": config.depth.alpha_threshold},
    )  # fmt: skip
    named = dict(zip(PICTURE_TERMS, terms.unbind(), strict=True))
    statistics = DepthStatistics(valid, batch.distance, normalized) if has_depth else None
    return total, {name: term for name, term in named.items() if used[name]}, statistics
