"""Structural similarity (Wang et al. 2004) as a loss: Gaussian window of 11 pixels, sigma 1.5, zeros beyond the edge.

The window and the padding are 3DGS's (Kerbl et al. 2023); ``distill.evaluation.metrics.ssim`` measures, without
padding.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import resolve
from kernels.losses.ssim_numba import C1, C2, RADIUS, SsimNumba, window


def ssim(image: Tensor, reference: Tensor, *, implementation: str = "auto") -> Tensor:
    """Mean structural similarity over pixels and channels, in [-1, 1]; differentiable in ``image``.

    Args:
        image, reference: (H, W, C) in [0, 1].
        implementation: "auto", "torch" or "numba".

    Raises:
        ValueError: the shapes differ.
    """
    if image.shape != reference.shape or image.ndim != 3:
        raise ValueError(f"found shapes {tuple(image.shape)} and {tuple(reference.shape)}, expected one (H, W, C)")
    if resolve("ssim", implementation, image.device, ("torch", "numba")) == "torch":
        return _ssim_torch(image, reference)
    return SsimNumba.apply(image, reference)


def _ssim_torch(image: Tensor, reference: Tensor) -> Tensor:
    x, y = (part.permute(2, 0, 1)[:, None] for part in (image, reference))
    weights = window().to(x)

    def blur(plane: Tensor) -> Tensor:
        plane = F.conv2d(plane, weights.view(1, 1, 1, -1), padding=(0, RADIUS))
        return F.conv2d(plane, weights.view(1, 1, -1, 1), padding=(RADIUS, 0))

    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return (above / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2))).mean()
