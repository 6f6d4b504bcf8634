"""MatrixCity's two dialects, told apart by themselves, in metres; fixtures by its published rules."""

import json
import math

import numpy as np
import pytest
import torch

from scene.formats import format_of, load_frames, split_beside
from scene.images import write_image
from settings.data import DataConfig
from settings.errors import InputError

DOWN = np.array([[1.0, 0, 0], [0, 0.8, 0.6], [0, -0.6, 0.8]])  # a camera at a slant: columns right, up, back


def pose(x, y=0.0, z=150.0, rotation=DOWN):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, (x, y, z)
    return matrix


def write_raw(folder, poses, angle=math.pi / 4, size=None, scale=0.01, first=0):
    """A block as the engine exported it; pictures of that size, None: without."""
    frames = []
    for index, matrix in enumerate(poses, first):
        matrix = matrix.copy()
        matrix[:3, :3] *= scale
        frames.append({"frame_index": index, "rot_mat": matrix.tolist()})
        if size is not None:
            write_image(folder / f"{index:04d}.png", np.zeros((size[1], size[0], 3), np.uint8))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transforms.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return folder / "transforms.json"


def write_pose(path, poses, block, rotation_scale=1.0, unit=100.0):
    """A file of pose/: positions in units of 100 m, paths from there to the raw block."""
    frames = []
    for index, matrix in enumerate(poses):
        matrix = matrix.copy()
        matrix[:3, 3] /= unit
        matrix[:3, :3] *= rotation_scale
        frames.append({"file_path": f"../../{block}/{index:04d}.png", "transform_matrix": matrix.tolist()})
    focal = 0.5 * 1920 / math.tan(math.pi / 8)
    lens = {"camera_angle_x": math.pi / 4, "fl_x": focal, "fl_y": focal, "cx": 960.0, "cy": 540.0, "w": 1920.0}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**lens, "h": 1080.0, **dict.fromkeys(("k1", "k2", "k3", "p1"), 0), "frames": frames}))
    return path


def test_both_dialects_give_the_same_cameras_in_metres(tmp_path, caplog):
    caplog.set_level("INFO")
    poses = [pose(-1059.0 + 40 * i, 12.5) for i in range(3)]
    raw = write_raw(tmp_path / "aerial/train/block_1", poses, size=(96, 54))
    split = write_pose(tmp_path / "aerial/pose/block_A/transforms_train.json", poses, "train/block_1")
    frames, others = load_frames(raw), load_frames(split)
    assert format_of(raw).name == format_of(split).name == "matrixcity"
    torch.testing.assert_close(frames.cameras.c2w, torch.tensor(np.array(poses)).float(), rtol=0, atol=1e-4)
    torch.testing.assert_close(others.cameras.c2w, frames.cameras.c2w, rtol=0, atol=1e-4)
    assert frames.names == others.names == ("block_1_0000", "block_1_0001", "block_1_0002")
    assert "(positions times 100, as rotations are times 1)" in caplog.text
    for set_of_frames in (frames, others):
        found = [image.resolve() for image in set_of_frames.image_paths]
        assert found == [raw.with_name(f"{i:04d}.png") for i in range(3)]
    # Pictures were made smaller: the lens goes with them.
    focal = 0.5 * 96 / math.tan(math.pi / 8)
    assert frames.cameras.fx.tolist() == pytest.approx([focal] * 3) == others.cameras.fx.tolist()
    assert frames.tests is None and split_beside(split, "test", DataConfig()) == split.with_name("transforms_test.json")


