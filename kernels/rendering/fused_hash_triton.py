"""The hash-grid student in one kernel: hash encoding, both networks and compositing, all in registers.

With deferred shading the kernel composites the density network's features, and a second one runs the colour network.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.encoding.hash_encoding_triton import entry, level_of, place_on
from kernels.encoding.hash_layout import HashLayout, levels_on
from kernels.networks.mlp_rows_triton import MAX_RAW, column, load_rows
from kernels.networks.mlp_triton import load_color, load_density, run_color, run_network, side_by_side
from kernels.networks.radiance_mlp_triton import STYLE, flat_weights, network_of
from kernels.rendering.fused_rays_triton import FusedKernel, add_sample, advance, fused_launch_options, no_rays, places
from kernels.triton_support import interpreting

_REGISTERS = 200  # of a thread
# Levels in a block of encodings. What is known of samples' places on each takes up registers: with 32, which 22 levels
# were filled up to, hundreds of bytes a thread were spilled.
_TOGETHER = 16


@triton.jit
def _words(places, PTX: tl.constexpr):
    """The int32 at valid places.

    In PTX, since ``tl.load`` wants its places laid out its own way: places, weights and words of every corner would go
    through shared memory, and all loads of a corner be waited for.
    """
    if PTX:
        return tl.inline_asm_elementwise(
            "ld.global.nc.b32 $0, [$1];", "=r,l", [places.to(tl.int64)], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        return tl.load(places)


@triton.jit
def _features(word, HALF: tl.constexpr):
    """Float32 features that are in an int32 of the table: two halves or one."""
    if HALF:
        # The lower half is first in memory.
        first, second = word.to(tl.int16), (word >> 16).to(tl.int16)
        return first.to(tl.float16, bitcast=True).to(tl.float32), second.to(tl.float16, bitcast=True).to(tl.float32)
    else:
        return (word.to(tl.float32, bitcast=True),)


@triton.jit
def _joined(features):
    """Half as many blocks, each of two of these in a new last dimension."""
    half: tl.constexpr = len(features) // 2
    joined = ()
    for index in tl.static_range(half):
        joined = joined + (tl.join(features[index], features[index + half]),)
    return joined


@triton.jit
def _beside(features):
    """(BLOCK, PADDED) blocks, a power of two of them, as (BLOCK, PADDED * features)."""
    shape: tl.constexpr = features[0].shape[0], features[0].shape[1] * len(features)
    for _ in tl.static_range(4):
        if len(features) > 1:
            features = _joined(features)
    return tl.reshape(features[0], shape)


@triton.jit
def _encode(
    x, y, z, table, offsets, resolutions, scales, kinds,
    BLOCK: tl.constexpr, FIRST: tl.constexpr, END: tl.constexpr, PLANES: tl.constexpr, PADDED: tl.constexpr,
    WORDS: tl.constexpr, HALF: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """Encodings (BLOCK, PADDED * features) of any positions, clamped to the unit, by the levels from FIRST to before
    END, then zeros; these are PLANES, or none is.

    Each feature is summed in a block of its own, laid out as the places are.
    """
    level = FIRST + tl.arange(0, PADDED)
    exists = level < END
    described = tl.minimum(level, END - 1)
    offset, size, resolution, scale, kind = level_of(described, offsets, resolutions, scales, kinds)
    hashed = (kind & 1) != 0
    x, y, z = x[:, None], y[:, None], z[:, None]
    if PLANES:
        normal = (kind >> 1)[None, :]
        x, y = tl.where(normal == 1, y, x), tl.where(normal == 3, y, z)
    ix, fx = place_on(x, scale[None, :])
    iy, fy = place_on(y, scale[None, :])
    if not PLANES:
        iz, fz = place_on(z, scale[None, :])
    sums = ()
    for _ in tl.static_range(WORDS * (1 + HALF)):
        sums = sums + (tl.zeros((BLOCK, PADDED), tl.float32),)
    # A loop that stays one: unrolled, the loads of all corners would be held in registers at a time.
    for edge in range(2 if PLANES else 4):
        by, bz = edge & 1, edge >> 1
        beside = tl.where(by == 1, fy, 1.0 - fy)
        if PLANES:
            upper = tl.zeros_like(iy)
        else:
            beside = beside * tl.where(bz == 1, fz, 1.0 - fz)
            upper = iz + bz
        for bx in tl.static_range(2):
            row = entry(ix + bx, iy + by, upper, resolution[None, :], size[None, :], hashed[None, :])
            weight = beside * (fx if bx == 1 else 1.0 - fx)
            features = ()
            for word in tl.static_range(WORDS):
                held = _words(table + (offset[None, :] + row) * WORDS + word, PTX)
                if FIRST + PADDED > END:
                    held = tl.where(exists[None, :], held, 0)
                features = features + _features(held, HALF)
            added = ()
            for index in tl.static_range(len(sums)):
                added = added + (sums[index] + weight * features[index],)
            sums = added
    return _beside(sums)


@triton.jit(do_not_specialize=["width", "first", "squares", "all_places"])
def _render(
    origins, directions, near, far, width, step, termination,
    runs, order, lives, next_square, first, squares, all_places, out_color, out_alpha, out_distance, basis,
    box, table, offsets, resolutions, scales, kinds, density_weights, color_weights,
    LEVELS: tl.constexpr, FEATURES: tl.constexpr, WORDS: tl.constexpr, DENSITY: tl.constexpr,
    COLOR: tl.constexpr, DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr, DEFERRED: tl.constexpr, HARMONICS: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = density_weights.dtype.element_ty
    HALF: tl.constexpr = FEATURES > WORDS
    rays = origins, directions, near, far
    found = runs, order, lives, next_square, first, squares, all_places
    corner_x, corner_y, corner_z = tl.load(box), tl.load(box + 1), tl.load(box + 2)
    side = tl.maximum(tl.load(box + 3) - corner_x, tl.load(box + 4) - corner_y)
    side = tl.maximum(side, tl.load(box + 5) - corner_z)
    of_density = load_density(density_weights, DENSITY, STYLE)
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    geometry: tl.constexpr = COLOR[0][0] - DIRECTION
    if not DEFERRED:
        of_color = load_color(color_weights, output_pad, DIRECTION_PAD, geometry, 0, COLOR, STYLE)
    walk, light, coming, ends = no_rays(BLOCK, output_pad if DEFERRED else 0)
    running = 1
    while running > 0:
        walk, light, coming, ends = advance(
            walk, light, coming, ends, found, width, termination, out_color, out_alpha, out_distance, geometry, 0
        )
        live = walk[0] >= 0
        running = tl.max(live.to(tl.int32), 0)
        if running > 0:
            t, x, y, z = places(walk, rays, step)
            x, y, z = (x - corner_x) / side, (y - corner_y) / side, (z - corner_z) / side
            encoded = ()
            for k in tl.static_range(len(LEVELS)):
                part = _encode(
                    x, y, z, table, offsets, resolutions, scales, kinds,
                    BLOCK, LEVELS[k][0], LEVELS[k][1], LEVELS[k][2], DENSITY[6][k] // FEATURES, WORDS, HALF, PTX,
                )  # fmt: skip
                encoded = encoded + (part.to(kind),)
            if HARMONICS or not DEFERRED:
                direction = load_rows(basis, walk[0].to(tl.int64), live, DIRECTION, DIRECTION_PAD).to(kind)
            if HARMONICS:
                encoded = encoded + (direction,)
            output, _ = run_network(encoded, of_density, DENSITY, STYLE, PRECISION)
            density = tl.exp(tl.minimum(column(output, 0), MAX_RAW))
            if DEFERRED:
                color = (output,)
            else:
                logits, _ = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
                rgb = 1.0 / (1.0 + tl.exp(-logits))
                color = column(rgb, 0), column(rgb, 1), column(rgb, 2)
            walk, light = add_sample(walk, t, light, live, density, color, step)


class Prepared(FusedKernel):
    """A field as the kernel wants it; see ``kernels.rendering.fused_render.FusedRenderer``."""

    def __init__(self, field, precision) -> None:
        device, directions = field.box.device, (field.direction_degree + 1) ** 2
        levels, harmonics = _levels_together(field.layout), field.density_harmonics
        widths = [(end - first) * field.layout.features for first, end, _ in levels]
        blocks = [(width, 0, width) for width in widths]
        # All harmonics but the constant, of those that colours are made of.
        parts = side_by_side([*blocks, (harmonics, 1, directions)] if harmonics else blocks)
        nets = network_of(field.density_weights, parts), network_of(field.color_weights)
        density, color = (flat_weights(weights, precision) for weights in (field.density_weights, field.color_weights))
        # Entries are read as whole words; one feature's half is none.
        table = field.table.detach().to(precision if field.layout.features > 1 else torch.float32)
        table = table.contiguous().view(torch.int32)
        options = fused_launch_options(nets, directions, STYLE, device, field.deferred, _REGISTERS)
        options |= {
            "LEVELS": levels,
            "FEATURES": field.layout.features,
            "WORDS": table.shape[1],
            "HARMONICS": harmonics > 0,
            "PTX": not interpreting() and not torch.version.hip,
        }
        arguments = field.box, table, *levels_on(field.layout, device), density, color
        shading = (nets[1], color, STYLE) if field.deferred else None
        geometry = nets[1][0][0] - directions
        super().__init__(_render, arguments, options, field.direction_degree, geometry, shading, _REGISTERS)


def _levels_together(layout: HashLayout) -> tuple[tuple[int, int, bool], ...]:
    """First level, the one after the last, and whether they are planes, of each block: a plane has half the corners."""
    kinds = (0, layout.levels, False), (layout.levels, layout.count, True)
    return tuple(
        (first, min(first + _TOGETHER, end), planes)
        for begin, end, planes in kinds
        for first in range(begin, end, _TOGETHER)
    )
