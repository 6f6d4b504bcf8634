"""antimatter15's .splat: rows made by hand, told from other files by what they hold, and refused where they are cut."""

import logging
import struct

import numpy as np
import pytest
import torch

from settings.errors import InputError
from teacher.gaussian_files import read_gaussians


def row(position=(1.0, -2.0, 0.5), scales=(0.1, 0.2, 0.4), color=(255, 128, 0, 204), rotation=(192, 128, 128, 20)):
    return struct.pack("<6f8B", *position, *scales, *color, *rotation)


def read(tmp_path, content, name="cloud.splat"):
    path = tmp_path / name
    path.write_bytes(content)
    return read_gaussians(path)


@pytest.mark.parametrize("name", ["cloud.splat", "renamed.ply"])
def test_rows(tmp_path, caplog, name):
    caplog.set_level(logging.WARNING)
    read_back = read(tmp_path, row() * 3, name)
    assert read_back.means.tolist() == [[1.0, -2.0, 0.5]] * 3 and read_back.sh_degree == 0
    torch.testing.assert_close(read_back.scales[0], torch.tensor([0.1, 0.2, 0.4]))
    torch.testing.assert_close(read_back.opacities[0].item(), 0.8)
    colors = read_back.sh[0, 0] * 0.28209479 + 0.5
    torch.testing.assert_close(colors, torch.tensor([1.0, 128 / 255, 0.0]))
    # w, x, y, z in steps of 1/128.
    torch.testing.assert_close(read_back.rotations[0], torch.tensor([0.5, 0.0, 0.0, -0.84375]))
    assert not caplog.records


def test_opacities_of_0_and_1_have_logits(tmp_path):
    logits = read(tmp_path, row(color=(9, 9, 9, 0)) + row(color=(9, 9, 9, 255))).opacity_logits
    assert logits[0] < -13 and logits[1] > 13 and logits.isfinite().all()


def test_map_coordinates_are_taken_by_the_name_alone(tmp_path):
    far = row(position=(1e7, 0.0, 0.0)) * 3
    with pytest.raises(InputError, match="which are no known file's"):
        read(tmp_path, far, "far.bin")
    with pytest.raises(InputError, match="float32"):
        read(tmp_path, far)


@pytest.mark.parametrize(
    ("damaged", "message"), [(9, "9 of 100 Gaussians that cannot be drawn"), (11, "no known file's")]
)
def test_a_tenth_of_the_rows_may_be_damaged(tmp_path, damaged, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, row(position=(np.nan, 0, 0)) * damaged + row() * (100 - damaged))


@pytest.mark.parametrize("first", [b"{", b"[", b" "])
def test_any_first_byte_is_a_position(tmp_path, first):
    position = struct.unpack("<f", first + b"\0\x80?")[0]
    assert read(tmp_path, row(position=(position, 0, 0))).means[0, 0].item() == pytest.approx(position)


def test_damaged_rows_are_checked_like_any(tmp_path, caplog):
    bad = row(position=(np.nan, 0, 0))
    assert len(read(tmp_path, bad + row() * 199)) == 199
    assert "1 of 200 Gaussians that cannot be drawn" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (row() * 2 + b"\0" * 5, "found 2 rows of 32 bytes and 5 bytes more, expected whole rows. .*cut short"),
        (row()[:-1], "which are no known file's"),
        (row(scales=(-1, 1, 1)) * 3, "which are no known file's"),
        (row(position=(1e9, 0, 0)) * 3, "which are no known file's"),
        (bytes(96), "nothing but zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 41, "a Git LFS pointer"),
        (b'{"frames": []}' + b" " * 18, "JSON text"),
        (b"0.125,0.25\n3.5,-4.125,0.5,0.75,1.5\n" * 8, "text that begins '0.125,0.25', expected"),
    ],
)
def test_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)
