import json
import math

import numpy as np
import pytest
import torch

from scene.cameras import Cameras
from scene.formats.transforms_json import load_transforms, write_transforms
from scene.images import write_image
from settings.data import DataConfig
from settings.errors import InputError

POSE = [[1, 0, 0, 0.5], [0, 0, -1, -4], [0, 1, 0, 2], [0, 0, 0, 1]]


def write(folder, frames=None, images=(), size=(8, 6), channels=4, **fields):
    frames = [{"file_path": "./train/r_0", "transform_matrix": POSE}] if frames is None else frames
    for name in images:
        write_image(folder / name, np.zeros((size[1], size[0], channels), np.uint8))
    path = folder / "transforms.json"
    path.write_text(json.dumps({**fields, "frames": frames}))
    return path


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("file_path", ["./train/r_0", "train/r_0.png"])
def test_original_format(tmp_path, file_path, channels):
    frame = {"file_path": file_path, "transform_matrix": POSE}
    path = write(tmp_path, [frame], ["train/r_0.png"], channels=channels, camera_angle_x=math.pi / 2)
    frames = load_transforms(path)
    assert frames.names == ("r_0",) and frames.image_paths == (tmp_path / "train/r_0.png",)
    cameras = frames.cameras
    assert (cameras.width, cameras.height) == (8, 6)
    # tan(45 degrees) = 1: the focal length is half the width, on both axes.
    assert cameras.fx.item() == cameras.fy.item() == pytest.approx(4)
    assert (cameras.cx.item(), cameras.cy.item()) == (4, 3)
    assert cameras.c2w[0].tolist() == POSE and cameras.c2w.dtype == torch.float32


def test_frame_fields_override_the_file(tmp_path):
    frames = [
        {"file_path": "a.png", "transform_matrix": POSE},
        {"file_path": "b.png", "transform_matrix": POSE, "fl_x": 30, "cy": 1.5},
    ]
    cameras = load_transforms(write(tmp_path, frames, fl_x=20.0, fl_y=25, cx=3, w=8, h=6)).cameras
    assert cameras.fx.tolist() == [20, 30] and cameras.fy.tolist() == [25, 25]
    assert cameras.cx.tolist() == [3, 3] and cameras.cy.tolist() == [3, 1.5]


def test_images_may_be_absent_when_the_size_is_given(tmp_path):
    path = write(tmp_path, camera_angle_x=1.0)
    frames = load_transforms(path, image_size=(10, 20))
    assert frames.image_paths == (None,) and (frames.cameras.width, frames.cameras.height) == (10, 20)
    with pytest.raises(InputError, match="image size: found neither w and h nor an image on disk"):
        load_transforms(path)


def test_names_stay_unique(tmp_path):
    frames = [{"file_path": f"./{folder}/0", "transform_matrix": POSE} for folder in ("left", "right")]
    assert load_transforms(write(tmp_path, frames, fl_x=5, w=8, h=6)).names == ("left_0", "right_0")
    with pytest.raises(InputError, match=r"'left/0' more than once \(1 of 2 frames repeat"):
        load_transforms(write(tmp_path, [frames[0], frames[0]], fl_x=5, w=8, h=6))


def test_written_cameras_read_back_equal(tmp_path, caplog):
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, 3, generator=generator, dtype=torch.float64))[0]
    rotation *= torch.linalg.det(rotation).sign()[:, None, None]
    c2w = torch.eye(4).repeat(3, 1, 1)
    c2w[:, :3, :3] = rotation.float()
    c2w[:, :3, 3] = torch.randn(3, 3, generator=generator)
    values = [torch.rand(3, generator=generator) + 7 for _ in range(4)]
    cameras = Cameras(c2w, *values, 17, 11)
    write_transforms(tmp_path / "made" / "t.json", cameras, ["x", "y", "z"])
    frames = load_transforms(tmp_path / "made" / "t.json")
    assert frames.names == ("x", "y", "z") and (frames.cameras.width, frames.cameras.height) == (17, 11)
    for name in ("c2w", "fx", "fy", "cx", "cy"):
        assert torch.equal(getattr(frames.cameras, name), getattr(cameras, name)), name
    assert "contradict" not in caplog.text
    assert len(list((tmp_path / "made").iterdir())) == 1
    assert frames[1:].names == ("y", "z") and len(frames[1:].cameras) == 2


