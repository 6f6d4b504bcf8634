"""The rows of a PLY, gone through once and copied as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from settings.errors import InputError
from teacher.gaussian_files import ply_rows
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.gaussian_files.ply_elements import read_header
from teacher.gaussian_files.ply_rows import PlyRows
from tests.toy_scene import block_of_gaussians


@pytest.fixture
def ply(tmp_path):
    write_ply(tmp_path / "all.ply", block_of_gaussians(), fitted_width=640)
    return tmp_path / "all.ply"


def test_rows_are_copied_to_files_that_read_as_the_same_gaussians(ply, tmp_path, monkeypatch):
    monkeypatch.setattr(ply_rows, "_ROWS", 7)
    rows, whole = PlyRows(ply), read_ply(ply)
    paths = [tmp_path / name / "part.ply" for name in ("left", "right", "none")]
    left = whole.means[:, 0].numpy() < 0
    chosen = ((part, np.stack([left[part], ~left[part], left[part] < 0], axis=1)) for part, _ in rows.parts(3.0))
    assert rows.copy_to(paths, chosen) == [left.sum(), (~left).sum(), 0]
    assert read_ply(paths[0]).fingerprint() == whole[torch.from_numpy(left)].fingerprint()
    assert read_ply(paths[1]).fingerprint() == whole[torch.from_numpy(~left)].fingerprint()
    assert read_header(paths[0]).comments == ("fitted_width 640",)


def test_files_of_rows_are_all_there_when_they_are_whole(ply, tmp_path):
    def chosen():
        yield slice(0, 5), np.ones((5, 2), dtype=bool)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PlyRows(ply).copy_to([tmp_path / "parts/0.ply", tmp_path / "parts/1.ply"], chosen())
    assert not any((tmp_path / "parts").iterdir())


def test_reach_is_that_of_the_ellipsoids_less_the_offset(ply, tmp_path):
    whole = read_ply(ply)
    axes = whole.half_axes().double().square().sum(2).sqrt()
    ((part, reach),) = PlyRows(ply).parts(3.0)
    assert part == slice(0, len(whole))
    assert np.allclose(reach.lower, whole.means - 3 * axes, atol=1e-5)
    assert np.allclose(reach.upper, whole.means + 3 * axes, atol=1e-5)
    moved = PlyRows(ply, (5000.0, 0.0, 0.0))  # the positions lie about the origin: it has been taken off already
    assert np.allclose(next(moved.parts(3.0))[1].lower, reach.lower)


def test_a_sample_is_checked_as_the_whole_is(ply):
    sample = PlyRows(ply).sample(10)
    assert 5 < len(sample) <= 10 and sample.sh.shape[1] == 1
    assert torch.equal(sample.means[0], read_ply(ply).means[0])
    with pytest.raises(InputError, match="nowhere.ply: PLY file: found No such file"):
        PlyRows(ply.with_name("nowhere.ply"))
