"""nerfstudio's dialect of a transforms file: splits, masks, points, other worlds, and lenses that bend."""

import json

import numpy as np
import pytest
import torch

from scene.formats import load_frames
from scene.formats.nerfstudio_json import note_dataparser, world_fields
from scene.formats.transforms_json import write_transforms
from scene.images import read_image, write_image
from settings.data import DataConfig
from settings.errors import InputError

TURN = [[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]  # y to -z, z to y: of COLMAP's world, as nerfstudio writes it


def pose(x):
    return [[1, 0, 0, x], [0, 1, 0, 2], [0, 0, 1, 4], [0, 0, 0, 1]]


@pytest.fixture
def write_json(tmp_path):
    """Writes a transforms.json of frames a, b, c, d with fields of the file and of the frames; returns its path."""

    def write(frame=None, **fields):
        frames = [
            {"file_path": f"images/{name}.png", "transform_matrix": pose(i), **(frame or {})}
            for i, name in enumerate("abcd")
        ]
        path = tmp_path / "transforms.json"
        path.write_text(json.dumps({"w": 8, "h": 6, "fl_x": 10, **fields, "frames": frames}))
        return path

    return write


def write_images(folder, size=(6, 8), shade=50):
    for name in "abcd":
        write_image(folder / f"{name}.png", np.full((*size, 3), shade, np.uint8))


def test_the_files_own_splits_are_kept(write_json, caplog):
    caplog.set_level("INFO")
    path = write_json(
        train_filenames=["images/a.png", ".\\images\\c.png", "images/z.png"], val_filenames=["./images/b.png"]
    )
    frames = load_frames(path)
    assert frames.names == ("a", "b", "c") and frames.tests == (False, True, False)
    assert "2 of its frames are trained on, 1 held out, 1 are in no list and left out, 1 names" in caplog.text
    frames = load_frames(write_json(test_filenames=["images/b.png"], val_filenames=["images/d.png"]))
    assert frames.names == tuple("abcd") and frames.tests == (False, True, False, True)
    assert load_frames(write_json(train_filenames=["images/a.png"], test_filenames=[])).tests is None


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train_filenames": "a"}, "train_filenames: found 'a', expected a list"),
        ({"test_filenames": [3]}, r"test_filenames: found \[3\], expected a list"),
        (
            {"train_filenames": ["images/a.png"], "test_filenames": ["images/a.png"]},
            "'images/a.png' .1 frames. in train",
        ),
        ({"train_filenames": ["z"], "test_filenames": ["y"]}, "found none of the frames"),
    ],
)
def test_splits_that_make_no_sense_are_refused(write_json, lists, message):
    with pytest.raises(InputError, match=message):
        load_frames(write_json(**lists))


def test_masks_and_points_are_found(write_json, tmp_path):
    path = write_json({"mask_path": "masks\\all.png"}, ply_file_path="sparse_pc.ply")
    assert load_frames(path).masks is None and load_frames(path).points is None  # there are no pictures to mask
    write_images(tmp_path / "images")
    with pytest.raises(InputError, match=r"frames\[0\] .images/a.png. mask_path: found 'masks\\all.png', no such file"):
        load_frames(path)
    write_image(tmp_path / "masks" / "all.png", np.full((6, 8), 255, np.uint8))
    (tmp_path / "sparse_pc.ply").touch()
    frames = load_frames(path)
    assert frames.masks == (tmp_path / "masks" / "all.png",) * 4 and frames.points == tmp_path / "sparse_pc.ply"


def with_masks(path):
    """The JSON, each frame of which names a mask of its own: 0.png, 1.png, ..."""
    content = json.loads(path.read_text())
    for index, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"{index}.png"
    path.write_text(json.dumps(content))
    return path


