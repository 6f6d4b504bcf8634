"""What the fused renderers share: slots of rays that go from occupied bin to occupied bin, and what they gather.

``find_bins`` has marched already. As many programs as the multiprocessors hold take one square of neighbouring pixels
after another, with fewer slots than a square has pixels. A slot holds one ray at a time; where the ray ends, its result
is written and the slot takes the square's next ray, or the next square's. So nearly every slot has a sample when the
networks run, to the end of the picture, whatever the lengths of the rays, and neighbouring pixels share a table's
entries and a cell's network.

Slots are vectors of BLOCK, in tuples: ``walk``, the ray (-1: none), where its runs of bins are, the run and the bins of
it that are left, see ``picture_bins_triton``; ``light``, transmittance, red, green, blue and distance.

With deferred shading the light is transmittance, a block (BLOCK, channels of the density network's output) and
distance: sums of features are written for every ray, and ``deferred_triton.shade`` makes colours of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.encoding.spherical_harmonics_triton import sh_basis
from kernels.marching.ray_samples import Cells
from kernels.networks.deferred_triton import shade, store_geometry
from kernels.networks.mlp_triton import Network, block_of, launch_options
from kernels.rendering.picture_bins_triton import RUN, TILE, find_bins, line_of, lowest, middle, unpack
from kernels.triton_support import launch_on

_WARPS = 2  # of a program. With one KiloUniform's kernel hung on an H200
_MULTIPROCESSOR = 65536  # registers that it has


@triton.jit
def no_rays(BLOCK: tl.constexpr, CHANNELS: tl.constexpr):
    """Empty slots: walk, light, coming and ends; CHANNELS: of a deferred field's density network, 0 of any other."""
    none, zero = tl.full((BLOCK,), -1, tl.int32), tl.zeros((BLOCK,), tl.float32)
    nothing = tl.zeros((BLOCK,), tl.int32)
    walk, first = (none, nothing, nothing, nothing), tl.full((), 0, tl.int32)
    if CHANNELS > 0:
        return walk, (zero, tl.zeros((BLOCK, CHANNELS), tl.float32), zero), first, first
    else:
        return walk, (zero, zero, zero, zero, zero), first, first


@triton.jit
def places(walk, rays, step):
    """Distance and position of every slot's next sample."""
    # Read anew each time: kept, lines would take registers from the networks.
    line = line_of(rays, walk[0], walk[0] >= 0)
    return middle(line, walk[2] * RUN + lowest(walk[3]), step)


@triton.jit
def _store(walk, light, ended, out_color, out_alpha, out_distance, GEOMETRY: tl.constexpr, RAW: tl.constexpr):
    ray = walk[0].to(tl.int64)
    if len(light) == 3:
        store_geometry(light[1], out_color, ray, ended, GEOMETRY, RAW)
    else:
        tl.store(out_color + ray * 3, light[1], mask=ended)
        tl.store(out_color + ray * 3 + 1, light[2], mask=ended)
        tl.store(out_color + ray * 3 + 2, light[3], mask=ended)
    tl.store(out_alpha + ray, 1.0 - light[0], mask=ended)
    tl.store(out_distance + ray, light[len(light) - 1], mask=ended)


