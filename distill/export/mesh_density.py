"""Which density of a student is its surface: the one whose surface is nearest to where the student's own rays end."""

from __future__ import annotations

import torch

from distill.export.mesh import DensityVolume
from distill.export.mesh_picture import mesh_renderer
from distill.model.view_renderers import RenderView
from scene.cameras import Cameras
from settings.errors import InputError

_TRIED = (4, 8, 16, 32, 64, 128, 256)  # times the box's longest side
_VIEWS, _WIDTH = 4, 200  # looked at
_MOST = 0.08  # of that side: an error that counts as much as no surface at all


def surface_density(volume: DensityVolume, cameras: Cameras, student: RenderView) -> float:
    """Of a few densities, factors of two apart, the one of least error in the student's views; 1 / world unit.

    The error of a pixel in which the student is opaque or a surface is seen is how far its distance is from the
    student's, at most 0.08 of the box's longest side, which a surface that is missing or should not be there counts.

    Args:
        cameras: training views, some of which are looked at, at most 200 pixels wide.

    Raises:
        InputError: the student is nowhere dense enough to have a surface.
    """
    side = max(volume.model.grid.box.extent)
    if (least := _TRIED[0] / side) >= volume.highest:
        found, expected = f"densities of at most {volume.highest:.4g}", f"more than {least:.4g}, the least of a surface"
        hint = "tools/check_alignment.py says whether it has learnt anything; --mesh-density takes a lower one."
        raise InputError("--mesh", "surface", found, expected, hint)
    chosen = cameras[torch.linspace(0, len(cameras) - 1, min(_VIEWS, len(cameras))).round().long()]
    width = min(_WIDTH, chosen.width)
    chosen = chosen.resized(width, max(1, round(chosen.height * width / chosen.width)))
    seen = [student(chosen, index) for index in range(len(chosen))]
    most, errors = _MOST * side, {}
    for density in (times / side for times in _TRIED):
        if density >= volume.highest:
            break
        render, total, pixels = mesh_renderer(volume.surface(density), supersample=1), 0.0, 0
        for index, view in enumerate(seen):
            found = render(chosen, index)
            opaque, hit = view.alpha > 0.5, found.alpha > 0.5
            error = (found.distance - view.distance).abs().clamp(max=most)
            error = torch.where(opaque & hit, error, most)[opaque | hit]
            total, pixels = total + error.sum().item(), pixels + len(error)
        errors[density] = total / max(1, pixels)
    return min(errors, key=errors.__getitem__)
