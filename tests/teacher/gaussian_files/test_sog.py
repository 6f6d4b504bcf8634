"""PlayCanvas's SOG: pictures made by hand, packed and unpacked, of both versions, and what is wrong with others."""

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from settings.errors import InputError
from teacher.gaussian_files import read_gaussians
from tests.toy_sog import COLORS, COUNT, TABLE, packed, picture, splat


@pytest.mark.parametrize("version", [1, 2])
def test_values(tmp_path, version):
    members, pixels = splat(version)
    read = read_gaussians(packed(tmp_path / "cloud.sog", members))
    words = pixels["means_l"][:, :3] + 256 * pixels["means_u"][:, :3]
    logarithms = np.array([-1, -2, 0]) + np.array([2, 4, 3]) * words / 65535
    np.testing.assert_allclose(read.means, np.sign(logarithms) * (np.exp(np.abs(logarithms)) - 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(read.log_scales, np.array(TABLE)[pixels["scales"][:, :3]], rtol=1e-6)
    np.testing.assert_allclose(read.sh[:, 0], np.array(COLORS)[pixels["sh0"][:, :3]], rtol=1e-5, atol=1e-6)
    alpha = pixels["sh0"][:, 3]
    expected = alpha / 255 if version == 2 else 1 / (1 + np.exp(5 - 10 * alpha / 255))
    np.testing.assert_allclose(read.opacities, expected, atol=1e-5)
    assert read.sh_degree == 0


def test_rotations(tmp_path):
    members, _ = splat()
    rotations = read_gaussians(packed(tmp_path / "cloud.sog", members)).rotations
    half = 0.5**0.5
    expected = [[1, 0, 0, 0], [-half, half, 0, 0], [0, half, 0, -half], [0, 0, 0, 1], [1, 0, 0, 0]]
    expected[2] = [0, half, 0, -half]
    torch.testing.assert_close(rotations, torch.tensor(expected), rtol=0, atol=6e-3)
    torch.testing.assert_close(rotations.norm(dim=1), torch.ones(COUNT), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bands", [1, 2, 3])
def test_higher_harmonics(tmp_path, bands):
    members, pixels = splat(bands=bands)
    read = read_gaussians(packed(tmp_path / "cloud.sog", members))
    expected = np.array(COLORS)[pixels["palette"][pixels["labels"][:, 0]][:, :, :3]]
    np.testing.assert_allclose(read.sh[:, 1:], expected, rtol=1e-5, atol=1e-6)
    assert read.sh_degree == bands


def test_unpacked_and_under_another_name(tmp_path):
    members, _ = splat()
    whole = read_gaussians(packed(tmp_path / "renamed.ply", members))
    for name, content in members.items():
        (tmp_path / name).write_bytes(json.dumps(content).encode() if isinstance(content, dict) else content)
    assert torch.equal(read_gaussians(tmp_path / "meta.json").means, whole.means)
    (tmp_path / "quats.webp").unlink()
    with pytest.raises(InputError, match=r"quats.webp: found unreadable data \(.*No such file"):
        read_gaussians(tmp_path / "meta.json")


def blank(side):
    file = BytesIO()
    Image.new("RGBA", (side, side)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def changed(section, **values):
    def change(members):
        target = members["meta.json"] if section is None else members["meta.json"][section]
        target |= values

    return change


def put(**contents):
    return lambda members: members.update({f"{name}.webp": content for name, content in contents.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(None, version=3), "SOG version: found 3, expected 1 or 2.*splat-transform"),
        (changed(None, count=0), "count: found 0, expected a number of Gaussians"),
        (changed(None, count=10**9), "means: found 6 pixels, expected one for each of 1000000000 Gaussians"),
        (changed(None, count="5"), "count: found 5"),
        (changed(None, quats=None), "quats: found no such section"),
        (changed("means", files=["means_l.webp"]), "means.files: found .*, expected 2 names of pictures"),
        (changed("quats", files=["../quats.webp"]), r"quats.files: found \['../quats.webp'\]"),
        (changed("quats", files=["gone.webp"]), r"gone.webp: found unreadable data \(.*gone.webp"),
        (changed("means", mins=[0, 1]), "means.mins: found something else, expected 3 numbers"),
        (changed("means", maxs="far"), "means.maxs: found something else"),
        (changed("scales", codebook=[1.0] * 300), "scales.codebook: found something else, expected 256 numbers"),
        (changed("scales", codebook=[-3.0]), "5 of 5 Gaussians that cannot be drawn"),
        (put(sh0=b"no picture"), "sh0.webp: found unreadable data"),
        (put(sh0=blank(4000)), r"sh0.webp: found unreadable data \(4000x4000 pixels in"),
        (lambda m: (put(means_l=blank(4000))(m), changed(None, count=4000**2)(m)), "4000x4000 pixels in"),
        (put(quats=blank(3)), "quats: found an alpha of 0, expected 252 to 255"),
        (changed("means", mins=[float("nan")] * 3), "5 of 5 Gaussians that cannot be drawn"),
        (changed("means", maxs=[1e308] * 3), "Gaussians that cannot be drawn"),
    ],
)
def test_refused(tmp_path, change, message):
    members, _ = splat()
    change(members)
    with pytest.raises(InputError, match=message):
        read_gaussians(packed(tmp_path / "cloud.sog", members))


def test_harmonics_that_are_not_there_and_damaged_archives(tmp_path):
    members, _ = splat(bands=1)
    members["l.webp"] = picture([[0, 1, 0, 255]] * COUNT)
    with pytest.raises(InputError, match="shN: found palette 256, expected one of 128"):
        read_gaussians(packed(tmp_path / "cloud.sog", members))
    members["c.webp"] = picture(np.zeros((200, 4)), 100)
    with pytest.raises(InputError, match="shN: found palettes 100 pixels wide"):
        read_gaussians(packed(tmp_path / "cloud.sog", members))
    path = packed(tmp_path / "cloud.sog", splat()[0] | {"meta.json": b"{"})
    with pytest.raises(InputError, match="meta.json: found unreadable data"):
        read_gaussians(path)
    whole = packed(path, splat()[0]).read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_gaussians(path)


@pytest.mark.parametrize(("value", "is_said"), [(True, True), (False, False), ("yes", False)])
def test_antialiased_is_said(tmp_path, caplog, value, is_said):
    members, _ = splat()
    members["meta.json"]["antialias"] = value
    read_gaussians(packed(tmp_path / "cloud.sog", members))
    assert ("trained with antialiasing (its meta.json says so)" in caplog.text) == is_said
