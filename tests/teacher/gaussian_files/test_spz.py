"""SPZ files are read to the byte: other versions, unpacked, cut short, longer than they say."""

import gzip
import logging
import struct
import weakref
from dataclasses import replace

import pytest
import torch

from settings.errors import InputError
from teacher.gaussian_files import spz
from teacher.gaussian_files.spz import read_spz, tell_of_clamped, write_spz
from tests.toy_scene import block_of_gaussians

HEADER = struct.Struct("<4sIIBBBB")


def payload(version=3, count=2, degree=0, flags=0, rotation=None):
    """Gaussians at (1, -2, 0.5) in SPZ's axes, of opacity 0.8 and scale e^-2."""
    rotation = rotation or (b"\0\0\0\xc0" if version >= 3 else b"\x80\x80\x80")
    position = b"".join(int(value * 4096).to_bytes(3, "little", signed=True) for value in (1, -2, 0.5))
    parts = position, b"\xcc", b"\x80\x80\x80", b"\x80\x80\x80", rotation, b"\x80" * 3 * ((degree + 1) ** 2 - 1)
    return HEADER.pack(b"NGSP", version, count, degree, 12, flags, 0) + b"".join(part * count for part in parts)


def read(tmp_path, content, name="cloud.spz"):
    path = tmp_path / name
    path.write_bytes(content)
    return read_spz(path)


def packed(data: bytes) -> bytes:
    """Gzip without the time of day, by which names of tests would differ from one process to the next."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize("version", [2, 3])
def test_versions_2_and_3(tmp_path, version):
    gaussians = read(tmp_path, packed(payload(version)))
    assert gaussians.means.tolist() == [[1.0, 2.0, -0.5]] * 2  # right, up, back to right, down, front
    torch.testing.assert_close(gaussians.opacities, torch.full((2,), 0.8))
    torch.testing.assert_close(gaussians.scales, torch.full((2, 3), -2.0).exp())
    torch.testing.assert_close(gaussians.covariances(), (torch.eye(3) * torch.tensor(-4.0).exp()).repeat(2, 1, 1),
                               rtol=1e-2, atol=1e-4)  # fmt: skip


def test_rotations_turn_with_the_axes(tmp_path):
    """A quarter turn about SPZ's z, which looks back, is one the other way about the z of a PLY, which looks front."""
    gaussians = read(tmp_path, packed(payload(2, rotation=b"\x80\x80\xda")))  # x, y, z in 1/127.5 from -1
    expected = torch.tensor([[0.707, 0.0, 0.0, -0.707]]).repeat(2, 1)
    torch.testing.assert_close(gaussians.rotations * gaussians.rotations[:, :1].sign(), expected, atol=0.01, rtol=0)


def test_an_offset_is_in_the_axes_of_a_ply(tmp_path):
    path = tmp_path / "cloud.spz"
    path.write_bytes(packed(payload()))
    assert read_spz(path, (1.0, 2.0, -0.5)).means.abs().max() == 0


def test_harmonics_of_the_decoder_are_gone_before_they_are_turned(tmp_path, monkeypatch):
    """Of millions of Gaussians they take hundreds of MiB, and so do those that are turned, and those after it."""
    decoded, left, turn, gsply = [], [], spz._half_turned, spz.import_gsply("a.spz")
    unpack = gsply.read_spz

    def kept(path):
        data = unpack(path)
        decoded.append(weakref.ref(data.shN))
        return data

    monkeypatch.setattr(gsply, "read_spz", kept)
    monkeypatch.setattr(spz, "_half_turned", lambda given: left.append(decoded[0]() is not None) or turn(given))
    assert read(tmp_path, packed(payload(degree=1))).sh_degree == 1
    assert left == [False]


def test_torch_keeps_the_threads_that_it_had(tmp_path):
    """Gsply's own kernels run on all cores, and set torch's threads to as many."""
    write_spz(tmp_path / "block.spz", block_of_gaussians())
    assert torch.get_num_threads() == 1
    read_spz(tmp_path / "block.spz")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, None, ""),
        ({"log_scales": 6.5}, logging.WARNING, "100.00% with scales above e^5.9375"),
        ({"log_scales": -11.0}, logging.INFO, "100.00% with scales below e^-10"),
        ({"sh": 4.0}, logging.WARNING, "100.00% with constant harmonics beyond 3.33"),
    ],
)
def test_what_the_format_does_not_hold_is_counted(tmp_path, caplog, changes, level, words):
    block = block_of_gaussians()
    changed = {name: torch.full_like(getattr(block, name), value) for name, value in changes.items()}
    with caplog.at_level(logging.INFO):
        tell_of_clamped(tmp_path / "block.spz", replace(block, **changed))
    assert [record.levelno for record in caplog.records] == ([] if level is None else [level])
    assert words in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (payload(), r"an unpacked SPZ.*gzip cloud.spz && mv cloud.spz.gz cloud.spz"),
        (payload(4), "SPZ version: found 4, expected 2 or 3.*splat-transform"),
        (packed(payload(1)), "SPZ version: found 1, expected 2 or 3.*splat-transform"),
        (packed(payload(degree=4)), "degree of the harmonics: found 4"),
        (packed(payload()[:-1]), "found 39 bytes for 2 Gaussians, expected 40"),
        (packed(payload() + b"\0"), "found 41 bytes for 2 Gaussians, expected 40"),
        (packed(HEADER.pack(b"NGSP", 3, 2**32 - 1, 3, 12, 0, 0)), "found 0 bytes for 4294967295 Gaussians"),
        (packed(payload())[:-4], "unreadable data .it ends early"),
        (packed(payload()) + b"more", "4 bytes come after its end"),
        (packed(payload()[:9]), "unreadable data .it ends early"),
        (packed(payload())[:-8] + bytes(8), "unreadable data .*incorrect data check"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


def test_what_is_ignored_is_said(tmp_path, caplog):
    assert len(read(tmp_path, packed(payload(flags=2) + b"\1\2"))) == 2
    assert "2 bytes after the Gaussians are ignored" in caplog.text
    assert len(read(tmp_path, packed(payload(flags=1)))) == 2
    assert "trained with antialiasing" in caplog.text
