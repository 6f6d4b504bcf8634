import torch

from kernels.gaussians.rasterize import RasterOutput
from scene.rays import distance_per_z
from teacher.rasterizer import Drawing
from teacher.views.rasterized import render_view


class _Still:
    """Gives one picture, whatever camera asks, and remembers which did."""

    def __init__(self, rgb, alpha, z, drawing=None):
        self.drawing = drawing or Drawing()
        self.output = RasterOutput(rgb, alpha, z, torch.zeros_like(z), torch.zeros(*z.shape, 0))

    def render(self, cameras, index):
        self.camera = cameras[index]
        return self.output


def test_a_view_by_hand(look_at):
    """2x1 pixels from 4x2: the left one covers a red half pixel and a green quarter, the right one almost nothing."""
    cameras = look_at([(0.0, 0, 3), (1.0, 0, 3)], width=2, height=1, focal=5.0)
    alpha = torch.tensor([[1.0, 1.0, 0.02, 0.0], [1.0, 0.0, 0.0, 0.0]])
    red, green, blue = (torch.tensor(c) for c in ([1.0, 0, 0], [0.0, 1, 0], [0.0, 0, 1]))
    rgb = torch.stack([torch.stack([red, red, 0.02 * blue, 0 * red]), torch.stack([green, 0 * red, 0 * red, 0 * red])])
    still = _Still(rgb, alpha, 2.0 * alpha, Drawing(supersample=2))
    view = render_view(still, cameras, 1)
    assert torch.equal(still.camera.c2w, cameras.c2w[1:]) and (still.camera.width, still.camera.height) == (4, 2)
    assert view.alpha.tolist() == [[191, 1]] and torch.equal(view.coverage, view.alpha)
    # Straight colour: two thirds red, one third green; blue although there is hardly any of it.
    assert view.rgb.tolist() == [[[170, 85, 0], [0, 0, 255]]]
    # Expected distance of what is there; the faint pixel has none.
    lengths = distance_per_z(still.camera, 0)
    expected = 2 * (lengths[0, 0] + lengths[0, 1] + lengths[1, 0]) / 3
    torch.testing.assert_close(view.distance, torch.tensor([[expected, 0.0]]))


def test_without_supersampling_pixels_are_as_rendered(look_at):
    alpha = torch.tensor([[0.5, 0.0]])
    still = _Still(torch.tensor([[[0.25, 0.5, 0.1], [0, 0, 0]]]), alpha, 3.0 * alpha)
    view = render_view(still, look_at([(0.0, 0, 3)], width=2, height=1), 0)
    assert view.rgb.tolist() == [[[128, 255, 51], [0, 0, 0]]] and view.alpha.tolist() == [[128, 0]]
    assert view.distance[0, 0] >= 3 and view.distance[0, 1] == 0
