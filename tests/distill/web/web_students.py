"""Small students with something to see, as models that a page can show."""

from __future__ import annotations

import torch

from distill.model.model import Model
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import RenderSettings
from scene.cameras import Cameras
from scene.rays import SceneBox
from students import build_student
from students.hash_grid import HashGridSettings
from students.kilo_uniform import KiloUniformSettings

BOX = SceneBox((-1.0, -0.8, -0.6), (1.0, 0.7, 0.9))
_HASH = {"levels": 3, "table_size": 512, "base_resolution": 4, "finest_resolution": 24, "geo_features": 6}
_KILO = {"grid": (2, 1, 3), "hidden_width": 16, "density_layers": 2, "frequencies": 2, "geo_features": 5}
STUDENTS = {
    "hash grid": HashGridSettings(**_HASH, features=2, hidden_width=10, direction_degree=4),
    "deferred hash grid of eight features": HashGridSettings(**_HASH, features=8, hidden_width=8, shading="deferred"),
    "hash grid with planes": HashGridSettings(**_HASH, features=4, hidden_width=8, planes=(12, 60), density_degree=2),
    "networks": KiloUniformSettings(**_KILO),
    "networks that see directions": KiloUniformSettings(**_KILO, direction_degree=2, density_degree=2),
    "deferred networks": KiloUniformSettings(**_KILO, shading="deferred", direction_degree=1, density_degree=1),
}


def model_of(settings, seed: int = 0) -> Model:
    """A student of random weights in a third of its box's cells."""
    torch.manual_seed(seed)
    student = build_student((BOX.lower, BOX.upper), settings, "torch").eval()
    for values in student.parameters():
        values.data.normal_(0, 0.6)
    grid = OccupancyGrid(BOX, 22, 0.05, 0.01, 0.95)
    blocks = (torch.rand(*(-(-extent // 5) for extent in grid.shape)) < 0.3).repeat_interleave(5, 0)
    blocks = blocks.repeat_interleave(5, 1).repeat_interleave(5, 2)
    grid.bound_by_teacher(blocks[tuple(map(slice, grid.shape))].to(torch.uint8))
    return Model(student, grid, RenderSettings(0.05, 40, 0.01, 1 << 16, 0.1, 100.0, "torch", fused=False))


def camera_at(eye: tuple[float, float, float], size: int = 32) -> Cameras:
    """A camera that looks at the middle of the box, with a lens that is not symmetric."""
    back = torch.nn.functional.normalize(torch.tensor(eye), dim=0)
    right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.1, 0.0, 1.0]), back), dim=0)
    c2w = torch.eye(4)
    c2w[:3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=1)
    c2w[:3, 3] = torch.tensor(eye)
    lens = (torch.tensor([value * size]) for value in (1.1, 1.0, 0.45, 0.52))
    return Cameras(c2w[None], *lens, width=size, height=size)
