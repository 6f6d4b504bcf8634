"""What is said of a mesh that shows nothing."""

import pytest
import torch

from distill.export.mesh_error import MeshError, measure_mesh
from distill.model.view_renderers import Rendering
from settings.loading import load_config
from tests.distill.evaluation.disc import FRAMES, SIDE, make_views
from tests.toy_scene import write_toy_scene


@pytest.mark.parametrize(
    ("mesh", "student", "density", "said"),
    [
        (20.0, 30.0, None, ""),
        (None, None, None, ""),
        (
            13.4,
            30.0,
            None,
            "though its student does (30.00 dB): try more cells, --mesh-cells 192, or another --mesh-density",
        ),
        (13.4, 30.0, 5.0, "try more cells, --mesh-cells 192, or leave out --mesh-density"),
        (15.0, 16.0, None, "and its student little more (16.00 dB): train it longer, and export it again"),
        (13.4, 14.0, None, "and so does its student (14.00 dB): tools/check_alignment.py finds out why"),
    ],
)
def test_no_more_than_a_blank_picture_is_said_with_what_to_do(mesh, student, density, said):
    means = {name: {"psnr": psnr, "psnr_blank": 14.6} for name, psnr in (("mesh", mesh), ("student", student))}
    remark = MeshError([], means).remark(96, density)
    assert remark.endswith(said) and bool(remark) == bool(said)
    assert not said or remark.startswith(
        f"the mesh shows no more than a blank picture ({mesh:.2f} dB, blank 14.60 dB), "
    )


def test_views_are_called_held_out_only_if_they_are():
    figures = {"psnr": 20.0, "psnr_blank": 14.6, "depth_abs": None}
    means = {"mesh": figures, "student": figures}
    for held_out, said in ((True, "in 3 held-out views: mesh 20.00 dB"), (False, "in 3 views: mesh 20.00 dB")):
        assert said in MeshError([{}] * 6, means, held_out).text()


@pytest.mark.parametrize(("holdout_every", "frames"), [(4, [0, 4, 8]), (None, [*range(FRAMES)])])
def test_where_no_view_is_held_out_all_are_measured_and_called_views(tmp_path, holdout_every, frames):
    def nothing(cameras, index):
        return Rendering(torch.zeros(SIDE, SIDE, 3), torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE))

    config, views = load_config(write_toy_scene(tmp_path), (), tmp_path), make_views(holdout_every=holdout_every)
    error = measure_mesh(config, views, nothing, nothing, tmp_path / "mesh")
    assert [row["frame"] for row in error.rows if row["subject"] == "mesh"] == frames
    assert error.text().startswith(f"against the teacher in {len(frames)} {'held-out ' if holdout_every else ''}views:")
