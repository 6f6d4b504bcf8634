"""The statistics of Gaussians in cells on the CPU: bricks of 8^3 cells, each added up by one thread in order."""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit

from kernels.gaussians.cell_distance import THINNEST, cell_ranges
from kernels.gaussians.rasterize_forward_numba import ALPHA_MAX
from kernels.threads import COMPILED, INNER, UNCALLED, parallel_for

SPACING = 0.5  # cells between a Gaussian's nodes at most
SPACING_STD = 1.25  # standard deviations between them at most
MOST_NODES = 64  # along an axis
BROAD = 1.0  # cells that all standard deviations are of for a Gaussian to be sampled and have no nodes
BOX = math.sqrt(12)  # edge of the box whose standard deviation is 1
TABLE = 4096  # intervals of a table of polylogarithms
_EDGE = 8  # cells along a brick
_TOGETHER = 1 << 16  # Gaussians whose covariances are in memory


def statistics_numba(means, half, opacities, radii, extinction, sampled, channels, shape, tables):
    """``kernels.gaussians.gaussian_statistics`` on float64 tensors in units of cells: indices, density, channels."""
    shapes, lists, reached = _reach(means, half, radii, shape)
    used = lists[0]
    indices = _flat_indices(used, reached, shape)
    order = np.argsort(indices)
    rows = np.empty(len(order), np.int64)
    rows[order] = np.arange(len(order))
    offsets = np.zeros(len(used) + 1, np.int64)
    np.cumsum(reached.sum(1, dtype=np.int64), out=offsets[1:])

    deposits = [part.contiguous() for part in (half, opacities, extinction, sampled, channels, tables)]
    counts, totals = np.empty((len(means), 3), np.int64), np.empty(len(means))
    parallel_for(_weigh_nodes, len(means), radii, *deposits[:2], deposits[5], counts, totals, grain=1024)
    density, averages = np.empty(len(order), np.float32), np.empty((len(order), channels.shape[1]), np.float32)
    parallel_for(
        _accumulate, len(used), *shapes, *lists, *deposits, counts, totals, reached, offsets, rows, density, averages,
        grain=4,
    )  # fmt: skip
    return torch.from_numpy(indices[order]), torch.from_numpy(density), torch.from_numpy(averages)


def touched_numba(means, half, radii, shape):
    """``kernels.gaussians.gaussian_statistics.touched_cells`` on float64 tensors in units of cells."""
    _, lists, reached = _reach(means, half, radii, shape)
    return torch.from_numpy(np.sort(_flat_indices(lists[0], reached, shape)))


