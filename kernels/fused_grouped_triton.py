"""The KiloUniform student in one kernel: march, route to cells, Fourier features, the cell's networks, compositing.

The slots of a program look through neighbouring pixels and so mostly into one cell. Each turn the networks of the cell
that most samples wait for are run on all slots and count for those samples; the others wait for their cell's turn.
With blending a sample waits for one cell after another, and what their media emit adds up meanwhile. With deferred
shading what is emitted are features, of which a second kernel makes colours.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.deferred_triton import shade
from kernels.device_constants import constant
from kernels.fused_rays_triton import add_sample, advance, fused_launch_options, grid_of, no_rays, places, programs
from kernels.grouped_layout import GroupedLayout
from kernels.grouped_mlp_triton import STYLE, axis_of, encode, network_of
from kernels.mlp_triton import MAX_RAW, column, load_color, load_density, load_rows, run_color, run_density
from kernels.ray_samples import Cells
from kernels.triton_support import launch_on


@triton.jit
def _locate(place, cells, beyond, blend, BLEND: tl.constexpr):
    """On one axis: the cell, or with ``beyond`` the neighbour behind the nearer face; its weight; if there is one."""
    own = tl.minimum(tl.maximum(tl.floor(place), 0.0).to(tl.int32), cells - 1)
    if BLEND:
        offset = place - own.to(tl.float32) - 0.5
        neighbour = own + tl.where(offset < 0, -1, 1)
        to_face = 0.5 - tl.abs(offset)
        shared = (to_face < blend) & (neighbour >= 0) & (neighbour < cells)
        share = tl.where(shared, 0.5 - to_face / (2.0 * blend), 0.0)
        return tl.where(beyond > 0, neighbour, own), tl.where(beyond > 0, share, 1.0 - share), shared.to(tl.int32)
    else:
        return own, tl.full(place.shape, 1.0, tl.float32), tl.zeros(place.shape, tl.int32)


@triton.jit
def _most_wanted(cell, found, cells):
    """The cell of most of the found samples."""
    same = (cell[:, None] == cell[None, :]) & found[None, :]
    votes = tl.where(found, tl.sum(same.to(tl.int32), 1), 0)
    return tl.max(votes * cells + cell, 0) % cells


@triton.jit
def _local(place, cell):
    """A place in units of cells as a coordinate of the cell, [-1, 1] inside it."""
    return 2.0 * (place - cell.to(tl.float32)) - 1.0


@triton.jit(do_not_specialize=["width", "height", "limit", "grid_x", "grid_y", "grid_z"])
def _render(
    origins, directions, near, far, basis, width, height, step, limit, termination,
    lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz,
    box, scale, grid_x, grid_y, grid_z, blend, least_density, density_parameters, color_parameters,
    out_color, out_alpha, out_distance,
    BLEND: tl.constexpr, DENSITY: tl.constexpr, COLOR: tl.constexpr, GEOMETRY: tl.constexpr, DIRECTION: tl.constexpr,
    DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
    DEFERRED: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = density_parameters.dtype.element_ty
    rays = origins, directions, near, far
    grid = lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz
    corner_x, corner_y, corner_z = tl.load(box), tl.load(box + 1), tl.load(box + 2)
    scale_x, scale_y, scale_z = tl.load(scale), tl.load(scale + 1), tl.load(scale + 2)
    axis = axis_of(DENSITY[1][0])[None, :]
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    walk, light, found = no_rays(BLOCK, output_pad if DEFERRED else 0)
    # Of a sample that waits: the bits of the axes on which it asks the neighbour, and the sums over cells so far.
    beyond, zero = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.float32)
    mixed = (zero, tl.zeros((BLOCK, output_pad), tl.float32)) if DEFERRED else (zero, zero, zero, zero)
    coming, running = 0, 1
    while running > 0:
        walk, line, light, found, coming = advance(
            walk, light, found, coming, rays, width, height, grid, step, limit, termination,
            out_color, out_alpha, out_distance, GEOMETRY, GEOMETRY,
        )  # fmt: skip
        running = tl.max(found.to(tl.int32), 0)
        if running > 0:
            t, x, y, z = places(walk, line, step)
            x, y, z = (x - corner_x) * scale_x, (y - corner_y) * scale_y, (z - corner_z) * scale_z
            cx, weight_x, shared_x = _locate(x, grid_x, beyond & 1, blend, BLEND)
            cy, weight_y, shared_y = _locate(y, grid_y, beyond & 2, blend, BLEND)
            cz, weight_z, shared_z = _locate(z, grid_z, beyond & 4, blend, BLEND)
            cell = (cx * grid_y + cy) * grid_z + cz
            chosen = _most_wanted(cell, found, grid_x * grid_y * grid_z)
            asked = found & (cell == chosen)
            x, y, z = _local(x, cx)[:, None], _local(y, cy)[:, None], _local(z, cz)[:, None]
            place = tl.where(asked[:, None], tl.where(axis == 0, x, tl.where(axis == 1, y, z)), 0.0)
            encoded = encode(place, asked, DENSITY[0][0], DENSITY[1][0], kind)
            density_network = density_parameters + chosen.to(tl.int64) * DENSITY[2][len(DENSITY[0]) - 1]
            output, _ = run_density(encoded, load_density(density_network, DENSITY, STYLE), DENSITY, STYLE, PRECISION)
            density = tl.exp(tl.minimum(column(output, GEOMETRY), MAX_RAW))
            if DEFERRED:
                color = (output,)
            else:
                color_network = color_parameters + chosen.to(tl.int64) * COLOR[2][len(COLOR[0]) - 1]
                direction = load_rows(basis, walk[0].to(tl.int64), asked, DIRECTION, DIRECTION_PAD).to(kind)
                of_color = load_color(color_network, output_pad, DIRECTION_PAD, GEOMETRY, GEOMETRY, COLOR, STYLE)
                logits, _ = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
                rgb = 1.0 / (1.0 + tl.exp(-logits))
                color = column(rgb, 0), column(rgb, 1), column(rgb, 2)
            done = asked
            if BLEND:
                share = tl.where(asked, weight_x * weight_y * weight_z * density, 0.0)
                if DEFERRED:
                    mixed = mixed[0] + share, mixed[1] + share[:, None] * color[0]
                else:
                    red, green, blue = color
                    mixed = mixed[0] + share, mixed[1] + share * red, mixed[2] + share * green, mixed[3] + share * blue
                shared = shared_x + 2 * shared_y + 4 * shared_z
                # The next larger number of these bits; 0 after the last.
                beyond = tl.where(asked, ((beyond | (7 - shared)) + 1) & shared, beyond)
                done = asked & (beyond == 0)
                density, total = mixed[0], tl.maximum(mixed[0], least_density)
                if DEFERRED:
                    color = (mixed[1] / total[:, None],)
                    mixed = tl.where(done, 0.0, mixed[0]), tl.where(done[:, None], 0.0, mixed[1])
                else:
                    color = mixed[1] / total, mixed[2] / total, mixed[3] / total
                    mixed = (
                        tl.where(done, 0.0, mixed[0]),
                        tl.where(done, 0.0, mixed[1]),
                        tl.where(done, 0.0, mixed[2]),
                        tl.where(done, 0.0, mixed[3]),
                    )
            walk, light, found = add_sample(walk, t, light, found, done, density, color, step)


def render(
    rays: tuple[Tensor, ...],
    basis: Tensor,
    width: int,
    cells: Cells,
    march: tuple[float, int, float],
    box: Tensor,
    grid: tuple[int, int, int],
    blend: float,
    least_density: float,
    density_parameters: Tensor,
    color_parameters: Tensor,
    layout: GroupedLayout,
    deferred: bool,
    outputs: tuple[Tensor, ...],
) -> None:
    """Fills ``outputs``: rgb (R, 3), alpha, distance (R,), float32.

    Args:
        rays, basis, width, cells, march: as in ``fused_hash_triton.render``.
        box: (2, 3) the grid's corners.
        grid, blend, least_density: see ``GroupedField``.
        density_parameters, color_parameters: (cells, P) contiguous; their type is that of the products.
        deferred: whether the colour network, one (1, P), is run once per ray.
    """
    height = len(basis) // width
    nets = network_of(layout.density_dims), network_of(layout.color_dims)
    scale = constant(tuple(grid), basis.device) / (box[1] - box[0])
    rgb, alpha, distance = outputs
    color = alpha.new_empty(len(alpha), layout.geo_features) if deferred else rgb
    with launch_on(basis.device):
        _render[(programs(width, height),)](
            *rays, basis, width, height, *march, *grid_of(cells), box, scale, *grid, blend, least_density,
            density_parameters, color_parameters, color, alpha, distance,
            BLEND=blend > 0, GEOMETRY=layout.geo_features,
            **fused_launch_options(nets, basis.shape[1], STYLE, basis.device, deferred),
        )  # fmt: skip
    if deferred:
        shade(color, alpha, basis, nets[1], color_parameters, STYLE, rgb)