def test_missing_and_truncated_file(tmp_path):
    with pytest.raises(InputError, match="absent.json: file: found No such file"):
        load_transforms(tmp_path / "absent.json")
    path = write(tmp_path, fl_x=5, w=8, h=6)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match="transforms.json: JSON: found invalid text"):
        load_transforms(path)
    path.write_text("[1, 2]")
    with pytest.raises(InputError, match="JSON: found list"):
        load_transforms(path)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "frames: found an empty list"),
        (None, "frames: found nothing"),
        ({}, "frames: found dict"),
        (
            [{"transform_matrix": POSE}],
            r"frames: found frames\[0\], an entry without file_path \(its keys: transform_matrix",
        ),
    ],
)
def test_bad_frames(tmp_path, frames, message):
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"fl_x": 5, "w": 8, "h": 6} | ({} if frames is None else {"frames": frames})))
    with pytest.raises(InputError, match=message):
        load_transforms(path)


def changed(row: int, col: int, value: object) -> list:
    pose = [list(line) for line in POSE]
    pose[row][col] = value
    return pose


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        ([line[:3] for line in POSE], r"shape \(4, 3\)"),
        (None, "found nothing"),
        ([[1, 2], [3]], "expected 4 x 4 numbers"),
        (changed(0, 0, "one"), "expected 4 x 4 numbers"),
        (changed(0, 3, math.nan), "non-finite"),
        (changed(1, 3, math.inf), "non-finite"),
        (changed(0, 0, -1), "not rigid .*determinant -1"),
        (changed(0, 0, -1), "negate one of its columns"),
        (changed(3, 0, 0.5), "not rigid .*Write camera-to-world matrices whose last row is 0 0 0 1"),
        # A scaled rotation: orthogonal columns, and still not rigid.
        ([[2 * value for value in line[:3]] + line[3:] for line in POSE[:3]] + [POSE[3]], "not rigid"),
        (changed(0, 1, 0.02), r"not rigid .*1 of 2 frames"),
        (changed(0, 0, 10**400), "expected 4 x 4 numbers"),
    ],
)
def test_bad_pose_names_the_frame(tmp_path, pose, message):
    frames = [{"file_path": "good", "transform_matrix": POSE}, {"file_path": "bad", "transform_matrix": pose}]
    with pytest.raises(InputError, match=rf"transforms.json: frames\[1\] \(bad\) transform_matrix: .*{message}"):
        load_transforms(write(tmp_path, frames, fl_x=5, w=8, h=6))


@pytest.mark.parametrize("count", [1, 3])
def test_transposed_poses_are_called_that(tmp_path, count):
    frames = [{"file_path": "good", "transform_matrix": POSE}]
    frames += [{"file_path": f"t{k}", "transform_matrix": np.transpose(POSE).tolist()} for k in range(count)]
    for given in (frames, frames[1:]):
        with pytest.raises(InputError, match=rf"\(t0\).*, in {count} of {len(given)} frames.*: transpose each"):
            load_transforms(write(tmp_path, given, fl_x=5, w=8, h=6))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"frames\[0\] focal length: found nothing"),
        (
            {"camera_angle_x": 4.0},
            "camera_angle_x: found 4.0, expected a finite number of at least .*, under 3.14",
        ),
        ({"camera_angle_x": 45}, r"camera_angle_x: found 45, .*, under .*\. If it is in degrees, write 0.785398"),
        ({"fl_x": "wide"}, "fl_x: found 'wide'"),
        ({"fl_x": -3}, "fl_x: found -3"),
        ({"fl_x": 5, "cx": None}, "cx: found None"),
        ({"focal": 5}, r"focal length: found nothing.* The file has 'focal' \(5\), which is not read"),
        ({"x_fov": 50}, r"focal length: found nothing.* The file has 'x_fov' \(50\), which is not read"),
        ({"fl_y": 5}, r"focal length: found nothing.* The file has that of y alone: add fl_x, which is 5 where"),
        ({"camera_angle_y": 2 * math.atan(0.5)}, "focal length: .*of y alone: add fl_x, which is 6 where"),
        ({"fl_x": 5, "k4": 0.2, "k2": 0}, "lens: found k4 0.2"),
        ({"fl_x": 5, "camera_model": "OPENCV_FISHEYE"}, "lens: found camera_model OPENCV_FISHEYE"),
    ],
)
def test_bad_intrinsics(tmp_path, fields, message):
    with pytest.raises(InputError, match=message):
        load_transforms(write(tmp_path, w=8, h=6, **fields))


