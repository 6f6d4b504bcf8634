"""Small teachers whose features are known in closed form, and the field they stand for, summed Gaussian by Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.gaussians.gaussian_statistics import VISIBLE_ALPHA, polylogarithm
from scene.rays import SceneBox
from teacher.gaussians import Gaussians

BOX = SceneBox((-1.0, -0.8, -0.6), (1.0, 0.8, 0.6))


def broad_gaussians(count: int = 12, coefficients: int = 4) -> Gaussians:
    """Gaussians of standard deviations of 0.25 to 0.45 about the middle of BOX, all of them visible."""
    return Gaussians(
        means=(torch.rand(count, 3) - 0.5) * torch.tensor([1.0, 0.8, 0.6]),
        log_scales=torch.log(0.25 + 0.2 * torch.rand(count, 3)),
        rotations=torch.randn(count, 4),
        opacity_logits=torch.logit(0.3 + 0.6 * torch.rand(count)),
        sh=torch.randn(count, coefficients, 3),
    )


def thin_gaussians(count: int = 60) -> Gaussians:
    """Flat specks far smaller than a cell of a coarse grid over BOX."""
    return Gaussians(
        means=(torch.rand(count, 3) - 0.5) * torch.tensor([1.6, 1.2, 0.8]),
        log_scales=torch.log(torch.tensor([0.03, 0.03, 0.002])).repeat(count, 1),
        rotations=torch.randn(count, 4),
        opacity_logits=torch.full((count,), 2.0),
        sh=torch.randn(count, 1, 3),
    )


def summed_field(gaussians: Gaussians, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Features (P, C) and density (P,) at points: no grid, no table; 1 / s_d averaged over many directions."""
    directions = torch.nn.functional.normalize(torch.randn(5000, 3, dtype=torch.float64), dim=1)
    density = torch.zeros(len(points), len(gaussians), dtype=torch.float64)
    for g, covariance in enumerate(gaussians.covariances().double()):
        metric = torch.linalg.inv(covariance)
        inverse_length = torch.einsum("di,ij,dj->d", directions, metric, directions).sqrt().mean()
        offset = points.double() - gaussians.means[g].double()
        squared = torch.einsum("pi,ij,pj->p", offset, metric, offset)
        alpha = gaussians.opacities[g].double() * torch.exp(-0.5 * squared)
        thickness = torch.where(alpha >= VISIBLE_ALPHA, polylogarithm(0.5, alpha), 0)
        density[:, g] = thickness * inverse_length / math.sqrt(2 * math.pi)
    total = density.sum(1)
    return (density @ features.double() / total[:, None].clamp(min=1e-30)).float(), total.float()
