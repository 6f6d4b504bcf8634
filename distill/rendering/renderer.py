"""From rays to colour, alpha and distance through the student: sampled sparsely, composited front to back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from distill.rendering.far_field import FarField, Segment
from distill.rendering.occupancy import OccupancyGrid
from kernels.compositing.compositing import Composite, composite, finish
from kernels.dispatch import resolve
from kernels.marching.ray_marching import march
from kernels.rendering.fused_render import FusedRenderer, fused_refusal
from kernels.threads import one_torch_thread
from scene.cameras import Cameras, area_means
from scene.rays import Rays, SceneBox, camera_rays, intersect_box
from settings.rendering import MOST_SAMPLES
from settings.sections import Color
from students.base import Student

# Of its samples' mean weight: what weighs less is not taught by a ray, all of it together less than 2 % of the ray.
# Behind what is opaque Müller et al. leave samples out at a transmittance of 1e-4; those are among these, and so are
# the empty ones in front. A share and not a weight: of steps as fine as can be, all samples weigh next to nothing.
LEAST_SHARE = 0.02
_IMPLEMENTATIONS = ("torch", "numba", "triton")
_told: set[str] = set()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RenderSettings:
    """How rays are sampled.

    Args:
        step: sample distance, world units, in training.
        max_samples_per_ray: most samples on a ray, in training.
        termination: a ray ends, and is taken for opaque, when its transmittance falls to this (evaluation).
        max_batch_samples: samples in memory at a time (evaluation).
        near, far: range along the unit ray, world units.
        implementation: of the kernels.
        fused: whether whole pictures are rendered by one kernel; "auto": where ``renders_fused`` says so.
        precision: type of the fused kernel's tables and products, "float32" or "float16".
        supersample: rays along a side of each pixel of a picture, which shows their mean.
        picture_step: sample distance in pictures, in steps.
    """

    step: float
    max_samples_per_ray: int
    termination: float
    max_batch_samples: int
    near: float
    far: float
    implementation: str = "auto"
    fused: bool | Literal["auto"] = "auto"
    precision: str = "float32"
    supersample: int = 1
    picture_step: float = 1.0

    def of_pictures(self) -> RenderSettings:
        """The settings of pictures: their own ``step``, and enough samples for rays as long as in training."""
        most = min(MOST_SAMPLES, math.ceil(self.max_samples_per_ray / self.picture_step))
        return replace(self, step=self.step * self.picture_step, max_samples_per_ray=most, picture_step=1.0)


class SampledField(NamedTuple):
    """What the student said at the N samples of a step's rays; differentiable but for the places.

    positions (N, 3) world; ray_index (N,) int64; density (N,) 1 / world unit; channels (N, C), what is composited: rgb
    or features; taps: the activations asked for, each (N, width); real (N,) bool: what is a sample and no padding, None
    where all are; shade: makes colours of features and directions, None where the channels are rgb.
    """

    positions: Tensor
    ray_index: Tensor
    density: Tensor
    channels: Tensor
    taps: dict[str, Tensor]
    real: Tensor | None = None
    shade: Callable[[Tensor, Tensor], Tensor] | None = None

    def rgb(self, drawn: slice, directions: Tensor) -> Tensor:
        """Colours of some samples, seen along their own directions: both (M, 3)."""
        channels = self.channels[drawn]
        return channels if self.shade is None else self.shade(channels, directions)


class RenderedRays(NamedTuple):
    """Outputs of training rays; differentiable.

    With a capacity: kept (R,) bool, the rays whose samples fit into it, and wanted () int64, the samples of all.
    far_samples: of the field beyond the box; its part is in the composite, but not in the weights nor in ``field``.
    """

    composite: Composite
    field: SampledField
    kept: Tensor | None = None
    wanted: Tensor | None = None
    far_samples: int = 0

    @property
    def samples(self) -> int | Tensor:
        """Samples on all rays; on the device where they were rendered with a capacity."""
        inside = len(self.field.density) if self.wanted is None else self.wanted
        return inside + self.far_samples if self.far_samples else inside  # adding nothing would be a launch


class RenderedFrame(NamedTuple):
    """One image: rgb (H, W, 3) on the background, alpha (H, W), expected distance (H, W), 0 where empty."""

    rgb: Tensor
    alpha: Tensor
    distance: Tensor

    def averaged(self, scale: int) -> RenderedFrame:
        """The picture whose pixels are means of ``scale`` x ``scale`` of this one's."""
        if scale == 1:
            return self
        alpha = self.alpha[..., None]
        means = area_means(torch.cat([self.rgb, alpha, self.distance[..., None] * alpha], dim=-1), scale)
        distance = torch.where(means[..., 3] > 0, means[..., 4] / means[..., 3], 0.0)
        return RenderedFrame(means[..., :3], means[..., 3], distance)