@triton.jit
def _take(walk, light, coming, ends, width, found):
    """Gives the square's next rays, from ``coming`` to ``ends`` of the order, to the empty slots."""
    runs, order, _, _, first, _, _ = found
    empty = walk[0] < 0
    number = coming + tl.cumsum(empty.to(tl.int32), 0) - 1
    new = empty & (number < ends)
    place = tl.load(order + number, mask=new, other=0)
    across, square, slot = (width + TILE - 1) // TILE, first + place // (TILE * TILE), place % (TILE * TILE)
    ray = (square // across * TILE + slot // TILE) * width + square % across * TILE + slot % TILE
    run, bits = unpack(tl.load(runs + place, mask=new, other=0))
    walk = (
        tl.where(new, ray, walk[0]),
        tl.where(new, place, walk[1]),
        tl.where(new, run, walk[2]),
        tl.where(new, bits, walk[3]),
    )
    if len(light) == 3:
        features = tl.where(new[:, None], 0.0, light[1])
        light = tl.where(new, 1.0, light[0]), features, tl.where(new, 0.0, light[2])
    else:
        light = (
            tl.where(new, 1.0, light[0]),
            tl.where(new, 0.0, light[1]),
            tl.where(new, 0.0, light[2]),
            tl.where(new, 0.0, light[3]),
            tl.where(new, 0.0, light[4]),
        )
    return walk, light, tl.minimum(coming + tl.sum(empty.to(tl.int32), 0), ends)


@triton.jit
def advance(
    walk, light, coming, ends, found, width, termination,
    out_color, out_alpha, out_distance, GEOMETRY: tl.constexpr, RAW: tl.constexpr,
):  # fmt: skip
    """Moves slots on to their next samples; writes the rays that ended and takes others.

    GEOMETRY and RAW tell where features are in a deferred field's light, see ``mlp_triton``; ``out_color`` is theirs.
    Returns walk, light, and which rays of the order come next: ``coming`` (-1: none is left) to ``ends``.
    """
    runs, order, lives, next_square, _, squares, places_of_all = found
    spent = (walk[0] >= 0) & (walk[3] == 0)
    at = walk[1] + tl.where(spent, places_of_all, 0)
    run, bits = unpack(tl.load(runs + at, mask=spent, other=0))
    walk = walk[0], at, tl.where(spent, run, walk[2]), tl.where(spent, bits, walk[3])
    ended = (walk[0] >= 0) & ((walk[3] == 0) | (light[0] <= termination))
    if tl.max(ended.to(tl.int32), 0) > 0:
        _store(walk, light, ended, out_color, out_alpha, out_distance, GEOMETRY, RAW)
    walk = tl.where(ended, -1, walk[0]), walk[1], walk[2], walk[3]
    taking = tl.max((walk[0] < 0).to(tl.int32), 0) * (coming >= 0).to(tl.int32)
    while taking > 0:
        if coming >= ends:
            square = tl.atomic_add(next_square, 1)
            more = square < squares
            coming = tl.where(more, square * TILE * TILE, -1)
            ends = coming + tl.load(lives + square, mask=more, other=0)
        walk, light, coming = _take(walk, light, coming, ends, width, found)
        taking = tl.max((walk[0] < 0).to(tl.int32), 0) * (coming >= 0).to(tl.int32)
    return walk, light, coming, ends


@triton.jit
def add_sample(walk, t, light, done, density, color, step):
    """Composites the samples at ``t`` of the slots that are ``done``, takes their bins off: walk, light.

    ``color``: red, green, blue, or a deferred field's block alone.
    """
    through = tl.where(done, tl.exp(-density * step), 1.0)
    weight = light[0] * (1.0 - through)
    distance = light[len(light) - 1] + tl.where(done, weight * t, 0.0)
    if len(color) == 1:
        features = light[1] + tl.where(done[:, None], weight[:, None] * color[0], 0.0)
        light = light[0] * through, features, distance
    else:
        light = (
            light[0] * through,
            light[1] + tl.where(done, weight * color[0], 0.0),
            light[2] + tl.where(done, weight * color[1], 0.0),
            light[3] + tl.where(done, weight * color[2], 0.0),
            distance,
        )
    return (walk[0], walk[1], walk[2], tl.where(done, walk[3] & (walk[3] - 1), walk[3])), light


def fused_launch_options(
    nets: Sequence[Network], direction: int, style: tuple, device: torch.device, deferred: bool, registers: int
) -> dict:
    """As ``launch_options``, and the registers of a thread; a deferred field's kernel runs the density network alone.

    Left alone the compiler takes nearly all 255; with fewer more programs fit on a multiprocessor, whose loads hide the
    others' waiting, and in half precision a few bytes are spilled at most (``tests.compile_triton`` and ptxas -v).
    """
    options = launch_options(nets, direction, style, device) | {"DEFERRED": deferred}
    if deferred:
        options |= block_of(nets[:1])
    options["num_warps"] = _WARPS
    return options if torch.version.hip else options | {"maxnreg": registers}


class FusedKernel:
    """A renderer's kernel and the field that it renders.

    Args:
        kernel: takes rays, march, bins, outputs and encoded directions, then ``arguments`` and ``options``.
        degree: of the directions' spherical harmonics.
        geometry: features of a sample.
        shading: of a deferred field, colour network, weights and style of ``shade``; None of any other.
        registers: of the kernel's threads, which say how many programs run at a time.
    """

    def __init__(
        self,
        kernel: triton.JITFunction,
        arguments: tuple,
        options: dict,
        degree: int,
        geometry: int,
        shading: tuple | None,
        registers: int,
    ) -> None:
        self._kernel, self._arguments, self._options, self._degree = kernel, arguments, options, degree
        self._geometry, self._shading = geometry, shading
        self._programs = _MULTIPROCESSOR // (32 * _WARPS * registers)

    def render(
        self,
        rays: tuple[Tensor, ...],
        width: int,
        cells: Cells,
        march: tuple[float, int, float],
        picture: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """Fills ``picture``, rgb (R, 3), alpha, distance (R,), a part of its squares after another.

        Args:
            rays, width, cells: see ``FusedRenderer``; march: step, limit, termination.
        """
        rgb, alpha, distance = picture
        color = rgb if self._shading is None else alpha.new_empty(len(alpha), self._geometry)
        basis, (step, limit, termination) = sh_basis(rays[1], self._degree), march
        with launch_on(alpha.device):
            for found in find_bins(rays, width, cells, (step, limit), (color, alpha, distance)):
                programs = min(found[5], self._programs * _multiprocessors(alpha.device))
                self._kernel[(programs,)](
                    *rays, width, step, termination, *found, color, alpha, distance, basis, *self._arguments,
                    **self._options,
                )  # fmt: skip
        if self._shading is not None:
            shade(color, alpha, basis, *self._shading, rgb)


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
