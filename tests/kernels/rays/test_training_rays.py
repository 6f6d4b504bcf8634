"""The rays that the twins draw for training, where torch's arithmetic has special cases."""

import pytest
import torch

from kernels.rays.training_rays_numba import Pixels
from kernels.rays.training_rays_numba import draw as draw_numba
from scene.cameras import Cameras
from scene.rays import SceneBox, intersect_box, pixel_rays
from tests.triton_device import TRITON, device_of

BOX = SceneBox((-1, -1, -1), (1, 1, 1))
RANGE = 0.1, 50.0


def draw_of(twin):
    if twin == "numba":
        return draw_numba
    from kernels.rays.training_rays_triton import draw

    return draw


@pytest.mark.parametrize("twin", ["numba", TRITON])
def test_twins_clip_rays_along_the_axes_and_past_the_box(look_at, twin):
    """A ray through a pixel's middle is parallel to four faces; a camera that looks away sees nothing of the box."""
    draw, device = draw_of(twin), device_of(twin)
    cameras = look_at([(3.0, 0, 0), (0, 0, 0.5), (3.0, 3.0, 3.0)], width=3, height=3, focal=2.0)
    poses = torch.cat([cameras.c2w, cameras.c2w[2:] * torch.tensor([-1.0, 1, -1, 1])])
    cameras = Cameras(poses, *(torch.full((4,), value) for value in (2.0, 2.0, 1.5, 1.5)), 3, 3)
    row, col = torch.arange(36) % 9 // 3, torch.arange(36) % 3
    origins, directions = pixel_rays(cameras, torch.arange(36) // 9, row, col)
    near, far = intersect_box(origins, directions, BOX, *RANGE)
    there = cameras.to(device)
    rgb, coverage = (torch.zeros(shape, dtype=torch.uint8, device=device) for shape in ((36, 3), 36))
    intrinsics = there.fx, there.fy, there.cx, there.cy
    pixels = Pixels(there.c2w, intrinsics, (3, 3), rgb, None, coverage, None, None, None)
    chosen, white = torch.arange(36, device=device), torch.ones(36, 3, device=device)
    found = draw(chosen, white, pixels, BOX.lower, BOX.upper, *RANGE)
    torch.testing.assert_close(found.directions.cpu(), directions)
    torch.testing.assert_close(found.near.cpu(), near)
    torch.testing.assert_close(found.far.cpu(), far)
    hit = far > near
    assert hit[4] and (directions[4] == 0).sum() == 2 and not hit[27:].any()