def clip_to_box(origins: Tensor, directions: Tensor, box: SceneBox, settings: RenderSettings) -> Rays:
    """Rays with near and far where they are inside the scene box and the configured range."""
    near, far = intersect_box(origins, directions, box, settings.near, settings.far)
    return Rays(origins, directions, near, far)


def render_rays(
    student: Student,
    grid: OccupancyGrid,
    rays: Rays,
    settings: RenderSettings,
    seed: int | Tensor,
    taps: Sequence[str] = (),
    capacity: int | None = None,
) -> RenderedRays:
    """Renders training rays at random places in bins (a function of the seed alone).

    Args:
        taps: activations of the student that are wanted beside its outputs, see ``Student.emission``.
        capacity: samples to make room for, so that nothing waits for their number, see ``march``; None: all there are.
    """
    samples = march(
        rays.origins,
        rays.directions,
        rays.near,
        rays.far,
        grid.cells,
        step=settings.step,
        limit=settings.max_samples_per_ray,
        seed=seed,
        capacity=capacity,
        implementation=settings.implementation,
    )
    asked = samples.positions, rays.directions, samples.ray_index
    density, channels, activations = student.emission(*asked, taps)
    sampled = samples.t, samples.dt, samples.offsets
    result = composite(density, channels, *sampled, least_share=LEAST_SHARE, implementation=settings.implementation)
    result = result._replace(rgb=student.rgb_of_rays(result.rgb, result.alpha, rays.directions))
    real = None if capacity is None else samples.dt > 0
    shade = student.shade if student.deferred else None
    field = SampledField(samples.positions, samples.ray_index, density, channels, activations, real, shade)
    return RenderedRays(result, field, samples.kept, samples.wanted)


def with_surroundings(
    rendered: RenderedRays,
    far_field: FarField,
    rays: Rays,
    reach: Tensor | None,
    settings: RenderSettings,
    seed: int | Tensor,
) -> RenderedRays:
    """Training rays with what is outside the box.

    Args:
        rendered: what is inside it.
        rays: with near and far of the whole box.
        reach: (R,) distance behind which nothing shows; None: not known.
    """
    inside, ends = Segment(*rendered.composite[:3]), (settings.near, settings.far)
    whole, samples = far_field.render_training(inside, rays, *ends, reach, seed)
    result = Composite(*whole, rendered.composite.weights)
    return rendered._replace(composite=result, far_samples=samples)


class FrameRenderer:
    """Pictures of a student that does not change meanwhile: in one kernel if ``renders_fused``, else in waves of
    samples, the reference; with what is outside its box, where there is a far field.
    """

    def __init__(
        self, student: Student, grid: OccupancyGrid, settings: RenderSettings, far_field: FarField | None = None
    ) -> None:
        self.student, self.grid, self.settings, self.far_field = student, grid, settings.of_pictures(), far_field
        device = grid.occupied.device
        self._implementation = resolve("rendering", settings.implementation, device, _IMPLEMENTATIONS)
        self._fused = None
        if renders_fused(student, settings, device):
            precision, implementation = getattr(torch, settings.precision), _implementation(settings, device)
            self._fused = FusedRenderer(student.fused_field(), grid.cells, precision, implementation)

    @torch.no_grad()
    def render(self, cameras: Cameras, frame: int, background: Color) -> RenderedFrame:
        """One camera's image."""
        settings = self.settings
        camera = cameras[frame : frame + 1].finer(settings.supersample)  # a slice copies nothing to a GPU
        size = camera.height, camera.width
        with one_torch_thread() if self._implementation == "numba" else nullcontext():
            rays = camera_rays(camera, 0, self.grid.box, settings.near, settings.far, self._implementation)
            whole = self.inside(rays, camera.width)
            if self.far_field is not None:
                ends = settings.near, settings.far
                whole = self.far_field.render_around(whole, rays, *ends, settings.termination)
            drawn = finished_frame(whole, settings.termination, background, size, self._implementation)
            return drawn.averaged(settings.supersample)

    @torch.no_grad()
    def inside(self, rays: Rays, width: int) -> Segment:
        """What the student shows along rays, in rows of ``width``, between near and far, which lie in its box."""
        settings = self.settings
        if self._fused is None:
            return Segment(*_render_waves(self.student, self.grid, rays, settings))
        return Segment(
            *self._fused(
                rays.origins,
                rays.directions,
                rays.near,
                rays.far,
                width=width,
                step=settings.step,
                limit=settings.max_samples_per_ray,
                termination=settings.termination,
            )
        )


