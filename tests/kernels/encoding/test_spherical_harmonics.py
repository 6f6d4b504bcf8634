"""Spherical harmonics against published constants, orthonormality and autograd."""

import numpy as np
import pytest
import torch

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.encoding.spherical_harmonics_numba import fill_sh_basis, sh_basis_gradient
from tests.triton_device import DEVICE, needs_triton


def test_constants_of_every_degree():
    direction = torch.tensor([[2.0, -1.0, 2.0]], dtype=torch.float64) / 3
    x, y, z = (float(v) for v in direction[0])
    expected = [
        0.28209479177387814,
        -0.4886025119029199 * y,
        0.4886025119029199 * z,
        -0.4886025119029199 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (x * x - y * y),
        -0.5900435899266435 * y * (3 * x * x - y * y),
        2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
        0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
        -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
        1.445305721320277 * z * (x * x - y * y),
        -0.5900435899266435 * x * (x * x - 3 * y * y),
    ]
    values = sh_basis(direction, 4)
    np.testing.assert_allclose(values[0, :16], expected, atol=1e-14)
    # Degree 4 at the pole: only m = 0 is left, sqrt(9 / 4pi); on +x the sectoral one is 0.6258.
    pole = sh_basis(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64), 4)
    np.testing.assert_allclose(pole[0, 16:], [0, 0, 0, 0, 0.8462843753216345, 0, 0, 0, 0], atol=1e-14)
    assert pole[1, 24] == pytest.approx(0.6258357354491761)


def test_orthonormal_by_quadrature():
    # Gauss-Legendre in z and a regular grid in azimuth integrate polynomials up to degree 8 exactly.
    nodes, weights = np.polynomial.legendre.leggauss(8)
    azimuth = np.arange(16) * (2 * np.pi / 16)
    z, phi = np.meshgrid(nodes, azimuth, indexing="ij")
    ring = np.sqrt(1 - z * z)
    directions = torch.from_numpy(np.stack([ring * np.cos(phi), ring * np.sin(phi), z], -1).reshape(-1, 3))
    area = torch.from_numpy(np.repeat(weights * 2 * np.pi / 16, 16))
    basis = sh_basis(directions, 4)
    np.testing.assert_allclose(basis.T @ (basis * area[:, None]), np.eye(25), atol=1e-12)


def test_lower_degree_is_a_prefix_and_leading_shape_is_kept():
    directions = torch.nn.functional.normalize(torch.randn(2, 5, 3, generator=torch.manual_seed(0)), dim=-1)
    full = sh_basis(directions, 4)
    for degree in range(5):
        part = sh_basis(directions, degree)
        assert part.shape == (2, 5, (degree + 1) ** 2)
        assert torch.equal(part, full[..., : (degree + 1) ** 2])
    assert sh_basis(torch.empty(0, 3), 2).shape == (0, 9)


@needs_triton
@pytest.mark.parametrize("degree", range(5))
def test_triton_twin(degree):
    for count in (0, 1, 300):
        directions = torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
        found = sh_basis(directions.to(DEVICE), degree, implementation="triton")
        torch.testing.assert_close(found.cpu(), sh_basis(directions, degree), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("twin", ["numba", pytest.param("triton", marks=needs_triton)])
def test_what_is_differentiated_or_of_another_type_or_shape_is_torchs(twin):
    for leaf in (torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, dtype=torch.float64), torch.rand(2, 2, 3)):
        assert torch.equal(sh_basis(leaf, 4, implementation=twin), sh_basis(leaf, 4))


def test_gradient():
    directions = torch.nn.functional.normalize(torch.randn(4, 3, dtype=torch.float64), dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: sh_basis(d, 4), (directions,))


@pytest.mark.parametrize("degree", [-1, 5])
def test_degree_out_of_range(degree):
    with pytest.raises(ValueError, match="expected 0 to 4"):
        sh_basis(torch.zeros(1, 3), degree)


def test_numba_twin():
    direction = torch.nn.functional.normalize(torch.randn(3, dtype=torch.float64), dim=0)
    for degree in range(5):
        basis = np.full((degree + 1) ** 2, np.nan)
        fill_sh_basis(*direction.tolist(), basis)
        np.testing.assert_allclose(basis, sh_basis(direction, degree), atol=1e-14)
        for count in (0, 1, 1500):
            directions = torch.nn.functional.normalize(torch.randn(2 * count, 3), dim=-1)[::2]
            found = sh_basis(directions, degree, implementation="numba")
            torch.testing.assert_close(found, sh_basis(directions, degree), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_gradient_inside_kernels_is_autograds(degree):
    for direction in torch.nn.functional.normalize(torch.randn(5, 3).double(), dim=-1):
        direction.requires_grad_()
        weights = torch.randn((degree + 1) ** 2).double()
        (sh_basis(direction, degree) * weights).sum().add(0 * direction.sum()).backward()
        # Off the sphere the constant terms of zz and of xx + yy + zz differ: only what is tangent to it counts.
        found = torch.tensor(sh_basis_gradient(*direction.tolist(), weights.numpy())).double()
        unit = direction.detach()
        tangent = [grad - (grad @ unit) * unit for grad in (found, direction.grad)]
        torch.testing.assert_close(tangent[0], tangent[1], rtol=1e-5, atol=1e-6)
