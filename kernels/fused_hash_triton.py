"""The hash-grid student in one kernel: march, hash encoding, both networks and compositing, all in registers.

With deferred shading the kernel composites the density network's features, and a second one runs the colour network.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.deferred_triton import shade
from kernels.fused_rays_triton import add_sample, advance, fused_launch_options, grid_of, no_rays, places, programs
from kernels.hash_encoding_triton import entry, level_of, place_on
from kernels.mlp_triton import MAX_RAW, column, load_color, load_density, load_rows, run_color, run_density
from kernels.radiance_mlp_triton import STYLE, flat_weights, network_of
from kernels.ray_samples import Cells
from kernels.triton_support import launch_on


@triton.jit
def _encode(
    x, y, z, live, table, offsets, resolutions, scales, hashes,
    BLOCK: tl.constexpr, LEVELS: tl.constexpr, PADDED: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """Encodings (BLOCK, PADDED * FEATURES) of unit positions; levels from LEVELS on are zero."""
    level = tl.arange(0, PADDED)
    exists = level < LEVELS
    described = tl.minimum(level, LEVELS - 1)
    offset, size, resolution, scale, hashed = level_of(described, offsets, resolutions, scales, hashes)
    ix, fx = place_on(x[:, None], scale[None, :])
    iy, fy = place_on(y[:, None], scale[None, :])
    iz, fz = place_on(z[:, None], scale[None, :])
    feature = tl.arange(0, FEATURES)[None, None, :]
    wanted = (live[:, None] & exists[None, :])[:, :, None] & (feature >= 0)
    value = tl.zeros((BLOCK, PADDED, FEATURES), tl.float32)
    # A loop that stays one: unrolled, the loads of all corners would be held in registers at a time.
    for corner in range(8):
        bx, by, bz = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = tl.where(bx == 1, fx, 1.0 - fx) * tl.where(by == 1, fy, 1.0 - fy) * tl.where(bz == 1, fz, 1.0 - fz)
        row = offset[None, :] + entry(ix + bx, iy + by, iz + bz, resolution[None, :], size[None, :], hashed[None, :])
        held = tl.load(table + row[:, :, None] * FEATURES + feature, mask=wanted, other=0.0)
        value += weight[:, :, None] * held.to(tl.float32)
    return tl.reshape(value, (BLOCK, PADDED * FEATURES))


@triton.jit(do_not_specialize=["width", "height", "limit"])
def _render(
    origins, directions, near, far, basis, width, height, step, limit, termination,
    lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz,
    box, table, offsets, resolutions, scales, hashes, density_weights, color_weights,
    out_color, out_alpha, out_distance,
    LEVELS: tl.constexpr, FEATURES: tl.constexpr, DENSITY: tl.constexpr, COLOR: tl.constexpr, DIRECTION: tl.constexpr,
    DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    DEFERRED: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = density_weights.dtype.element_ty
    rays = origins, directions, near, far
    grid = lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz
    corner_x, corner_y, corner_z = tl.load(box), tl.load(box + 1), tl.load(box + 2)
    side = tl.maximum(tl.load(box + 3) - corner_x, tl.load(box + 4) - corner_y)
    side = tl.maximum(side, tl.load(box + 5) - corner_z)
    of_density = load_density(density_weights, DENSITY, STYLE)
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    geometry: tl.constexpr = COLOR[0][0] - DIRECTION
    if not DEFERRED:
        of_color = load_color(color_weights, output_pad, DIRECTION_PAD, geometry, 0, COLOR, STYLE)
    walk, light, found = no_rays(BLOCK, output_pad if DEFERRED else 0)
    coming, running = 0, 1
    while running > 0:
        walk, line, light, found, coming = advance(
            walk, light, found, coming, rays, width, height, grid, step, limit, termination,
            out_color, out_alpha, out_distance, geometry, 0,
        )  # fmt: skip
        running = tl.max(found.to(tl.int32), 0)
        if running > 0:
            t, x, y, z = places(walk, line, step)
            x, y, z = (x - corner_x) / side, (y - corner_y) / side, (z - corner_z) / side
            encoded = _encode(
                x, y, z, found, table, offsets, resolutions, scales, hashes,
                BLOCK, LEVELS, DENSITY[1][0] // FEATURES, FEATURES,
            )  # fmt: skip
            output, _ = run_density(encoded.to(kind), of_density, DENSITY, STYLE, PRECISION)
            density = tl.exp(tl.minimum(column(output, 0), MAX_RAW))
            if DEFERRED:
                color = (output,)
            else:
                direction = load_rows(basis, walk[0].to(tl.int64), found, DIRECTION, DIRECTION_PAD).to(kind)
                logits, _ = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
                rgb = 1.0 / (1.0 + tl.exp(-logits))
                color = column(rgb, 0), column(rgb, 1), column(rgb, 2)
            walk, light, found = add_sample(walk, t, light, found, found, density, color, step)


def render(
    rays: tuple[Tensor, ...],
    basis: Tensor,
    width: int,
    cells: Cells,
    march: tuple[float, int, float],
    box: Tensor,
    table: Tensor,
    levels: tuple[Tensor, ...],
    density_weights: list[Tensor],
    color_weights: list[Tensor],
    deferred: bool,
    outputs: tuple[Tensor, ...],
) -> None:
    """Fills ``outputs``: rgb (R, 3), alpha, distance (R,), float32.

    Args:
        rays: contiguous origins, directions (R, 3), near, far (R,) of a picture ``width`` pixels wide, row-major.
        basis: (R, S) encoded directions, contiguous.
        march: step, limit, termination.
        box: (2, 3) the student's corners.
        table: (entries, F), F a power of two; its type is that of the products.
        levels: the layout's offsets, resolutions, scales and ``hashed``.
        deferred: whether the colour network is run once per ray.
    """
    height = len(basis) // width
    nets = network_of(density_weights), network_of(color_weights)
    of_color = flat_weights(color_weights, table.dtype)
    rgb, alpha, distance = outputs
    color = alpha.new_empty(len(alpha), len(density_weights[-1]) - 1) if deferred else rgb
    with launch_on(basis.device):
        _render[(programs(width, height),)](
            *rays, basis, width, height, *march, *grid_of(cells), box, table, *levels,
            flat_weights(density_weights, table.dtype), of_color, color, alpha, distance,
            LEVELS=len(levels[1]), FEATURES=table.shape[1],
            **fused_launch_options(nets, basis.shape[1], STYLE, basis.device, deferred),
        )  # fmt: skip
    if deferred:
        shade(color, alpha, basis, nets[1], of_color, STYLE, rgb)