def test_images_of_differing_size(tmp_path):
    frames = [{"file_path": name, "transform_matrix": POSE} for name in ("a", "b")]
    path = write(tmp_path, frames, ["a.png"], fl_x=5)
    write_image(tmp_path / "b.png", np.zeros((6, 9, 3), np.uint8))
    dataset = load_transforms(path)
    assert dataset.sizes == ((8, 6), (9, 6)) and (dataset.cameras.width, dataset.cameras.height) == (9, 6)
    assert dataset.cameras.cx.tolist() == [4, 4.5] and dataset[1:].sizes == ((9, 6),)
    with pytest.raises(InputError, match=r"w, h of frames\[0\] 9x6, the image 8x6"):
        load_transforms(write(tmp_path, frames, ["b.png"], fl_x=5, w=9, h=6))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"id": 0, "img_name": "r_0", "position": [0, 0, 0], "rotation": POSE}], "graphdeco's cameras.json"),
        ({"frames": [{"frame_index": 0, "rot_mat": POSE}]}, "MatrixCity's raw export"),
        ({"transform": POSE[:3], "scale": 0.2}, "nerfstudio's dataparser_transforms.json"),
        ({"poses": [], "images": []}, "frames: found nothing, but the keys 'poses', 'images'"),
        ("text", "JSON: found str"),
    ],
)
def test_other_json_files_are_named(tmp_path, content, message):
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load_transforms(path)


def test_keys_that_change_what_is_measured_are_said(tmp_path, caplog):
    frame = {"file_path": "a", "transform_matrix": POSE}
    load_transforms(write(tmp_path, [frame], fl_x=5, w=8, h=6, train_indices=[0], test_ids=[]))
    assert "train_indices, test_ids: these lists are not read. data.holdout_every decides" in caplog.text


def test_a_json_for_larger_images_is_scaled_to_them(tmp_path, caplog):
    path = write(tmp_path, None, ["train/r_0.png"], fl_x=20, fl_y=22, cx=7, cy=6, w=16, h=12)
    cameras = load_transforms(path).cameras
    assert (cameras.width, cameras.height) == (8, 6)
    assert [tensor.item() for tensor in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)] == [10, 11, 3.5, 3]
    assert "w, h are 16x12 in 1 of 1 frames, the images are 8x6" in caplog.text and "scaled by 0.5" in caplog.text


def test_an_offset_is_taken_off_in_double_precision(tmp_path):
    offset = (500000.0, 4649776.0, 120.0)
    frames = [
        {"file_path": str(i), "transform_matrix": [[*row[:3], row[3] + i / 8] for row in POSE[:3]] + [POSE[3]]}
        for i in range(3)
    ]
    near = load_transforms(write(tmp_path, frames, fl_x=5, w=8, h=6)).cameras
    for frame in frames:
        for row, value in zip(frame["transform_matrix"], offset, strict=False):
            row[3] += value
    far = write(tmp_path, frames, fl_x=5, w=8, h=6)
    assert torch.equal(load_transforms(far, data=DataConfig(offset=offset)).cameras.c2w, near.c2w)
    with pytest.raises(InputError, match=r"transforms.json: positions: .*Set data.offset: \[50000\d"):
        load_transforms(far)


def test_numbers_beyond_float32(tmp_path):
    frame = {"file_path": "far", "transform_matrix": changed(0, 3, 1e300)}
    with pytest.raises(InputError, match=r"frames\[0\] \(far\) transform_matrix: .*beyond float32"):
        load_transforms(write(tmp_path, [frame], fl_x=5, w=8, h=6))
    with pytest.raises(InputError, match=r"frames\[0\] fl_x: found 1e\+300"):
        load_transforms(write(tmp_path, fl_x=1e300, w=8, h=6))
