"""Gaussians and cameras for the rasteriser's tests: by hand, and at random."""

from math import pi, sqrt

import pytest
import torch

from kernels.gaussians.rasterize import View

C0 = sqrt(1 / (4 * pi))
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])
# A camera at the origin that looks down -Z; pixel (row 4, column 4) has its centre on the axis.
VIEW = View(torch.eye(4), fx=100, fy=100, cx=4.5, cy=4.5, width=9, height=9)


def scene(means, sigma=0.04, opacities=0.8, colors=(1.0, 0.5, 0.25)):
    """Isotropic Gaussians of one colour each."""
    means = torch.tensor(means, dtype=torch.float32).reshape(-1, 3)
    count = len(means)
    covariances = torch.eye(3).expand(count, 3, 3) * sigma**2
    sh = (torch.as_tensor(colors).expand(count, 3)[:, None, :] - 0.5) / C0
    return means, covariances, torch.as_tensor(opacities, dtype=torch.float32).expand(count), sh


def random_scene(count, degree, seed=0):
    """Anisotropic Gaussians around the origin, some of them behind or beside the camera of ``random_view``."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=generator)
    half = torch.randn(count, 3, 3, generator=generator) * 0.06 * torch.rand(count, 1, 3, generator=generator)
    opacities = torch.rand(count, generator=generator)
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=generator) * 0.4
    return means, half @ half.transpose(1, 2), opacities, sh


def random_view(width, height):
    """A tilted camera 1.5 units from the origin with a principal point off the centre."""
    angle = torch.tensor(0.6)
    pose = torch.eye(4)
    pose[0, 0] = pose[2, 2] = angle.cos()
    pose[0, 2], pose[2, 0] = angle.sin(), -angle.sin()
    pose[2, 3] = -1.5
    return View(pose, fx=0.9 * width, fy=1.1 * width, cx=0.4 * width, cy=0.7 * height, width=width, height=height)
