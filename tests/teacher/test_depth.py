import math

import pytest
import torch

from scene.cameras import Cameras
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
