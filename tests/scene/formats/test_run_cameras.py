"""Which folders are a run's, and how its cameras are read."""

import pytest

from scene.formats.run_cameras import run_cameras
from settings.errors import InputError


def write(folder, data, kind="images"):
    text = f"scene: toy\nrun: first\nteacher: {{kind: {kind}}}\ndata: {data}\n"
    (folder / "config.yaml").write_text(text, encoding="utf-8")


def test_the_cameras_of_a_run_are_those_of_its_config(tmp_path):
    assert run_cameras(tmp_path) is None
    write(tmp_path, "{transforms: /there/t.json, offset: [1, 2, 3]}")
    data = run_cameras(tmp_path)
    assert str(data.transforms) == "/there/t.json" and data.offset == (1, 2, 3)
    (tmp_path / "cameras.json").touch()
    assert run_cameras(tmp_path) is None, "a folder with cameras of its own is graphdeco's"


def test_the_cameras_of_a_built_in_scene_are_in_no_file(tmp_path):
    write(tmp_path, "{resolution: 8}", "bricks")
    with pytest.raises(
        InputError,
        match="data.transforms: found null, expected a dataset. .* in no file: .* --output DIR` writes",
    ):
        run_cameras(tmp_path)
