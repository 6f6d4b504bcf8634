"""The KiloUniform student in one kernel: route to cells, Fourier features, the cell's networks, compositing.

The slots of a program look through neighbouring pixels and so mostly into one cell. Each turn the networks of the cell
that most samples wait for are run on all slots and count for those samples; the others wait for their cell's turn.
With deferred shading what is emitted are features, of which a second kernel makes colours.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.device_constants import constant
from kernels.networks.grouped_mlp_triton import STYLE, axis_of, encode, network_of
from kernels.networks.mlp_rows_triton import MAX_RAW, column, load_behind, load_rows
from kernels.networks.mlp_triton import load_color, load_density, run_color, run_network
from kernels.rendering.fused_rays_triton import FusedKernel, add_sample, advance, fused_launch_options, no_rays, places

_REGISTERS = 168  # of a thread


@triton.jit
def _corner(place, cells):
    """On one axis: the cell."""
    return tl.minimum(tl.maximum(tl.floor(place), 0.0).to(tl.int32), cells - 1)


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


@triton.jit(do_not_specialize=["width", "first", "squares", "all_places", "grid_x", "grid_y", "grid_z"])
def _render(
    origins, directions, near, far, width, step, termination,
    runs, order, lives, next_square, first, squares, all_places, out_color, out_alpha, out_distance, basis,
    box, scale, grid_x, grid_y, grid_z, density_parameters, color_parameters,
    DENSITY: tl.constexpr, COLOR: tl.constexpr, GEOMETRY: tl.constexpr, HARMONICS: tl.constexpr,
    DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr, DEFERRED: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = density_parameters.dtype.element_ty
    rays = origins, directions, near, far
    found = runs, order, lives, next_square, first, squares, all_places
    corner_x, corner_y, corner_z = tl.load(box), tl.load(box + 1), tl.load(box + 2)
    scale_x, scale_y, scale_z = tl.load(scale), tl.load(scale + 1), tl.load(scale + 2)
    axis = axis_of(DENSITY[1][0])[None, :]
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    behind: tl.constexpr = DENSITY[0][0] - HARMONICS
    walk, light, coming, ends = no_rays(BLOCK, output_pad if DEFERRED else 0)
    running = 1
    while running > 0:
        walk, light, coming, ends = advance(
            walk, light, coming, ends, found, width, termination,
            out_color, out_alpha, out_distance, GEOMETRY, GEOMETRY,
        )  # fmt: skip
        live = walk[0] >= 0
        running = tl.max(live.to(tl.int32), 0)
        if running > 0:
            t, x, y, z = places(walk, rays, step)
            x, y, z = (x - corner_x) * scale_x, (y - corner_y) * scale_y, (z - corner_z) * scale_z
            cx, cy, cz = _corner(x, grid_x), _corner(y, grid_y), _corner(z, grid_z)
            cell = (cx * grid_y + cy) * grid_z + cz
            chosen = _most_wanted(cell, live, grid_x * grid_y * grid_z)
            asked = live & (cell == chosen)
            x, y, z = _local(x, cx)[:, None], _local(y, cy)[:, None], _local(z, cz)[:, None]
            place = tl.where(asked[:, None], tl.where(axis == 0, x, tl.where(axis == 1, y, z)), 0.0)
            encoded = encode(place, asked, behind, DENSITY[1][0], kind)
            if HARMONICS > 0:  # all but the constant
                ray = walk[0].to(tl.int64)
                encoded += load_behind(basis, ray, asked, 1, HARMONICS, DIRECTION, behind, DENSITY[1][0]).to(kind)
            density_network = density_parameters + chosen.to(tl.int64) * DENSITY[2][len(DENSITY[0]) - 1]
            of_density = load_density(density_network, DENSITY, STYLE)
            output, _ = run_network((encoded,), of_density, DENSITY, STYLE, PRECISION)
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
            walk, light = add_sample(walk, t, light, asked, density, color, step)


class Prepared(FusedKernel):
    """A field as the kernel wants it; see ``kernels.rendering.fused_render.FusedRenderer``."""

    def __init__(self, field, precision) -> None:
        layout, device = field.layout, field.box.device
        nets = network_of(layout.density_dims), network_of(layout.color_dims)
        density, color = (
            part.detach().to(precision).contiguous() for part in (field.density_parameters, field.color_parameters)
        )
        scale = constant(tuple(field.grid), device) / (field.box[1] - field.box[0])
        arguments = field.box, scale, *field.grid, density, color
        options = fused_launch_options(nets, layout.direction_width, STYLE, device, field.deferred, _REGISTERS)
        options |= {"GEOMETRY": layout.geo_features, "HARMONICS": layout.harmonics}
        shading = (nets[1], color, STYLE) if field.deferred else None
        super().__init__(_render, arguments, options, field.direction_degree, layout.geo_features, shading, _REGISTERS)
