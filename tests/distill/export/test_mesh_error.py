"""What is said of a mesh that shows nothing."""

import pytest

from distill.export.mesh_error import MeshError


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
