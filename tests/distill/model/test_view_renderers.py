"""Student and teacher in one form: premultiplied colour, alpha and distance, from any camera."""

import pytest
import torch

from distill.model import view_renderers
from distill.model.model import Model
from distill.model.view_renderers import Rendering, gaussians_renderer, student_renderer
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import FrameRenderer, RenderSettings
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.rasterizer import Drawing, Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras

WHITE = (1.0, 1.0, 1.0)


def test_a_view_of_gaussians():
    view = gaussians_renderer(Rasterizer(block_of_gaussians()))(ring_of_cameras(1, 24, 24), 0)
    torch.testing.assert_close(view.over(WHITE), (view.rgb + 1 - view.alpha[..., None]).clamp(0, 1))
    assert 1.5 < view.distance[12, 12] < 2 and view.distance[0, 0] == 0  # the block's near side, 2 units away
    assert view.alpha[12, 12] > 0.99 and view.alpha[0, 0] == 0
    assert torch.equal(view.over(torch.ones(3)), view.over(WHITE)), "any three numbers are a colour"


@pytest.mark.parametrize("color", [(1, 1), "white", (255, 0, 0), (-1, 0, 0), (float("nan"), 0, 0), None])
def test_a_background_that_is_no_colour_is_refused(color):
    view = Rendering(torch.zeros(2, 2, 3), torch.zeros(2, 2), torch.zeros(2, 2))
    with pytest.raises(InputError, match="over: background: found .*, expected red, green and blue, each from 0 to 1"):
        view.over(color)


def test_a_view_of_a_student_equals_its_frames(field):
    box = SceneBox((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
    student = field(lambda x: torch.where(x.norm(dim=-1) < 0.5, 20.0, 0.0))
    grid = OccupancyGrid(box, 8, 0.02, 0.01, 0.95)
    settings = RenderSettings(0.02, 512, 1e-4, 65536, 0.05, 10.0, "torch")
    cameras = ring_of_cameras(2, 20, 16)
    view = student_renderer(Model(student, grid, settings), torch.device("cpu"))(cameras, 1)
    frame = FrameRenderer(student, grid, settings).render(cameras, 1, WHITE)
    torch.testing.assert_close(view.over(WHITE), frame.rgb, atol=1e-5, rtol=0)
    torch.testing.assert_close(view.alpha, frame.alpha)
    assert abs(view.distance[8, 10].item() - 1.5) < 0.1 and view.distance[0, 0] == 0


def test_a_broken_student_is_drawn_black(field):
    box = SceneBox((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
    student = field(lambda x: torch.full_like(x[:, 0], 20.0), color=(torch.nan, 0.5, 0.5))
    model = Model(student, OccupancyGrid(box, 8, 0.02, 0.01, 0.95), RenderSettings(0.1, 64, 1e-4, 65536, 0.05, 10.0))
    view = student_renderer(model, torch.device("cpu"))(ring_of_cameras(1, 8, 8), 0)
    assert view.rgb.isfinite().all() and view.rgb[4, 4, 0] == 0 and view.rgb[4, 4, 1] > 0.4


def test_supersampling_averages_what_is_premultiplied():
    cameras, rasterizer = ring_of_cameras(2, 12, 12), Rasterizer(block_of_gaussians())
    fine = gaussians_renderer(rasterizer)(cameras.resized(36, 36), 1)
    coarse = gaussians_renderer(rasterizer.redrawn(Drawing(supersample=3)))(cameras, 1)
    torch.testing.assert_close(coarse.rgb, fine.rgb.view(12, 3, 12, 3, 3).mean((1, 3)))
    torch.testing.assert_close(coarse.alpha, fine.alpha.view(12, 3, 12, 3).mean((1, 3)))
    weighted = (fine.alpha * fine.distance).view(12, 3, 12, 3).mean((1, 3)) / coarse.alpha.clamp(min=1e-6)
    solid = coarse.alpha > 0.9  # faint samples have no distance
    torch.testing.assert_close(coarse.distance[solid], weighted[solid], atol=1e-2, rtol=0)


def test_gaussians_are_drawn_with_one_thread_of_torch_as_students_are(monkeypatch, three_torch_threads):
    threads = []

    def planes(*_):
        threads.append(torch.get_num_threads())
        return torch.zeros(2, 2, 5)

    monkeypatch.setattr(view_renderers, "blended_planes", planes)
    gaussians_renderer(Rasterizer(block_of_gaussians()))(ring_of_cameras(2), 1)
    assert threads == [1] and torch.get_num_threads() == 3
