"""A teacher's outputs of three frames, as another program would leave them, what loads them, and Gaussians."""

import math

import torch

from scene.cameras import Cameras
from scene.rays import SceneBox
from teacher.gaussians import Gaussians
from teacher.views.teacher_views import TeacherViews, views_from_outputs

WHITE = (1.0, 1.0, 1.0)
BOX = SceneBox((-1, -1, -1), (1, 1, 1))
WIDTH, HEIGHT, FRAMES = 12, 8, 3


def ring(frames: int, width: int, height: int, focal: float = 1.5) -> Cameras:
    """Cameras 3 units from the origin in the plane z = 0, looking at it."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    for frame in range(frames):
        turn = 2 * math.pi * frame / frames
        back = torch.tensor([math.cos(turn), math.sin(turn), 0.0])
        right = torch.tensor([-math.sin(turn), math.cos(turn), 0.0])
        poses[frame, :3, :3] = torch.stack([right, torch.tensor([0.0, 0, 1]), back], dim=1)
        poses[frame, :3, 3] = 3 * back
    full = torch.ones(frames)
    return Cameras(
        poses, full * width * focal, full * width * focal, full * width / 2, full * height / 2, width, height
    )


def load(folder, **options) -> TeacherViews:
    options = {"box": BOX, "background": WHITE, "depth_kind": "z_normalized", "holdout_every": 2} | options
    return views_from_outputs(folder / "ours_7", folder / "transforms.json", **options)


def two_blobs() -> Gaussians:
    """A large opaque red Gaussian, and a fainter green one behind it and to the side."""
    red, green = (1.0 - 0.5) / 0.28209479, (0.0 - 0.5) / 0.28209479
    return Gaussians(
        means=torch.tensor([[0.0, 0, 0], [-0.5, 0.5, 0.2]]),
        log_scales=torch.tensor([[0.35] * 3, [0.2] * 3]).log(),
        rotations=torch.tensor([[1.0, 0, 0, 0]] * 2),
        opacity_logits=torch.tensor([6.0, 0.5]),
        sh=torch.tensor([[[red, green, green]], [[green, red, green]]]),
    )
