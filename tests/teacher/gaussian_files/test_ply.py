"""graphdeco's PLY: layout, round trip, and every kind of bad file."""

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

import teacher.gaussian_files.ply as ply_module
from settings.errors import InputError
from teacher.gaussian_files.ply import read_ply, write_ply, write_ply_parts
from teacher.gaussians import Gaussians
from tests.memory_peak import with_peak
from tests.teacher.test_gaussians import make_gaussians

FIELDS = ("means", "log_scales", "rotations", "opacity_logits", "sh")


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


def test_parts_are_written_as_one_file(tmp_path):
    parts = [make_gaussians(count, degree=1) for count in (2, 11, 1)]
    assert write_ply_parts(tmp_path / "cloud.ply", (part for part in parts)) == 14
    whole = Gaussians(*(torch.cat([getattr(part, name) for part in parts]) for name in FIELDS))
    assert_equal(read_ply(tmp_path / "cloud.ply"), whole)
    write_ply(tmp_path / "whole.ply", whole)
    ends = [(tmp_path / name).read_bytes().partition(b"element vertex")[2] for name in ("cloud.ply", "whole.ply")]
    assert ends[0] == ends[1]


def test_reading_takes_no_copies_of_what_is_read(tmp_path):
    gaussians = make_gaussians(40_000)
    write_ply(tmp_path / "cloud.ply", gaussians)
    read, peak = with_peak(lambda: read_ply(tmp_path / "cloud.ply"))
    assert_equal(read, gaussians)
    assert peak < 2.2 * sum(getattr(read, name).nbytes for name in FIELDS)


@pytest.mark.parametrize("width", [None, 200])
def test_many_are_written_as_plyfile_writes_them_but_some_at_a_time(tmp_path, monkeypatch, width):
    gaussians, table, counts = make_gaussians(40_000, degree=1), ply_module._vertices, []
    vertices = table(gaussians)
    comments = [] if width is None else [f"fitted_width {width}"]
    described = PlyElement.describe(vertices, "vertex")
    PlyData([described], byte_order="<", comments=comments).write(str(tmp_path / "expected.ply"))
    monkeypatch.setattr(ply_module, "_vertices", lambda part: counts.append(len(part)) or table(part))
    write_ply(tmp_path / "cloud.ply", gaussians, width)
    assert (tmp_path / "cloud.ply").read_bytes() == (tmp_path / "expected.ply").read_bytes()
    assert sum(counts) == 40_000 and max(counts) < 20_000


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
    data = content.index(b"end_header") + 11
    for length in (len(content) - 1, data + 500, data):
        ply.write_bytes(content[:length])
        with pytest.raises(
            InputError, match="announced for element vertex, and an early end: .*expected a complete PLY"
        ):
            read_ply(ply)
    ply.write_bytes(content[:200])
    with pytest.raises(InputError, match="no line end_header"):
        read_ply(ply)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(range(64)), b"hello\nworld\n"])
def test_not_a_ply(ply, content):
    ply.write_bytes(content)
    with pytest.raises(InputError, match="not a PLY file"):
        read_ply(ply)


def test_broken_header(ply):
    for change, hint in (
        (("element vertex 5", "element vertex x"), "cut short"),
        (("float opacity", "half opacity"), "floats"),
    ):
        broken = ply.with_name("broken.ply")
        broken.write_bytes(ply.read_bytes().replace(*(text.encode() for text in change)))
        with pytest.raises(InputError, match=f"PLY header: found line .*{change[1]}.* {hint}"):
            read_ply(broken)


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


def header_of(properties, count=3, more=""):
    lines = "".join(f"property float {name}\n" for name in properties)
    return f"ply\nformat binary_little_endian 1.0\nelement vertex {count}\n{lines}{more}end_header\n".encode()


@pytest.mark.parametrize(
    ("properties", "more", "message"),
    [
        (["x", "y", "z", "nx", "ny", "nz"], "", "a point cloud of 3 points.*tools/train_teacher.py"),
        (["x", "y", "z"], "element face 7\nproperty list uchar int vertex_indices\n", "mesh of 3 vertices and 7 faces"),
        ([*"xyz", "opacity", "scale_0", "scale_1", "rot_0", "rot_3"], "", "discs of 2DGS.*scale -14"),
        ([*"xyz", "red", "green", "blue", "opacity", "scale_0", "scale_2", "rot_0"], "", "--ply-color-mode sh_coeffs"),
        ([*"xyz", "f_anchor_feat_0", "opacity", "scale_0", "rot_0"], "", "Scaffold-GS.*teacher.kind: views"),
    ],
)
def test_other_layouts_are_named(tmp_path, properties, more, message):
    path = tmp_path / "other.ply"
    path.write_bytes(header_of(properties, more=more))
    with pytest.raises(InputError, match=f"PLY layout: found .*{message}"):
        read_ply(path)


def test_the_3d_filter_widens_scales_and_lowers_opacities(ply, caplog):
    plain = read_ply(ply)
    width = np.array([0.05, 0.1, 0.3, 1.0, 0.0])
    read = read_ply(rewrite(ply, lambda table: {**table, "filter_3D": width}))
    scales = plain.scales.double()
    wider = (scales.square() + torch.from_numpy(width)[:, None] ** 2).sqrt()
    torch.testing.assert_close(read.scales.double(), wider, rtol=1e-6, atol=0)
    opacities = plain.opacities.double() * (scales / wider).prod(dim=1)
    torch.testing.assert_close(read.opacities.double(), opacities, rtol=1e-5, atol=0)
    assert torch.equal(read.means, plain.means) and torch.equal(read.sh, plain.sh)
    assert "trained with antialiasing" in caplog.text and "Mip-Splatting" in caplog.text


