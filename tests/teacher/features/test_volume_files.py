"""Features read back as they were written, and refused when they are not of this scene, box, version or channels."""

import json

import numpy as np
import pytest
import torch

from scene.rays import SceneBox
from settings.errors import InputError
from teacher.features.volume import build_volume
from teacher.features.volume_files import read_features, write_features
from tests.teacher.feature_scenes import BOX, broad_gaussians

CHANNELS = ("sh_dc", "opacity")


@pytest.fixture
def stored(tmp_path):
    gaussians = broad_gaussians()
    volume = build_volume(gaussians, BOX, 12, CHANNELS)
    path = tmp_path / "features.npz"
    write_features(path, volume, gaussians)
    return path, volume, gaussians


def rewrite(path, **changes):
    """Writes the file again with other header fields or arrays."""
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays["header"]))
    for name, value in changes.items():
        if name in arrays:
            arrays[name] = value
        else:
            header[name] = value
    np.savez_compressed(path, **(arrays | {"header": np.array(json.dumps(header))}))


def test_read_back(stored):
    path, volume, gaussians = stored
    read = read_features(path, gaussians=gaussians, box=BOX)
    assert read.channels == volume.channels and read.resolution == 12 and read.box == BOX
    assert torch.equal(read.index, volume.index)
    assert torch.equal(read.table[:, 0], volume.table[:, 0])
    torch.testing.assert_close(read.table, volume.table, rtol=1e-3, atol=1e-6)
    assert torch.equal(read.statistics.mean, volume.statistics.mean)
    assert torch.equal(read.statistics.std, volume.statistics.std)
    assert path.stat().st_size < volume.nbytes
    assert [entry.name for entry in path.parent.iterdir()] == ["features.npz"]


def test_a_subset_is_read(stored):
    path, volume, _ = stored
    read = read_features(path, channels=["opacity", "sh_0_b"])
    assert read.channels == ("sh_0_b", "opacity")
    points = torch.rand(50, 3) - 0.5
    torch.testing.assert_close(
        read.query(points).features, volume.query(points).features[:, [2, 3]], rtol=2e-3, atol=1e-3
    )


def test_no_cells_are_stored_too(tmp_path):
    gaussians = broad_gaussians()
    volume = build_volume(gaussians, SceneBox((9.0, 9.0, 9.0), (10.0, 10.0, 10.0)), 4, CHANNELS)
    write_features(tmp_path / "f.npz", volume, gaussians)
    assert read_features(tmp_path / "f.npz").table.shape == (1, 6)


@pytest.mark.parametrize(("scale", "off", "is_same"), [(1e-6, 1e-7, False), (1.0, 1e-6, True), (1e3, 1e-3, True)])
def test_a_box_is_the_same_to_a_millionth_of_its_width(tmp_path, scale, off, is_same):
    lower, upper = (tuple(scale * value for value in corner) for corner in (BOX.lower, BOX.upper))
    gaussians, path = broad_gaussians().scaled(scale), tmp_path / "features.npz"
    write_features(path, build_volume(gaussians, SceneBox(lower, upper), 4, CHANNELS), gaussians)
    moved = SceneBox((lower[0] - off, *lower[1:]), upper)
    if is_same:
        assert read_features(path, box=moved).resolution == 4
    else:
        with pytest.raises(InputError, match="box: found"):
            read_features(path, box=moved)


def test_of_another_scene_box_or_channels(stored):
    path, _, gaussians = stored
    gaussians.sh[0, 0, 0] += 1e-3
    with pytest.raises(InputError, match="fingerprint of the scene: found .* of 12 Gaussians, expected .* of 12"):
        read_features(path, gaussians=gaussians)
    with pytest.raises(InputError, match=r"box: found \[-1.0, -0.8, -0.6\] to .*, expected \[-2.0"):
        read_features(path, box=SceneBox((-2.0, -0.8, -0.6), BOX.upper))
    with pytest.raises(InputError, match="channels: found no log_scale_0, log_scale_1, log_scale_2, expected"):
        read_features(path, channels=["opacity", "log_scale"])
    with pytest.raises(InputError, match="channels: found 'depth'"):
        read_features(path, channels=["depth"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version: found 2, expected 1"),
        ({"version": None}, "version: found None, expected 1"),
        ({"format": "3d-gaussians"}, "another format"),
        ({"channels": ["opacity", "sh_0_r", "sh_0_g", "sh_0_b"]}, "channels are not those"),
        ({"channels": ["a"]}, "channels are not those"),
        ({"channels": 3}, "channels are not those"),
        ({"resolution": 0}, "no positive integer"),
        ({"resolution": 4}, "not ascending indices of the grid"),
        ({"box": {"lower": [0, 0, 0]}}, "unreadable data"),
        ({"box": {"lower": [0, 0, 0], "upper": [0, 1, 1]}}, "expected lower < upper"),
        ({"channel_std": [1.0]}, "channel_std is not 4 numbers"),
        ({"channel_mean": [1e300] * 4}, "channel_mean is not 4 numbers"),
        ({"density": np.zeros(3, np.float32)}, r"density is float32 \(3,\)"),
        ({"features": np.full((1, 4), np.nan, np.float16)}, "features is float16"),
    ],
)
def test_other_contents_are_refused(stored, changes, said):
    rewrite(stored[0], **changes)
    with pytest.raises(InputError, match=said) as caught:
        read_features(stored[0])
    assert str(stored[0]) in str(caught.value) and "Export the features again." in str(caught.value)


def test_damaged_files_are_refused(stored, tmp_path):
    path, volume, gaussians = stored
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"PK no archive", data[:2000] + bytes(500) + data[2500:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="teacher features: found unreadable data"):
            read_features(path)
    with pytest.raises(InputError, match="found no such file"):
        read_features(tmp_path / "none.npz")
    rewritten = tmp_path / "nan.npz"
    volume.table[5, 0] = float("nan")
    write_features(rewritten, volume, gaussians)
    with pytest.raises(InputError, match="density has values that are not finite"):
        read_features(rewritten)


def test_what_cannot_be_written(tmp_path):
    gaussians = broad_gaussians()
    volume = build_volume(gaussians, BOX, 6, CHANNELS)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="output file: found"):
        write_features(tmp_path / "file" / "features.npz", volume, gaussians)
    volume.table[3, 2] = 1e6
    with pytest.raises(InputError, match="features: found a value beyond 65504"):
        write_features(tmp_path / "features.npz", volume, gaussians)
    assert not (tmp_path / "features.npz").exists()
