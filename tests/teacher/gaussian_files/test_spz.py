"""Values of SPZ files, in their axes and in those of a PLY."""

import gzip
import logging
import struct
import weakref
from dataclasses import fields, replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.gaussians.covariances import rotation_matrices
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


@pytest.mark.parametrize("number", [1, 4, 6, 7])
def test_axes_that_differ_by_half_a_turn_are_those_of_the_same_scene(tmp_path, caplog, number):
    """LDB, RUB, RDF and LUF: the scene that a PLY has is turned into them, written, and read from them again."""
    block = block_of_gaussians()
    generator = torch.Generator().manual_seed(0)
    block = replace(
        block,
        log_scales=block.log_scales + torch.tensor([0.5, -0.5, 1.0]),
        rotations=torch.randn(len(block), 4, generator=generator),
        sh=torch.cat([block.sh, 0.3 * torch.randn(len(block), 15, 3, generator=generator)], dim=1),
    )
    axes = {1: "LDB", 4: "RUB", 6: "RDF", 7: "LUF"}[number]
    # Writing turns what it is given from a PLY's axes into the format's own: what is in these axes must stay there.
    signs = torch.tensor([1.0 if letter in "RUB" else -1.0 for letter in axes])
    write_spz(tmp_path / "own.spz", about_axes(block, signs))
    own = gzip.decompress((tmp_path / "own.spz").read_bytes())
    record = struct.pack("<III", 0xADBE0003, 4, number)
    found = read(tmp_path, packed(own[:14] + bytes([own[14] | 2]) + own[15:] + record))
    write_spz(tmp_path / "own.spz", block)
    expected = read_spz(tmp_path / "own.spz")
    torch.testing.assert_close(found.means, expected.means, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.covariances(), expected.covariances(), atol=1e-4, rtol=0)
    directions = torch.nn.functional.normalize(torch.randn(9, 3, generator=generator), dim=1)
    shades = (torch.einsum("dk,nkc->ndc", sh_basis(directions, 3), each.sh) for each in (found, expected))
    torch.testing.assert_close(*shades, atol=0.02, rtol=0)  # steps are of 1 / 128
    assert "ignored" not in caplog.text


def about_axes(gaussians, signs):
    """A scene whose axes, of a PLY, change their signs, by matrices: half a turn, or nothing."""
    turn = torch.diag(signs)
    matrices = turn @ rotation_matrices(gaussians.rotations) @ turn
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    seen = torch.einsum("dk,nkc->dnc", sh_basis(directions @ turn, 3), gaussians.sh).flatten(1)
    sh = torch.linalg.lstsq(sh_basis(directions, 3), seen).solution.view(16, -1, 3).transpose(0, 1)
    quaternions = torch.from_numpy(Rotation.from_matrix(matrices.double().numpy()).as_quat()).float()
    return replace(gaussians, means=gaussians.means @ turn, rotations=quaternions[:, [3, 0, 1, 2]], sh=sh.contiguous())


def test_an_offset_is_in_the_axes_of_a_ply(tmp_path):
    path = tmp_path / "cloud.spz"
    path.write_bytes(packed(payload()))
    assert read_spz(path, (1.0, 2.0, -0.5)).means.abs().max() == 0


def test_harmonics_of_the_decoder_are_gone_before_they_are_turned(tmp_path, monkeypatch):
    """Of millions of Gaussians they take hundreds of MiB, and so do those that are turned, and those after it."""
    decoded, left, turn, gsply = [], [], spz._turned, spz.import_gsply("a.spz")
    unpack = gsply.read_spz

    def kept(path):
        data = unpack(path)
        decoded.append(weakref.ref(data.shN))
        return data

    monkeypatch.setattr(gsply, "read_spz", kept)
    monkeypatch.setattr(spz, "_turned", lambda given, axes: left.append(decoded[0]() is not None) or turn(given, axes))
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
