"""Gaussians in the three formats: what comes back, how exactly, and what is refused."""

import gzip
import struct
import sys

import numpy as np
import pytest
import torch

from settings.errors import InputError
from teacher.gaussian_files import check_gaussians_file, fitted_width_in, read_gaussians, write_gaussians
from teacher.gaussian_files.npz import NPZ_FORMAT, read_npz, write_npz
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer


def make_gaussians(count=40, degree=3):
    return Gaussians(
        means=torch.randn(count, 3),
        log_scales=torch.rand(count, 3) * 3 - 5,
        rotations=torch.nn.functional.normalize(torch.randn(count, 4), dim=1),
        opacity_logits=torch.randn(count) * 2,
        sh=torch.rand(count, (degree + 1) ** 2, 3) * 1.6 - 0.8,
    )


def fields_of(gaussians):
    return {name: getattr(gaussians, name) for name in gaussians.__dataclass_fields__}


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("extension", [".ply", ".npz", ".spz", ".NPZ"])
def test_round_trip_to_the_precision_of_the_format(tmp_path, extension, degree):
    gaussians = make_gaussians(degree=degree)
    path = tmp_path / f"cloud{extension}"
    write_gaussians(path, gaussians)
    read = read_gaussians(path)
    assert len(read) == 40 and read.sh_degree == degree
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "no temporary file is left"
    if extension == ".ply":
        assert all(
            torch.equal(a, b) for a, b in zip(fields_of(read).values(), fields_of(gaussians).values(), strict=True)
        )
    elif extension == ".spz":
        assert (read.means - gaussians.means).abs().max() <= 0.5 / 2**16 + 1e-6
        assert (read.log_scales - gaussians.log_scales).abs().max() <= 0.5 / 16 + 1e-5
        assert (read.opacities - gaussians.opacities).abs().max() <= 0.5 / 255 + 1e-5
        assert (read.sh[:, 0] - gaussians.sh[:, 0]).abs().max() <= 0.5 / (0.15 * 255) + 1e-5
        if degree:
            assert (read.sh[:, 1:] - gaussians.sh[:, 1:]).abs().max() <= 0.5 / 128 + 1e-5
        same = (read.rotations * gaussians.rotations).sum(1).abs()  # q and -q are one rotation
        assert same.min() > 1 - 1e-5
    else:
        assert torch.equal(read.means, gaussians.means)
        for name in ("log_scales", "rotations", "opacity_logits", "sh"):
            torch.testing.assert_close(getattr(read, name), getattr(gaussians, name), rtol=2**-11, atol=1e-7)


def test_npz_in_float32_is_exact_and_float16_is_smaller(tmp_path):
    gaussians = make_gaussians(2000)
    write_npz(tmp_path / "exact.npz", gaussians, dtype=np.float32)
    read = read_npz(tmp_path / "exact.npz")
    assert all(torch.equal(a, b) for a, b in zip(fields_of(read).values(), fields_of(gaussians).values(), strict=True))
    sizes = {}
    for name in ("half.npz", "cloud.spz", "cloud.ply"):
        write_gaussians(tmp_path / name, gaussians)
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["cloud.spz"] < 0.7 * sizes["half.npz"] < 0.4 * sizes["cloud.ply"]


@pytest.mark.parametrize(("extension", "is_held"), [(".ply", True), (".npz", True), (".spz", False)])
def test_the_width_that_they_were_fitted_at(tmp_path, caplog, extension, is_held):
    path = tmp_path / f"cloud{extension}"
    write_gaussians(path, make_gaussians())
    assert fitted_width_in(path) is None and not caplog.records
    write_gaussians(path, make_gaussians(), 200)
    assert fitted_width_in(path) == (200 if is_held else None)
    assert ("--set teacher.fitted_width=200" in caplog.text) != is_held
    assert len(read_gaussians(path)) == 40


@pytest.mark.parametrize("extension", [".ply", ".npz", ".spz"])
def test_no_gaussians_are_not_written(tmp_path, extension):
    with pytest.raises(InputError, match="found none, expected at least 1"):
        write_gaussians(tmp_path / f"cloud{extension}", make_gaussians(0))
    assert not [*tmp_path.iterdir()]


def test_a_compressed_scene_looks_the_same(tmp_path, look_at):
    gaussians = make_gaussians(200)
    cameras = look_at([[4.0, 1.0, 2.0], [-1.0, -4.0, -1.0]])
    reference = Rasterizer(gaussians).render_batch(cameras)
    assert reference.alpha.mean() > 0.02
    for extension, error in ((".npz", 2e-3), (".spz", 2e-2)):
        write_gaussians(tmp_path / f"cloud{extension}", gaussians)
        batch = Rasterizer(read_gaussians(tmp_path / f"cloud{extension}")).render_batch(cameras)
        assert (batch.rgb - reference.rgb).square().mean().sqrt() < error


def spz_payload(path):
    return gzip.decompress(path.read_bytes())


