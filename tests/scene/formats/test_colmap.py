"""Captures with a COLMAP model."""

import json

import numpy as np
import pytest
import torch

from scene.dataset_pictures import counted_pixels, read_picture
from scene.formats import camera_files, format_of, load_frames
from scene.images import read_image
from settings.data import DataConfig
from settings.errors import InputError
from tests.scene.formats import colmap_models
from tests.scene.formats.colmap_models import (
    PINHOLE,
    gradient,
    images,
    tagged,
    write_binary,
    write_pictures,
    write_text,
)

NAMES = ("b.jpg", "a.jpg", "c.jpg")


@pytest.fixture
def capture(tmp_path):
    """A capture of three pictures of 16x12 pixels."""
    write_text(tmp_path / "sparse" / "0", [PINHOLE], images(*NAMES))
    write_pictures(tmp_path / "images", *NAMES)
    return tmp_path


def test_a_capture_is_read_in_the_order_of_names(capture, caplog):
    caplog.set_level("INFO")
    frames = load_frames(capture)
    assert frames.names == ("a", "b", "c") and frames.sizes is None and frames.tests is None
    assert frames.image_paths == tuple(capture / "images" / name for name in sorted(NAMES))
    assert frames.points == capture / "sparse/0/points3D.txt"
    cameras = frames.cameras
    # fx and fy differ, and the principal point is off the centre: all as they stand.
    assert (cameras.width, cameras.height) == (16, 12)
    assert [values.tolist() for values in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)] == [
        [20] * 3, [22] * 3, [7.5] * 3, [6.25] * 3,
    ]  # fmt: skip
    assert "read as colmap, since sparse/0/cameras.txt is there (data.format: auto)" in caplog.text
    assert f"(text) of 3 images by 1 camera, in the order of their names, with 3 pictures of {capture}" in caplog.text
    assert {path.name for path in camera_files(capture, DataConfig())} == {"cameras.txt", "images.txt", "points3D.txt"}


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("bend", [0.0, 1e-5])
def test_pictures_and_masks_are_taken_as_stored_whatever_exif_says(tmp_path, monkeypatch, caplog, orientation, bend):
    """COLMAP takes no notice of the tag: its poses are of the pixels as stored."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caplog.set_level("INFO")
    camera = PINHOLE._replace(model="SIMPLE_RADIAL", parameters=(20.0, 8.0, 6.0, bend))
    write_text(tmp_path / "sparse" / "0", [camera], images("a.png"))
    tagged(tmp_path / "images" / "a.png", (12, 16), orientation)
    tagged(tmp_path / "masks" / "a.png.png", (12, 16), orientation)
    frames = load_frames(tmp_path)
    assert frames.undistorted == (bend > 0) and frames.sizes is None
    width, height = frames.cameras.width, frames.cameras.height
    assert (16 - width, 12 - height) == ((2, 2) if bend else (0, 0))  # a pixel less on all sides
    left, top = (round(edge - middle[0].item()) for edge, middle in ((8, frames.cameras.cx), (6, frames.cameras.cy)))
    shown = gradient((12, 16))[top : top + height, left : left + width]
    assert np.abs(read_picture(frames, 0).astype(int) - shown).max() <= 1
    counted = counted_pixels(frames, (width, height))[0]
    assert counted[5, 5] and counted.mean() > 0.7 and (bend > 0 or (counted == shown.any(axis=2)).all())
    assert "1 of 1 images have an EXIF orientation" in caplog.text and "taken as stored" in caplog.text
    assert ("1 picture and 1 mask undistorted" in caplog.text) == (bend > 0)


def test_cameras_and_points_go_to_the_world_that_nerfstudio_trained_in(capture, caplog):
    """Its own reader of COLMAP models writes the whole way there: turned and moved first, then scaled."""
    world, turn = capture / "dataparser_transforms.json", np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]])
    world.write_text(json.dumps({"transform": turn.tolist(), "scale": 0.5}))
    as_it_is, data = load_frames(capture), DataConfig(dataparser_transforms=world)
    moved = load_frames(capture, data=data)
    rigid = torch.tensor(np.vstack([turn, [0, 0, 0, 1]]), dtype=torch.float32)
    expected = rigid @ as_it_is.cameras.c2w
    expected[:, :3, 3] *= 0.5
    torch.testing.assert_close(moved.cameras.c2w, expected)
    place = torch.tensor([1.0, 2, 4, 1], dtype=torch.float64)
    assert (moved.points_world @ place).tolist() == [-0.5, 1.5, 3.5, 1] and as_it_is.points_world is None
    with pytest.raises(InputError, match="data.dataparser_transforms: .* is of format graphdeco"):
        (capture / "cameras.json").write_text("[]")
        load_frames(capture, data=data)


@pytest.mark.parametrize("place", ["", "sparse", "sparse/0"])
def test_any_folder_of_a_capture_leads_to_its_model(capture, place):
    frames = load_frames(capture / place)
    assert frames.names == ("a", "b", "c") and frames.image_paths[0] == capture / "images" / "a.jpg"


def test_intrinsics_are_for_the_true_pixels(capture):
    (capture / "images").rename(capture / "full")
    write_pictures(capture / "images_2", *NAMES, size=(8, 6))
    write_pictures(capture / "images_4", *NAMES, size=(4, 3))
    cameras = load_frames(capture).cameras
    assert (cameras.width, cameras.height) == (8, 6) and (cameras.fx[0], cameras.fy[0]) == (10, 11)
    assert (cameras.cx[0], cameras.cy[0]) == (3.75, 3.125)
    small = load_frames(capture, data=DataConfig(images=capture / "images_4")).cameras
    assert small.width == 4 and (small.fx[0], small.fy[0], small.cx[0], small.cy[0]) == (5, 5.5, 1.875, 1.5625)
    with pytest.raises(InputError, match="data.images: found no such folder"):
        load_frames(capture, data=DataConfig(images=capture / "images_8"))


def test_names_may_hold_the_folder_of_the_pictures(capture):
    """As where COLMAP was run over the capture's folder, pictures that it did not register beside the others."""
    write_text(capture / "sparse" / "0", [PINHOLE], images(*(f"images/{name}" for name in NAMES)))
    write_pictures(capture / "images_2", *NAMES, "unregistered.jpg", size=(8, 6))
    write_pictures(capture / "images", "unregistered.jpg")
    for folder in ("images", "images_2"):
        frames = load_frames(capture, data=DataConfig(images=capture / folder))
        assert frames.image_paths == tuple(capture / folder / name for name in sorted(NAMES))
    assert frames.names == ("a", "b", "c")


