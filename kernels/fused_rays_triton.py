"""What the fused renderers share: slots of rays that go from occupied bin to occupied bin, and what they gather.

A program renders a square of neighbouring pixels with fewer slots than the square has pixels. A slot holds one ray at
a time; where the ray ends, its result is written and the slot takes the square's next pixel. So nearly every slot has
a sample when the networks run, whatever the lengths of the rays, and neighbouring pixels share a table's entries and a
cell's network. The places of samples are those of ``ray_marching.march`` without a seed.

Slots are vectors of BLOCK, in tuples: ``walk``, the ray (-1: none), its bin and the samples taken; ``line``, near, far,
origin and direction; ``light``, transmittance, red, green, blue and distance. ``found`` says which slots have a sample
that waits for the networks, the one in the middle of their bin.

With deferred shading the light is transmittance, a block (BLOCK, channels of the density network's output) and
distance: sums of features are written for every ray, and ``deferred_triton.shade`` makes colours of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from kernels.deferred_triton import store_geometry
from kernels.mlp_triton import Network, block_of, launch_options
from kernels.ray_samples import Cells

TILE = tl.constexpr(8)  # edge of a program's square of pixels
# Bins that are looked at before the networks run for those slots that have a sample; a long empty stretch of one ray
# does not hold up the others for longer.
_TRIES = tl.constexpr(4)
_REGISTERS = 168  # of a thread: a multiprocessor's 65,536 are shared by 12 warps
_COARSE = tl.constexpr(4)  # cells per axis of a block
_FARTHEST = tl.constexpr(1e9)  # bins a ray can be sent ahead by


@triton.jit
def no_rays(BLOCK: tl.constexpr, CHANNELS: tl.constexpr):
    """Empty slots: walk, light, found; CHANNELS: of a deferred field's density network, 0 of any other."""
    none, zero = tl.full((BLOCK,), -1, tl.int32), tl.zeros((BLOCK,), tl.float32)
    walk = none, tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32)
    if CHANNELS > 0:
        return walk, (zero, tl.zeros((BLOCK, CHANNELS), tl.float32), zero), none > 0
    else:
        return walk, (zero, zero, zero, zero, zero), none > 0


@triton.jit
def _line(rays, ray):
    """Near, far, origin and direction of the slots' rays."""
    origins, directions, near, far = rays
    live, ray = ray >= 0, ray.to(tl.int64)
    origin, direction = origins + ray * 3, directions + ray * 3
    return (
        tl.load(near + ray, mask=live, other=0.0),
        tl.load(far + ray, mask=live, other=0.0),
        tl.load(origin, mask=live, other=0.0),
        tl.load(origin + 1, mask=live, other=0.0),
        tl.load(origin + 2, mask=live, other=0.0),
        tl.load(direction, mask=live, other=0.0),
        tl.load(direction + 1, mask=live, other=0.0),
        tl.load(direction + 2, mask=live, other=0.0),
    )


@triton.jit
def places(walk, line, step):
    """Distance and position of the sample in every slot's bin."""
    near, _, ox, oy, oz, dx, dy, dz = line
    t = near + (walk[1].to(tl.float32) + 0.5) * step
    return t, ox + t * dx, oy + t * dy, oz + t * dz


@triton.jit
def _to_face(x, dx, lower, upper):
    """Distance along the ray from grid coordinate x to where it leaves what is between two coordinates of one axis."""
    face = tl.where(dx > 0, upper, lower)
    return tl.where(dx == 0, float("inf"), (face - x) / tl.where(dx == 0, 1.0, dx))


@triton.jit
def _leave(x, dx, cell, block, away):
    """As ``_to_face``, from the empty cell, or from the empty blocks around, of which ``away`` - 1 are on each side."""
    lower = tl.where(away > 0, (block + 1 - away) * _COARSE, cell).to(tl.float32)
    upper = tl.where(away > 0, (block + away) * _COARSE, cell + 1).to(tl.float32)
    return _to_face(x, dx, lower, upper)


