"""Datasets of which some pictures are not on disk: frames are left out, and none takes the place of another."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
import torch

from scene.formats import load_frames
from scene.formats.transforms_json import write_transforms
from scene.images import write_image
from settings.data import DataConfig
from settings.errors import InputError
from settings.loading import load_config
from teacher.gaussian_files.ply import write_ply
from teacher.sources import load_teacher
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.lazy_pictures import LazyPlane
from teacher.views.missing_pictures import images_among_missing
from teacher.views.teacher_views import TeacherViews, views_from_images
from tests.scene.formats.colmap_models import PINHOLE, images, write_pictures, write_text
from tests.scene.formats.test_matrixcity import pose, write_raw
from tests.teacher.toy_outputs import FRAMES, HEIGHT, WHITE, WIDTH, load, ring, two_blobs

COUNT = 9
GONE = [0, 4, 5, 7]
LEFT = [1, 2, 3, 6, 8]


@pytest.fixture
def dataset(tmp_path):
    """Nine frames, the picture of each of another shade."""
    write_transforms(tmp_path / "t.json", ring(COUNT, 12, 8), [f"r_{i}" for i in range(COUNT)])
    for i in range(COUNT):
        write_image(tmp_path / f"r_{i}.png", np.full((8, 12, 3), 9 * i, np.uint8))
    return tmp_path


def delete(folder, *indices):
    for index in indices:
        (folder / f"r_{index}.png").unlink()


def of_images(folder, **options):
    return views_from_images(folder / "t.json", **{"width": None, "background": WHITE, "holdout_every": 3} | options)


def of_gaussians(folder, **options):
    options = {"holdout_every": 3, "dataset": load_frames(folder / "t.json")} | options
    return views_from_gaussians(two_blobs(), ring(COUNT, 12, 8), [f"r_{i}" for i in range(COUNT)], **options)


def assert_part_of(views: TeacherViews, whole: TeacherViews, kept: list[int]) -> None:
    """The views are those frames of the whole, each with its own camera, picture, ground truth and part."""
    assert views.names == tuple(whole.names[index] for index in kept)
    assert views.cameras.same_as(whole.cameras[kept])
    for field in fields(views):
        planes = getattr(views, field.name)
        if isinstance(planes, torch.Tensor | LazyPlane):
            assert torch.equal(planes[:], getattr(whole, field.name)[kept]), field.name


@pytest.mark.parametrize("views_of", [of_images, of_gaussians])
def test_frames_without_a_picture_are_left_out_and_no_other_takes_their_part(dataset, caplog, views_of):
    whole = views_of(dataset)
    delete(dataset, *GONE)
    assert_part_of(views_of(dataset), whole, LEFT)
    said = "4 of 9 frames have no image on disk and are left out (1 of the 3 that are held out): r_0, r_4, r_5 and 1 mo"
    assert said in caplog.text and f"was looked for at {dataset}/r_0, itself" in caplog.text
    views_of(dataset)
    assert caplog.text.count("are left out") == 1


def test_those_drawn_when_they_are_asked_for_are_the_same(dataset):
    delete(dataset, *GONE)
    for views_of in (of_images, of_gaussians):
        budget = {"data": DataConfig(memory_gib=1.0)} if views_of is of_images else {"memory_gib": 1.0}
        lazy, held = views_of(dataset, **budget), views_of(dataset)
        assert lazy.names == held.names and torch.equal(lazy.holdout, held.holdout)
        assert torch.equal(lazy.rgb[:], held.rgb) and torch.equal(lazy.ground_truth[:], held.ground_truth[:])


def test_frames_are_chosen_before_any_is_left_out(dataset):
    whole = of_images(dataset, frames="1::2")
    delete(dataset, *GONE)
    assert of_images(dataset, frames="1::2").names == ("r_1", "r_3")
    assert_part_of(of_images(dataset, frames="1::2"), whole, [0, 1])


def test_gaussians_without_ground_truth_need_no_pictures(dataset, caplog):
    delete(dataset, *GONE)
    assert len(of_gaussians(dataset, ground_truth=False)) == COUNT
    assert "left out" not in caplog.text
    caplog.set_level("INFO")
    of_gaussians(dataset)
    assert "data.ground_truth: false takes all frames" in caplog.text


def test_a_teachers_renders_stay_those_of_their_frames(teacher):
    for i in range(FRAMES):
        write_image(teacher / f"r_{i}.png", np.full((HEIGHT, WIDTH, 3), 60 + i, np.uint8))
    whole = load(teacher, holdout_every=0)
    delete(teacher, 1)
    assert_part_of(load(teacher, holdout_every=0), whole, [0, 2])
    write_transforms(teacher / "transforms.json", ring(2, WIDTH, HEIGHT), ["r_0", "r_2"])
    with pytest.raises(InputError, match="number of files: found 3 files for the 2 frames"):
        load(teacher)


def test_gt_beside_the_renders_is_taken_where_it_has_what_the_dataset_has_not(teacher, caplog):
    for i in range(FRAMES):
        write_image(teacher / f"r_{i}.png", np.full((HEIGHT, WIDTH, 3), 60 + i, np.uint8))
        write_image(teacher / "ours_7" / "gt" / f"{i:05d}.png", np.full((HEIGHT, WIDTH, 3), 7 * i, np.uint8))
    assert load(teacher).ground_truth[2, 0, 0, 0] == 62
    delete(teacher, 1)
    assert load(teacher).ground_truth[:, 0, 0, 0].tolist() == [0, 7, 14]
    assert "left out" not in caplog.text


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (
            range(9),
            r"t.json: images: found no file for any of the 9 frames; .* looked for at .*r_0.*expected those of s",
        ),
        ((0, 3, 6), "found no file for any of the 3 frames held out; "),
        ((1, 2, 4, 5, 7, 8), "found no file for any of the 6 frames to train on; "),
    ],
    ids=["all", "held out", "trained on"],
)
def test_nothing_is_left_to_train_on_or_to_measure(dataset, gone, message):
    delete(dataset, *gone)
    with pytest.raises(InputError, match=message) as caught:
        of_images(dataset)
    assert "correct file_path; of a COLMAP" in caught.value.hint and "ground_truth" not in caught.value.hint
    if len(gone) < COUNT:
        with pytest.raises(InputError, match="Or do without: data.ground_truth: false"):
            of_gaussians(dataset)


def test_of_a_colmap_model_those_deleted_since_are_left_out(tmp_path, caplog):
    names = [f"{index}.jpg" for index in range(5)]
    write_text(tmp_path / "sparse" / "0", [PINHOLE], images(*names))
    for index, name in enumerate(names):
        write_pictures(tmp_path / "images", name, shade=10 * index)
    (tmp_path / "images" / "2.jpg").unlink()
    views = views_from_images(tmp_path, width=None, background=WHITE, holdout_every=2)
    assert views.names == ("0", "1", "3", "4") and views.rgb[:, 0, 0, 0].tolist() == [0, 10, 30, 40]
    assert views.holdout.tolist() == [True, False, False, True]
    assert f"are left out (1 of the 3 that are held out): 2; the dataset's first one was looked for at {tmp_path}" in (
        caplog.text
    )


def test_of_a_city_downloaded_in_part_the_pictures_that_are_there_are_taken(tmp_path, caplog):
    """One block of it in part, and of another the cameras alone."""
    places = {"train/block_1": 0.0, "train/block_2": 500.0, "test/block_1_test": 1000.0}
    for block, x in places.items():
        write_raw(tmp_path / "aerial" / block, [pose(x + 40 * i) for i in range(3)], size=(96, 54))
    whole = views_from_images(tmp_path / "aerial", width=None, background=WHITE, holdout_every=8)
    (tmp_path / "aerial/train/block_1/0001.png").unlink()
    for index in range(3):
        (tmp_path / f"aerial/train/block_2/{index:04d}.png").unlink()
    views = views_from_images(tmp_path / "aerial", width=48, background=WHITE, holdout_every=8)
    kept = [whole.names.index(name) for name in views.names]
    assert len(kept) == 5 and views.cameras.same_as(whole.cameras[kept].resized(48, 27))
    assert torch.equal(views.holdout, whole.holdout[kept]) and int(views.holdout.sum()) == 3
    assert views.counted is None and "4 of 9 frames have no image on disk" in caplog.text


def test_a_second_source_of_rays_has_the_frames_that_the_teacher_has(dataset, write, tmp_path):
    write_ply(tmp_path / "two.ply", two_blobs())
    path = write(
        "scene: s\nrun: r\ndevice: cpu\ndata: {transforms: t.json, ground_truth: {split: train}, holdout_every: 3}\n"
        "teacher: {kind: gaussians, ply: two.ply}\n"
    )
    delete(dataset, *GONE)
    teacher = load_teacher(load_config(path, (), tmp_path))
    assert teacher.views.names == teacher.images.names == tuple(f"r_{index}" for index in LEFT)
    assert torch.equal(teacher.views.holdout, teacher.images.holdout)


def test_those_among_missing_ones_say_which_frames_there_are(dataset):
    assert images_among_missing(dataset / "t.json", None, DataConfig()) == []
    delete(dataset, 1)
    found = images_among_missing(dataset / "t.json", None, DataConfig())
    assert [path.stem for path in found] == [f"r_{index}" for index in range(COUNT) if index != 1]
    assert images_among_missing(dataset / "t.json", None, DataConfig(ground_truth=False)) == []
    assert images_among_missing(dataset / "t.json", "2:", DataConfig()) == []
    assert [path.stem for path in images_among_missing(dataset / "t.json", "1:4", DataConfig())] == ["r_2", "r_3"]
    (dataset / "t.json").write_text(json.dumps({"frames": []}))
    assert images_among_missing(dataset / "t.json", None, DataConfig()) == []