def test_masks_without_pictures_are_all_there_or_none(write_json, tmp_path, caplog):
    path = with_masks(write_json())
    with caplog.at_level("INFO"):
        assert load_frames(path).masks is None
    assert "none of the masks that it names is there, nor a picture" in caplog.text
    for index in range(4):
        write_image(tmp_path / f"{index}.png", np.full((6, 8), 255, np.uint8))
    assert load_frames(path).masks == tuple(tmp_path / f"{index}.png" for index in range(4))
    (tmp_path / "2.png").unlink()
    with pytest.raises(InputError, match=r"frames\[2\] .* mask_path: found '2.png', no such file"):
        load_frames(path)


def test_a_picture_that_is_missing_needs_no_mask(write_json, tmp_path, caplog):
    path = with_masks(write_json())
    write_images(tmp_path / "images")
    (tmp_path / json.loads(path.read_text())["frames"][0]["file_path"]).unlink()
    masks = [tmp_path / f"{index}.png" for index in range(4)]
    for mask in masks[1:]:
        write_image(mask, np.full((6, 8), 255, np.uint8))
    assert load_frames(path).masks == (None, *masks[1:])
    assert "used whole" not in caplog.text
    masks[2].unlink()
    with pytest.raises(InputError, match=r"frames\[2\] .* mask_path: found '2.png', no such file"):
        load_frames(path)


def test_masks_of_some_frames_are_said_and_what_is_no_path_is_refused(write_json, tmp_path, caplog):
    write_images(tmp_path / "images")
    write_image(tmp_path / "all.png", np.full((6, 8), 255, np.uint8))
    path = write_json()
    content = json.loads(path.read_text())
    content["frames"][1]["mask_path"], content["frames"][2]["mask_path"] = "all.png", None
    path.write_text(json.dumps(content))
    assert load_frames(path).masks == (None, tmp_path / "all.png", None, None)
    assert "masks for 1 of 4 pictures; the others are used whole" in caplog.text
    for wrong, shown in ((["all.png"], r'\["all.png"\]'), (3, "3")):
        with pytest.raises(InputError, match=f"mask_path: found {shown}, expected the path of a picture"):
            load_frames(write_json({"mask_path": wrong}))


def test_cameras_go_to_the_world_before_the_applied_transform(write_json):
    path = write_json(applied_transform=TURN, applied_scale=2.0)
    assert load_frames(path).cameras.centers[1].tolist() == [1, 2, 4]
    moved = load_frames(path, data=DataConfig(applied_transform="undo")).cameras
    # (x, y, z) was (x, -z, y), at half the scale.
    assert moved.centers[1].tolist() == [0.5, -2, 1]
    assert moved.c2w[1, :3, :3].tolist() == [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    points = load_frames(path, data=DataConfig(applied_transform="undo")).points_world
    assert (points @ points.new_tensor([1, 2, 4, 1])).tolist() == [0.5, -2, 1, 1], "they go where the cameras go"
    assert load_frames(path).points_world is None


@pytest.mark.parametrize("fields", [{}, {"applied_transform": np.eye(4)[:3].tolist()}])
def test_an_applied_transform_that_moves_nothing_is_warned_of_where_it_is_to_be_undone(write_json, caplog, fields):
    path = write_json(**fields)
    moved = load_frames(path, data=DataConfig(applied_transform="undo")).cameras.c2w
    assert torch.equal(moved, load_frames(path).cameras.c2w)
    (record,) = [record for record in caplog.records if "applied_transform" in record.getMessage()]
    assert record.levelname == "WARNING" and record.getMessage().endswith("the cameras stay as they are.")


def test_cameras_go_to_the_normalised_world(write_json, tmp_path, caplog):
    """As nerfstudio's dataparser: its transform holds the applied one, and scales positions alone."""
    path, orient = write_json(applied_transform=TURN), torch.eye(4, dtype=torch.float64)
    orient[:3, :3] = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    orient[:3, 3] = torch.tensor([-1.0, 2, 3])
    applied = torch.cat([torch.tensor(TURN), torch.tensor([[0, 0, 0, 1.0]])]).double()
    world = tmp_path / "dataparser_transforms.json"
    world.write_text(json.dumps({"transform": (orient @ applied)[:3].tolist(), "scale": 0.25}))
    note_dataparser(tmp_path / "splat.ply", DataConfig())
    assert "--set data.dataparser_transforms=" in caplog.text
    moved = load_frames(path, data=DataConfig(dataparser_transforms=world)).cameras
    expected = orient @ torch.tensor(pose(1), dtype=torch.float64)
    expected[:3, 3] *= 0.25
    torch.testing.assert_close(moved.c2w[1], expected.float())

    # Written anew, as tools/export_teacher.py does, they are not moved a second time.
    data = DataConfig(dataparser_transforms=world)
    write_transforms(tmp_path / "moved.json", moved, list("abcd"), fields=world_fields(data))
    torch.testing.assert_close(load_frames(tmp_path / "moved.json", data=data).cameras.c2w, moved.c2w)
    torch.testing.assert_close(load_frames(tmp_path / "moved.json").cameras.c2w, moved.c2w)
    undone = load_frames(tmp_path / "moved.json", data=DataConfig(applied_transform="undo")).cameras.c2w
    torch.testing.assert_close(undone, load_frames(path, data=DataConfig(applied_transform="undo")).cameras.c2w)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"transform": TURN}, "JSON: found transform, expected an object with 'transform' and 'scale'"),
        ({"transform": TURN, "scale": 0}, "scale: found 0, expected a positive number"),
        ({"transform": [[1, 2]], "scale": 1}, "transform: found shape .1, 2."),
        ({"transform": "none", "scale": 1}, "transform: found 'none', expected 3 x 4 numbers"),
        ({"transform": np.ones((3, 4)).tolist(), "scale": 1}, "transform: found a pose that is not rigid"),
    ],
)
def test_a_world_that_is_none_is_refused(write_json, tmp_path, content, message):
    world = tmp_path / "dataparser_transforms.json"
    world.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"dataparser_transforms.json: {message}"):
        load_frames(write_json(), data=DataConfig(dataparser_transforms=world))


