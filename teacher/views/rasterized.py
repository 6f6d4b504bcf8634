"""Views of the teacher's Gaussians at the working resolution: one, and many in the same tensors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from machine.memory import check_pictures_fit
from scene.cameras import Cameras
from scene.rays import distance_per_z
from teacher.rasterizer import Rasterizer

VIEW_BYTES = 3 + 1 + 4  # of a pixel that was drawn: colour, alpha, distance
DRAWN_BYTES = 40  # of a pixel while it is drawn: colour, alpha and z as float32, and the planes made of them
FAINT = 0.01
"""Under this alpha, two or three of 255 levels, an expected distance is mostly rounding."""


@dataclass(frozen=True)
class View:
    """A view (H, W) at the working size.

    Attributes:
        rgb: (H, W, 3) uint8 sRGB; straight colour where alpha is known.
        alpha: (H, W) uint8; None where it is not known.
        coverage: (H, W) uint8, the part of a pixel that the scene covers.
        distance: (H, W) float32 expected distance along the unit ray, world units, 0 where unknown; or None.
    """

    rgb: Tensor
    alpha: Tensor | None
    coverage: Tensor
    distance: Tensor | None

    def on_cpu(self) -> View:
        """The same in the processor's memory; planes that are one stay one."""
        planes = {id(plane): plane.cpu() for plane in vars(self).values() if plane is not None}
        return View(**{name: None if plane is None else planes[id(plane)] for name, plane in vars(self).items()})


def blended_planes(rasterizer: Rasterizer, cameras: Cameras, index: int) -> Tensor:
    """(H, W, 5) premultiplied rgb, alpha and alpha * distance of camera ``index``, on the rasterizer's device.

    They are drawn as the rasterizer's ``Drawing`` says, then averaged by area.
    """
    return rasterizer.drawing.averaged(drawn_planes(rasterizer, cameras, index), cameras)


def drawn_planes(rasterizer: Rasterizer, cameras: Cameras, index: int) -> Tensor:
    """As ``blended_planes``, before they are averaged: at the size that the rasterizer's ``Drawing`` says."""
    fine = rasterizer.drawing.fine(cameras[index])
    output = rasterizer.render(fine, 0)
    distance = output.z * distance_per_z(fine.to(output.z.device), 0)
    return torch.cat([output.rgb, output.alpha[..., None], distance[..., None]], dim=-1)


def render_view(rasterizer: Rasterizer, cameras: Cameras, index: int) -> View:
    """The teacher seen by camera ``index`` at the cameras' size, with exact alpha and expected distance.

    The tensors are on the rasterizer's device.
    """
    return view_of(blended_planes(rasterizer, cameras, index))


def view_of(planes: Tensor) -> View:
    """The view that ``blended_planes`` are of, on their device."""
    alpha = planes[..., 3:4]
    straight = planes / alpha.clamp(min=1e-6)
    known = torch.where(alpha[..., 0] >= FAINT, straight[..., 4], 0.0)
    eight_bit = _to_uint8(alpha[..., 0])
    return View(_to_uint8(straight[..., :3]), eight_bit, eight_bit, known)


def collect_views(views: Iterable[View], count: int) -> dict[str, Tensor | None]:
    """Planes of all ``count`` views by name, put in place as they come: no view is in memory twice.

    Raises:
        InputError: they are more than the memory can hold.
    """
    collected = CollectedViews(count)
    for view in views:
        collected.add(view)
    return collected.planes


class CollectedViews:
    """Views put in place as they come.

    Attributes:
        planes: of all ``count`` views by name, those of views to come undefined; empty before the first.
    """

    def __init__(self, count: int) -> None:
        self.planes: dict[str, Tensor | None] = {}
        self._count, self._taken = count, 0

    def add(self, view: View) -> None:
        """Takes in the next view.

        Raises:
            InputError: all of them are more than the memory can hold.
        """
        if not self.planes:
            self._make_room(view)
        for name, plane in self.planes.items():
            if plane is not None:
                plane[self._taken] = getattr(view, name)
        self._taken += 1

    def _make_room(self, view: View) -> None:
        kept = {id(plane): plane.nbytes for plane in vars(view).values() if plane is not None}
        height, width = view.coverage.shape
        check_pictures_fit((width, height), self._count, sum(kept.values()) // (width * height), "data.resolution")
        self.planes = {
            name: None if plane is None else torch.empty(self._count, *plane.shape, dtype=plane.dtype)
            for name, plane in vars(view).items()
        }
        if view.coverage is view.alpha:
            self.planes["coverage"] = self.planes["alpha"]


def _to_uint8(values: Tensor) -> Tensor:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)
