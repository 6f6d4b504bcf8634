"""What kinds of depth a teacher can have, and each as distance along the ray.

A 3DGS rasteriser blends a depth per Gaussian with the weights w of its colour: X = sum w * x. Programs differ in x
(z along the camera axis, distance along the ray, or 1/z) and in whether X is divided by the accumulated alpha
(``normalized``).
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from scene.cameras import Cameras
from scene.rays import SceneBox, distance_per_z, pixel_rays
from settings.errors import InputError

# Below this alpha, dividing by it amplifies 8-bit rounding and floaters more than it tells about the surface.
MIN_ALPHA = 0.5
FADES = 0.75
"""Median silhouette value over the value inside: partly covered pixels of an accumulated kind have half or less."""
# Depth so many times as far as the far end of the scene box is a sky's; half of an 8-bit level covers nothing.
_BEYOND, _LEAST_COVER = 1.5, 1 / 512


class DepthKind(str, Enum):
    """A blended quantity; ``_normalized``: divided by the accumulated alpha."""

    Z = "z"
    DISTANCE = "distance"
    INVERSE_Z = "inverse_z"
    Z_NORMALIZED = "z_normalized"
    DISTANCE_NORMALIZED = "distance_normalized"
    INVERSE_Z_NORMALIZED = "inverse_z_normalized"

    @property
    def quantity(self) -> str:
        """``"z"``, ``"distance"`` or ``"inverse_z"``."""
        return self.value.removesuffix("_normalized")

    @property
    def normalized(self) -> bool:
        """Whether it is divided by accumulated alpha."""
        return self.value.endswith("_normalized")

    @classmethod
    def parse(cls, text: str, source: str | Path = "teacher") -> DepthKind | None:
        """The kind of that name; None for ``"auto"``.

        Raises:
            InputError: any other text, naming ``source``.
        """
        if text == "auto":
            return None
        try:
            return cls(text)
        except ValueError:
            expected = "auto or one of " + ", ".join(kind.value for kind in cls)
            raise InputError(source, "depth_kind", f"'{text}'", expected) from None


def to_distance(
    depth: Tensor, kind: DepthKind, cameras: Cameras, frame: int, alpha: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Expected distance along the unit ray.

    Args:
        depth: (H, W) values of ``kind``, >= 0, 0 where there is nothing.
        cameras, frame: the camera it was rendered with, at this size.
        alpha: (H, W) accumulated alpha in [0, 1] if known.

    Returns:
        distance (H, W) in world units, 0 where invalid, and valid (H, W) bool. With alpha, pixels of at least
        ``MIN_ALPHA`` are valid. Without it an accumulated kind cannot be divided: pixels are taken as opaque, and
        valid only where they do not look faded: all 3x3 neighbours have depth, and none within 2 pixels has much
        more of it.
        From 1/z the distance is the harmonic mean, 1 / E[1/z].
    """
    valid = depth > 0
    if alpha is not None:
        valid &= alpha >= MIN_ALPHA
        if not kind.normalized:
            depth = depth / alpha.clamp(min=MIN_ALPHA)
    elif not kind.normalized:
        most = F.max_pool2d(depth[None, None], 5, stride=1, padding=2)[0, 0]
        valid = eroded(valid, 1) & (depth >= FADES * most)
    values = torch.where(valid, depth, 1.0)
    if kind.quantity == "inverse_z":
        values = 1.0 / values
    if kind.quantity != "distance":
        values = values * distance_per_z(cameras, frame)
    return torch.where(valid, values, 0.0), valid


def covered(depth: Tensor, kind: DepthKind, cameras: Cameras, frame: int, box: SceneBox | None) -> Tensor:
    """(H, W) bool: where some of the scene is in view; not where depth is that of a sky far beyond the box.

    Args:
        depth, kind, cameras, frame: as for ``to_distance``; faintly covered pixels count, so alpha has no say.
        box: the scene box; None: unknown, so nothing is beyond it.
    """
    if box is None:
        return depth > 0
    centre = cameras.centers[frame].cpu()
    corners = torch.stack([(torch.tensor(corner) - centre).abs() for corner in (box.lower, box.upper)])
    reach = _BEYOND * corners.amax(0).norm().item()
    if kind.quantity != "inverse_z":
        return (depth > 0) & (depth <= reach)
    return depth >= (1.0 if kind.normalized else _LEAST_COVER) / reach


def eroded(mask: Tensor, pixels: int) -> Tensor:
    """(H, W) bool: pixels whose neighbours up to that far are all set; beyond the image counts as set."""
    outside = F.max_pool2d((~mask).float()[None, None], 2 * pixels + 1, stride=1, padding=pixels)
    return outside[0, 0] == 0


def back_project(distance: Tensor, valid: Tensor, cameras: Cameras, frame: int) -> Tensor:
    """World points (M, 3) of the M valid pixels, row-major, of a (H, W) distance along the ray."""
    row, col = valid.nonzero(as_tuple=True)
    origins, directions = pixel_rays(cameras, frame, row, col)
    return origins + directions * distance[valid][:, None]
