"""The world beyond the scene box: a small field of its own over contracted space, before and behind what is in the box.

Colour of a ray, front to back: what lies before the box, the student inside it, what lies behind, the background. A ray
that misses the box is cut where it passes the box's middle most closely.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.rendering.occupancy import OccupancyGrid
from kernels.compositing.compositing import composite
from kernels.device_constants import constant
from kernels.marching.contraction import EDGE
from kernels.marching.far_marching import bin_edges, march_far
from scene.rays import Rays, SceneBox
from settings.far_field import FarFieldConfig
from settings.rendering import OccupancyConfig
from students.base import Student
from students.hash_grid import HashGridSettings, HashGridStudent

CUBE = SceneBox((-EDGE, -EDGE, -EDGE), (EDGE, EDGE, EDGE))
"""Contracted space."""
_RAYS, _WAVE = 4096, 24  # of a picture, at a time; bins
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

    def of_rays(self, rays: Tensor) -> Segment:
        """The same of some rays, (M,) int64."""
        return Segment(*(plane[rays] for plane in self))

    def put(self, rays: Tensor, segment: Segment) -> None:
        """Overwrites those of some rays, (M,) int64."""
        for plane, values in zip(self, segment, strict=True):
            plane[rays] = values


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

    The field knows contracted places alone (``kernels.marching.contraction``). Its density is per length relative to
    the distance from the box's middle, which lets the same values mean the same everywhere: 1/world unit times
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
        self.middle, self.half = box.centre, max(box.extent) / 2
        self.edges = tuple(bin_edges(self.half, settings.step, settings.reach * 2 * self.half))
        names = ("levels", "features", "table_size", "base_resolution", "finest_resolution", "hidden_width")
        sizes = HashGridSettings(**{name: getattr(settings, name) for name in names})
        self.field: Student = HashGridStudent((CUBE.lower, CUBE.upper), sizes, implementation)
        self.grid = OccupancyGrid(
            CUBE, settings.occupancy_resolution, _LENGTH_OF_EMPTY, occupancy.threshold, occupancy.decay
        )

    def render(
        self,
        rays: Rays,
        nearest: float,
        farthest: float,
        reach: Tensor | None = None,
        seed: int | Tensor | None = None,
    ) -> Around:
        """The parts of rays outside the box; differentiable.

        Args:
            rays: with near and far where they are in the box.
            nearest, farthest: the range along the unit ray.
            reach: (R,) distance behind which nothing shows; a ray that ends in the box has no part behind it.
            seed: of random places in bins, see ``march_far``; None: the bins' centres.
        """
        return self._sampled(rays, *self._parts(rays, nearest, farthest, reach), self.edges, seed)

    def render_training(
        self, inside: Segment, rays: Rays, nearest: float, farthest: float, reach: Tensor | None, seed: int | Tensor
    ) -> tuple[Segment, int]:
        """Whole training rays, differentiable, and how many samples they took outside; ``inside``: what is in the box.

        Nothing is looked for behind a box that lets no light through.
        """
        ends = torch.where(1 - inside.alpha.detach() > _DARK, torch.inf, rays.near)
        reach = ends if reach is None else torch.minimum(reach, ends)
        around = self.render(rays, nearest, farthest, reach, seed)
        return around.composite(inside), around.samples

    @torch.no_grad()
    def render_around(
        self, inside: Segment, rays: Rays, nearest: float, farthest: float, termination: float
    ) -> Segment:
        """Whole rays of a picture, without gradients; they end where they let through less light than
        ``termination``.
        """
        starts, lengths = self._parts(rays, nearest, farthest, None)
        whole = []
        for part in torch.arange(len(rays), device=lengths.device).split(_RAYS):
            whole.append(
                self._in_waves(inside.of_rays(part), rays[part], starts[:, part], lengths[:, part], termination)
            )
        return Segment(*(torch.cat(planes) for planes in zip(*whole, strict=True)))

    def _in_waves(self, inside: Segment, rays: Rays, starts: Tensor, lengths: Tensor, termination: float) -> Segment:
        """As ``render_around``; behind the box rays advance by ``_WAVE`` bins at a time, and opaque ones drop out."""
        only_before, only_behind = lengths.clone(), lengths.clone()
        only_before[1], only_behind[0] = 0, 0
        whole = self._sampled(rays, starts, only_before, self.edges).before.over(inside)
        for first in range(0, len(self.edges) - 1, _WAVE):
            alive = (1 - whole.alpha > termination) & (lengths[1] > self.edges[first])
            alive = alive.nonzero()[:, 0]
            edges = self.edges[first : first + _WAVE + 1]
            behind = self._sampled(rays[alive], starts[:, alive], only_behind[:, alive], edges).behind
            whole.put(alive, whole.of_rays(alive).over(behind))
        return whole

    def _sampled(
        self, rays: Rays, starts: Tensor, lengths: Tensor, edges: tuple[float, ...], seed: int | Tensor | None = None
    ) -> Around:
        """The bins between some edges of parts of rays, see ``_parts``."""
        directions = rays.directions.contiguous()
        samples = march_far(
            rays.origins, directions, starts, lengths, self.grid.cells, middle=self.middle, half=self.half,
            edges=edges, seed=seed, implementation=self.implementation,
        )  # fmt: skip
        density, rgb = self.field(samples.positions, directions, samples.ray_index)
        places = samples.t, samples.dt, samples.offsets
        parts = composite(density, rgb, *places, implementation=self.implementation)
        before, behind = (Segment(*half) for half in zip(*(plane.tensor_split(2) for plane in parts[:3]), strict=True))
        return Around(before, behind, len(samples.t))

    def _parts(self, rays: Rays, nearest: float, farthest: float, reach: Tensor | None) -> tuple[Tensor, Tensor]:
        """Where the parts of rays begin at the box, and how far they go away from it: (2, R) each."""
        passing = ((constant(self.middle, rays.near.device) - rays.origins) * rays.directions).sum(-1)
        passing = passing.clamp(nearest, farthest)
        missed = rays.far <= rays.near
        entry, leaving = torch.where(missed, passing, rays.near), torch.where(missed, passing, rays.far)
        behind = farthest - leaving
        if reach is not None:
            behind = behind.masked_fill(reach <= rays.far, 0.0)
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