def test_pictures_of_another_extension_or_renamed_are_paired(capture, caplog):
    for name in NAMES:
        (capture / "images" / name).rename(capture / "images" / name.replace(".jpg", ".PNG"))
    assert load_frames(capture).image_paths[2] == capture / "images" / "c.PNG"
    for number, name in enumerate("cab"):
        (capture / "images" / f"{name}.PNG").rename(capture / "images" / f"frame_{number}.png")
    assert [path.name for path in load_frames(capture).image_paths] == [f"frame_{i}.png" for i in range(3)]
    assert "has as many pictures: they are paired in order, 'a.jpg' with 'frame_0.png'" in caplog.text


def test_renamed_pictures_whose_order_is_not_plain_are_refused(tmp_path):
    names = [f"im{number}.jpg" for number in range(11)]
    write_text(tmp_path / "sparse" / "0", [PINHOLE], images(*names))
    write_pictures(tmp_path / "images", *[f"{number:05d}.jpg" for number in range(11)])
    message = (
        "images: pictures: found other names.*'im10.jpg' is '00002.jpg' by letter, '00010.jpg' by number, expected"
    )
    with pytest.raises(InputError, match=message):
        load_frames(tmp_path)


def test_renamed_pictures_that_count_alike_are_paired(tmp_path):
    names = [f"im{number}.jpg" for number in range(11)]
    write_text(tmp_path / "sparse" / "0", [PINHOLE], images(*names))
    write_pictures(tmp_path / "images", *[f"{number}.jpg" for number in range(11)])
    frames = load_frames(tmp_path)
    assert [path.stem for path in frames.image_paths] == [name.removeprefix("im") for name in frames.names]


