"""Telling photographs from renders on a background."""

import json

import numpy as np
import pytest
import torch

from scene.formats import load_frames
from scene.formats.transforms_json import write_transforms
from scene.images import write_image
from teacher.views.photographs import are_photographs, border_colour, has_silhouettes
from teacher.views.teacher_views import views_from_images
from tests.teacher.toy_outputs import WHITE, ring


def renders(color, count=4, reaching=0):
    """Grey squares on a background, of which some reach all sides but one."""
    pictures = torch.tensor(color).expand(count, 20, 20, 3).clone()
    pictures[:, 5:15, 5:15] = 0.5
    pictures[:reaching, 3:, :] = torch.rand(reaching, 17, 20, 3)
    return pictures


def test_pictures_of_no_one_background_are_photographs():
    assert are_photographs(torch.rand(4, 20, 20, 3), WHITE)
    assert not are_photographs(renders(WHITE), WHITE)
    assert not are_photographs(renders((0.0, 0.0, 0.0)), WHITE)  # of another background, which is said elsewhere
    assert not are_photographs(renders(WHITE, reaching=3), WHITE)  # objects may reach the border


def test_photographs_are_covered_all_over(tmp_path, caplog):
    caplog.set_level("INFO")
    write_transforms(tmp_path / "t.json", ring(2, 6, 4), ["a", "b"])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    pixels[:, 1:3, 2:4] = 255  # as white as the background
    for name, image in zip("ab", pixels, strict=True):
        write_image(tmp_path / f"{name}.png", image)
    views = views_from_images(tmp_path / "t.json", width=None, background=WHITE, holdout_every=0)
    assert not views.silhouettes and (views.coverage == 255).all() and views.counted is None
    assert "taken for photographs" in caplog.text
    dataset = load_frames(tmp_path / "t.json")
    assert has_silhouettes(torch.full((2, 4, 6, 3), 255, dtype=torch.uint8), WHITE, dataset)


def test_what_a_mask_leaves_out_is_no_background(tmp_path):
    """A fisheye's circle: photographs in a frame that is black and does not count."""
    write_transforms(tmp_path / "t.json", ring(4, 32, 32), list("abcd"))
    content = json.loads((tmp_path / "t.json").read_text())
    y, x = np.mgrid[:32, :32] - 15.5
    circle = x**2 + y**2 < 15.8**2
    write_image(tmp_path / "mask.png", np.where(circle, 255, 0).astype(np.uint8))
    random = np.random.default_rng(0)
    for frame in content["frames"]:
        frame["mask_path"] = "mask.png"
        pixels = random.integers(20, 256, (32, 32, 3), dtype=np.uint8) * circle[..., None].astype(np.uint8)
        write_image(tmp_path / f"{frame['file_path']}.png", pixels)
    (tmp_path / "t.json").write_text(json.dumps(content))
    for background in (WHITE, (0.0, 0.0, 0.0)):
        views = views_from_images(tmp_path / "t.json", width=None, background=background, holdout_every=0)
        assert not views.silhouettes and border_colour(views.rgb.float() / 255, views.counted) is None
    assert border_colour(views.rgb.float() / 255) == (0.0, 0.0, 0.0)
    nothing = torch.zeros_like(views.counted)
    assert are_photographs(views.rgb.float() / 255, WHITE, nothing) and border_colour(views.rgb / 255, nothing) is None


@pytest.mark.parametrize("sizes", [((64, 48), (48, 64)), ((64, 48), (61, 46))])
def test_what_is_beyond_a_smaller_photograph_is_no_background(tmp_path, sizes):
    write_transforms(tmp_path / "t.json", ring(4, 64, 64), list("abcd"))
    content = json.loads((tmp_path / "t.json").read_text())
    random = np.random.default_rng(0)
    for frame, (width, height) in zip(content["frames"], 2 * sizes, strict=True):
        frame |= {"w": width, "h": height}
        pixels = random.integers(20, 256, (height, width, 3), dtype=np.uint8)
        pixels[10:14, 10:14] = 0  # in a deep shadow
        write_image(tmp_path / f"{frame['file_path']}.png", pixels)
    (tmp_path / "t.json").write_text(json.dumps(content))
    views = views_from_images(tmp_path / "t.json", width=32, background=(0.0, 0.0, 0.0), holdout_every=0)
    assert not views.silhouettes and (views.coverage == 255).all()
