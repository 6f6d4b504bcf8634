"""Gaussians from the cameras of a dataset: colour, alpha and depth."""

import json

import numpy as np
import pytest

from scene.formats.transforms_json import write_transforms
from scene.images import read_image
from teacher.gaussian_files.ply import write_ply
from tests.toy_scene import block_of_gaussians, ring_of_cameras
from tools.render_splat import main


@pytest.fixture
def splat(tmp_path):
    """Gaussians, and beside them a JSON of three poses that says nothing of a size."""
    write_ply(tmp_path / "scene.ply", block_of_gaussians())
    write_transforms(tmp_path / "poses.json", ring_of_cameras(3), ["a", "b", "c"])
    content = json.loads((tmp_path / "poses.json").read_text())
    frames = [{name: frame[name] for name in ("file_path", "transform_matrix")} for frame in content["frames"]]
    bare = {"camera_angle_x": content["camera_angle_x"], "frames": frames}
    (tmp_path / "poses.json").write_text(json.dumps(bare))
    return tmp_path / "scene.ply"


def run(splat, *more):
    given = ["--cameras", str(splat.with_name("poses.json")), "--output", str(splat.with_name("out"))]
    return main([str(splat), *given, *more])


def test_colour_alpha_and_depth_are_written(splat):
    assert run(splat, "--resolution", "24", "--frames", "1:") == 0
    out = splat.with_name("out")
    assert sorted(path.name for path in (out / "renders").iterdir()) == ["00000.png", "00001.png"]
    picture, depth = read_image(out / "renders/00000.png"), np.load(out / "depth/00000.npy")
    assert picture.shape == (24, 24, 4) and depth.shape == (24, 24)
    assert picture[12, 12, 3] > 250 and picture[0, 0, 3] == 0
    assert 1.5 < depth[12, 12] < 2 and depth[0, 0] == 0


@pytest.mark.parametrize("is_sized", [True, False])
def test_a_run_s_folder_stands_for_the_cameras_of_its_config(splat, is_sized):
    poses, folder = splat.with_name("poses.json"), splat.with_name("run")
    if is_sized:
        write_transforms(poses, ring_of_cameras(3), ["a", "b", "c"])
    folder.mkdir()
    text = f"scene: toy\nrun: first\nteacher: {{kind: images}}\ndata: {{transforms: {poses}}}\n"
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    outputs = [splat.with_name(name) for name in ("out", "of_run")]
    for cameras, output in zip((poses, folder), outputs, strict=True):
        assert main([str(splat), "--cameras", str(cameras), "--output", str(output), "--resolution", "24"]) == 0
    written = [(output / "renders/00002.png").read_bytes() for output in outputs]
    assert written[0] == written[1]


def test_bad_input_is_one_message(splat, capsys):
    assert run(splat.with_name("gone.ply")) == 2
    error = capsys.readouterr().err
    assert "gone.ply: file: found nothing, expected 3D Gaussians (.ply" in error and "--assets" not in error
    assert run(splat) == 2
    assert "image size: found neither w and h nor an image" in capsys.readouterr().err
    assert run(splat, "--resolution", "0") == 2
    assert "--resolution: width: found 0" in capsys.readouterr().err
    assert run(splat.with_name("poses.json"), "--resolution", "9") == 2
    assert "found JSON text, expected 3D Gaussians" in capsys.readouterr().err