def test_a_missing_picture_is_sought_where_it_should_be_and_its_camera_stays(tmp_path, capture):
    bent = PINHOLE._replace(model="SIMPLE_RADIAL", parameters=(20.0, 8.0, 6.0, -0.1))
    write_text(capture / "sparse" / "0", [bent], images(*NAMES))
    for name in NAMES:  # half as large as the model says
        write_pictures(capture / "images", name, size=(8, 6))
    whole = load_frames(capture)
    assert whole.undistorted == 3 and whole.sought == ""
    (capture / "images" / "b.jpg").unlink()
    frames = load_frames(capture)
    assert frames.image_paths[1] is None and frames.sought == str(capture / "images" / "b.jpg")
    assert frames.cameras.same_as(whole.cameras) and frames.sizes is None


def test_the_picture_of_one_name_is_never_that_of_another(capture):
    """As after some were deleted: of a.jpg and a.png in a model only the latter is there."""
    names = ["a.jpg", "a.png", "b.jpg", "c.bmp", "c.jpg"]
    write_text(capture / "sparse" / "0", [PINHOLE], images(*names))
    (capture / "images" / "a.jpg").rename(capture / "images" / "a.png")
    (capture / "images" / "c.jpg").rename(capture / "images" / "c.png")  # of which of two it is nothing says
    paths = load_frames(capture).image_paths
    assert [path and path.name for path in paths] == [None, "a.png", "b.jpg", None, None]


def test_cameras_may_differ(capture):
    other = PINHOLE._replace(id=2, width=12, height=16, parameters=(9.0, 9.5, 6.0, 8.0))
    made = images(*NAMES)
    made[1] = made[1]._replace(camera=2)
    write_text(capture / "sparse" / "0", [PINHOLE, other], made)
    write_pictures(capture / "images", "a.jpg", size=(12, 16))
    frames = load_frames(capture)
    assert frames.sizes == ((12, 16), (16, 12), (16, 12)) and (frames.cameras.width, frames.cameras.height) == (16, 16)
    assert frames.cameras.fx.tolist() == [9, 20, 20] and frames.cameras.cy.tolist() == [8, 6.25, 6.25]


def test_pictures_of_another_shape_are_refused(capture):
    write_pictures(capture / "images", "a.jpg", size=(12, 16))
    with pytest.raises(InputError, match="16x12, the image 12x16: the sides are swapped"):
        load_frames(capture)


def test_several_models_are_said(capture, caplog):
    write_binary(capture / "sparse" / "1", [PINHOLE], images("d.jpg"))
    assert len(load_frames(capture)) == 3
    assert "models 1 lie beside 0, which is read" in caplog.text


def test_a_json_is_read_before_the_model_that_nerfstudio_made_it_from(capture):
    (capture / "colmap").mkdir()
    (capture / "sparse").rename(capture / "colmap" / "sparse")
    assert format_of(capture).name == "colmap"
    (capture / "transforms.json").write_text("{}")
    assert format_of(capture).name == "transforms" and format_of(capture, "colmap").name == "colmap"


def test_a_folder_of_something_else_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(
        InputError, match=r"dataset: found notes.txt, expected cameras.bin or .txt .there or in sparse/0"
    ):
        load_frames(tmp_path)
    with pytest.raises(InputError, match="COLMAP model: found none"):
        load_frames(tmp_path, data=DataConfig(format="colmap"))
    (tmp_path / "a.JPG").write_bytes(b"")
    with pytest.raises(InputError, match="found a.JPG, notes.txt, .*colmap automatic_reconstructor"):
        load_frames(tmp_path)
    for index in range(30):
        (tmp_path / f"b_{index:02}.JPG").write_bytes(b"")
    with pytest.raises(InputError, match=r"found a.JPG, b_00.JPG, .*b_06.JPG and 24 more, expected"):
        load_frames(tmp_path)


def test_the_folder_of_the_pictures_alone_is_told_from_that_of_the_capture(capture):
    write_text(capture / "sparse" / "0", [PINHOLE], images(*NAMES))
    with pytest.raises(InputError, match=rf"The cameras are in the folder above: name {capture.resolve()}\.$"):
        load_frames(capture / "images")


