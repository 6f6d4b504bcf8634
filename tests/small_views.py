"""Four views of a few random pixels, and samplers of their rays."""

import torch

from distill.rendering.renderer import RenderSettings
from distill.training.ray_sampler import RaySampler
from distill.training.ray_source import Sampling
from scene.rays import SceneBox
from teacher.views.teacher_views import TeacherViews

CPU = torch.device("cpu")
BOX = SceneBox((-1, -1, -1), (1, 1, 1))
SETTINGS = RenderSettings(0.01, 100, 0.0, 1024, near=0.1, far=50.0)
FRAMES, HEIGHT, WIDTH = 4, 5, 7
HOLDOUT = torch.tensor([True, False, True, False])
GREY = (0.2, 0.4, 0.6)


def small_views(look_at):
    """Random colours and alpha; the distance of a pixel is its number plus 1, by which it is found again."""
    cameras = look_at([(3.0, 0, 0), (0, 3, 0), (0, 0, 3), (-3, 0, 1)], width=WIDTH, height=HEIGHT, focal=9.0)
    shape = (FRAMES, HEIGHT, WIDTH)
    alpha = torch.randint(256, shape, dtype=torch.uint8)
    return TeacherViews(
        cameras=cameras,
        names=tuple("abcd"),
        rgb=torch.randint(256, (*shape, 3), dtype=torch.uint8),
        alpha=alpha,
        coverage=alpha,
        distance=torch.arange(1.0, 1 + alpha.numel()).view(shape),
        background=None,
        ground_truth=None,
        holdout=HOLDOUT,
    )


def without_alpha(views):
    """Views rendered on grey."""
    return TeacherViews(**{**vars(views), "alpha": None, "background": GREY})


def make_sampler(views, background=(1.0, 1.0, 1.0), random_background=False, settings=SETTINGS):
    return RaySampler(views, Sampling(BOX, settings, background, random_background, CPU))


def draw(sampler, count=500, seed=0):
    return sampler.draw(count, torch.Generator().manual_seed(seed))