@triton.jit
def _look(walk, line, asked, grid, step):
    """Whether the asked slots' bins are occupied, and the next bin to look at where they are not."""
    lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz = grid
    t, x, y, z = places(walk, line, step)
    x, y, z = (x - lower_x) * inverse_size, (y - lower_y) * inverse_size, (z - lower_z) * inverse_size
    cx, cy, cz = tl.floor(x), tl.floor(y), tl.floor(z)
    inside = asked & (cx >= 0) & (cy >= 0) & (cz >= 0) & (cx < nx) & (cy < ny) & (cz < nz)
    ix, iy, iz = cx.to(tl.int32), cy.to(tl.int32), cz.to(tl.int32)
    jx, jy, jz = ix // _COARSE, iy // _COARSE, iz // _COARSE
    my, mz = (ny + _COARSE - 1) // _COARSE, (nz + _COARSE - 1) // _COARSE
    # One load for what is far from everything; the cells are only asked in blocks that have some.
    away = tl.load(empty_blocks + ((jx * my + jy) * mz + jz), mask=inside, other=1).to(tl.int32)
    hit = tl.load(occupied + ((ix * ny + iy) * nz + iz), mask=inside & (away == 0), other=0) != 0
    dx, dy, dz = line[5] * inverse_size, line[6] * inverse_size, line[7] * inverse_size
    leave = tl.minimum(
        _leave(x, dx, ix, jx, away), tl.minimum(_leave(y, dy, iy, jy, away), _leave(z, dz, iz, jz, away))
    )
    # Bins that end before the empty space does have their middle in it. Outside the grid there is no cell to leave.
    ahead = tl.minimum((t + leave - line[0]) / step, _FARTHEST)
    return hit, tl.where(inside, tl.maximum(walk[1] + 1, ahead.to(tl.int32)), walk[1] + 1)


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
def _take(walk, light, coming, width, height):
    """Gives the square's next pixels, from number ``coming`` on, to the empty slots."""
    empty = walk[0] < 0
    number = coming + tl.cumsum(empty.to(tl.int32), 0) - 1
    across = (width + TILE - 1) // TILE
    row = tl.program_id(0) // across * TILE + number // TILE
    column = tl.program_id(0) % across * TILE + number % TILE
    new = empty & (number < TILE * TILE) & (row < height) & (column < width)
    ray = row * width + column
    walk = tl.where(new, ray, walk[0]), tl.where(new, 0, walk[1]), tl.where(new, 0, walk[2])
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
    return walk, light, tl.minimum(coming + tl.sum(empty.to(tl.int32), 0), TILE * TILE)


@triton.jit
def advance(
    walk, light, found, coming, rays, width, height, grid, step, limit, termination,
    out_color, out_alpha, out_distance, GEOMETRY: tl.constexpr, RAW: tl.constexpr,
):  # fmt: skip
    """Moves slots on to their next samples; writes the rays that ended and takes others.

    GEOMETRY and RAW tell where features are in a deferred field's light, see ``mlp_triton``; ``out_color`` is theirs.
    Returns walk, line, light, found, and the number of the next pixel. Nothing is found when the square is done.
    """
    # Read anew each time: kept, they would take registers from the networks.
    line = _line(rays, walk[0])
    tries, searching = 0, 1
    while searching > 0:
        idle = (walk[0] >= 0) & (found == 0)
        t = line[0] + (walk[1].to(tl.float32) + 0.5) * step
        ended = idle & (((t < line[1]) & (light[0] > termination) & (walk[2] < limit)) == 0)
        if tl.max(ended.to(tl.int32), 0) > 0:
            _store(walk, light, ended, out_color, out_alpha, out_distance, GEOMETRY, RAW)
        walk = tl.where(ended, -1, walk[0]), walk[1], walk[2]
        if coming < TILE * TILE:
            walk, light, coming = _take(walk, light, coming, width, height)
            line = _line(rays, walk[0])
        t = line[0] + (walk[1].to(tl.float32) + 0.5) * step
        asked = (walk[0] >= 0) & (found == 0) & (t < line[1])
        hit, onward = _look(walk, line, asked, grid, step)
        walk = walk[0], tl.where(asked & (hit == 0), onward, walk[1]), walk[2]
        found = found | (asked & hit)
        tries += 1
        unsettled = ((walk[0] >= 0) & (found == 0)) | ((walk[0] < 0) & (coming < TILE * TILE))
        patience = (tries < _TRIES) | (tl.max(found.to(tl.int32), 0) == 0)
        searching = tl.max(unsettled.to(tl.int32), 0) * patience.to(tl.int32)
    return walk, line, light, found, coming


@triton.jit
def add_sample(walk, t, light, found, done, density, color, step):
    """Composites the samples at ``t`` of the slots that are ``done``, moves these on by a bin: walk, light, found.

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
    one = done.to(tl.int32)
    return (walk[0], walk[1] + one, walk[2] + one), light, found & (done == 0)


def fused_launch_options(
    nets: Sequence[Network], direction: int, style: tuple, device: torch.device, deferred: bool
) -> dict:
    """As ``launch_options``, and the registers of a thread; a deferred field's kernel runs the density network alone.

    Left alone the compiler takes nearly all 255; with these more programs fit on a multiprocessor, whose loads hide the
    others' waiting, and in half precision a few bytes are spilled at most (``tests.compile_triton`` and ptxas -v).
    """
    options = launch_options(nets, direction, style, device) | {"DEFERRED": deferred}
    if deferred:
        options |= block_of(nets[:1])
    # Marching takes most of the time, and each warp does all of it. With one KiloUniform's kernel hung on an H200.
    options["num_warps"] = 2
    return options if torch.version.hip else options | {"maxnreg": _REGISTERS}


def programs(width: int, height: int) -> int:
    """Squares of pixels that a picture has."""
    return triton.cdiv(width, TILE.value) * triton.cdiv(height, TILE.value)


def grid_of(cells: Cells) -> tuple:
    """A kernel's arguments for the occupied cells."""
    return *cells.lower, 1 / cells.size, cells.occupied.contiguous(), cells.block_distances, *cells.occupied.shape