def test_spz_is_in_its_own_axes(tmp_path):
    # SPZ stores right, up, back; a 3DGS PLY is taken as right, down, front: y and z change sign.
    gaussians = Gaussians(
        means=torch.tensor([[1.0, 2.0, -3.0]]),
        log_scales=torch.full((1, 3), -3.0),
        rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        opacity_logits=torch.zeros(1),
        sh=torch.tensor([[[0.0] * 3, [0.5, 0.25, 0.125], [0.5, 0.25, 0.125], [0.5, 0.25, 0.125]]]),
    )
    write_gaussians(tmp_path / "cloud.spz", gaussians)
    payload = spz_payload(tmp_path / "cloud.spz")
    magic, version, count, degree, fraction, _, _ = struct.unpack("<IIIBBBB", payload[:16])
    assert (magic, version, count, degree, fraction) == (0x5053474E, 3, 1, 1, 16)
    stored = [int.from_bytes(payload[16 + 3 * i : 19 + 3 * i], "little", signed=True) / 2**16 for i in range(3)]
    assert stored == [1.0, -2.0, 3.0]
    # Y_1 is (-y, z, -x): the first two change sign, the third does not. A byte is 128 + 128 * value.
    assert list(payload[-9:]) == [64, 96, 112, 64, 96, 112, 192, 160, 144]


def test_spz_of_a_wide_scene_has_fewer_bits_of_fraction(tmp_path):
    gaussians = make_gaussians()
    wide = Gaussians(**fields_of(gaussians) | {"means": gaussians.means.clone()})
    wide.means[3, 1] = -5000.0
    write_gaussians(tmp_path / "wide.spz", wide)
    assert (read_gaussians(tmp_path / "wide.spz").means - wide.means).abs().max() <= 0.5 / 2**9 + 1e-4
    wide.means[3, 1] = 2.0**22
    with pytest.raises(InputError, match="a coordinate of .*Use .ply or .npz"):
        write_gaussians(tmp_path / "wider.spz", wide)
    assert not (tmp_path / "wider.spz").exists()


def test_spz_without_gsply_says_what_to_install(tmp_path, monkeypatch):
    write_gaussians(tmp_path / "cloud.spz", make_gaussians())
    monkeypatch.setitem(sys.modules, "gsply", None)
    for refused in (
        lambda: read_gaussians(tmp_path / "cloud.spz"),
        lambda: write_gaussians(tmp_path / "other.spz", make_gaussians()),
        lambda: check_gaussians_file(tmp_path / "other.spz"),
    ):
        with pytest.raises(InputError, match=r"no package gsply.*lego-response-distill\[spz\]"):
            refused()


@pytest.mark.parametrize("extension", [".npz", ".spz"])
def test_missing_truncated_altered_or_no_such_file(tmp_path, extension):
    path = tmp_path / f"cloud{extension}"
    with pytest.raises(InputError, match="no such file"):
        read_gaussians(path)
    write_gaussians(path, make_gaussians())
    whole = path.read_bytes()
    for damaged in (b"", b"no such format", whole[:-40], whole[:200], whole[:100] + b"?" * 300 + whole[400:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="unreadable data|an empty file|text that begins|cut short") as caught:
            read_gaussians(path)
        assert caught.value.source == str(path)


def test_what_is_in_an_npz_is_checked(tmp_path):
    path = tmp_path / "cloud.npz"
    write_npz(path, make_gaussians(), dtype=np.float32)
    with np.load(path) as archive:
        arrays = dict(archive)

    def refused(match, **changes):
        changed = {name: value for name, value in (arrays | changes).items() if value is not None}
        np.savez_compressed(path, **changed)
        with pytest.raises(InputError, match=match):
            read_gaussians(path)

    refused("npz file: found an archive of .*means.*ns-export gaussian-splat", format=None, version=None)
    refused(f"found {NPZ_FORMAT}, 2, expected {NPZ_FORMAT}, 1", version=np.array(2))
    refused("format, version: found splats, 1", format=np.array("splats"))
    refused("arrays: found no rotations, sh", rotations=None, sh=None)
    refused("array means: found int64", means=np.zeros((40, 3), int))
    refused(
        "1 of 40 Gaussians that cannot be drawn .1 sh NaN",
        sh=np.where(np.arange(1920).reshape(40, 16, 3) == 5, np.nan, 0.0),
    )
    refused("means: found 0 Gaussians", **{name: arrays[name][:0] for name in fields_of(make_gaussians())})
    refused("found shape", log_scales=arrays["log_scales"][:5])
    refused("40 rotations of length zero", rotations=np.zeros((40, 4), np.float32))
    refused("unreadable data.*pickle", means=np.array([{}] * 40, dtype=object))


def test_a_value_that_float16_cannot_hold(tmp_path):
    gaussians = make_gaussians()
    gaussians.opacity_logits[2] = 1e6
    with pytest.raises(InputError, match="opacity_logits: found a value beyond 65504"):
        write_gaussians(tmp_path / "cloud.npz", gaussians)
    assert not any(tmp_path.iterdir())


def test_the_extension_says_the_format_to_write_and_the_first_bytes_that_to_read(tmp_path):
    for name in ("cloud.splat", "cloud"):
        for action in (lambda p: write_gaussians(p, make_gaussians()), check_gaussians_file):
            with pytest.raises(InputError, match=r"file extension: found .*expected one of .ply, .npz, .spz"):
                action(tmp_path / name)
    gaussians = make_gaussians()
    for extension, other in ((".ply", ".spz"), (".npz", ".ply"), (".spz", "")):
        write_gaussians(tmp_path / f"cloud{extension}", gaussians)
        (tmp_path / f"cloud{extension}").rename(tmp_path / f"renamed{other}")
        assert len(read_gaussians(tmp_path / f"renamed{other}")) == 40


@pytest.mark.parametrize("extension", [".npz", ".spz", ".ply"])
def test_a_folder_that_is_not_there(tmp_path, extension):
    path = tmp_path / "missing" / f"cloud{extension}"
    for action in (lambda: write_gaussians(path, make_gaussians()), lambda: check_gaussians_file(path)):
        with pytest.raises(InputError, match="output file: found"):
            action()
