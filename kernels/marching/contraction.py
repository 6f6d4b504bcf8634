"""Unbounded space in a cube: the contraction of Mip-NeRF 360 (Barron et al. 2022) in the maximum norm.

A place is given by x, its offset from a box's middle in half sides of the box. With r = max|x_i| it stays where r <= 1,
and goes to ``(2 - 1/r) x / r`` beyond. Space fills the cube (-2, 2)^3 without a seam; a
cell of it is about r times as wide in the world as one in the middle.
"""

from __future__ import annotations

from torch import Tensor

EDGE = 2.0
"""Coordinates of contracted places are less than this."""


def contract(x: Tensor) -> Tensor:
    """(..., 3) offsets -> (..., 3) in (-2, 2); differentiable."""
    radius = radius_of(x)
    return x * ((EDGE - 1 / radius) / radius)


def expand(contracted: Tensor) -> Tensor:
    """The inverse of ``contract``: (..., 3) in (-2, 2) -> (..., 3) offsets."""
    largest = radius_of(contracted)
    return contracted / (largest * (EDGE - largest))


def radius_of(x: Tensor) -> Tensor:
    """(..., 1) the largest coordinate's magnitude, but at least 1."""
    return x.abs().amax(-1, keepdim=True).clamp(min=1)
