"""Where a teacher comes from: the views that are trained and measured on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData, PlyElement

from scene.images import read_image, write_image
from settings.errors import InputError
from settings.loading import load_config
from teacher.rasterizer import Rasterizer
from teacher.sources import Teacher, check_assets, load_teacher, source_of
from tests.toy_configs import VIEWS
from tests.toy_scene import FRAMES, SIZE, add_training_split, block_of_gaussians, ring_of_cameras, write_toy_scene

TRAIN = 12
SPLIT = "data.train_transforms=data/transforms_train.json"


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    path = write_toy_scene(tmp_path_factory.mktemp("toy"))
    add_training_split(path.parent, TRAIN)
    return path


def teacher_of(path: Path, *overrides: str) -> Teacher:
    return load_teacher(load_config(path, overrides, path.parent))


@pytest.mark.parametrize("kind", ["gaussians", "images"])
def test_one_json_is_trained_on_and_the_other_held_out(toy, kind) -> None:
    views = teacher_of(toy, f"teacher.kind={kind}", SPLIT).views
    assert views.holdout.tolist() == [False] * TRAIN + [True] * FRAMES
    assert views.names[0] == "train_r_0" and views.names[TRAIN] == "holdout_r_0"
    assert torch.equal(views.cameras.c2w[:TRAIN], ring_of_cameras(TRAIN, turn=0.1).c2w)
    assert torch.equal(views.cameras.c2w[TRAIN:], ring_of_cameras().c2w)
    output = Rasterizer(block_of_gaussians()).render(ring_of_cameras(TRAIN, turn=0.1), 3)
    black = (0.0, 0.0, 0.0)
    torch.testing.assert_close(views.image(3, black), output.rgb, atol=0.01, rtol=0)
    torch.testing.assert_close(views.ground_truth_image(3, black), output.rgb, atol=0.01, rtol=0)


@pytest.fixture(scope="module")
def far(tmp_path_factory) -> Path:
    """The toy scene at the coordinates of a map, its Gaussians in double precision."""
    path = write_toy_scene(tmp_path_factory.mktemp("far"))
    root, offset = path.parent, (500000.0, 4649776.0, 120.0)
    transforms = json.loads((root / "data/transforms.json").read_text())
    for frame in transforms["frames"]:
        for row, value in zip(frame["transform_matrix"], offset, strict=False):
            row[3] += value
    (root / "data/transforms.json").write_text(json.dumps(transforms))
    vertices = PlyData.read(str(root / "point_cloud.ply"), mmap=False)["vertex"].data
    moved = vertices.astype([(name, "f8") for name in vertices.dtype.names])
    for name, value in zip("xyz", offset, strict=True):
        moved[name] += value
    PlyData([PlyElement.describe(moved, "vertex")]).write(str(root / "point_cloud.ply"))
    return path


OFFSET = "data.offset=[500000, 4649776, 120]"


@pytest.mark.parametrize("kind", ["gaussians", "views", "images"])
def test_a_scene_far_from_the_origin_is_the_near_one_less_its_offset(toy, far, kind) -> None:
    near, moved = teacher_of(toy, f"teacher.kind={kind}"), teacher_of(far, f"teacher.kind={kind}", OFFSET)
    assert torch.equal(moved.views.cameras.c2w, near.views.cameras.c2w)
    assert torch.equal(moved.views.rgb, near.views.rgb)
    if kind != "images":
        assert torch.equal(moved.gaussians.means, near.gaussians.means) and moved.box == near.box
    field = "cameras" if kind == "images" else "Gaussians"
    with pytest.raises(InputError, match=f"{field} about .*Set data.offset: .500000.0, 46497[78][0-9].0, 120.0"):
        teacher_of(far, f"teacher.kind={kind}")


def test_gaussians_that_were_moved_already_are_not_moved_again(toy, far) -> None:
    local = teacher_of(far, "teacher.kind=gaussians", OFFSET, f"teacher.ply={toy.parent / 'point_cloud.ply'}")
    assert np.array_equal(local.gaussians.means, teacher_of(toy).gaussians.means)


def test_a_teacher_in_larger_units_is_brought_to_the_cameras_world_with_its_near_plane(toy, tmp_path) -> None:
    content = json.loads((toy.parent / "data/transforms.json").read_text())
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 100
    path = tmp_path / "metres.json"
    path.write_text(json.dumps(content))
    given = "teacher.kind=gaussians", "data.ground_truth=false", "data.frames=':3'", "data.far=1000"
    teacher = teacher_of(toy, *given, "teacher.scale=100", f"data.transforms={path}")
    own = teacher_of(toy, *given)
    assert teacher.drawing.near == 20 and own.drawing.near == 0.2
    assert load_config(toy, ["teacher.scale=100", "teacher.near=0.5"], toy.parent).teacher.near_plane == 0.5
    torch.testing.assert_close(teacher.gaussians.means, 100 * own.gaussians.means)
    assert (teacher.views.rgb.int() - own.views.rgb.int()).abs().max() <= 1
    torch.testing.assert_close(teacher.views.distance, 100 * own.views.distance, rtol=1e-4, atol=1e-2)
    for more, message in (("teacher.ply=null", "teacher.ply is null"), ("data.offset=[9, 0, 0]", "data.offset is")):
        with pytest.raises(InputError, match=f"teacher.scale: found 100.0, expected 1, since {message}"):
            teacher_of(toy, "teacher.scale=100", more)


def test_frames_to_measure_on_are_not_trained_on(toy, tmp_path) -> None:
    content = json.loads((toy.parent / "data/transforms.json").read_text())
    content["frames"] = content["frames"][3:5]
    path = tmp_path / "leak.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"2 of {FRAMES} test frames .*test frame 3 is training frame 0"):
        teacher_of(toy, "teacher.kind=gaussians", f"data.train_transforms={path}")
    live = "teacher.kind=gaussians", "teacher.live.own_share=1", "teacher.outputs=null"
    with pytest.raises(InputError, match=f"2 of {FRAMES} test frames .*test frame 3 is training frame 0"):
        teacher_of(toy, *live, f"data.train_transforms={path}")


def test_images_of_poses_that_are_measured_on_are_not_trained_on(tmp_path) -> None:
    path = write_toy_scene(tmp_path)
    (tmp_path / "data/transforms_train.json").write_text((tmp_path / "data/transforms.json").read_text())
    with pytest.raises(InputError, match="transforms_train.json: test frames: found 5 of 5 test frames with the pose"):
        teacher_of(path, "data.ground_truth={split: train}")


@pytest.mark.parametrize("kind", ["gaussians", "images"])
def test_splits_of_different_shapes_share_a_canvas(toy, tmp_path, kind) -> None:
    path = write_toy_scene(tmp_path)
    add_training_split(tmp_path, TRAIN)
    content = json.loads((tmp_path / "data/transforms_train.json").read_text())
    for frame in content["frames"]:
        picture = tmp_path / "data" / f"{frame['file_path']}.png"
        write_image(picture, read_image(picture)[:16])
    (tmp_path / "data/transforms_train.json").write_text(json.dumps(content | {"h": 16}))
    half, whole = (teacher_of(file, f"teacher.kind={kind}", SPLIT, "data.resolution=12").views for file in (path, toy))
    assert (half.cameras.width, half.cameras.height) == (12, 12)
    torch.testing.assert_close(half.cameras.cy, whole.cameras.cy)
    assert half.counted[:TRAIN, :8].all() and not half.counted[:TRAIN, 8:].any() and half.counted[TRAIN:].all()
    assert torch.equal(half.ground_truth[:TRAIN, :8], whole.ground_truth[:TRAIN, :8])
    assert torch.equal(half.rgb[TRAIN:], whole.rgb[TRAIN:]) and torch.equal(half.rgb[:TRAIN, :8], whole.rgb[:TRAIN, :8])


def test_slices_of_both_jsons(toy) -> None:
    views = teacher_of(toy, "teacher.kind=gaussians", SPLIT, "data.train_frames='::4'", "data.frames=':5'").views
    assert views.names == (*(f"train_r_{i}" for i in (0, 4, 8)), *(f"holdout_r_{i}" for i in range(5)))


def test_a_live_teacher_is_measured_on_stored_renders_or_on_its_own(toy) -> None:
    live = ("teacher.kind=gaussians", "teacher.live=true")
    stored, made = teacher_of(toy, *live), teacher_of(toy, *live, "teacher.outputs=null")
    for teacher in (stored, made):
        assert len(teacher.views) == FRAMES and teacher.views.holdout.all()
        assert torch.equal(teacher.poses.cameras.c2w, ring_of_cameras(TRAIN, turn=0.1).c2w)
        assert torch.equal(teacher.training_cameras.c2w, teacher.poses.cameras.c2w)
        assert teacher.images is None and teacher.views.ground_truth is not None
    assert stored.views.background == (1.0, 1.0, 1.0) and made.views.alpha is not None
    white = (1.0, 1.0, 1.0)
    torch.testing.assert_close(stored.views.image(2, white), made.views.image(2, white), atol=0.01, rtol=0)


def test_live_poses_are_never_those_that_are_measured(toy) -> None:
    teacher = teacher_of(toy, "teacher.kind=gaussians", "teacher.live={own_share: 0.3}")
    centers = torch.cat([teacher.poses.camera(index).centers for index in range(300)])
    assert torch.cdist(centers, teacher.views.cameras.centers).min() > 1e-4
    assert (torch.cdist(centers, teacher.poses.cameras.centers).amin(dim=1) == 0).float().mean() > 0.2


@pytest.mark.parametrize("kind", ["bricks", "room", "city"])
def test_the_built_in_scenes_keep_their_held_out_frames_from_a_live_teacher(kind, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "bricks.yaml"
    path.write_text(f"scene: b\nrun: r\ndata: {{resolution: 16}}\nteacher: {{kind: {kind}, frames: 9, live: true}}\n")
    teacher = teacher_of(path)
    assert teacher.views.holdout.sum() == 2
    assert torch.equal(teacher.poses.cameras.c2w, teacher.views.cameras.c2w[~teacher.views.holdout])


def test_images_are_a_second_source(toy) -> None:
    teacher = teacher_of(toy, "data.ground_truth={split: train}")
    assert len(teacher.images) == TRAIN and not teacher.images.holdout.any()
    assert teacher.images.alpha is not None and teacher.images.distance is None
    assert len(teacher_of(toy, "data.ground_truth={split: train}", "data.train_frames=':3'").images) == 3
    assert teacher.views.ground_truth is not None  # it is measured against the images of data.transforms all the same


def test_held_out_frames_of_the_same_split_are_not_trained_on(toy) -> None:
    swapped = ("data.transforms=data/transforms_train.json", "teacher.kind=gaussians", "data.holdout_every=4")
    teacher = teacher_of(toy, *swapped, "data.ground_truth={split: train}", "data.frames=':10'")
    assert torch.equal(teacher.images.holdout, teacher.views.holdout) and teacher.images.holdout.sum() == 3


def test_a_split_without_images_is_refused(tmp_path) -> None:
    path = write_toy_scene(tmp_path)
    add_training_split(tmp_path)
    for index in range(12):
        (tmp_path / f"data/train/r_{index}.png").unlink()
    with pytest.raises(
        InputError, match=r"transforms_train.json: images: found no file for any of the 12 frames; .*r_0"
    ):
        teacher_of(path, "data.ground_truth={split: train}")


@pytest.mark.parametrize("kind", ["images", "views"])
def test_the_header_of_a_picture_is_read_once_and_its_pixels_once(tmp_path, monkeypatch, kind) -> None:
    """A run reads its dataset several times, and of a large capture each time takes long."""
    path, opened = write_toy_scene(tmp_path), Counter()
    config, open_image = load_config(path, [f"teacher.kind={kind}"], tmp_path), Image.open

    def counted(file):
        opened[Path(file.name)] += 1
        return open_image(file)

    monkeypatch.setattr(Image, "open", counted)
    source_of(config).asset_digests()
    load_teacher(config)
    source_of(config).lacks_alpha()
    images = [file for file in opened if file.parent.name == "data"]
    assert len(images) == FRAMES and {opened[file] for file in images} == {2}


def test_a_picture_that_is_written_anew_is_looked_at_anew(tmp_path) -> None:
    path = write_toy_scene(tmp_path)
    config = load_config(path, ["teacher.kind=images", "data.resolution=null"], tmp_path)
    assert load_teacher(config).views.cameras.width == SIZE
    for file in (tmp_path / "data").glob("*.png"):
        write_image(file, np.zeros((2 * SIZE, 2 * SIZE, 4), np.uint8))
    assert load_teacher(config).views.cameras.width == 2 * SIZE


def test_splits_of_another_size_are_refused(tmp_path) -> None:
    path = write_toy_scene(tmp_path)
    add_training_split(tmp_path)
    text = (tmp_path / "data/transforms_train.json").read_text()
    text = text.replace(f'"w": {SIZE}', '"w": 12').replace(f'"h": {SIZE}', '"h": 12')
    (tmp_path / "data/transforms_train.json").write_text(text)
    for index in range(12):
        write_image(tmp_path / f"data/train/r_{index}.png", torch.zeros(12, 12, 3).numpy())
    with pytest.raises(InputError, match="transforms_train.json: image size: found 12x12, expected 24x24"):
        teacher_of(path, "teacher.kind=gaussians", SPLIT)


def test_where_the_training_poses_and_images_are(write, tmp_path):
    def jsons(*overrides: str) -> tuple[str | None, str | None]:
        config = load_config(write(VIEWS), ["data.transforms=d/transforms_test.json", *overrides], tmp_path)
        source = source_of(config)
        found = source.training_poses(), source.image_poses()
        return tuple(path and str(path.relative_to(tmp_path)) for path in found)

    assert jsons() == (None, None)
    assert jsons("teacher.kind=gaussians") == (None, None)
    assert jsons("data.ground_truth={split: val, weight: 2.0}") == (None, "d/transforms_val.json")
    assert jsons("teacher.kind=gaussians", "teacher.live=true") == ("d/transforms_train.json", None)
    assert jsons("teacher.kind=gaussians", "data.train_transforms=e/t.json") == ("e/t.json", None)
    whole = ("data.transforms=d/transforms.json", "data.ground_truth={split: train}", "teacher.kind=gaussians")
    assert jsons(*whole, "teacher.live=true") == (None, "d/transforms.json")
    both = ["teacher.kind=gaussians", "teacher.live.buffer=8", "data.train_transforms=t.json"]
    assert jsons(*both, "data.ground_truth={split: train}") == ("t.json", "d/transforms_train.json")


SMALL = ("teacher.kind=gaussians", f"data.memory_gib={5.5 * 8 * SIZE**2 / 0.75 / 2**30}")
ALONE = ("teacher.kind=gaussians", "data.transforms=null", "data.resolution=24", "teacher.frames=12")


def test_gaussians_alone_are_seen_from_cameras_found_for_them(toy, caplog) -> None:
    caplog.set_level("INFO")
    config = load_config(toy, ALONE, toy.parent)
    check_assets(config)
    teacher, source = load_teacher(config), source_of(config)
    views = teacher.views
    assert len(views) == 12 and views.holdout.nonzero()[:, 0].tolist() == [0, 4, 8]
    assert views.names[3] == "orbit_003" and views.ground_truth is None and teacher.poses is None
    assert caplog.text.count("cameras found from the Gaussians: 12 around") == 1
    output = Rasterizer(block_of_gaussians()).render(views.cameras, 3)
    assert 0.2 < output.alpha.mean() < 0.8
    torch.testing.assert_close(views.image(3, (0.0, 0.0, 0.0)), output.rgb, atol=0.01, rtol=0)
    frames, _ = source.frames()
    assert torch.equal(frames.cameras.c2w, views.cameras.c2w)
    with pytest.raises(InputError, match="--split: split: found train, expected none"):
        source.frames("train")


def test_gaussians_alone_rendered_live_near_the_cameras_that_are_not_held_out(toy) -> None:
    teacher = teacher_of(toy, *ALONE, "teacher.live=true")
    assert len(teacher.views) == 12 and int(teacher.views.holdout.sum()) == 3
    assert torch.equal(teacher.training_cameras.c2w, teacher.views.cameras[~teacher.views.holdout].c2w)


def test_views_that_are_drawn_when_they_are_asked_for_are_those_that_are_held(toy) -> None:
    whole, lazy = (teacher_of(toy, "teacher.kind=gaussians", *budget) for budget in ((), ("data.memory_gib=1e-4",)))
    assert whole.views.store is None and whole.poses is None and whole.live is None
    for name in ("rgb", "alpha", "coverage", "distance", "ground_truth"):
        assert torch.equal(getattr(lazy.views, name)[:], getattr(whole.views, name)), name
    assert lazy.views.counted is None and torch.equal(lazy.views.holdout, whole.views.holdout)
    # 0.75 of 1e-4 GiB: all that are trained on at 24 pixels, of which each has its turn as it is.
    trained = whole.views.cameras[~whole.views.holdout]
    assert lazy.live.buffer == len(trained) and teacher_of(toy, *SMALL).live.buffer == 5
    assert torch.equal(lazy.poses.cameras.c2w, trained.c2w)
    drawn = torch.cat([lazy.poses.camera(k).c2w for k in range(20)])
    assert (drawn[:, None] == trained.c2w[None]).all(-1).all(-1).any(1).all()
