"""The teacher as a set of 3D Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kernels.gaussians.covariances import gaussian_covariances, rotation_matrices
from machine.fingerprints import digest

Array = TypeVar("Array", np.ndarray, Tensor)
_GIANT, _AWAY = 3.0, 1000.0  # widths of the scene
_ROWS = 1 << 18  # looked at together: of millions, what is in between takes several times the result
_SH0 = 0.28209479177387814  # the harmonic of degree 0, 1 / sqrt(4 pi)


@dataclass(frozen=True)
class Gaussians:
    """N anisotropic 3D Gaussians as 3DGS (Kerbl et al. 2023) stores them: float32, on the CPU.

    Attributes:
        means: (N, 3) centres, world units.
        log_scales: (N, 3) natural logarithm of the standard deviation along each principal axis.
        rotations: (N, 4) quaternions w, x, y, z of the principal axes; any non-zero length.
        opacity_logits: (N,) opacity before the sigmoid.
        sh: (N, K, 3) spherical-harmonics coefficients of RGB, K in {1, 4, 9, 16}; colour is basis @ sh + 0.5.
    """

    means: Tensor
    log_scales: Tensor
    rotations: Tensor
    opacity_logits: Tensor
    sh: Tensor

    def __post_init__(self) -> None:
        count = len(self.means)
        for name, shape in (("means", (3,)), ("log_scales", (3,)), ("rotations", (4,)), ("opacity_logits", ())):
            found = tuple(getattr(self, name).shape)
            if found != (count, *shape):
                raise ValueError(f"Gaussians.{name}: found shape {found}, expected {(count, *shape)}")
        if (found := tuple(self.sh.shape)) not in {(count, k, 3) for k in (1, 4, 9, 16)}:
            raise ValueError(f"Gaussians.sh: found shape {found}, expected ({count}, 1|4|9|16, 3)")

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, index: Tensor | slice) -> Gaussians:
        """Those Gaussians, in that order: by a (N,) bool mask, indices or a slice."""
        return Gaussians(*(getattr(self, field.name)[index] for field in fields(self)))

    def colourless(self) -> Gaussians:
        """The same, of which nobody asks for colours that depend on the direction: choosing some copies little."""
        return replace(self, sh=self.sh[:, :1])

    def scaled(self, factor: float) -> Gaussians:
        """The same in a world that is so many times as large about its origin."""
        return replace(self, means=self.means * factor, log_scales=self.log_scales + math.log(factor))

    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell these Gaussians from others, whatever file they are from."""
        return digest(getattr(self, field.name) for field in fields(self))

    @property
    def opacities(self) -> Tensor:
        """(N,) in (0, 1)."""
        return torch.sigmoid(self.opacity_logits)

    @property
    def scales(self) -> Tensor:
        """(N, 3) standard deviations, world units."""
        return torch.exp(self.log_scales)

    @property
    def sh_degree(self) -> int:
        """0 to 3."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]

    def outliers(self) -> Tensor:
        """(N,) bool: Gaussians wider than 3 times the scene, or 1000 times its width away from it.

        The scene is as wide as the middle 96 % of its means along each axis, or six of its usual standard deviations.
        """
        sample = self[:: max(1, len(self) // 20_000)]
        ends = torch.quantile(sample.means.double(), torch.tensor([0.02, 0.98], dtype=torch.float64), dim=0)
        width = max((ends[1] - ends[0]).max().item(), 6 * sample.scales.median().item())
        away = (self.means - ends.mean(dim=0).float()).abs().amax(dim=1)
        return (self.log_scales.amax(dim=1) > math.log(_GIANT * width)) | (away > _AWAY * width)

    def half_axes(self) -> Tensor:
        """(N, 3, 3) world units: the columns are the principal axes times their standard deviations."""
        axes = self.means.new_empty(len(self), 3, 3)
        for start in range(0, len(self), _ROWS):
            part = slice(start, start + _ROWS)
            axes[part] = rotation_matrices(self.rotations[part]) * self.log_scales[part].exp()[:, None, :]
        return axes

    def covariances(self) -> Tensor:
        """(N, 3, 3) world-space covariances R diag(scale^2) R^T."""
        return gaussian_covariances(self.log_scales, self.rotations)


def sh_of_colors(colors: Array) -> Array:
    """(N, 1, 3) coefficients of Gaussians that show colours (N, 3), sRGB in [0, 1], to all sides."""
    return ((colors - 0.5) / _SH0)[:, None]


def colors_of_sh(sh: Tensor) -> Tensor:
    """(N, 3) uint8 sRGB: the colours that all sides share, of coefficients (N, K, 3)."""
    return ((sh[:, 0] * _SH0 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