@pytest.mark.parametrize(
    ("comment", "is_said"),
    [
        ("SplatRenderMode: mip", True),
        ("antialiased 1", True),
        ("antialiased 0", False),
        ("SplatRenderMode: default", False),
    ],
)
def test_antialiased_is_said(ply, caplog, comment, is_said):
    ply.write_bytes(ply.read_bytes().replace(b"element vertex", f"comment {comment}\nelement vertex".encode()))
    assert_equal(read_ply(ply), make_gaussians())
    assert ("trained with antialiasing" in caplog.text) == is_said


@pytest.mark.parametrize("newline", [b"\r\n", b"\r"])
def test_line_ends_big_endian_comments_and_other_elements(tmp_path, newline):
    vertices = write_and_read_rows(tmp_path / "plain.ply")
    camera, tail = np.array([0.9], ">f4").tobytes(), np.arange(3, dtype=">u4").tobytes()
    head = ["ply", "format binary_big_endian 1.0", "comment Möbel/城", "element camera 1", "property float fov"]
    head += ["element vertex 5", *(f"property float {name}" for name in vertices.dtype.names)]
    head += ["element sizes 3", "property uint size", "end_header", ""]
    swapped = vertices.astype([(name, ">f4") for name in vertices.dtype.names]).tobytes()
    path = tmp_path / "odd.ply"
    path.write_bytes(newline.join(line.encode() for line in head) + camera + swapped + tail)
    assert_equal(read_ply(path), make_gaussians())


def write_and_read_rows(path):
    write_ply(path, make_gaussians())
    return PlyData.read(str(path), mmap=False)["vertex"].data


@pytest.mark.parametrize("text", [False, True])
def test_rows_that_the_header_does_not_announce(ply, text):
    rewrite(ply, text=text, dtype="f8")
    content = ply.read_bytes()
    ply.write_bytes(content.replace(b"element vertex 5", b"element vertex 4"))
    with pytest.raises(InputError, match=r"4 rows of \d+ bytes announced .* left over \(1 rows\)"):
        read_ply(ply)
    for count in (6, 999_999_999_999):  # nothing of that size is allocated
        ply.write_bytes(content.replace(b"element vertex 5", f"element vertex {count}".encode()))
        with pytest.raises(InputError, match=f"{count} rows .* an early end"):
            read_ply(ply)


def test_every_byte_is_accounted_for_but_a_line_end(ply):
    content = ply.read_bytes()
    ply.write_bytes(content + b"\r\n")
    assert_equal(read_ply(ply), make_gaussians())
    for altered in (content + b"\0", content[:-300] + b"abc" + content[-300:], content + b"\n" * 5):
        ply.write_bytes(altered)
        with pytest.raises(InputError, match="left over"):
            read_ply(ply)


def test_an_offset_is_taken_off_doubles_before_they_are_rounded(ply):
    offset = (500000.0, 4649776.0, 120.0)

    def move(table):
        return table | {name: table[name] + value for name, value in zip("xyz", offset, strict=True)}

    read = read_ply(rewrite(ply, move, dtype="f8"), offset)
    torch.testing.assert_close(read.means, make_gaussians().means, rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="Gaussians about .*Set data.offset"):
        read_ply(ply)


def test_rest_count_and_gaps(ply):
    rewrite(ply, lambda table: {name: column for name, column in table.items() if name != "f_rest_44"})
    with pytest.raises(InputError, match="found 44, expected 0, 9, 24 or 45"):
        read_ply(ply)
    rewrite(ply, lambda table: table | {f"f_rest_{i}": table["x"] for i in range(44, 72)})
    with pytest.raises(InputError, match="found 72, .*Degree 4 is not supported"):
        read_ply(ply)
    rewrite(
        ply, lambda table: {name: column for name, column in table.items() if name[7:] not in map(str, range(44, 72))}
    )
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

    with pytest.raises(InputError, match="2 of 5 Gaussians that cannot be drawn .2 log_scales NaN.*the first is 2"):
        read_ply(rewrite(ply, spoil, dtype="f8"))


def test_zero_rotation(ply):
    def spoil(table):
        for i in range(4):
            table[f"rot_{i}"][3] = 0
        return table

    with pytest.raises(
        InputError, match="1 of 5 Gaussians that cannot be drawn .1 rotations of length zero; the first is 3"
    ):
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

    table = ply_module._vertices

    def fail(part):
        if len(part):  # the header is written
            raise OSError(28, "No space left on device")
        return table(part)

    monkeypatch.setattr(ply_module, "_vertices", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write_ply(tmp_path / "cloud.ply", make_gaussians(degree=1))
    assert (tmp_path / "cloud.ply").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["cloud.ply"]


@pytest.mark.parametrize("place", ["before", "within", "after"])
def test_lists_hide_rows_only_where_these_come_later(ply, place):
    """Rows of a list are as long as they say themselves, so what follows them has no place."""
    head, data = ply.read_bytes().split(b"end_header\n")
    faces, row = b"element face 1\nproperty list uchar int vertex_indices\n", b"\x01\0\0\0\0"
    start = head.index(b"element vertex")
    contents = {
        "before": head[:start] + faces + head[start:] + b"end_header\n" + row + data,
        "within": head + b"property list uchar int neighbours\nend_header\n" + data + row * 5,
        "after": head + faces + b"end_header\n" + data + row,
    }
    ply.write_bytes(contents[place])
    if place == "after":
        assert_equal(read_ply(ply), make_gaussians())
    else:
        with pytest.raises(InputError, match=r"a list, property (vertex_indices|neighbours) of element (face|vertex)"):
            read_ply(ply)
