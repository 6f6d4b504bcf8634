"""PLYs that are not graphdeco's: told by their properties, and named with the way to something that can be used."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from settings.errors import InputError
from teacher.gaussian_files.checks import ADD_A_SCALE, USE_RENDERS
from teacher.gaussian_files.ply_elements import Header

_RENDERS = "Its pictures can be distilled: " + USE_RENDERS


class _Layout(NamedTuple):
    """A layout told by properties that it has and others that it has not."""

    has: tuple[str, ...]
    lacks: tuple[str, ...]
    name: str
    hint: str


_LAYOUTS = (
    _Layout(("f_anchor_feat_0",), (), "anchors of Scaffold-GS, which need its networks", _RENDERS),
    _Layout(("nu_degree",), (), "Student-t splats (3DGS-SSS), not Gaussians", _RENDERS),
    _Layout(("beta",), (), "beta splats, whose falloff is not a Gaussian's", _RENDERS),
    _Layout(("motion_0",), (), "spacetime Gaussians, which move", _RENDERS),
    _Layout(("scale_t",), (), "4D Gaussians, which move", _RENDERS),
    _Layout(
        ("scale_0", "scale_1", "opacity", "rot_3"),
        ("scale_2",),
        "discs of 2DGS (two scales)",
        ADD_A_SCALE,
    ),
    _Layout(
        ("red", "green", "blue", "scale_0", "rot_0"),
        ("f_dc_0",),
        "a splat with plain colours (red, green, blue) and no harmonics",
        "Export it again with harmonics (nerfstudio: ns-export gaussian-splat --ply-color-mode sh_coeffs).",
    ),
)


def refuse_other_layouts(path: str | Path, header: Header, expected: str) -> None:
    """InputError where the header is that of something else that is known; nothing else is checked."""
    vertex = header.elements.get("vertex")
    names = set() if vertex is None else {*vertex.types, *vertex.lists}
    for layout in _LAYOUTS:
        if names.issuperset(layout.has) and names.isdisjoint(layout.lacks):
            raise InputError(path, "PLY layout", layout.name, expected, layout.hint)
    if "scale_0" in names or "packed_position" in names:
        return
    hint = "Look for point_cloud.ply in the teacher's point_cloud/iteration_*/ folder"
    if vertex is not None and (faces := header.elements.get("face") or header.elements.get("tristrips")):
        found = f"a mesh of {vertex.count} vertices and {faces.count} faces"
        raise InputError(path, "PLY layout", found, expected, f"{hint}.")
    if {"x", "y", "z"} <= names:
        found = f"a point cloud of {vertex.count} points, without scales, rotations and opacities"
        more = "; from images alone tools/train_teacher.py fits a teacher."
        raise InputError(path, "PLY layout", found, expected, hint + more)
