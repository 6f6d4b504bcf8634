"""Where seams are looked for, and what is said of them."""

import pytest
import torch

from distill.city_rendering import evaluation
from distill.city_rendering.evaluation import evaluate, surface_and_band
from distill.rendering.renderer import RenderedFrame
from machine.files import read_csv
from scene.images import psnr
from scene.rays import SceneBox, image_rays
from settings.errors import InputError
from settings.loading import load_config
from tests.toy_city import noise_views, toy_city

HALVES = [SceneBox((-1, -1, -1), (0.2, 1, 1)), SceneBox((0.2, -1, -1), (1, 1, 1))]


@pytest.fixture
def ground(look_at):
    """The plane z = 0 from straight above, and which of its pixels are below x = 0.2."""
    cameras = look_at([(0.0, 0.01, 2.0)], width=40, height=40, focal=40.0)
    origins, directions = image_rays(cameras, 0)
    distance = (-origins[:, 2] / directions[:, 2]).view(40, 40)
    x = (origins + distance.view(-1, 1) * directions)[:, 0].view(40, 40)
    return cameras, distance, x


def test_the_band_is_four_pixels_wide_along_the_face(ground):
    cameras, distance, x = ground
    frame = RenderedFrame(torch.zeros(40, 40, 3), torch.ones(40, 40), distance)
    surface, band = surface_and_band(frame, cameras, 0, HALVES)
    assert surface.float().mean() > 0.9  # a box of +-1 fills the picture but for rounding
    inside = surface[2:-2, 2:-2].all(1)
    assert inside.any()
    pixel = 2 / 40
    assert torch.equal(band[2:-2, 2:-2], ((x - 0.2).abs() < 2 * pixel)[2:-2, 2:-2])
    assert set(band[2:-2].sum(1).tolist()) == {4}


def test_an_edge_before_another_surface_is_no_seam(ground):
    """What is left of the face lies much nearer: nothing crosses it."""
    cameras, distance, x = ground
    frame = RenderedFrame(torch.zeros(40, 40, 3), torch.ones(40, 40), torch.where(x < 0.2, 0.8 * distance, distance))
    assert not surface_and_band(frame, cameras, 0, HALVES)[1].any()
    faint = RenderedFrame(torch.zeros(40, 40, 3), torch.full((40, 40), 0.4), distance)
    assert not surface_and_band(faint, cameras, 0, HALVES)[0].any()


def test_figures_are_those_of_the_frames_held_out(tmp_path, look_at, monkeypatch):
    manifest = toy_city(tmp_path, (2, 1, 1))
    config = load_config(manifest.path(manifest.config))
    teacher = noise_views(look_at([(2.2, 1.4, 1.1), (-1.8, 1.9, 0.7), (0.5, -2.0, 1.4)]))
    monkeypatch.setattr(evaluation, "load_teacher", lambda config: teacher)
    monkeypatch.setattr(evaluation, "_JUMP", 10.0)  # random fields have no smooth surfaces
    monkeypatch.setattr(evaluation, "_SURFACE", 0.02)
    figures = evaluate(manifest, config)
    city = evaluation.StreamedCity(manifest, config, None, level_of_detail=False)
    ((frame, _),) = city.frames(teacher.views.cameras[1])
    wanted = psnr(frame.rgb.mul(255).round().div(255).numpy(), teacher.views.image(1, (0.0, 0.0, 0.0)).numpy())
    assert figures.frames == 1
    assert figures.psnr == pytest.approx(wanted, abs=1e-3)
    rows = [*read_csv(figures.path).rows.values()]
    assert [row["name"] for row in rows] == ["00001", "all"]
    assert float(rows[1]["psnr_band"]) == pytest.approx(figures.psnr_band, abs=1e-3)
    assert int(rows[1]["band_pixels"]) > 0
    assert f"city: {figures.psnr:.2f} dB on 1 held-out frame; {figures.psnr_band:.2f} dB along faces" in figures.text()
    teacher.views.holdout[:] = False
    with pytest.raises(InputError, match="no frame held out"):
        evaluate(manifest, config)
