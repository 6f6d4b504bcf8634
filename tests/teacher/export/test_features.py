"""Features beside exported views: what is written, gone on with, and refused."""

import numpy as np
import pytest

from scene.frames import Frames
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.export.export_cameras import ExportViews
from teacher.export.features import FEATURES, RAYS, SETTINGS, FeatureExport, ray_memory
from teacher.features.along_rays import RayFeatures, ray_features
from teacher.features.channels import gaussian_features
from teacher.features.volume_files import read_features
from teacher.rasterizer import Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras

BOX = SceneBox((-0.6, -0.5, -0.5), (0.6, 0.5, 0.5))


def make_export(folder, channels=("sh_dc", "opacity"), gaussians=None, frames=3, size=16, box=BOX, resolution=12):
    gaussians = gaussians or block_of_gaussians()
    cameras = ring_of_cameras(frames, size, size)
    names = tuple(f"r_{i}" for i in range(frames))
    views = ExportViews(cameras, names, Frames(cameras, names, (None,) * frames, "here"), "here", {})
    return FeatureExport(folder, gaussians, Rasterizer(gaussians), views, box, resolution, channels)


def test_what_is_written(tmp_path):
    make_export(tmp_path).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == [SETTINGS, RAYS, FEATURES]
    gaussians = block_of_gaussians()
    stored = read_features(tmp_path / FEATURES, gaussians=gaussians, box=BOX)
    assert stored.volume.channels == ("sh_0_r", "sh_0_g", "sh_0_b", "opacity") and stored.volume.resolution == 12
    features = gaussian_features(gaussians, stored.volume.channels)
    for index in range(3):
        rays = ray_features(Rasterizer(gaussians), gaussians.means, features, ring_of_cameras(3, 16, 16), index)
        with np.load(tmp_path / RAYS / f"{index:05d}.npz") as read:
            assert set(read.files) == set(RayFeatures._fields)
            for name, plane in rays._asdict().items():
                np.testing.assert_allclose(read[name], plane, rtol=1e-3, atol=1e-5)


def test_memory_on_disk_is_known_before(tmp_path):
    export = make_export(tmp_path, ["all"], frames=1)
    assert export.memory == ray_memory(16, 16, 52, 729)
    export.run()
    with np.load(tmp_path / RAYS / "00000.npz") as read:
        assert sum(read[name].nbytes for name in read.files) == export.memory.disk
    assert export.memory.memory > 4 * 16 * 16 * 52


def test_going_on(tmp_path):
    make_export(tmp_path).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / RAYS / "00001.npz").unlink()
    (tmp_path / FEATURES).unlink()
    again = make_export(tmp_path)
    assert again.todo == [1]
    again.run()
    assert {path.name for path in tmp_path.rglob("*")} >= {path.name for path in before}
    assert read_features(tmp_path / FEATURES).volume.table.shape[1] == 6
    assert make_export(tmp_path).todo == []


def test_other_settings_are_refused(tmp_path):
    make_export(tmp_path).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    larger = SceneBox((-0.7, -0.5, -0.5), (0.6, 0.5, 0.5))
    for different, said in (
        ({"channels": ["opacity"]}, "features "),
        ({"gaussians": block_of_gaussians()[:-1]}, "gaussians "),
        ({"box": larger}, "box "),
        ({"resolution": 13}, "features_resolution 12, expected features_resolution 13"),
        ({"frames": 2}, "cameras "),
        ({"size": 20}, "size "),
    ):
        with pytest.raises(InputError, match=f"settings of the views in it: found .*{said}"):
            make_export(tmp_path, **different)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_bad_input_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--features: channels: found 'colour'"):
        make_export(tmp_path / "out", ["colour"])
    (tmp_path / RAYS).mkdir()
    with pytest.raises(InputError, match=f"views without {SETTINGS}"):
        make_export(tmp_path)
    monkeypatch.setattr("teacher.export.features.MAX_GIB", 1e-6)
    with pytest.raises(InputError, match="--features: memory of a frame: found 16x16 with 4 channels"):
        make_export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_volume_is_named(tmp_path):
    make_export(tmp_path).run()
    (tmp_path / FEATURES).write_bytes(b"no archive")
    with pytest.raises(InputError, match=f"{FEATURES}: teacher features: found unreadable data"):
        make_export(tmp_path)


def test_a_value_beyond_float16_is_said(tmp_path):
    gaussians = block_of_gaussians()
    export = make_export(tmp_path, gaussians=gaussians)
    gaussians.sh[:] = 1e7
    with pytest.raises(InputError, match="a value beyond 65504"):
        export.run()
