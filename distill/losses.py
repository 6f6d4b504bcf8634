"""What training minimises: colour, alpha and depth of rays against the teacher's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.schema_losses import AlphaLossConfig, DepthLossConfig, LossConfig, RgbLossConfig, ScheduledTerm
from kernels.compositing import Composite
from scene.rays import Rays


@dataclass
class RayBatch:
    """Rays and what the teacher shows along them.

    Attributes:
        rays: R rays.
        rgb: (R, 3) teacher colour composited on ``background``.
        background: (R, 3).
        coverage: (R,) teacher alpha where known, else the silhouette's share of the pixel.
        distance: (R,) expected distance, world units, 0 where unknown; None without teacher depth.
        features: (R, C) teacher features composited along each ray, and their sum of weights (R,); None where
            nothing is aligned by ray.
    """

    rays: Rays
    rgb: Tensor
    background: Tensor
    coverage: Tensor
    distance: Tensor | None
    features: tuple[Tensor, Tensor] | None = None


@dataclass
class DepthStatistics:
    """What the depth term saw: share of rays it used, and the teacher's distances there (world and normalised)."""

    valid_fraction: Tensor
    distance: Tensor
    normalized: Tensor


def scheduled_weight(term: ScheduledTerm, progress: float) -> float:
    """The term's weight at ``progress`` in [0, 1]: linear warm-up from 0, then linear decay to ``final``."""
    progress, factor = min(progress, 1.0), 1.0
    if progress < term.warmup:
        factor = progress / term.warmup
    elif progress >= term.decay_end < 1:
        factor = term.final
    elif progress > term.decay_start:
        done = (progress - term.decay_start) / (term.decay_end - term.decay_start)
        factor = 1 + (term.final - 1) * done
    return term.weight * factor


def normalize_distance(distance: Tensor, rays: Rays) -> Tensor:
    """Distance along the ray to [0, 1] between its near and far."""
    return (distance - rays.near) / (rays.far - rays.near).clamp(min=1e-6)


def rgb_loss(predicted: Tensor, target: Tensor, config: RgbLossConfig) -> Tensor:
    """Mean over rays and channels."""
    if config.kind == "l1":
        return F.l1_loss(predicted, target)
    if config.kind == "huber":
        return F.huber_loss(predicted, target, delta=config.delta)
    return F.mse_loss(predicted, target)


def alpha_loss(predicted: Tensor, target: Tensor, config: AlphaLossConfig) -> Tensor:
    """Mean over rays."""
    if config.kind == "bce":
        # Not the built-in: its logarithm is clamped at -100, so one wrong ray could outweigh thousands.
        # The clamp is kept out of the gradient, which an empty student needs most.
        opaque = predicted + (predicted.clamp(1e-4, 1 - 1e-4) - predicted).detach()
        return -(target * opaque.log() + (1 - target) * (1 - opaque).log()).mean()
    return F.mse_loss(predicted, target)


def depth_loss(result: Composite, batch: RayBatch, config: DepthLossConfig) -> tuple[Tensor, DepthStatistics]:
    """Mean over the rays whose teacher is opaque enough and whose distance is known; 0 when there is none."""
    rays, distance = batch.rays, batch.distance
    valid = (distance > 0) & (batch.coverage >= config.alpha_threshold) & (rays.far > rays.near)
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
    statistics = DepthStatistics(valid.float().mean(), distance[valid], target[valid])
    return error.sum() / valid.sum().clamp(min=1), statistics


def total_loss(
    result: Composite, batch: RayBatch, config: LossConfig, progress: float
) -> tuple[Tensor, dict[str, Tensor], DepthStatistics | None]:
    """The weighted sum and each unweighted term that is in use.

    Returns:
        total, {"rgb": ..., "alpha": ..., "depth": ...} without the terms that are off, depth statistics.
    """
    predicted = result.rgb + (1 - result.alpha)[:, None] * batch.background
    terms = {"rgb": rgb_loss(predicted, batch.rgb, config.rgb)}
    statistics = None
    if config.alpha.weight > 0:
        terms["alpha"] = alpha_loss(result.alpha, batch.coverage, config.alpha)
    if batch.distance is not None:
        depth, statistics = depth_loss(result, batch, config.depth)
        if config.depth.weight > 0:
            terms["depth"] = depth
    total = sum(scheduled_weight(getattr(config, name), progress) * term for name, term in terms.items())
    return total, terms, statistics
