"""What follows from the arrays of Gaussians, and their shapes."""

import numpy as np
import pytest
import torch

from kernels.gaussians.covariances import rotation_matrices
from teacher.gaussians import Gaussians


def make_gaussians(count=5, degree=3):
    generator = torch.Generator().manual_seed(degree)
    shapes = (3,), (3,), (4,), (), ((degree + 1) ** 2, 3)
    return Gaussians(*(torch.randn(count, *shape, generator=generator) for shape in shapes))


def test_derived_quantities():
    half = 0.5**0.5
    gaussians = Gaussians(
        means=torch.zeros(1, 3),
        log_scales=torch.tensor([[1.0, 2.0, 3.0]]).log(),
        rotations=torch.tensor([[3 * half, 0.0, 0.0, 3 * half]]),  # 90 degrees about z, not unit length
        opacity_logits=torch.tensor([np.log(3.0)]),
        sh=torch.zeros(1, 4, 3),
    )
    torch.testing.assert_close(gaussians.covariances(), torch.diag(torch.tensor([4.0, 1.0, 9.0]))[None])
    torch.testing.assert_close(gaussians.scales, torch.tensor([[1.0, 2.0, 3.0]]))
    assert float(gaussians.opacities) == pytest.approx(0.75)
    x_axis = rotation_matrices(gaussians.rotations)[0] @ torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(x_axis, torch.tensor([0.0, 1.0, 0.0]))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"rotations: found shape \(2, 3\), expected \(2, 4\)"):
        Gaussians(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 1, 3))
    with pytest.raises(ValueError, match=r"sh: found shape \(2, 5, 3\)"):
        Gaussians(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, 5, 3))