def finished_frame(
    whole: Segment,
    termination: float,
    background: Color,
    size: tuple[int, int],
    implementation: str,
) -> RenderedFrame:
    """The picture (height, width) that whole rays, row by row, make on a background; see ``finish``.

    Args:
        whole: overwritten.
        termination: transmittance at which rays were ended.
        implementation: "torch" or, on the CPU, "numba"; another one is torch's.
    """
    rgb, alpha, distance = finish(*whole, termination, background, implementation=implementation)
    return RenderedFrame(rgb.view(*size, 3), alpha.view(size), distance.view(size))


def renders_fused(student: Student, settings: RenderSettings, device: torch.device) -> bool:
    """Whether pictures are rendered by the fused kernel: where kernels are numba's or Triton's and it can.

    ``settings.fused`` true asks for it whatever the kernels, false never.

    Raises:
        ValueError: it is asked for and cannot render the student, or not on this device.
    """
    if settings.fused is False:
        return False
    implementation = _implementation(settings, device)
    refusal = fused_refusal(student.fused_field(), device, implementation)
    if settings.fused is True:
        if refusal is not None:
            raise ValueError(f"the fused renderer cannot run: {refusal}")
        return True
    if implementation != "torch" and refusal is not None and refusal not in _told:
        _told.add(refusal)
        _log.warning("pictures are rendered in waves of samples, not by the fused renderer: %s", refusal)
    return refusal is None


def _implementation(settings: RenderSettings, device: torch.device) -> str:
    """Of the fused kernel; "torch", which it has not, only where nothing asks for the kernel by name."""
    name = resolve("rendering", settings.implementation, device, _IMPLEMENTATIONS)
    return "auto" if name == "torch" and settings.fused is True else name


def _render_waves(
    student: Student, grid: OccupancyGrid, rays: Rays, settings: RenderSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Accumulated rgb (R, 3), alpha (R,), distance (R,): rays advance together, opaque ones drop out."""
    device = rays.origins.device
    count = len(rays)
    shapes = (count, student.channels), (count,), (count,)
    channels, alpha, distance = (torch.zeros(shape, device=device) for shape in shapes)
    first_bin = torch.zeros(count, dtype=torch.int64, device=device)
    alive = (rays.far > rays.near).nonzero()[:, 0]
    # Rays that are still under way have all taken as many samples.
    taken, limit = 0, min(8, settings.max_samples_per_ray)
    while len(alive) and limit:
        survivors = []
        for part in alive.split(max(1, settings.max_batch_samples // limit)):
            local = rays[part]
            samples = march(
                local.origins,
                local.directions,
                local.near,
                local.far,
                grid.cells,
                step=settings.step,
                limit=limit,
                first_bin=first_bin[part],
                implementation=settings.implementation,
            )
            if len(samples.t):
                density, emitted, _ = student.emission(samples.positions, local.directions, samples.ray_index)
                result = composite(
                    density, emitted, samples.t, samples.dt, samples.offsets, implementation=settings.implementation
                )
                transmittance = 1 - alpha[part]
                channels[part] += transmittance[:, None] * result.rgb
                alpha[part] += transmittance * result.alpha
                distance[part] += transmittance * result.distance
            first_bin[part] = samples.next_bin
            going = (samples.next_bin >= 0) & (1 - alpha[part] > settings.termination)
            survivors.append(part[going])
        alive = torch.cat(survivors)
        # Few rays are left after the first waves; longer ones then cost fewer passes.
        taken += limit
        limit = min(limit * 2, 64, settings.max_samples_per_ray - taken)
    parts = (part.split(settings.max_batch_samples) for part in (channels, alpha, rays.directions))
    rgb = torch.cat([student.rgb_of_rays(*part) for part in zip(*parts, strict=True)])
    return rgb, alpha, distance
