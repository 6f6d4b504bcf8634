"""The folder that graphdeco's program trains a model into."""

import json

import numpy as np
import pytest

from scene.dataset_pictures import read_picture
from scene.formats import camera_files, load_frames
from scene.formats.graphdeco import latest_ply, note_off_centre, read_arguments
from scene.frames import Frames
from settings.data import DataConfig
from settings.errors import InputError
from tests.scene.formats.colmap_models import gradient, tagged, write_pictures

NAMES = ("b", "a", "c")
ARGUMENTS = "Namespace(data_device='cuda', eval=False, images='images', resolution=-1, source_path={!r}, sh_degree=3)"


def cameras(*names, **fields):
    """Cameras at (number, 0, 0) that look along the world's z, y down."""
    rotation = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    common = {"width": 32, "height": 24, "rotation": rotation, "fx": 40.0, "fy": 44, **fields}
    return [{"id": i, "img_name": name, "position": [float(i), 0.0, 0.0], **common} for i, name in enumerate(names)]


@pytest.fixture
def model(tmp_path):
    """A model's folder beside the capture that it was trained on."""
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "cameras.json").write_text(json.dumps(cameras(*NAMES)))
    (folder / "cfg_args").write_text(ARGUMENTS.format(str(tmp_path / "capture")))
    return folder


