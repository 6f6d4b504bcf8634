"""Balls and blocks whose depth is known exactly, rendered as every kind."""

import math

import torch

from scene.cameras import Cameras
from scene.rays import SceneBox, image_rays, intersect_box
from teacher.depth import DepthKind

BOX = SceneBox((-1.2, -1.2, -0.8), (1.2, 1.2, 1.2))
SPHERES = [((0.0, 0.1, 0.4), 0.5), ((0.6, 0.5, -0.3), 0.4), ((-0.7, 0.6, 0.0), 0.35)]
BLOCKS = [SceneBox((-1.0, -1.0, -0.7), (1.0, 1.0, -0.5)), SceneBox((-0.9, -0.9, -0.5), (-0.3, -0.2, 0.3))]
SUPERSAMPLE = 3


def orbit(frames: int, size: int = 44, radius: float = 4.0, focal: float = 1.3) -> Cameras:
    """Cameras on a rising spiral around the scene, looking at its centre."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    for frame in range(frames):
        turn, height = 2 * math.pi * frame / frames, 0.3 + 0.6 * frame / frames
        back = torch.tensor([math.cos(height) * math.cos(turn), math.cos(height) * math.sin(turn), math.sin(height)])
        right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0, 1]), back), dim=0)
        poses[frame, :3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=1)
        poses[frame, :3, 3] = radius * back + torch.tensor([0.0, 0, 0.1])
    full = torch.full((frames,), 1.0)
    return Cameras(poses, full * size * focal, full * size * focal, full * size / 2, full * size / 2, size, size)


def trace(cameras: Cameras, frame: int) -> torch.Tensor:
    """(H, W) exact distance to the first surface, inf where there is none."""
    origins, directions = image_rays(cameras, frame)
    nearest = torch.full((len(origins),), torch.inf)
    for centre, radius in SPHERES:
        offset = origins - torch.tensor(centre)
        b = (offset * directions).sum(-1)
        root = b**2 - (offset**2).sum(-1) + radius**2
        hit = torch.where(root > 0, -b - root.clamp(min=0).sqrt(), torch.inf)
        nearest = torch.minimum(nearest, hit)
    for block in BLOCKS:
        near, far = intersect_box(origins, directions, block, 0.0, 100.0)
        nearest = torch.minimum(nearest, torch.where(far > near, near, torch.inf))
    return nearest.reshape(cameras.height, cameras.width)


def render(cameras: Cameras) -> tuple[dict[DepthKind, torch.Tensor], torch.Tensor]:
    """All six kinds of depth (N, H, W) with supersampled edges, and alpha."""
    fine = cameras.resized(cameras.width * SUPERSAMPLE, cameras.height * SUPERSAMPLE)

    def shrink(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image[:, None], SUPERSAMPLE)[:, 0]

    distance = torch.stack([trace(fine, frame) for frame in range(len(cameras))])
    hit = distance.isfinite()
    forward = -(fine.c2w[:, None, :3, 2] * torch.stack([image_rays(fine, f)[1] for f in range(len(fine))])).sum(-1)
    z = distance * forward.reshape(distance.shape)
    alpha = shrink(hit.float())
    depth = {}
    for kind, values in (("z", z), ("distance", distance), ("inverse_z", 1 / z)):
        accumulated = shrink(torch.where(hit, values, 0))
        depth[DepthKind(kind)] = accumulated
        depth[DepthKind(f"{kind}_normalized")] = torch.where(alpha > 0, accumulated / alpha.clamp(min=1e-9), 0)
    return depth, alpha
