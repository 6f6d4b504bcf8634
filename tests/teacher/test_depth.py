import math

import pytest
import torch

from scene.cameras import Cameras
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.depth import DepthKind, covered, to_distance
from tests.teacher.depth_scenes import BOX, orbit, render, trace


@pytest.fixture(scope="module")
def scene():
    cameras = orbit(24)
    return cameras, *render(cameras)


@pytest.mark.parametrize("kind", DepthKind)
def test_to_distance_recovers_the_surface(scene, kind):
    cameras, depth, alpha = scene
    exact = trace(cameras, 7)
    distance, valid = to_distance(depth[kind][7], kind, cameras, 7, alpha[7])
    opaque = alpha[7] == 1
    assert (distance[~valid] == 0).all() and valid[opaque].all() and not valid[alpha[7] < 0.5].any()
    assert (distance - exact)[opaque].abs().median() < 2e-3
    # Away from depth steps, partly covered pixels are right too: that is what dividing by alpha is for.
    rim = valid & ~opaque & exact.isfinite()
    assert rim.sum() > 20 and (distance - exact)[rim].abs().median() < 0.06


def test_to_distance_by_hand():
    one = torch.ones(1)
    cameras = Cameras(torch.eye(4)[None], one * 2, one * 2, one * 1.5, one * 1.5, 3, 3)
    depth = torch.full((3, 3), 0.25)
    factor = math.sqrt(0.5**2 + 0.5**2 + 1)  # the corner pixel
    alpha = torch.full((3, 3), 0.5)
    corner = {kind: to_distance(depth, kind, cameras, 0, alpha)[0][0, 0].item() for kind in DepthKind}
    assert corner == pytest.approx(
        {
            DepthKind.Z: 0.5 * factor,
            DepthKind.DISTANCE: 0.5,
            DepthKind.INVERSE_Z: 2 * factor,
            DepthKind.Z_NORMALIZED: 0.25 * factor,
            DepthKind.DISTANCE_NORMALIZED: 0.25,
            DepthKind.INVERSE_Z_NORMALIZED: 4 * factor,
        }
    )


def test_without_alpha_accumulated_depth_is_valid_only_inside():
    ones = torch.ones(1)
    cameras = Cameras(torch.eye(4)[None], ones, ones, ones * 2.5, ones * 2.5, 5, 5)
    depth = torch.ones(5, 5)
    depth[0, 0] = 0
    distance, valid = to_distance(depth, DepthKind.INVERSE_Z, cameras, 0)
    assert (~valid).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] and distance[1, 1] == 0
    distance, valid = to_distance(depth, DepthKind.INVERSE_Z_NORMALIZED, cameras, 0)
    assert (~valid).nonzero().tolist() == [[0, 0]] and distance[1, 1].item() == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize(("middle", "is_valid"), [(0.74, False), (0.76, True)])
def test_without_alpha_a_pixel_of_three_quarters_of_its_neighbours_depth_has_not_faded(middle, is_valid):
    one = torch.ones(1)
    cameras = Cameras(torch.eye(4)[None], one * 2, one * 2, one * 3.5, one * 3.5, 7, 7)
    depth = torch.ones(7, 7)
    depth[3, 3] = middle
    valid = to_distance(depth, DepthKind.Z, cameras, 0)[1]
    assert valid[3, 3] == is_valid and valid[0, 0]


def test_depth_beyond_one_and_a_half_times_the_far_end_of_the_box_is_a_sky_s_by_hand():
    """From (0, 0, 5) the farthest corner of the box is sqrt(1 + 1 + 36) = 6.164 away: a sky begins at 9.247."""
    pose, one = torch.eye(4), torch.ones(1)
    pose[2, 3] = 5.0
    cameras = Cameras(pose[None], one * 2, one * 2, one * 2, one * 0.5, 4, 1)
    box = SceneBox((-1, -1, -1), (1, 1, 1))
    found = covered(torch.tensor([[0.0, 0.1, 9.2, 9.3]]), DepthKind.Z, cameras, 0, box)
    assert found.tolist() == [[False, True, True, False]]
    nearness = torch.tensor([[0.0, 1 / 9.3, 1 / 9.2, 1.0]])
    found = covered(nearness, DepthKind.INVERSE_Z_NORMALIZED, cameras, 0, box)
    assert found.tolist() == [[False, False, True, True]]
    # Of what is not divided by alpha a 512th of that is there.
    assert covered(nearness / 512, DepthKind.INVERSE_Z, cameras, 0, box).tolist() == [[False, False, True, True]]


def test_kind_names():
    assert DepthKind.parse("auto") is None and DepthKind.parse("inverse_z") is DepthKind.INVERSE_Z
    assert DepthKind.INVERSE_Z_NORMALIZED.quantity == "inverse_z" and not DepthKind.Z.normalized
    with pytest.raises(InputError, match="cfg.yaml: depth_kind: found 'metres', expected auto or one of z, distance"):
        DepthKind.parse("metres", "cfg.yaml")


@pytest.mark.parametrize("kind", DepthKind)
def test_a_sky_far_beyond_the_box_is_not_covered(scene, kind):
    cameras, depth, alpha = scene
    sky = {"z": 60.0, "distance": 60.0, "inverse_z": 1 / 60 if kind.normalized else 1e-5}[kind.quantity]
    seen = covered(torch.where(alpha[3] > 0, depth[kind][3], sky), kind, cameras, 3, BOX)
    assert torch.equal(seen, alpha[3] > 0), "faint edges included"
    assert covered(torch.full_like(alpha[3], sky), kind, cameras, 3, None).all(), "no box, no beyond"