def test_blocks_from_the_air_and_in_streets_are_one_set(tmp_path, caplog):
    caplog.set_level("INFO")
    level = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    write_raw(tmp_path / "aerial/train/block_1", [pose(0), pose(40)])
    write_raw(tmp_path / "aerial/test/block_1_test", [pose(20)], first=7)
    write_raw(tmp_path / "street/train/road_down", [pose(3, z=2, rotation=level)], angle=math.pi / 2)
    write_image(tmp_path / "street/train/road_down/rgb/0000.png", np.zeros((50, 50, 3), np.uint8))
    write_raw(tmp_path / "street/train_dense/road_down_dense", [pose(3, z=2, rotation=level)], angle=math.pi / 2)
    frames = load_frames(tmp_path)
    assert frames.names == (
        "aerial_test_block_1_test_0007",
        "aerial_train_block_1_0000",
        "aerial_train_block_1_0001",
        "street_train_road_down_0000",
    )
    assert frames.tests == (True, False, False, False)
    assert frames.sizes == ((1920, 1080),) * 3 + ((50, 50),) and frames.cameras.width == 1920
    assert frames.cameras.fx[3].item() == pytest.approx(25) and frames.cameras.cx[3].item() == 25
    assert frames.image_paths == (None, None, None, tmp_path / "street/train/road_down/rgb/0000.png")
    assert "read as matrixcity, since aerial/test/block_1_test/transforms.json has rot_mat" in caplog.text
    assert "3 files of MatrixCity, 4 frames, 1 of them tests; cameras are in metres (positions times 1, " in caplog.text


def test_splits_of_pose_alone_are_one_set(tmp_path):
    folder = tmp_path / "pose/block_A"
    write_pose(folder / "transforms_train.json", [pose(0), pose(40)], "train/block_1")
    write_pose(folder / "transforms_test.json", [pose(20)], "test/block_1_test")
    frames = load_frames(folder)
    assert frames.names == ("test_block_1_test_0000", "train_block_1_0000", "train_block_1_0001")
    assert frames.tests == (True, False, False)


def test_positions_keep_their_offset(tmp_path):
    raw = write_raw(tmp_path / "aerial/b", [pose(5000), pose(5100)])
    frames = load_frames(raw, data=DataConfig(offset=(5000.0, 0.0, 0.0)))
    assert frames.cameras.centers[:, 0].tolist() == [0, 100]


def test_test_frames_among_the_training_frames_are_refused(tmp_path):
    write_raw(tmp_path / "aerial/train/block_1", [pose(0), pose(40)])
    write_raw(tmp_path / "aerial/test/block_1_test", [pose(20), pose(40)])
    with pytest.raises(InputError, match=r"1 of 2 test frames with the pose of a training frame \(test frame 1 is"):
        load_frames(tmp_path)
    mixed = write_pose(tmp_path / "pose/A/transforms_test.json", [pose(0), pose(40)], "train/block_1")
    with pytest.raises(InputError, match=r"2 of 2 frames of the other split, the first train/block_1/0000.png"):
        load_frames(mixed)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda f: write_raw(f, [pose(0)], scale=1.0), r"rot_mat: found rotations scaled by 1, expected 0.01 \(raw"),
        (lambda f: write_raw(f, [pose(0)], scale=0.1), "rotations scaled by 0.1"),
        (lambda f: write_raw(f, [pose(0) * np.nan]), "scaled by nan"),
        (lambda f: write_raw(f, [pose(0)], first=-3), r"frames\[0\] frame_index: found -3"),
        (lambda f: write_pose(f / "pose/a/t.json", [pose(0)], "train/b", 3.0), "scaled by 3, expected 0.01"),
        (lambda f: write_pose(f / "pose/a/t.json", [pose(0), pose(900)], "train/b", unit=1), "cameras over 90 km"),
        (lambda f: write_raw(f, []), r"frames: found none"),
    ],
)
def test_what_is_neither_dialect_is_refused(tmp_path, write, message):
    path = write(tmp_path / "aerial")
    with pytest.raises(InputError, match=message):
        load_frames(path, data=DataConfig(transforms=path, format="matrixcity"))


def test_a_pose_file_with_raw_numbers_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    path = write_pose(tmp_path / "pose/a/transforms_train.json", [pose(70)], "train/b", rotation_scale=0.01, unit=1)
    assert load_frames(path).cameras.centers.tolist() == [[70, 0, 150]]
    assert "positions times 1, as rotations are times 0.01" in caplog.text


def test_others_json_are_not_taken_for_it(tmp_path):
    frames = [{"file_path": "../../train/r_0.png", "transform_matrix": pose(0).tolist()}]
    path = tmp_path / "transforms_train.json"
    path.write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    assert format_of(path).name == "transforms" and format_of(tmp_path / "none.json").name == "transforms"
