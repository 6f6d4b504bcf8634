"""Triton twin of the rays of a frame's pixels."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.rays.training_rays_triton import store_interval
from kernels.triton_support import launch_on

_BLOCK = 256


@triton.jit
def _along(axis, c2w, x, y, length, ray, live, origins, directions):
    """Writes one axis of origins and directions; returns both."""
    direction = (tl.load(c2w + 4 * axis) * x + tl.load(c2w + 4 * axis + 1) * y - tl.load(c2w + 4 * axis + 2)) / length
    origin = tl.load(c2w + 4 * axis + 3)
    tl.store(origins + ray * 3 + axis, tl.zeros_like(direction) + origin, mask=live)
    tl.store(directions + ray * 3 + axis, direction, mask=live)
    return origin, direction


# One frame's lens may be a slice of all, anywhere among them.
@triton.jit(do_not_specialize=["frame", "width", "count"], do_not_specialize_on_alignment=["fx", "fy", "cx", "cy"])
def _rays(
    c2w, fx, fy, cx, cy, frame, width, count, least, most, lower_x, lower_y, lower_z, upper_x, upper_y, upper_z,
    origins, directions, near, far, BLOCK: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = ray < count
    c2w += frame * 16
    x = ((ray % width).to(tl.float32) + 0.5 - tl.load(cx + frame)) / tl.load(fx + frame)
    y = (tl.load(cy + frame) - (ray // width).to(tl.float32) - 0.5) / tl.load(fy + frame)
    length = tl.sqrt(x * x + y * y + 1.0)
    ray = ray.to(tl.int64)
    ox, dx = _along(0, c2w, x, y, length, ray, live, origins, directions)
    oy, dy = _along(1, c2w, x, y, length, ray, live, origins, directions)
    oz, dz = _along(2, c2w, x, y, length, ray, live, origins, directions)
    box = lower_x, lower_y, lower_z, upper_x, upper_y, upper_z
    store_interval((ox, oy, oz), (dx, dy, dz), box, least, most, ray, live, near, far)


def camera_rays(c2w, focal, center, frame, size, box, reach, rays) -> None:
    """Fills origins (N, 3), directions (N, 3), near (N,) and far (N,) of one frame's pixels, row-major.

    Args:
        c2w: (F, 4, 4) poses; focal, center: x and y of all frames, (F,) pixels each; contiguous.
        size: height and width.
        box: lower and upper corner; reach: the configured near and far.
    """
    height, width = size
    count, corners = height * width, (*map(float, box[0]), *map(float, box[1]))
    with launch_on(c2w.device):
        _rays[(triton.cdiv(count, _BLOCK),)](
            c2w, *focal, *center, frame, width, count, *map(float, reach), *corners, *rays, BLOCK=_BLOCK
        )
