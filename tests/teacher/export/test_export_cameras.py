"""Which cameras an export renders."""

import json

import pytest
import torch

from scene.formats.transforms_json import load_transforms, write_transforms
from settings.errors import InputError
from settings.loading import load_config
from teacher.export.export_cameras import training_cameras, views_to_export
from teacher.sources import source_of
from tests.toy_scene import block_of_gaussians, ring_of_cameras, turned_over, write_toy_scene


@pytest.fixture
def toy(tmp_path):
    path = write_toy_scene(tmp_path)
    return tmp_path, lambda *overrides: load_config(path, overrides, tmp_path)


def export(config, **options):
    return views_to_export(config, block_of_gaussians(), **options)


def test_the_configs_own_frames_by_default(toy):
    folder, config = toy
    views = export(config())
    assert torch.equal(views.cameras.c2w, ring_of_cameras().c2w)
    assert views.names[:2] == ("r_0", "r_1") and views.source == str(folder / "data" / "transforms.json")
    assert views.has_truth and views.dataset.image_paths[0] == folder / "data" / "r_0.png"


def test_cameras_moved_into_nerfstudios_world_say_so(toy):
    folder, config = toy
    content = {"transform": torch.eye(4)[:3].tolist(), "scale": 0.5}
    (folder / "dataparser_transforms.json").write_text(json.dumps(content))
    views = export(config("data.dataparser_transforms=dataparser_transforms.json"))
    assert views.world == {"applied_transform": content["transform"], "applied_scale": 0.5}
    assert torch.equal(views.cameras.centers, 0.5 * ring_of_cameras().centers) and export(config()).world == {}


def test_frames_and_resolution(toy):
    _, config = toy
    views = export(config(), frames="1:8:3", resolution=12)
    assert views.names == ("r_1", "r_4", "r_7") and views.has_truth
    assert (views.cameras.width, views.cameras.height) == (12, 12)
    assert views.cameras.fx[0] == pytest.approx(0.5 * ring_of_cameras().fx[0])
    large = export(config(), resolution=48)
    assert large.cameras.width == 48 and not large.has_truth, "an image is not enlarged"
    for options in ({"frames": "9:3"}, {"frames": "everything"}):
        with pytest.raises(InputError, match="--frames: frames: found"):
            export(config(), **options)
    with pytest.raises(InputError, match="--resolution: width: found 0"):
        export(config(), resolution=0)


def test_another_split_lies_beside(toy):
    folder, config = toy
    write_transforms(folder / "data" / "transforms_val.json", ring_of_cameras(5), [f"v_{i}" for i in range(5)])
    write_transforms(folder / "data" / "transforms_test.json", ring_of_cameras(3), [f"t_{i}" for i in range(3)])
    named = config("data.transforms=data/transforms_test.json")
    assert len(export(named).names) == 3
    assert export(named, split="val").names == tuple(f"v_{i}" for i in range(5))
    assert not export(named, split="val").has_truth
    with pytest.raises(InputError, match="transforms_train.json"):
        export(named, split="train")
    with pytest.raises(InputError, match="--split: data.transforms: found transforms.json"):
        export(config(), split="test")


def test_a_path_may_leave_its_size_to_the_dataset(toy):
    folder, config = toy
    path = folder / "path.json"
    frames = [
        {"file_path": f"p{i}", "transform_matrix": pose.tolist()} for i, pose in enumerate(ring_of_cameras(4).c2w)
    ]
    path.write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    views = export(config(), path=path)
    assert views.names == ("p0", "p1", "p2", "p3") and (views.cameras.width, views.cameras.height) == (24, 24)
    assert not views.has_truth and views.source == str(path)


@pytest.mark.parametrize("box", ["auto", "{lower: [-1, -1, -1], upper: [9, 1, 1]}"])
def test_an_orbit_looks_at_the_middle_of_the_scene(toy, box):
    _, config = toy
    views = export(config(f"data.box={box}"), orbit=6)
    assert views.names == tuple(f"orbit_{i:03d}" for i in range(6)) and not views.has_truth
    ahead = -views.cameras.c2w[:, :3, 2]
    nearest = views.cameras.centers + ahead * -(views.cameras.centers * ahead).sum(1, keepdim=True)
    assert nearest.norm(dim=1).max() < 0.02, "the block is at the origin"
    with pytest.raises(InputError, match="--orbit"):
        export(config(), orbit=0)


def test_an_orbit_of_pictures_of_several_sizes_has_the_scene_in_its_middle(toy):
    folder, config = toy
    path = folder / "data" / "transforms.json"
    content = json.loads(path.read_text())
    for index, frame in enumerate(content["frames"]):
        wide = index % 3 > 0
        frame |= {"w": 24, "h": 12, "cx": 12, "cy": 6} if wide else {"w": 16, "h": 24, "cx": 8, "cy": 12}
        frame["file_path"] += "_of_another_size"
    path.write_text(json.dumps(content))
    for around in ("orbit", "spiral"):
        cameras = export(config(), **{around: 6}).cameras
        assert (cameras.width, cameras.height) == (24, 24)
        assert cameras.cx.tolist() == [12] * 6 and cameras.cy.tolist() == [12] * 6


def test_an_orbit_of_cameras_that_do_not_agree_needs_to_be_told_what_is_up(toy):
    folder, config = toy
    write_transforms(folder / "data" / "transforms.json", turned_over(ring_of_cameras()), list("abcdefghijklmnopq"))
    with pytest.raises(InputError, match="orbit: found cameras with no up direction in common.* --up"):
        export(config(), orbit=6)
    assert (export(config("teacher.orbit.up=[0, 0, 2]"), orbit=6).cameras.c2w[:, 2, 1] > 0.9).all()


def test_the_built_in_scene_has_cameras_but_no_splits(toy):
    _, config = toy
    bricks = config("teacher={kind: bricks, frames: 5}", "data.resolution=16")
    views = export(bricks)
    assert len(views.names) == 5 and views.cameras.width == 16 and not views.has_truth
    with pytest.raises(InputError, match="it has no dataset"):
        export(bricks, split="test")


def test_training_cameras_are_the_train_split_where_there_is_one(toy):
    folder, config = toy
    cameras, source = training_cameras(source_of(config()))
    assert len(cameras) == 17 and source.endswith("transforms.json")
    write_transforms(folder / "data" / "transforms_train.json", ring_of_cameras(5), [f"v_{i}" for i in range(5)])
    (folder / "data" / "transforms.json").rename(folder / "data" / "transforms_test.json")
    cameras, source = training_cameras(source_of(config("data.transforms=data/transforms_test.json")))
    assert len(cameras) == 5 and source.endswith("transforms_train.json")
    assert len(load_transforms(folder / "data" / "transforms_test.json")) == 17
    own = config("teacher={kind: bricks, frames: 6}", "data.resolution=16", "data.transforms=data/transforms_test.json")
    assert len(training_cameras(source_of(own))[0]) == 6, "of its own frames there are no splits"


def test_a_spiral_is_another_path_about_the_same_middle(toy):
    _, config = toy
    views = export(config(), spiral=6)
    assert views.names == tuple(f"spiral_{i:03d}" for i in range(6)) and "the spiral about" in views.source
    orbit = export(config(), orbit=6)
    torch.testing.assert_close(views.cameras.centers.norm(dim=1), orbit.cameras.centers.norm(dim=1), atol=0.2, rtol=0)
    with pytest.raises(InputError, match="--spiral"):
        export(config(), spiral=0)