def test_intrinsics_and_sizes_may_be_the_frames_own(write_json, tmp_path):
    path = write_json()
    content = json.loads(path.read_text())
    for key in ("w", "h", "fl_x"):
        del content[key]
    for frame, (width, height) in zip(content["frames"], ((8, 6), (6, 8), (8, 6), (4, 4)), strict=True):
        frame |= {"w": width, "h": height, "fl_x": width + 1, "cx": width / 2 + 0.25}
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    frames = load_frames(path)
    assert frames.sizes == ((8, 6), (6, 8), (8, 6), (4, 4)) and (frames.cameras.width, frames.cameras.height) == (8, 8)
    assert frames.cameras.fx.tolist() == [9, 7, 9, 5] and frames.cameras.cx.tolist() == [4.25, 3.25, 4.25, 2.25]


def test_a_lens_that_bends_is_undone(write_json, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write_json(k1=0.2, k2=-0.01, p1=0.0, p2=0.0, camera_model="OPENCV")
    # Without pictures there are no pixels to move.
    assert load_frames(path).cameras.width == 8 and load_frames(path).cameras.cx[0] == 4
    write_images(tmp_path / "images")
    frames = load_frames(path)
    assert (frames.cameras.width, frames.cameras.height) == (6, 4) and frames.cameras.cx[0] == 3
    assert read_image(frames.image_paths[0]).shape == (4, 6, 3) and frames.cameras.fx[0] == 10


def test_a_folder_of_pictures_is_refused_since_each_frame_says_where_its_own_is(write_json, tmp_path):
    path = write_json()
    with pytest.raises(
        InputError, match=r"config: data.images: found .*elsewhere, expected null, since .*transforms.jso"
    ):
        load_frames(path, data=DataConfig(transforms=path, images=tmp_path / "elsewhere"))


def test_without_a_size_the_first_missing_image_is_named(write_json, tmp_path):
    path = write_json()
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("w", "h")}))
    with pytest.raises(InputError, match=r"image size: found neither .*\(the first looked for: .*images/a.png, itself"):
        load_frames(path)
