"""The sparse points of a dataset, from COLMAP's files and from PLYs of points and of Gaussians."""

import numpy as np
import pytest
import torch

from scene.frames import Frames
from settings.errors import InputError
from teacher.gaussian_files.ply import write_ply
from teacher.gaussians import Gaussians
from teacher.sources.sparse_points import box_of_points, read_sparse_points
from tests.scene.formats.colmap_models import write_binary, write_text
from tests.toy_scene import block_of_gaussians, ring_of_cameras

TURN = torch.tensor([[0.0, -2, 0, 1], [2, 0, 0, 0], [0, 0, 2, -1], [0, 0, 0, 1]], dtype=torch.float64)


def frames_with(points, world=None):
    return Frames(ring_of_cameras(1), ("a",), (None,), points, points=points, points_world=world)


def write_cloud(path, rows, properties="float x, float y, float z, uchar red, uchar green, uchar blue"):
    kinds = "".join(f"property {name}\n" for name in properties.split(", "))
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex {len(rows)}\n{kinds}end_header\n{lines}")
    return path


def grid_rows(count=20, color=(255, 128, 0)):
    return [(index, 2 * index, -index, *color) for index in range(count)]


@pytest.mark.parametrize("write", [write_text, write_binary])
def test_colmaps_points(tmp_path, write):
    folder = write(tmp_path, [], [], points=20)
    points = read_sparse_points(frames_with(next(folder.glob("points3D*"))), None)
    assert points.positions.dtype == np.float32 and points.positions[3].tolist() == [3.25, -1, 0.5]
    assert points.colors[3].tolist() == [3, 128, 255]


def test_the_offset_is_taken_off(tmp_path):
    rows = [(x + 5e5 + 0.125, y + 4e6, z, *color) for x, y, z, *color in grid_rows()]
    path = write_cloud(tmp_path / "a.ply", rows)
    points = read_sparse_points(frames_with(path), (5e5, 4e6, 0.0))
    assert points.positions[3].tolist() == [3.125, 6, -3]


def test_a_plys_points_come_to_the_cameras(tmp_path):
    points = read_sparse_points(frames_with(write_cloud(tmp_path / "a.ply", grid_rows()), TURN), None)
    assert points.positions[3].tolist() == [1 - 12, 6, -6 - 1] and points.colors[3].tolist() == [255, 128, 0]


@pytest.mark.parametrize(
    ("properties", "color", "expected"),
    [
        ("float x, float y, float z", (), [128, 128, 128]),
        ("double x, double y, double z, float red, float green, float blue", (1, 0.5, 0), [255, 128, 0]),
        ("int x, int y, int z, ushort red, ushort green, ushort blue", (65535, 257, 0), [255, 1, 0]),
    ],
)
def test_colours_as_points_have_them(tmp_path, properties, color, expected):
    path = write_cloud(tmp_path / "a.ply", grid_rows(color=color), properties)
    assert read_sparse_points(frames_with(path), None).colors[3].tolist() == expected


def test_a_ply_of_gaussians_is_them_where_its_world_is_the_cameras(tmp_path):
    write_ply(tmp_path / "a.ply", block_of_gaussians())
    own = read_sparse_points(frames_with(tmp_path / "a.ply"), None)
    assert isinstance(own, Gaussians) and torch.equal(own.means, block_of_gaussians().means)
    turned = read_sparse_points(frames_with(tmp_path / "a.ply", TURN), None)
    x, y, z = block_of_gaussians().means[5].tolist()
    np.testing.assert_allclose(turned.positions[5], [1 - 2 * y, 2 * x, 2 * z - 1], rtol=1e-5)
    expected = (block_of_gaussians().sh[5, 0] * 0.28209479177387814 + 0.5) * 255
    np.testing.assert_allclose(turned.colors[5], expected, atol=0.51)


def test_what_tells_no_scene_is_none(tmp_path, caplog):
    assert read_sparse_points(frames_with(None), None) is None and not caplog.text
    assert read_sparse_points(frames_with(write_cloud(tmp_path / "a.ply", grid_rows(3))), None) is None
    assert "a.ply: 3 points, which are too few" in caplog.text
    assert read_sparse_points(frames_with(write_cloud(tmp_path / "a.ply", [])), None) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x01", "first bytes"),
        (b"ply\nformat ascii 1.0\nelement vertex 20\nproperty float x\nproperty float y\nend_header\n", "announced"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nend_header\n1 2\n", "no z"),
        (b"ply\nformat ascii 1.0\nelement face 1\nproperty float x\nend_header\n1\n", "no element vertex"),
    ],
)
def test_damaged_points_are_named(tmp_path, content, message):
    (tmp_path / "a.ply").write_bytes(content)
    with pytest.raises(InputError, match=f"a.ply: .*{message}"):
        read_sparse_points(frames_with(tmp_path / "a.ply"), None)


def test_a_position_that_is_no_number_is_refused(tmp_path):
    path = write_cloud(tmp_path / "a.ply", [*grid_rows(), ("nan", 0, 0, 1, 1, 1)])
    with pytest.raises(InputError, match="found a position that is not finite"):
        read_sparse_points(frames_with(path), None)


def test_the_box_leaves_stray_points_out(tmp_path):
    rows = [*grid_rows(100), (1e6, 0, 0, 0, 0, 0)]
    box = box_of_points(read_sparse_points(frames_with(write_cloud(tmp_path / "a.ply", rows)), None))
    assert box.lower == pytest.approx((5, 8, -94), abs=2) and box.upper == pytest.approx((95, 188, -4), abs=3)


@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_the_box_of_points_in_a_plane_is_thin(tmp_path, scale):
    rows = [(scale * x, scale * y, 0, *color) for x, y, _, *color in grid_rows(100)]
    box = box_of_points(read_sparse_points(frames_with(write_cloud(tmp_path / "a.ply", rows)), None))
    assert box.extent == pytest.approx((90 * scale, 180 * scale, 0.18 * scale), rel=0.03)