def _reach(means, half, radii, shape):
    """The Gaussians' places and metrics; bricks with their lists of Gaussians; (bricks, 8^3) uint8 cells reached."""
    inverse, bounds = torch.empty_like(half), torch.empty(len(means), 2, 3, dtype=torch.int64)
    for start in range(0, len(means), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        covariances = half[part] @ half[part].transpose(1, 2) + THINNEST**2 * torch.eye(3)
        inverse[part] = torch.linalg.inv(covariances)
        bounds[part] = cell_ranges(means[part], covariances, radii[part], shape)
    shapes = [part.contiguous() for part in (means, inverse, radii, bounds)]
    bricks = np.array(_brick_shape(shape))
    starts, members = _brick_lists(bounds.numpy(), bricks)
    used = np.flatnonzero(np.diff(starts))
    lists = used, starts, members, bricks
    reached = np.zeros((len(used), _EDGE**3), np.uint8)
    parallel_for(_mark_bricks, len(used), *shapes, *lists, reached, grain=4)
    return shapes, lists, reached


def _brick_shape(shape):
    return tuple(-(-extent // _EDGE) for extent in shape)


def _flat_indices(used, reached, shape):
    """(M,) int64 flat indices in the grid of the cells reached, brick by brick."""
    brick, local = np.nonzero(reached)
    corners = np.stack(np.unravel_index(used, _brick_shape(shape)), axis=1)[brick] * _EDGE
    cell = corners + np.stack(np.unravel_index(local, (_EDGE,) * 3), axis=1)
    return np.ravel_multi_index(tuple(cell.T), shape)


@njit(**COMPILED, **INNER)
def _brick_range(bounds, g):
    """First and past-the-last brick along x, y and z of a Gaussian; none where it reaches no cell."""
    for axis in range(3):
        if bounds[g, 0, axis] >= bounds[g, 1, axis]:
            return 0, 0, 0, 0, 0, 0
    x, y, z = bounds[g, 0, 0] // _EDGE, bounds[g, 0, 1] // _EDGE, bounds[g, 0, 2] // _EDGE
    end_x, end_y = (bounds[g, 1, 0] - 1) // _EDGE + 1, (bounds[g, 1, 1] - 1) // _EDGE + 1
    return x, end_x, y, end_y, z, (bounds[g, 1, 2] - 1) // _EDGE + 1


@njit(**COMPILED)
def _brick_lists(bounds, bricks):
    """Gaussians of each brick in their own order, so that sums do not depend on who adds them up.

    Brick b has ``members[starts[b] : starts[b + 1]]``.
    """
    starts = np.zeros(bricks[0] * bricks[1] * bricks[2] + 2, np.int64)
    for g in range(len(bounds)):
        x0, x1, y0, y1, z0, z1 = _brick_range(bounds, g)
        for x in range(x0, x1):
            for y in range(y0, y1):
                for z in range(z0, z1):
                    starts[(x * bricks[1] + y) * bricks[2] + z + 2] += 1
    for b in range(1, len(starts)):
        starts[b] += starts[b - 1]
    members = np.empty(starts[-1], np.int32)
    for g in range(len(bounds)):
        x0, x1, y0, y1, z0, z1 = _brick_range(bounds, g)
        for x in range(x0, x1):
            for y in range(y0, y1):
                for z in range(z0, z1):
                    # starts[b + 1] runs from the brick's first place to its last + 1, where the next brick begins.
                    brick = (x * bricks[1] + y) * bricks[2] + z
                    members[starts[brick + 1]] = g
                    starts[brick + 1] += 1
    return starts[:-1], members


@njit(**COMPILED, **INNER)
def _squared_distance(m, x, y, z):
    """Least squared m-norm of the points of the unit cell with its corner at (x, y, z) from the mean."""
    corner = (x, y, z)
    least = np.inf
    for a in range(3):
        pa = min(max(0.0, corner[a]), corner[a] + 1)
        for turn in range(1, 3):
            b, c = (a + turn) % 3, (a + 3 - turn) % 3
            pb = pa * (m[b, c] * m[a, c] - m[a, b] * m[c, c]) / (m[b, b] * m[c, c] - m[b, c] * m[b, c])
            pb = min(max(pb, corner[b]), corner[b] + 1)
            pc = -(pa * m[a, c] + pb * m[b, c]) / m[c, c]
            pc = min(max(pc, corner[c]), corner[c] + 1)
            distance = pa * (m[a, a] * pa + 2 * (m[a, b] * pb + m[a, c] * pc))
            distance += pb * (m[b, b] * pb + 2 * m[b, c] * pc) + m[c, c] * pc * pc
            least = min(least, distance)
    return least


@njit(**COMPILED, **INNER)
def _distances(g, corner, means, inverse, radii, bounds, part, least):
    """Squared distances of the cells of a brick from Gaussian g, inf where it does not reach.

    ``part`` (2, 3) becomes its range of cells within the brick, ``least`` (8, 8, 8) is filled there.
    """
    for j in range(3):
        part[0, j] = max(bounds[g, 0, j] - corner[j], 0)
        part[1, j] = min(bounds[g, 1, j] - corner[j], _EDGE)
    px, py, pz = means[g, 0] - corner[0], means[g, 1] - corner[1], means[g, 2] - corner[2]
    found = False
    for x in range(part[0, 0], part[1, 0]):
        for y in range(part[0, 1], part[1, 1]):
            for z in range(part[0, 2], part[1, 2]):
                squared = _squared_distance(inverse[g], x - px, y - py, z - pz)
                reaches = squared <= radii[g] * radii[g]
                least[x, y, z] = squared if reaches else np.inf
                found |= reaches
    return found


@njit(**COMPILED, **INNER)
def _corner(brick, bricks):
    x, y, z = brick // (bricks[1] * bricks[2]), brick // bricks[2] % bricks[1], brick % bricks[2]
    return x * _EDGE, y * _EDGE, z * _EDGE


@njit(**COMPILED)
def _mark_bricks(start, stop, means, inverse, radii, bounds, used, starts, members, bricks, reached):
    least, part = np.empty((_EDGE, _EDGE, _EDGE)), np.empty((2, 3), np.int64)
    for b in range(start, stop):
        corner = _corner(used[b], bricks)
        for slot in range(starts[used[b]], starts[used[b] + 1]):
            if _distances(members[slot], corner, means, inverse, radii, bounds, part, least):
                for x in range(part[0, 0], part[1, 0]):
                    for y in range(part[0, 1], part[1, 1]):
                        for z in range(part[0, 2], part[1, 2]):
                            reached[b, (x * _EDGE + y) * _EDGE + z] |= least[x, y, z] < np.inf


@njit(**COMPILED, **INNER)
def _node_weight(table, opacity, squared):
    place = opacity * np.exp(-0.5 * squared) * (TABLE / ALPHA_MAX)
    below = min(int(place), TABLE - 1)
    return table[below] + (place - below) * (table[below + 1] - table[below])


@njit(**COMPILED)
def _weigh_nodes(start, stop, radii, half, opacities, tables, counts, totals):
    """Nodes per axis and the sum of their weights, of the Gaussians [start, stop)."""
    for g in range(start, stop):
        collapsed = 0
        for a in range(3):
            scale = np.sqrt(half[g, 0, a] ** 2 + half[g, 1, a] ** 2 + half[g, 2, a] ** 2)
            if BOX * scale <= SPACING:
                counts[g, a] = 1
                collapsed += 1
            else:
                needed = np.ceil(2 * radii[g] * max(scale / SPACING, 1 / SPACING_STD))
                counts[g, a] = int(min(needed, MOST_NODES))
                collapsed += counts[g, a] == 1
        r, n, total = radii[g], counts[g], 0.0
        for i in range(n[0]):
            u = ((i + 0.5) * 2 / n[0] - 1) * r
            for j in range(n[1]):
                v = ((j + 0.5) * 2 / n[1] - 1) * r
                for k in range(n[2]):
                    w = ((k + 0.5) * 2 / n[2] - 1) * r
                    squared = u * u + v * v + w * w
                    if squared <= r * r:
                        total += _node_weight(tables[collapsed], opacities[g], squared)
        totals[g] = total


@njit(**COMPILED, **INNER)
def _node_range(g, axis, corner, means, half, radius, count, edges):
    """First and past-the-last node along an axis whose box can overlap a brick."""
    square = half[g, 0, axis] ** 2 + half[g, 1, axis] ** 2 + half[g, 2, axis] ** 2
    if count == 1:
        return 0, 1
    middle, reach = 0.0, 0.0
    for j in range(3):
        middle += half[g, j, axis] * (corner[j] + 0.5 * _EDGE - means[g, j])
        reach += abs(half[g, j, axis]) * 0.5 * (_EDGE + edges[j])
    low = ((middle - reach) / square / radius + 1) * count / 2 - 0.5
    high = ((middle + reach) / square / radius + 1) * count / 2 - 0.5
    return max(0, int(np.ceil(low))), min(count, int(np.floor(high)) + 1)


@njit(**COMPILED)
def _accumulate(
    start, stop, means, inverse, radii, bounds, used, starts, members, bricks, half, opacities, extinction, sampled,
    channels, tables, counts, totals, reached, offsets, rows, density, averages,
):  # fmt: skip
    least, part = np.empty((_EDGE, _EDGE, _EDGE)), np.empty((2, 3), np.int64)
    amount = np.empty((_EDGE, _EDGE, _EDGE))
    local = np.empty(_EDGE**3)
    weighted = np.empty((_EDGE**3, channels.shape[1]))
    for b in range(start, stop):
        corner = _corner(used[b], bricks)
        local[:], weighted[:] = 0, 0
        for slot in range(starts[used[b]], starts[used[b] + 1]):
            g = members[slot]
            if not _distances(g, corner, means, inverse, radii, bounds, part, least):
                continue
            if sampled[g] > 0:
                _sample(g, corner, means, inverse, opacities, radii, tables[0], part, amount)
                scale = sampled[g]
            else:
                _lay_out(g, corner, means, half, opacities, radii, counts[g], tables, part, amount)
                scale = extinction[g] / totals[g]
            for x in range(part[0, 0], part[1, 0]):
                for y in range(part[0, 1], part[1, 1]):
                    for z in range(part[0, 2], part[1, 2]):
                        if least[x, y, z] == np.inf:
                            continue
                        i = (x * _EDGE + y) * _EDGE + z
                        share = scale * amount[x, y, z]
                        local[i] += share
                        for c in range(channels.shape[1]):
                            weighted[i, c] += share * channels[g, c]
        cursor = offsets[b]
        for i in range(_EDGE**3):
            if reached[b, i]:
                row = rows[cursor]
                cursor += 1
                density[row] = local[i]
                for c in range(channels.shape[1]):
                    averages[row, c] = weighted[i, c] / local[i] if local[i] > 0 else 0.0


@njit(**COMPILED, **INNER)
def _sample(g, corner, means, inverse, opacities, radii, table, part, amount):
    """Fills ``amount`` (8, 8, 8) with Li_1/2 of Gaussian g's alpha at the centres of the cells of ``part``."""
    m = inverse[g]
    for x in range(part[0, 0], part[1, 0]):
        for y in range(part[0, 1], part[1, 1]):
            for z in range(part[0, 2], part[1, 2]):
                px, py = corner[0] + x + 0.5 - means[g, 0], corner[1] + y + 0.5 - means[g, 1]
                pz = corner[2] + z + 0.5 - means[g, 2]
                squared = px * (m[0, 0] * px + 2 * (m[0, 1] * py + m[0, 2] * pz))
                squared += py * (m[1, 1] * py + 2 * m[1, 2] * pz) + m[2, 2] * pz * pz
                drawn = squared <= radii[g] * radii[g]
                amount[x, y, z] = _node_weight(table, opacities[g], squared) if drawn else 0.0


@njit(**COMPILED, **UNCALLED)
def _lay_out(g, corner, means, half, opacities, radii, n, tables, part, amount):
    """Fills ``amount`` (8, 8, 8) with the weights of Gaussian g's nodes in the cells of ``part`` of a brick."""
    amount[part[0, 0] : part[1, 0], part[0, 1] : part[1, 1], part[0, 2] : part[1, 2]] = 0
    r = radii[g]
    edges = np.empty(3)
    collapsed = (n[0] == 1) + (n[1] == 1) + (n[2] == 1)
    for j in range(3):
        square = 0.0
        for a in range(3):
            square += (half[g, j, a] * (BOX if n[a] == 1 else min(2 * r / n[a], BOX))) ** 2
        edges[j] = max(np.sqrt(square), THINNEST)
    first_u, last_u = _node_range(g, 0, corner, means, half, r, n[0], edges)
    first_v, last_v = _node_range(g, 1, corner, means, half, r, n[1], edges)
    first_w, last_w = _node_range(g, 2, corner, means, half, r, n[2], edges)
    for i in range(first_u, last_u):
        u = ((i + 0.5) * 2 / n[0] - 1) * r
        for j in range(first_v, last_v):
            v = ((j + 0.5) * 2 / n[1] - 1) * r
            for k in range(first_w, last_w):
                w = ((k + 0.5) * 2 / n[2] - 1) * r
                squared = u * u + v * v + w * w
                if squared > r * r:
                    continue
                weight = _node_weight(tables[collapsed], opacities[g], squared)
                px = means[g, 0] + half[g, 0, 0] * u + half[g, 0, 1] * v + half[g, 0, 2] * w - corner[0]
                py = means[g, 1] + half[g, 1, 0] * u + half[g, 1, 1] * v + half[g, 1, 2] * w - corner[1]
                pz = means[g, 2] + half[g, 2, 0] * u + half[g, 2, 1] * v + half[g, 2, 2] * w - corner[2]
                _share(px, py, pz, edges, weight, part, amount)


@njit(**COMPILED, **INNER)
def _share(px, py, pz, edges, weight, part, amount):
    """Adds a box's weight to the cells of ``part`` of a brick it overlaps, by volume."""
    density = weight / (edges[0] * edges[1] * edges[2])
    x0, x1 = px - 0.5 * edges[0], px + 0.5 * edges[0]
    y0, y1 = py - 0.5 * edges[1], py + 0.5 * edges[1]
    z0, z1 = pz - 0.5 * edges[2], pz + 0.5 * edges[2]
    for x in range(max(part[0, 0], int(np.floor(x0))), min(part[1, 0], int(np.floor(x1)) + 1)):
        across = min(x1, x + 1.0) - max(x0, float(x))
        for y in range(max(part[0, 1], int(np.floor(y0))), min(part[1, 1], int(np.floor(y1)) + 1)):
            area = across * (min(y1, y + 1.0) - max(y0, float(y)))
            for z in range(max(part[0, 2], int(np.floor(z0))), min(part[1, 2], int(np.floor(z1)) + 1)):
                amount[x, y, z] += density * area * (min(z1, z + 1.0) - max(z0, float(z)))
