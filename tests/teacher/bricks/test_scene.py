"""The built-in teacher: deterministic, inside its box, opaque, shaded, and in the picture from every orbit camera."""

import numpy as np
import pytest
import torch

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.gaussians.covariances import rotation_matrices
from scene.rays import image_rays, intersect_box
from teacher.bricks.scene import BRICKS_BOX, build_bricks, orbit_cameras
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.rasterizer import Rasterizer

FIELDS = ("means", "log_scales", "rotations", "opacity_logits", "sh")


@pytest.fixture(scope="module")
def bricks():
    return build_bricks(0)


@pytest.fixture(scope="module")
def orbit(bricks):
    cameras, rasterizer = orbit_cameras(16, 96, 80, seed=1), Rasterizer(bricks)
    return cameras, [rasterizer.render(cameras, i) for i in range(len(cameras))]


def test_determined_by_the_seed(bricks):
    again, other = build_bricks(0), build_bricks(1)
    assert all(torch.equal(getattr(bricks, name), getattr(again, name)) for name in FIELDS)
    assert torch.equal(bricks.means, other.means) and not torch.equal(bricks.sh, other.sh)


def test_finite_and_inside_the_box(bricks, tmp_path):
    assert 25_000 < len(bricks) < 60_000 and bricks.sh_degree == 3
    write_ply(tmp_path / "bricks.ply", bricks)  # reading refuses whatever is not finite
    assert torch.equal(read_ply(tmp_path / "bricks.ply").sh, bricks.sh)
    reach = 2 * bricks.covariances().diagonal(dim1=1, dim2=2).sqrt()
    assert BRICKS_BOX.contains(bricks.means - reach).all() and BRICKS_BOX.contains(bricks.means + reach).all()
    slack = torch.tensor(BRICKS_BOX.extent) - (bricks.means.amax(0) - bricks.means.amin(0))
    assert (slack < 0.15).all()  # tight


def test_flat_on_the_surface(bricks):
    normals = rotation_matrices(bricks.rotations)[:, :, 2]
    roof = bricks.means[:, 2] > 0.3325  # the top of the roof and what stands on it
    assert (bricks.scales[:, 2] < 0.2 * bricks.scales[:, 0]).all()
    assert normals[roof, 2].max() > 0.999
    # The base plate's underside: the lowest Gaussians face down.
    assert (normals[bricks.means[:, 2] < -0.4499, 2] < -0.999).all()


def test_colors_depend_on_the_view_and_stay_in_range(bricks):
    directions = torch.nn.functional.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    colors = torch.einsum("dk,nkc->dnc", sh_basis(directions, 3), bricks.sh[::50]) + 0.5
    assert colors.min() > -0.1 and colors.max() < 1.6
    change = (colors.amax(0) - colors.amin(0)).mean(1)
    assert change.max() > 0.3 and change.median() > 0.02


def test_orbit_sees_all_of_it_from_everywhere(orbit):
    cameras, images = orbit
    for image in images:
        covered = image.alpha > 0.5
        assert 0.1 < covered.float().mean() < 0.6
        frame = torch.cat([image.alpha[0], image.alpha[-1], image.alpha[:, 0], image.alpha[:, -1]])
        assert frame.max() == 0
        inside = -torch.nn.functional.max_pool2d(-covered.float()[None], 5, 1, 2)[0]
        assert (image.alpha[inside > 0] > 0.97).float().mean() > 0.99  # no holes
        assert len(torch.unique((image.rgb[covered] * 8).int(), dim=0)) > 20
    elevation = torch.asin(cameras.centers[:, 2] / cameras.centers.norm(dim=1)).rad2deg()
    assert elevation.min() < 0 and elevation.max() > 60
    azimuth = np.sort(np.arctan2(*cameras.centers[:, :2].T.numpy()))
    assert np.diff(azimuth).max() < 2 * np.pi / 16 * 2


def test_orbit_cameras_are_rigid_and_look_at_the_bricks(orbit):
    cameras, images = orbit
    rotation = cameras.c2w[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(16, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(16))
    torch.testing.assert_close(cameras.centers, 4 * rotation[:, :, 2])
    assert (rotation[:, 2, 1] > 0).all()  # up is up
    # Every covered pixel's ray meets the scene box, between near and far of which the mean depth lies.
    origins, directions = image_rays(cameras, 3)
    near, far = intersect_box(origins, directions, BRICKS_BOX, 0.5, 10.0)
    alpha, z = images[3].alpha.flatten(), images[3].z.flatten()
    covered = alpha > 0.9
    distance = z[covered] / alpha[covered] / (directions[covered] @ -rotation[3, :, 2])
    assert ((distance > near[covered] - 0.02) & (distance < far[covered] + 0.02)).all()


def test_orbit_seed_turns_it():
    first, second = orbit_cameras(5, 8, 8, seed=0), orbit_cameras(5, 8, 8, seed=1)
    assert torch.equal(first.c2w, orbit_cameras(5, 8, 8, seed=0).c2w)
    assert not torch.allclose(first.c2w, second.c2w)
    torch.testing.assert_close(first.centers[:, 2], second.centers[:, 2])
