"""Recorded paths: smooth through the keyframes, and read back by what films them."""

import json

import numpy as np
import pytest
import torch

from distill.viewer.keyframes import KeyframePath
from distill.viewer.viewpoints import Viewpoint
from scene.formats.transforms_json import write_transforms
from settings.data import DataConfig
from settings.errors import InputError
from settings.loading import load_config
from teacher.export.export_cameras import views_to_export
from tests.toy_configs import BRICKS

POSITIONS = [(2.0, 0.0, 0.5), (0.0, 2.0, 1.0), (-2.0, 0.5, 0.0)]


@pytest.fixture
def path(tmp_path, look_at):
    made = KeyframePath(tmp_path / "path.json", DataConfig())
    cameras = look_at(POSITIONS, width=40, height=30, focal=35.0)
    made.viewpoints = [Viewpoint.of_camera(cameras, index) for index in range(3)]
    return made


def test_what_films_a_path_reads_the_same_cameras(path, write):
    assert path.save(between=4, width=40, height=30) == 11
    wanted, names = path.cameras(4, 40, 30)
    read = views_to_export(load_config(write(BRICKS)), None, path=path.file)
    assert list(read.names) == names and names[5] == "keyframe_001" and names[6] == "between_00006"
    for name, values in wanted.tensors().items():
        torch.testing.assert_close(getattr(read.cameras, name), values, atol=1e-6, rtol=0)
    assert (read.cameras.width, read.cameras.height) == (40, 30)


def test_a_path_goes_through_its_keyframes_and_turns_evenly_between(path):
    path.viewpoints[2] = Viewpoint(path.viewpoints[2].c2w, 0.5)
    cameras, _ = path.cameras(9, 40, 30)
    for index, view in enumerate(path.viewpoints):
        torch.testing.assert_close(cameras.c2w[10 * index].double(), view.c2w, atol=1e-6, rtol=0)
    assert cameras.fy[20].item() == pytest.approx(15 / np.tan(0.25), rel=1e-5)
    rotations = cameras.c2w[:, :3, :3]
    turn = (rotations[:-1].transpose(1, 2) @ rotations[1:]).diagonal(dim1=1, dim2=2).sum(-1)
    assert turn.min() > 1 + 2 * np.cos(0.4)  # radians a frame; no jump
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(21, 3, 3), atol=1e-5, rtol=0)


def test_keyframes_are_taken_up_again_and_one_alone_is_a_path(path):
    path.save(2, 40, 30)
    again = KeyframePath(path.file, DataConfig())
    assert len(again.viewpoints) == 3
    torch.testing.assert_close(again.viewpoints[1].c2w, path.viewpoints[1].c2w, atol=1e-6, rtol=0)
    del again.viewpoints[1:]
    assert again.save(7, 40, 30) == 1


def test_a_path_is_written_in_the_world_of_the_datasets_files(tmp_path):
    """nerfstudio's Gaussians are in a world of their own, into which cameras of files are moved."""
    moved = tmp_path / "dataparser_transforms.json"
    moved.write_text(json.dumps({"transform": [[0, 1, 0, 1], [-1, 0, 0, 0], [0, 0, 1, 2]], "scale": 0.25}))
    path = KeyframePath(tmp_path / "moved.json", DataConfig(dataparser_transforms=moved))
    view = Viewpoint(torch.eye(4, dtype=torch.float64), 0.7)
    path.viewpoints = [view]
    path.save(0, 40, 30)
    assert not np.allclose(json.loads(path.file.read_text())["frames"][0]["transform_matrix"], np.eye(4))
    again = KeyframePath(path.file, DataConfig(dataparser_transforms=moved))
    torch.testing.assert_close(again.viewpoints[0].c2w, view.c2w, atol=1e-6, rtol=0)


def test_a_file_that_is_no_path_is_refused(path):
    path.file.write_text("{}")
    with pytest.raises(InputError, match="frames"):
        KeyframePath(path.file, DataConfig())
    write_transforms(path.file, path.cameras(0, 40, 30)[0], ["r_0", "r_1", "r_2"])  # a dataset, to be replaced by none
    with pytest.raises(InputError, match="3 cameras.*keyframe_000"):
        KeyframePath(path.file, DataConfig())