def test_cameras_are_read_in_the_order_of_names(model, caplog):
    caplog.set_level("INFO")
    frames = load_frames(model)
    assert frames.names == ("a", "b", "c") and frames.image_paths == (None,) * 3 and frames.tests is None
    assert frames.cameras.centers.tolist() == [[1, 0, 0], [0, 0, 0], [2, 0, 0]]
    # OpenCV's axes: y points down in the picture, and the camera looks along +z.
    assert frames.cameras.c2w[0, :3, :3].tolist() == [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
    assert (frames.cameras.width, frames.cameras.height) == (32, 24)
    assert [values[0].item() for values in (frames.cameras.fx, frames.cameras.fy, frames.cameras.cx)] == [40, 44, 16]
    assert "read as graphdeco, since cameras.json is there" in caplog.text
    assert "trained on all 3 frames (eval=False)" in caplog.text
    assert camera_files(model, DataConfig()) == [model / "cameras.json"]
    assert load_frames(model / "cameras.json").names == frames.names


@pytest.mark.parametrize("extension", ["", ".jpg"])
def test_pictures_are_those_of_the_capture(model, tmp_path, extension):
    (model / "cameras.json").write_text(json.dumps(cameras(*(f"{name}{extension}" for name in NAMES))))
    folder = tmp_path / "capture" / "images"
    write_pictures(folder, "a.jpg", "b.jpg", "c.jpg", size=(16, 12))
    frames = load_frames(model)
    assert frames.image_paths == tuple(folder / f"{name}.jpg" for name in "abc")
    # cameras.json has the size of the files before they were reduced.
    assert (frames.cameras.width, frames.cameras.fx[0], frames.cameras.fy[0], frames.cameras.cy[0]) == (16, 20, 22, 6)


def test_pictures_are_taken_as_stored(model, tmp_path):
    tagged(tmp_path / "capture" / "images" / "a.png", (24, 32), orientation=3)
    frames = load_frames(model)
    np.testing.assert_array_equal(read_picture(frames, 0), gradient((24, 32)))


def test_a_capture_elsewhere_is_named_by_the_config(model, tmp_path):
    write_pictures(tmp_path / "moved" / "images", "a.jpg", "b.jpg", "c.jpg", size=(16, 12))
    for images in (tmp_path / "moved", tmp_path / "moved" / "images"):
        paths = load_frames(model, data=DataConfig(images=images)).image_paths
        assert paths[1] == tmp_path / "moved/images/b.jpg"


def test_the_frames_kept_for_tests_are_those_written_first(model):
    (model / "cameras.json").write_text(json.dumps(cameras("c", "f", "a", "b", "d", "e")))
    (model / "cfg_args").write_text(ARGUMENTS.format("").replace("eval=False", "eval=True"))
    frames = load_frames(model)
    assert frames.names == tuple("abcdef") and frames.tests == (False, False, True, False, False, True)


@pytest.mark.parametrize(
    ("names", "tests"),
    [
        ("a b c", "a"),  # its one picture for tests is the first by name too
        ("a i b c d e f g h j", "a i"),
        ("c f a b d e", "c f"),
    ],
)
def test_frames_kept_for_tests_are_every_eighth_by_name_or_those_before_names_begin_anew(model, names, tests, caplog):
    (model / "cameras.json").write_text(json.dumps(cameras(*names.split())))
    (model / "cfg_args").write_text(ARGUMENTS.format("").replace("eval=False", "eval=True"))
    frames = load_frames(model)
    assert [name for name, test in zip(frames.names, frames.tests, strict=True) if test] == tests.split()
    assert not caplog.records


def test_frames_kept_for_tests_that_cannot_be_told_are_a_warning(model, caplog):
    (model / "cameras.json").write_text(json.dumps(cameras("c", "a", "b", "f", "d", "e")))
    (model / "cfg_args").write_text(ARGUMENTS.format("").replace("eval=False", "eval=True"))
    assert load_frames(model).tests is None
    assert "which of its 6 frames its teacher was not trained on (eval=True) cannot be told" in caplog.text


def test_with_train_test_exp_cameras_kept_for_tests_are_written_twice_and_read_once(model, caplog):
    """Their exposure is learnt, so the program has them among those that it trains on too."""
    entries = cameras(*"abcdefghij")
    (model / "cameras.json").write_text(json.dumps([entries[0], entries[8], *entries]))
    arguments = ARGUMENTS.replace("eval=False", "eval=True").replace("sh_degree", "train_test_exp=True, sh_degree")
    (model / "cfg_args").write_text(arguments.format(""))
    frames = load_frames(model)
    assert frames.names == tuple("abcdefghij") and frames.cameras.centers[:, 0].tolist() == list(range(10))
    assert [name for name, test in zip(frames.names, frames.tests, strict=True) if test] == ["a", "i"]
    assert "trained on the left half of each of the 2 pictures that are held out" in caplog.text


@pytest.mark.parametrize("is_kept", [True, False])
def test_blenders_splits_have_the_same_names(model, tmp_path, is_kept):
    """Of NeRF-synthetic data ``cameras.json`` has r_0 of both splits, and in the order of their JSONs."""
    names = ("r_0", "r_2", "r_1", "r_0", "r_1")
    (model / "cameras.json").write_text(json.dumps(cameras(*names)))
    (model / "cfg_args").write_text(ARGUMENTS.format(str(tmp_path / "lego")).replace("eval=False", f"eval={is_kept}"))
    (tmp_path / "lego").mkdir()
    (tmp_path / "lego/transforms_train.json").touch()
    longer, shorter = ("test", "train") if is_kept else ("train", "test")
    write_pictures(tmp_path / "lego" / longer, "r_0.png", "r_1.png", "r_2.png", size=(32, 24))
    write_pictures(tmp_path / "lego" / shorter, "r_0.png", "r_1.png", size=(32, 24))
    frames = load_frames(model)
    place = dict(zip(frames.names, frames.cameras.centers[:, 0].tolist(), strict=True))
    long = {f"{longer}_r_0": 0, f"{longer}_r_2": 1, f"{longer}_r_1": 2}
    assert place == long | {f"{shorter}_r_0": 3, f"{shorter}_r_1": 4}
    assert [path.relative_to(tmp_path / "lego").as_posix().replace("/", "_") for path in frames.image_paths] == [
        f"{name}.png" for name in frames.names
    ]
    assert frames.tests == (tuple(name.startswith("test") for name in frames.names) if is_kept else None)


def test_a_frame_that_is_there_twice_is_refused(model):
    one, other = cameras("a", "b")
    (model / "cameras.json").write_text(json.dumps([one, other, one]))
    with pytest.raises(InputError, match="'a' more than once"):
        load_frames(model)


def test_arguments_are_text(model, tmp_path):
    assert read_arguments(model)["images"] == "images" and read_arguments(model)["eval"] is False
    witness = tmp_path / "witness"
    for text in (f"Namespace(images=open({str(witness)!r}, 'w'))", f"open({str(witness)!r}, 'w')", "((" * 9999, "\0"):
        (model / "cfg_args").write_text(text)
        assert read_arguments(model) == {}
    assert not witness.exists() and read_arguments(tmp_path) == {}


def test_the_latest_iteration_is_taken(model, tmp_path):
    for number in (7000, 30000, 40000):
        folder = model / "point_cloud" / f"iteration_{number}"
        folder.mkdir(parents=True)
        if number < 40000:
            (folder / "point_cloud.ply").touch()
    assert latest_ply(model).parent.name == "iteration_30000"
    with pytest.raises(
        InputError, match=r"model: found no such folder, expected point_cloud/iteration_\*/point_cloud.ply"
    ):
        latest_ply(tmp_path / "nowhere")
    with pytest.raises(InputError, match="model: found output, expected"):
        latest_ply(tmp_path)
    (tmp_path / "my run/nerfstudio_models").mkdir(parents=True)
    told = r"model: found .*nerfstudio trained here: .*--set 'data.dataparser_transforms=\S+/my run/dataparser_transf"
    with pytest.raises(InputError, match=told):
        latest_ply(tmp_path / "my run")


def test_exposures_are_taken_back(model, tmp_path):
    write_pictures(tmp_path / "capture" / "images", "a.jpg", "b.jpg", "c.jpg", size=(32, 24), shade=102)
    exposure = [[2.0, 0, 0.2, 0.1], [0, 1, 0, 0], [0, 0, 0.5, -0.1]]
    (model / "exposure.json").write_text(json.dumps({"a.jpg": exposure, "c": np.eye(3, 4).tolist()}))
    frames = load_frames(model)
    assert frames.exposures[1] is None and frames[2:].exposures[0].tolist() == np.eye(3, 4).tolist()
    # 102 / 255 = 0.4. graphdeco multiplies a row by the matrix, so red adds to blue:
    # (0.4 - 0.1) / 2 = 0.15, 0.4, and (0.4 + 0.1 - 0.2 * 0.15) / 0.5 = 0.94.
    assert read_picture(frames, 0)[5, 5].tolist() == [38, 102, 240]
    assert read_picture(frames, 1)[5, 5].tolist() == read_picture(frames, 2)[5, 5].tolist() == [102] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "JSON: found list, expected an object"),
        ({"a": [[1, 2], [3]]}, "'a': found .*, expected 3 x 4 finite numbers"),
        ({"a": [[1, 0, 0, "x"], [0, 1, 0, 0], [0, 0, 1, 0]]}, "'a': found .*, expected 3 x 4 finite numbers"),
        ({"a": np.zeros((3, 4)).tolist()}, "'a': found a matrix of determinant 0, expected one that can be undone"),
    ],
)
def test_bad_exposures_are_named(model, content, message):
    (model / "exposure.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"exposure.json: {message}"):
        load_frames(model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "JSON: found an empty list, expected graphdeco's list of cameras"),
        ({"frames": []}, "JSON: found dict"),
        ([{"id": 0}], r"\[0\]: found an entry without img_name"),
        (cameras("a", width=1.5), r"\[0\] \(a\) width: found 1.5"),
        (cameras("a", height=-3), r"\[0\] \(a\) height: found -3"),
        (cameras("a", fx="40"), r"\[0\] \(a\) fx: found '40'"),
        (cameras("a", fy=1e400), r"\[0\] \(a\) fy: found inf"),
        (cameras("a", rotation=[[1, 0], [0, 1]]), "rotation and position: found shapes .2, 2. and .3,."),
        (cameras("a", rotation="none"), "rotation and position: found values that are no numbers"),
        (cameras("a", rotation=[[2, 0, 0], [0, 2, 0], [0, 0, 2]]), "a pose that is not rigid .*axes scaled by 2"),
        (cameras("a", rotation=[[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]]), "a non-finite number"),
        (cameras("a", "b", "a", "a"), "img_name: found 'a' for 3 of 4 cameras, of different poses, .*--source CAPTURE"),
    ],
)
def test_bad_cameras_are_named(model, content, message):
    (model / "cameras.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"cameras.json: .*{message}"):
        load_frames(model)


def test_a_principal_point_that_the_teacher_ignored_is_said(model, look_at, caplog):
    frames = Frames(look_at([(3.0, 0, 0), (0, 3, 0)], width=100, height=80), ("a", "b"), (None, None), model)
    ply = model / "point_cloud" / "iteration_7" / "point_cloud.ply"
    note_off_centre(frames, ply)
    assert not caplog.text
    frames.cameras.cx[1] += 2
    note_off_centre(frames, model.parent / "elsewhere" / "iteration_7" / "point_cloud.ply")
    assert not caplog.text
    note_off_centre(frames, ply)
    assert "the principal point is (2.0, 0.0) pixels off the centre in frame b (1 of 2 frames)" in caplog.text
