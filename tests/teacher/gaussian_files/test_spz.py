"""Values of SPZ files, in their axes and in those of a PLY."""

import logging
import weakref
from dataclasses import fields, replace

import pytest
import torch

from teacher.gaussian_files import spz
from teacher.gaussian_files.spz import read_spz, tell_of_clamped, write_spz
from tests.toy_scene import block_of_gaussians
from tests.toy_spz import packed, payload, streamed


def read(tmp_path, content, name="cloud.spz"):
    path = tmp_path / name
    path.write_bytes(content)
    return read_spz(path)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_versions_2_to_4(tmp_path, version):
    gaussians = read(tmp_path, streamed() if version == 4 else packed(payload(version)))
    assert gaussians.means.tolist() == [[1.0, 2.0, -0.5]] * 2  # right, up, back to right, down, front
    torch.testing.assert_close(gaussians.opacities, torch.full((2,), 0.8))
    torch.testing.assert_close(gaussians.scales, torch.full((2, 3), -2.0).exp())
    torch.testing.assert_close(gaussians.covariances(), (torch.eye(3) * torch.tensor(-4.0).exp()).repeat(2, 1, 1),
                               rtol=1e-2, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_version_4_holds_what_version_3_does(tmp_path, degree):
    """The arrays are the same: only what they are packed in differs."""
    old, new = read(tmp_path, packed(payload(3, degree=degree))), read(tmp_path, streamed(degree))
    assert new.sh_degree == degree
    for field in fields(new):
        assert torch.equal(getattr(new, field.name), getattr(old, field.name))


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