def test_a_dataset_beside_a_folder_of_pictures_is_not_theirs(tmp_path):
    for folder in ("city/block_1", "pictures"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "city/block_1/transforms.json").write_text('{"frames": [{"rot_mat": []}]}')
    (tmp_path / "pictures/a.jpg").write_bytes(b"")
    assert format_of(tmp_path).name == "matrixcity"
    with pytest.raises(InputError, match="Name the folder or file that has the cameras. COLMAP finds"):
        load_frames(tmp_path / "pictures")


@pytest.mark.parametrize("model", ["OPENCV_FISHEYE", "FOV", "FULL_OPENCV"])
def test_other_lenses_are_refused_with_the_command_that_undistorts(capture, model):
    count = colmap_models.CAMERA_MODELS[model][1]
    camera = PINHOLE._replace(model=model, parameters=(20.0, 20.0, 8.0, 6.0, *[0.1] * 12)[:count])
    write_text(capture / "sparse" / "0", [camera], images(*NAMES))
    with pytest.raises(InputError, match=f"camera 1: found {model} .*`colmap image_undistorter --image_path images"):
        load_frames(capture)


def test_panoramas_are_to_be_cut_not_undistorted(capture):
    camera = PINHOLE._replace(model="EQUIRECTANGULAR", parameters=(16.0, 12.0))
    write_text(capture / "sparse" / "0", [camera], images(*NAMES))
    with pytest.raises(InputError, match="found EQUIRECTANGULAR .*cut each into perspective pictures") as told:
        load_frames(capture)
    assert "image_undistorter" not in str(told.value)


def test_a_lens_that_bends_is_undone_once(capture, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("XDG_CACHE_HOME", str(capture / "cache"))
    radial = PINHOLE._replace(model="SIMPLE_RADIAL", parameters=(20.0, 8.0, 6.0, 0.1))
    write_text(capture / "sparse" / "0", [radial], images(*NAMES))
    frames = load_frames(capture)
    assert "3 pictures undistorted (k1 0.1, k2 0, p1 0, p2 0)" in caplog.text
    width, height = frames.cameras.width, frames.cameras.height
    # The middles of the sides move in by x(1 - k1 x^2), 0.6 and 0.2 pixels, the corners by more: all is blank there.
    assert (width, height) == (14, 10) and frames.cameras.fx.tolist() == [20] * 3
    assert (frames.cameras.cx[0], frames.cameras.cy[0]) == (7, 5)
    assert torch.equal(
        torch.from_numpy(read_image(frames.image_paths[0])), torch.full((10, 14, 3), 90, dtype=torch.uint8)
    )
    made = frames.image_paths[0].stat().st_mtime_ns
    assert load_frames(capture).image_paths == frames.image_paths
    assert frames.image_paths[0].stat().st_mtime_ns == made
    write_pictures(capture / "images", "a.jpg", shade=200)
    again = load_frames(capture).image_paths
    assert again[0] != frames.image_paths[0] and again[1:] == frames.image_paths[1:]
    assert np.all(read_image(again[0]) == 200)


def test_opencvs_full_lens_is_read_as_far_as_its_third_radial_coefficient(capture, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setenv("XDG_CACHE_HOME", str(capture / "cache"))
    full = PINHOLE._replace(model="FULL_OPENCV", parameters=(20.0, 22, 8, 6, 0.1, 0, 0, 0, 0.3, 0, 0, 0))
    write_text(capture / "sparse" / "0", [full], images(*NAMES))
    assert load_frames(capture).cameras.fy.tolist() == [22] * 3
    assert "3 pictures undistorted (k1 0.1, k2 0, p1 0, p2 0, k3 0.3)" in caplog.text


def test_masks_beside_the_pictures_are_found(capture, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(capture / "cache"))
    write_pictures(capture / "masks", "a.jpg.png", "b.png")
    assert load_frames(capture).masks == (capture / "masks/a.jpg.png", capture / "masks/b.png", None)
    assert "masks for 2 of 3 pictures" in caplog.text
    radial = PINHOLE._replace(model="SIMPLE_RADIAL", parameters=(20.0, 8.0, 6.0, 0.1))
    write_text(capture / "sparse" / "0", [radial], images(*NAMES))
    bent = load_frames(capture)
    assert read_image(bent.masks[0]).shape == read_image(bent.image_paths[0]).shape and bent.masks[2] is None
