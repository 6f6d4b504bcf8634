"""Covariances: known ones by hand, then numba against the torch reference, forward and backward."""

import math

import pytest
import torch

from kernels.gaussians.covariances import gaussian_covariances, rotation_matrices

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])


@IMPLEMENTATIONS
def test_a_quarter_turn_about_z_swaps_the_axes(implementation):
    turn = torch.tensor([[1.0, 0, 0, 1.0]])  # of length sqrt(2)
    scales = torch.tensor([[1.0, 2.0, 3.0]]).log()
    found = gaussian_covariances(scales, turn, implementation=implementation)
    torch.testing.assert_close(found[0], torch.diag(torch.tensor([4.0, 1.0, 9.0])), atol=1e-5, rtol=1e-6)


def test_rotation_matrices_are_rotations():
    matrices = rotation_matrices(torch.randn(20, 4))
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).expand(20, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(20), atol=1e-5, rtol=0)
    x_axis = rotation_matrices(torch.tensor([[math.cos(0.3), 0, 0, math.sin(0.3)]]))[0, :, 0]
    torch.testing.assert_close(x_axis, torch.tensor([math.cos(0.6), math.sin(0.6), 0.0]))


@pytest.mark.parametrize("count", [0, 1, 77, 9001])
def test_numba_against_torch(count):
    scales, quaternions = torch.randn(count, 3), torch.randn(count, 4)
    weight, results = torch.randn(count, 3, 3), []
    for implementation in ("torch", "numba"):
        leaves = scales.clone().requires_grad_(), quaternions.clone().requires_grad_()
        found = gaussian_covariances(*leaves, implementation=implementation)
        (found * weight).sum().backward()
        results.append((found.detach(), *(leaf.grad for leaf in leaves)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * (1 + float(expected.abs().sum() > 0)))


@IMPLEMENTATIONS
def test_the_length_of_a_quaternion_changes_nothing(implementation):
    scales, quaternions = torch.randn(5, 3), torch.randn(5, 4, requires_grad=True)
    found = gaussian_covariances(scales, quaternions, implementation=implementation)
    longer = gaussian_covariances(scales, 3 * quaternions, implementation=implementation)
    torch.testing.assert_close(found, longer, rtol=1e-4, atol=1e-5)
    (found * torch.randn(5, 3, 3)).sum().backward()
    along = (quaternions.grad * quaternions.detach()).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros(5), atol=1e-4 * float(quaternions.grad.abs().max()), rtol=0)
