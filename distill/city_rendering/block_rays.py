"""The part of rays that lies in one block of a city: samples on a lattice along the ray, cut at the block's faces.

Every ray has one lattice of intervals, ``k * step`` to ``(k + 1) * step`` from its origin, whatever blocks it crosses.
An interval that a face cuts is cut for both neighbours, each of which takes its sample in the middle of its own piece.
So the intervals of disjoint boxes that fill a larger one are a partition of the rays in that, and a student cut into
blocks, composited front to back, differs by rounding alone from the same student composited in one go over the same
intervals. From the ordinary march, which begins at the box and knows no faces, it differs by where samples are. A
student of deferred shading is shaded once per block, so that cutting it changes its colours.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from distill.model.model import Model
from distill.rendering.far_field import Segment
from distill.rendering.renderer import FrameRenderer, RenderSettings, render_rays
from kernels.marching.ray_marching import place_in_bins
from scene.rays import Rays

_DIGITS = 8  # binary ones of a lattice's step: of 2 ** 15 intervals ends and middles are then exact in float32
_PIECES = 1 << 13  # rays whose cut intervals are in memory at a time


class CutRays(NamedTuple):
    """R rays within a block: ``whole`` from the first to the last point of the lattice, and the cut intervals before
    and behind it, their starts and lengths (2, R); a length of 0 is no interval.
    """

    whole: Rays
    starts: Tensor
    lengths: Tensor


def lattice_step(step: float) -> float:
    """The step of a lattice, ``step`` to within 0.4 %: few enough digits that sample places are exact in float32, and
    the same whichever block a ray is marched in.
    """
    mantissa, exponent = math.frexp(step)
    return math.ldexp(round(mantissa * 2**_DIGITS), exponent - _DIGITS)


def on_lattice(settings: RenderSettings) -> RenderSettings:
    """How a block is sampled, with the step of a lattice."""
    return replace(settings, step=lattice_step(settings.step))


def cut_rays(rays: Rays, step: float) -> CutRays:
    """Rays between a block's faces: their part on the lattice, and the shorter intervals before and behind it."""
    first, last = (rays.near / step).ceil() * step, (rays.far / step).floor() * step
    begin = torch.minimum(first, rays.far).maximum(rays.near)
    end = torch.maximum(last, begin).minimum(rays.far)
    starts, stops = torch.stack([rays.near, end]), torch.stack([begin, rays.far])
    return CutRays(Rays(rays.origins, rays.directions, begin, end), starts, stops - starts)


def training_segment(model: Model, rays: Rays, seed: int | Tensor | None) -> tuple[Segment, int]:
    """A block's part of training rays, differentiable, and how many samples it took.

    Args:
        rays: near and far at the block's faces.
        seed: of a random place in all intervals of a ray, the cut ones too; None: their middles.
    """
    settings = on_lattice(model.settings)
    cut = cut_rays(rays, settings.step)
    rendered = render_rays(model.student, model.grid, cut.whole, settings, seed)
    before, behind, pieces = _cut_intervals(model, cut, seed)
    return before.over(Segment(*rendered.composite[:3])).over(behind), rendered.samples + pieces


class BlockRenderer:
    """A block's part of pictures' rays; the block does not change meanwhile.

    Args:
        model: its student.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.settings = model, on_lattice(model.settings.of_pictures())
        self._renderer = FrameRenderer(model.student, model.grid, self.settings)

    @torch.no_grad()
    def segment(self, rays: Rays, width: int) -> Segment:
        """What it shows of rays, row by row of ``width``, with near and far at its faces."""
        cut = cut_rays(rays, self.settings.step)
        whole = self._renderer.inside(cut.whole, width)
        cuts = []
        for part in torch.arange(len(rays), device=rays.near.device).split(_PIECES):
            here = CutRays(cut.whole[part], cut.starts[:, part], cut.lengths[:, part])
            cuts.append(_cut_intervals(self.model, here, None)[:2])
        before, behind = (Segment(*map(torch.cat, zip(*parts, strict=True))) for parts in zip(*cuts, strict=True))
        return before.over(whole).over(behind)


def _cut_intervals(model: Model, cut: CutRays, seed: int | Tensor | None) -> tuple[Segment, Segment, int]:
    """The cut intervals before and behind the whole ones, and how many of them have a sample."""
    count, device = len(cut.whole), cut.starts.device
    ray = torch.arange(count, device=device).repeat(2)
    place = 0.5 if seed is None else place_in_bins(ray, seed)
    lengths = cut.lengths.reshape(-1)
    t = cut.starts.reshape(-1) + place * lengths
    positions = cut.whole.origins[ray] + t[:, None] * cut.whole.directions[ray]
    live = ((lengths > 0) & model.grid.occupied_at(positions)).nonzero()[:, 0]
    density, rgb = model.student(positions[live], cut.whole.directions, ray[live])
    alpha = -torch.expm1(-density * lengths[live])
    planes = alpha[:, None] * rgb, alpha, alpha * t[live]
    zeros = t.new_zeros(2 * count, 3), torch.zeros_like(t), torch.zeros_like(t)
    rgb, alpha, distance = (zero.index_copy(0, live, plane) for zero, plane in zip(zeros, planes, strict=True))
    halves = slice(0, count), slice(count, None)
    before, behind = (Segment(rgb[half], alpha[half], distance[half]) for half in halves)
    return before, behind, len(live)
