"""Losses of samples and rays against the teacher's internal features; each a mean over what counts, 0 if nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.encoding.spherical_harmonics import sh_basis
from settings.losses import DensityLossConfig

_SH_CHANNELS = 48
_LEAST = 1e-6


def density_loss(density: Tensor, target: Tensor, weight: Tensor, config: DensityLossConfig) -> Tensor:
    """Mean square difference of natural logarithms, both clamped; beyond the range there is no gradient.

    The range is what makes it work: above ``highest`` a sample is opaque whatever its density, and the volume's mean
    over a cell is no measure of a surface thinner than that; below ``lowest`` it is empty.

    Args:
        density, target: (N,) in the unit of the range, ``students.base.density_unit_of``; weight: (N,) at least 0.
    """
    low, high = math.log(config.lowest), math.log(config.highest)
    student = density.clamp(min=_LEAST).log().clamp(low, high)
    teacher = target.clamp(min=_LEAST).log().clamp(low, high)
    return _mean((student - teacher) ** 2, weight)


def color_loss(rgb: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean square difference of colours (N, 3) in [0, 1], weighted by ``weight`` (N,)."""
    return _mean(((rgb - target) ** 2).mean(-1), weight)


def feature_l2(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean square difference of normalised features (N, C)."""
    return _mean(((predicted - target) ** 2).mean(-1), weight)


def feature_cosine(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - cosine between normalised features (N, C); a zero vector has a cosine of 0 with any other."""
    return _mean(1 - F.cosine_similarity(predicted, target, dim=-1, eps=1e-6), weight)


def sh_colors(features: Tensor, directions: Tensor) -> Tensor:
    """(N, 3) in [0, 1]: colour of the teacher seen along ``directions`` (N, 3), which are unit vectors.

    Args:
        features: (N, 49) the 48 channels ``sh``, coefficients times opacity, and ``opacity``; extinction-weighted
            means, so that their ratio is the mean of the coefficients weighted by opacity too.
    """
    coefficients = features[:, :_SH_CHANNELS] / features[:, _SH_CHANNELS:].clamp(min=1e-3)
    basis = sh_basis(directions, 3)
    return (torch.einsum("nk,nkc->nc", basis, coefficients.view(-1, 16, 3)) + 0.5).clamp(0, 1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (weight * values).sum() / weight.sum().clamp(min=_LEAST)
