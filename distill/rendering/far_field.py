"""The world beyond the scene box: a small field of its own over contracted space, before and behind what is in the box.

Colour of a ray, front to back: what lies before the box, the student inside it, what lies behind, the background. A ray
that misses the box is cut where it passes the box's middle most closely.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.rendering.occupancy import OccupancyGrid
from kernels.compositing import composite
from kernels.contraction import EDGE
from kernels.device_constants import constant
from kernels.far_marching import bin_edges, march_far
from scene.rays import Rays, SceneBox
from settings.far_field import FarFieldConfig
from settings.rendering import OccupancyConfig
from students.base import Student
from students.hash_grid import HashGridSettings, HashGridStudent

CUBE = SceneBox((-EDGE, -EDGE, -EDGE), (EDGE, EDGE, EDGE))
"""Contracted space."""
_RAYS = 4096  # of a picture, at a time
# A cell is empty when its alpha over this relative length is below the threshold. With the usual 0.01 that is a density
# of 1, more than a fresh field has: unlike inside the box, most of space is never seen, and would stay full for ever.
_LENGTH_OF_EMPTY = 0.01
_DARK = 1e-3  # transmittance of the box behind which training does not look


class Segment(NamedTuple):
    """A part of R rays: rgb (R, 3) premultiplied, alpha (R,), distance (R,) the sum of weight * t, world units."""

    rgb: Tensor
    alpha: Tensor
    distance: Tensor

    def over(self, behind: Segment) -> Segment:
        """This part before another."""
        light = 1 - self.alpha
        rgb = self.rgb + light[:, None] * behind.rgb
        return Segment(rgb, self.alpha + light * behind.alpha, self.distance + light * behind.distance)


class Around(NamedTuple):
    """The parts of rays before and behind the box, and how many samples they took."""

    before: Segment
    behind: Segment
    samples: int

    def composite(self, inside: Segment) -> Segment:
        """The whole rays."""
        return self.before.over(inside).over(self.behind)


class FarField(nn.Module):
    """Density and colour outside a box.

    The field knows contracted places alone (``kernels.contraction``). Its density is per length relative to the
    distance from the box's middle, which lets the same values mean the same everywhere: 1/world unit times
    that distance, or times half the box's longest side where that is more.

    Args:
        box: the scene box, in which the far field is never asked.
        settings: its section of a config; stored in checkpoints.
        occupancy: when a cell counts as empty.
        implementation: of the kernels.
    """

    def __init__(
        self, box: SceneBox, settings: FarFieldConfig, occupancy: OccupancyConfig, implementation: str = "auto"
    ) -> None:
        super().__init__()
        self.box, self.settings, self.implementation = box, settings, implementation
        self.middle = tuple((low + high) / 2 for low, high in zip(box.lower, box.upper, strict=True))
        self.half = max(box.extent) / 2
        self.edges = tuple(bin_edges(self.half, settings.step, settings.reach * 2 * self.half))
        names = ("levels", "features", "table_size", "base_resolution", "finest_resolution", "hidden_width")
        sizes = HashGridSettings(**{name: getattr(settings, name) for name in names})
        self.field: Student = HashGridStudent((CUBE.lower, CUBE.upper), sizes, implementation)
        self.grid = OccupancyGrid(
            CUBE, settings.occupancy_resolution, _LENGTH_OF_EMPTY, occupancy.threshold, occupancy.decay
        )

    def render(self, rays: Rays, nearest: float, farthest: float, reach: Tensor | None = None, **how: Any) -> Around:
        """The parts of rays outside the box; differentiable.

        Args:
            rays: with near and far where they are in the box.
            nearest, farthest: the range along the unit ray.
            reach: (R,) distance behind which nothing shows; a ray that ends in the box has no part behind it.
            how: ``seed`` of stratified random places, see ``march_far``; without one they are the bins' centres.
        """
        starts, lengths = self._parts(rays, nearest, farthest, reach)
        origins, directions = rays.origins.contiguous(), rays.directions.contiguous()
        samples = march_far(
            origins, directions, starts, lengths, self.grid.cells, middle=self.middle, half=self.half,
            edges=self.edges, implementation=self.implementation, **how,
        )  # fmt: skip
        density, rgb = self.field(samples.positions, directions, samples.ray_index)
        places = samples.t, samples.dt, samples.offsets
        parts = composite(density, rgb, *places, implementation=self.implementation)
        before, behind = (Segment(*(plane[half] for plane in parts[:3])) for half in _halves(len(rays)))
        return Around(before, behind, len(samples.t))

    def render_training(
        self, inside: Segment, rays: Rays, nearest: float, farthest: float, reach: Tensor | None, seed: int | Tensor
    ) -> tuple[Segment, int]:
        """Whole training rays, differentiable, and how many samples they took outside; ``inside``: what is in the box.

        Nothing is looked for behind a box that lets no light through.
        """
        ends = torch.where(1 - inside.alpha.detach() > _DARK, torch.inf, rays.near)
        reach = ends if reach is None else torch.minimum(reach, ends)
        around = self.render(rays, nearest, farthest, reach, seed=seed)
        return around.composite(inside), around.samples

    @torch.no_grad()
    def render_around(
        self, inside: Segment, rays: Rays, nearest: float, farthest: float, termination: float
    ) -> Segment:
        """Whole rays of a picture, without gradients; nothing is looked for behind what lets through less light than
        ``termination``.
        """
        reach = torch.where(1 - inside.alpha > termination, torch.inf, rays.near)
        whole = []
        for part in torch.arange(len(rays), device=reach.device).split(_RAYS):
            around = self.render(rays[part], nearest, farthest, reach[part])
            whole.append(around.composite(Segment(*(plane[part] for plane in inside))))
        return Segment(*(torch.cat(planes) for planes in zip(*whole, strict=True)))

    def _parts(self, rays: Rays, nearest: float, farthest: float, reach: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where the parts of rays begin at the box, and how far they go away from it: (2, R) each."""
        passing = ((constant(self.middle, rays.near.device) - rays.origins) * rays.directions).sum(-1)
        passing = passing.clamp(nearest, farthest)
        missed = rays.far <= rays.near
        entry, leaving = torch.where(missed, passing, rays.near), torch.where(missed, passing, rays.far)
        behind = farthest - leaving
        if reach is not None:
            behind = behind.masked_fill(reach <= rays.far, 0.0).where(~missed, behind)
        return torch.stack([entry, leaving]), torch.stack([entry - nearest, behind]).clamp(0, self.edges[-1])

    def parameter_count(self) -> int:
        """Number of trainable values."""
        return self.field.parameter_count()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "settings": self.settings.model_dump(),
            "weights": self.field.state_dict(),
            "occupancy": self.grid.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what another's ``state`` gave.

        Raises:
            KeyError, RuntimeError: it does not fit.
        """
        self.field.load_state_dict(state["weights"])
        self.grid.load_state_dict(state["occupancy"])


def _halves(rays: int) -> tuple[slice, slice]:
    return slice(0, rays), slice(rays, None)
