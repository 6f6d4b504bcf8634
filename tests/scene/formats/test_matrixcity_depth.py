"""MatrixCity's depth: centimetres along the axis to metres along the ray, what is not known, and bad files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scene.cameras import Cameras
from scene.formats.matrixcity_depth import distance_reader, read_z
from scene.frames import Frames
from scene.images import write_image
from scene.rays import SceneBox, distance_per_z
from settings.errors import InputError

OpenEXR = pytest.importorskip("OpenEXR")
SIZE = (6, 4)


def write_exr(path, depth, channels="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: np.ascontiguousarray(depth) for name in channels}).write(str(path))
    return path


def frames_of(folder, *places, size=SIZE):
    for place in places:
        write_image(folder / place, np.zeros((size[1], size[0], 3), np.uint8))
    values = [torch.full((len(places),), value) for value in (5.0, 4.0, 2.75, 2.0)]
    cameras = Cameras(torch.eye(4).repeat(len(places), 1, 1), *values, *size)
    return Frames(cameras, places, tuple(folder / place for place in places), folder)


def test_distance_along_the_ray_in_metres(tmp_path):
    frames = frames_of(tmp_path / "small_city", "aerial/train/block_1/0000.png", "street/train/road/0000.png")
    depth = np.full((4, 6), 2500.0, np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2] = np.inf, 0, 4e6
    write_exr(tmp_path / "depth/aerial/train/block_1_depth/0000.exr", depth)
    write_exr(tmp_path / "depth/street/train/road/depth/0000.exr", 2 * depth, "VA")
    read = distance_reader(tmp_path / "depth", frames)
    expected = 25 * distance_per_z(frames.cameras, 0).numpy()
    expected[0, :3] = 0
    np.testing.assert_allclose(read(0), expected, rtol=1e-6)
    np.testing.assert_allclose(read(1), 2 * expected, rtol=1e-6)
    # The first row is 25 * 1.5 / 4 m over the axis, the second 25 * 0.5 / 4: a box that ends at 5 m holds the second.
    box = SceneBox((-99.0, -99.0, -99.0), (99.0, 5.0, 99.0))
    np.testing.assert_array_equal(distance_reader(tmp_path / "depth", frames, box)(0)[1:], read(0)[1:])
    assert not distance_reader(tmp_path / "depth", frames, box)(0)[0].any()
    # In a set with larger pictures it lies in the top left corner.
    wide = replace(frames, cameras=replace(frames.cameras, width=8, height=5), sizes=(SIZE, SIZE))
    padded = distance_reader(tmp_path / "depth", wide)(0)
    np.testing.assert_array_equal(padded[:4, :6], read(0))
    assert padded.shape == (5, 8) and not padded[4].any() and not padded[:, 6:].any()
    # Of a smaller picture it is the mean of what is known.
    small = frames_of(tmp_path / "small", "aerial/train/block_1/0000.png", size=(3, 2))
    assert distance_reader(tmp_path / "depth", small)(0)[0, 0] == pytest.approx(
        25 * distance_per_z(small.cameras, 0)[0, 0].item(), rel=1e-6
    )


def test_where_float16_ends_nothing_is_known(tmp_path, caplog):
    depth = np.array([[100.0, 65504.0], [7e4, 3000.0]], np.float32)
    half = write_exr(tmp_path / "half.exr", depth.clip(max=65504).astype(np.float16))
    np.testing.assert_allclose(read_z(half), [[1, 0], [0, 30]], rtol=1e-6)
    assert "where float16 ends: what is 655 m away or more cannot be told" in caplog.text
    np.testing.assert_allclose(read_z(write_exr(tmp_path / "full.exr", depth))[1], [700, 30], rtol=1e-6)


def test_bad_depth_is_one_message(tmp_path, monkeypatch):
    frames = frames_of(tmp_path / "city", "train/block_1/0000.png")
    with pytest.raises(InputError, match=r"data.depth: found no such file, .*block_1/0000.exr"):
        distance_reader(tmp_path / "none", frames)
    whole = write_exr(tmp_path / "d/block_1/0000.exr", np.ones((8, 6), np.float32))
    with pytest.raises(InputError, match="depth size: found 6x8, expected at least the 6x4"):
        distance_reader(tmp_path / "d", frames)(0)
    with pytest.raises(InputError, match="channels A float32, expected depth in one of B, Z"):
        read_z(write_exr(tmp_path / "a.exr", np.ones((2, 2), np.float32), "A"))
    with pytest.raises(InputError, match="found a PNG picture, expected a whole OpenEXR file"):
        read_z(frames.image_paths[0])
    (tmp_path / "cut.exr").write_bytes(whole.read_bytes()[:200])
    with pytest.raises(InputError, match="unreadable data"):
        read_z(tmp_path / "cut.exr")
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(InputError, match=r'no package that reads OpenEXR.*pip install -e "\.\[exr\]"'):
        read_z(whole)
