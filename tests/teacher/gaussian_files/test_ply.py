"""graphdeco's PLY: layout, round trip, and every kind of bad file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from settings.errors import InputError
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.gaussians import Gaussians

FIELDS = ("means", "log_scales", "rotations", "opacity_logits", "sh")


def make_gaussians(count=5, degree=3):
    generator = torch.Generator().manual_seed(degree)
    shapes = (3,), (3,), (4,), (), ((degree + 1) ** 2, 3)
    return Gaussians(*(torch.randn(count, *shape, generator=generator) for shape in shapes))


def assert_equal(a, b):
    for name in FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def rewrite(path, edit=lambda table: table, text=False, dtype="f4", order=None):
    """Rewrites the vertices of a PLY: edited, in another order or type, or as text."""
    vertices = PlyData.read(str(path), mmap=False)["vertex"].data
    names = order or vertices.dtype.names
    table = edit({name: vertices[name].astype(dtype) for name in names})
    array = np.empty(len(next(iter(table.values()))), dtype=[(name, table[name].dtype) for name in table])
    for name, column in table.items():
        array[name] = column
    PlyData([PlyElement.describe(array, "vertex")], text=text).write(str(path))
    return path


@pytest.fixture
def ply(tmp_path):
    write_ply(tmp_path / "cloud.ply", make_gaussians())
    return tmp_path / "cloud.ply"


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip(tmp_path, degree):
    gaussians = make_gaussians(degree=degree)
    write_ply(tmp_path / "cloud.ply", gaussians)
    read = read_ply(tmp_path / "cloud.ply")
    assert_equal(read, gaussians)
    assert read.sh_degree == degree and len(read) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["cloud.ply"]


def test_layout_is_graphdecos(ply):
    gaussians = make_gaussians()
    vertices = PlyData.read(str(ply))["vertex"].data
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    expected += [f"f_rest_{i}" for i in range(45)] + ["opacity", "scale_0", "scale_1", "scale_2"]
    assert list(vertices.dtype.names) == expected + ["rot_0", "rot_1", "rot_2", "rot_3"]
    # Channel-major: f_rest_15 is the first higher coefficient of green, f_rest_44 the last of blue.
    np.testing.assert_array_equal(vertices["f_rest_1"], gaussians.sh[:, 2, 0])
    np.testing.assert_array_equal(vertices["f_rest_15"], gaussians.sh[:, 1, 1])
    np.testing.assert_array_equal(vertices["f_rest_44"], gaussians.sh[:, 15, 2])
    np.testing.assert_array_equal(vertices["f_dc_2"], gaussians.sh[:, 0, 2])
    np.testing.assert_array_equal(vertices["rot_0"], gaussians.rotations[:, 0])


def test_property_order_type_extras_and_ascii(ply):
    names = list(PlyData.read(str(ply), mmap=False)["vertex"].data.dtype.names)
    shuffled = [names[i] for i in np.random.default_rng(0).permutation(len(names))]
    read = read_ply(rewrite(ply, order=shuffled, dtype="f8"))
    assert_equal(read, make_gaussians())
    rewrite(ply, lambda table: {"label": np.arange(5, dtype="i4"), **table}, dtype="f8", text=True)
    assert b"format ascii" in ply.read_bytes()[:40]
    assert_equal(read_ply(ply), make_gaussians())


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="none.ply: PLY file: found no such file"):
        read_ply(tmp_path / "none.ply")


def test_truncated(ply):
    content = ply.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 200):
        ply.write_bytes(content[:length])
        with pytest.raises(InputError, match="early end-of-file.*expected a complete PLY"):
            read_ply(ply)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(range(64)), b"hello\nworld\n"])
def test_not_a_ply(ply, content):
    ply.write_bytes(content)
    with pytest.raises(InputError, match="not a PLY file"):
        read_ply(ply)


def test_broken_header(ply):
    ply.write_bytes(ply.read_bytes().replace(b"element vertex 5", b"element vertex x"))
    with pytest.raises(InputError, match="line 3: expected integer count"):
        read_ply(ply)


def test_missing_properties(ply):
    dropped = ("opacity", "rot_2")
    rewrite(ply, lambda table: {name: column for name, column in table.items() if name not in dropped})
    with pytest.raises(InputError, match="found no opacity, rot_2"):
        read_ply(ply)


def test_point_cloud_without_vertices(tmp_path):
    faces = np.zeros(1, dtype=[("x", "f4")])
    PlyData([PlyElement.describe(faces, "face")]).write(str(tmp_path / "mesh.ply"))
    with pytest.raises(InputError, match="no element vertex"):
        read_ply(tmp_path / "mesh.ply")


def test_rest_count_and_gaps(ply):
    rewrite(ply, lambda table: {name: column for name, column in table.items() if name != "f_rest_44"})
    with pytest.raises(InputError, match="found 44, expected 0, 9, 24 or 45"):
        read_ply(ply)
    rewrite(ply, lambda table: {"f_rest_45": table["x"], **table})
    with pytest.raises(InputError, match="found no f_rest_44, expected f_rest_0 to f_rest_44"):
        read_ply(ply)


def test_no_gaussians(ply):
    rewrite(ply, lambda table: {name: column[:0] for name, column in table.items()})
    with pytest.raises(InputError, match="0 Gaussians"):
        read_ply(ply)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite(ply, value):
    def spoil(table):
        table["scale_1"][[2, 4]] = value
        return table

    with pytest.raises(InputError, match="scale_1: found 2 of 5 values NaN or infinite, the first at Gaussian 2"):
        read_ply(rewrite(ply, spoil, dtype="f8"))


def test_zero_rotation(ply):
    def spoil(table):
        for i in range(4):
            table[f"rot_{i}"][3] = 0
        return table

    with pytest.raises(InputError, match="rot_0..rot_3: found 1 of length zero, the first at Gaussian 3"):
        read_ply(rewrite(ply, spoil))


def test_list_property(tmp_path):
    array = np.empty(1, dtype=[(name, "O" if name == "x" else "f4") for name in read_names()])
    for name in read_names():
        array[name] = 1
    array["x"][0] = np.ones(2, "f4")
    element = PlyElement.describe(array, "vertex", val_types={"x": "f4"}, len_types={"x": "u1"})
    PlyData([element]).write(str(tmp_path / "list.ply"))
    with pytest.raises(InputError, match="property x: found a list"):
        read_ply(tmp_path / "list.ply")


def read_names():
    scales, rotations = [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", *scales, *rotations]


def test_write_leaves_nothing_half_done(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="expected a folder that can be written"):
        write_ply(tmp_path / "missing" / "cloud.ply", make_gaussians())
    write_ply(tmp_path / "cloud.ply", make_gaussians())
    before = (tmp_path / "cloud.ply").read_bytes()

    def fail(self, stream):
        Path(stream).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PlyData, "write", fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_ply(tmp_path / "cloud.ply", make_gaussians(degree=1))
    assert (tmp_path / "cloud.ply").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["cloud.ply"]
