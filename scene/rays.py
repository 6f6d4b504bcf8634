"""From pixels to rays, and where a ray crosses the scene box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kernels.device_constants import constant
from kernels.rays.camera_rays_numba import camera_rays as fill_camera_rays
from scene.cameras import Cameras

Vector = tuple[float, float, float]

_SEEN = 0.8  # of the cameras, in whose pictures their focus is: of captures that go round something, all


@dataclass(frozen=True)
class SceneBox:
    """Axis-aligned box around the scene, in world units; ``upper`` exceeds ``lower`` on every axis."""

    lower: Vector
    upper: Vector

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            corner = tuple(float(value) for value in getattr(self, name))
            if len(corner) != 3 or not all(math.isfinite(value) for value in corner):
                raise ValueError(f"scene box: {name}: found {corner}, expected three finite numbers")
            object.__setattr__(self, name, corner)
        if not all(low < high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(f"scene box: found lower {self.lower}, upper {self.upper}, expected lower < upper")

    @property
    def extent(self) -> Vector:
        """Edge lengths in world units."""
        x, y, z = (high - low for low, high in zip(self.lower, self.upper, strict=True))
        return x, y, z

    @property
    def centre(self) -> Vector:
        """World units."""
        x, y, z = ((low + high) / 2 for low, high in zip(self.lower, self.upper, strict=True))
        return x, y, z

    def contains(self, points: Tensor) -> Tensor:
        """(..., 3) points -> (...) bool, faces included."""
        lower, upper = points.new_tensor(self.lower), points.new_tensor(self.upper)
        return ((points >= lower) & (points <= upper)).all(-1)


@dataclass
class Rays:
    """N rays: ``origins`` (N, 3), unit ``directions`` (N, 3), ``near`` and ``far`` (N,) along the unit ray."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor

    def __len__(self) -> int:
        return self.origins.shape[0]

    def __getitem__(self, index: slice | Tensor) -> Rays:
        return Rays(self.origins[index], self.directions[index], self.near[index], self.far[index])

    def to(self, device: torch.device | str) -> Rays:
        """The same on a device."""
        return Rays(*(part.to(device) for part in (self.origins, self.directions, self.near, self.far)))


def pixel_rays(cameras: Cameras, frame: Tensor | int, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """World rays through the centres of chosen pixels.

    Args:
        frame: (N,) int64 camera indices, or that of all.
        row, col: (N,) pixel indices, integer or fractional; +0.5 is added here.

    Returns:
        origins (N, 3) and unit directions (N, 3).
    """
    x = (col + 0.5 - cameras.cx[frame]) / cameras.fx[frame]
    y = (cameras.cy[frame] - row - 0.5) / cameras.fy[frame]
    local = torch.stack([x, y, torch.full_like(x, -1.0)], dim=-1)
    world = (cameras.c2w[frame, :3, :3].expand(len(x), 3, 3) @ local[..., None])[..., 0]
    return cameras.centers[frame].expand(len(x), 3), torch.nn.functional.normalize(world, dim=-1)


def project(cameras: Cameras, frame: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where world points (N, 3) are in an image: pixel row and column, depth along the axis, distance; each (N,)."""
    local = (points - cameras.centers[frame]) @ cameras.c2w[frame, :3, :3]
    depth = -local[:, 2]
    safe = depth.clamp(min=1e-9)
    col = cameras.cx[frame] + cameras.fx[frame] * local[:, 0] / safe
    row = cameras.cy[frame] - cameras.fy[frame] * local[:, 1] / safe
    return row, col, depth, local.norm(dim=-1)


def image_rays(cameras: Cameras, frame: int) -> tuple[Tensor, Tensor]:
    """World rays of all pixels of one frame, row-major: origins and unit directions, (H*W, 3) each."""
    local = _image_plane(cameras, frame).reshape(-1, 3)
    world = torch.nn.functional.normalize(local @ cameras.c2w[frame, :3, :3].T, dim=-1)
    return cameras.centers[frame].expand_as(world), world


def camera_rays(cameras: Cameras, frame: int, box: SceneBox, near: float, far: float, implementation: str) -> Rays:
    """Rays of all pixels of one frame, row-major, with the interval in which they are inside the box and the range.

    Args:
        near, far: the configured range, distance along the unit ray.
        implementation: "torch", "triton" or, on the CPU, "numba".
    """
    if implementation == "torch":
        origins, directions = image_rays(cameras, frame)
        return Rays(origins, directions, *intersect_box(origins, directions, box, near, far))
    size, device = (cameras.height, cameras.width), cameras.fx.device
    count = size[0] * size[1]
    rays = Rays(*(torch.empty(shape, device=device) for shape in ((count, 3), (count, 3), count, count)))
    parts, reach = (rays.origins, rays.directions, rays.near, rays.far), (near, far)
    if implementation == "triton":
        from kernels.rays import camera_rays_triton

        lenses = tuple(values.contiguous() for values in (cameras.fx, cameras.fy, cameras.cx, cameras.cy))
        lens, corners = (lenses[:2], lenses[2:]), (box.lower, box.upper)
        camera_rays_triton.camera_rays(cameras.c2w.contiguous(), *lens, frame, size, corners, reach, parts)
    else:
        lens = (cameras.fx[frame], cameras.fy[frame]), (cameras.cx[frame], cameras.cy[frame])
        fill_camera_rays(cameras.c2w[frame], *lens, size, np.array((box.lower, box.upper), np.float32), reach, parts)
    return rays


def pixel_width(cameras: Cameras, box: SceneBox) -> float:
    """Width of a pixel at the middle of the scene, in world units: the median of all cameras."""
    distance = (cameras.centers - cameras.centers.new_tensor(box.centre)).norm(dim=-1)
    return (distance / cameras.fx).median().item()


def distance_per_z(cameras: Cameras, frame: int) -> Tensor:
    """(H, W) distance along the pixel's ray per unit of depth along the camera's axis, >= 1."""
    x, y = _columns_and_rows(cameras, frame)
    return (x.square() + 1 + y.square()[:, None]).sqrt()


def _image_plane(cameras: Cameras, frame: int) -> Tensor:
    """(H, W, 3) pixel centres on the plane one unit in front of the camera, in camera axes."""
    x, y = _columns_and_rows(cameras, frame)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, -1.0)], dim=-1)


def _columns_and_rows(cameras: Cameras, frame: int) -> tuple[Tensor, Tensor]:
    """x (W,) of the columns of pixel centres and y (H,) of the rows on that plane."""
    device = cameras.fx.device
    x = (torch.arange(cameras.width, device=device) + 0.5 - cameras.cx[frame]) / cameras.fx[frame]
    y = (cameras.cy[frame] - torch.arange(cameras.height, device=device) - 0.5) / cameras.fy[frame]
    return x, y


def focus(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The point nearest to all optical axes (least squares), and how far along its axis each camera has it.

    Returns:
        centre (3,) in world units and depth (N,) along the axes, float64 on the CPU.

    Raises:
        ValueError: there is one camera, or the axes are (nearly) parallel, meet behind the cameras, as when looking
            outwards, or meet nowhere: there is a nearest point of the axes of a flight over a town as well, or of a
            walk along a street, but it is in few pictures.
    """
    if len(cameras) == 1:
        raise ValueError("there is one camera, whose optical axis meets no other")
    axes, centers = -cameras.c2w[:, :3, 2].double().cpu(), cameras.centers.double().cpu()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    system = across.mean(0)
    if torch.linalg.eigvalsh(system)[0] < 1e-3:
        raise ValueError("the cameras' optical axes are parallel and meet nowhere")
    centre = torch.linalg.solve(system, (across @ centers[..., None]).mean(0))[:, 0]
    depth = ((centre - centers) * axes).sum(-1)
    if (depth <= 0).float().mean() > 0.1:
        raise ValueError("the cameras' optical axes meet behind them")
    aside = (centre - centers)[:, None] @ cameras.c2w[:, :3, :2].double().cpu()
    x, y = (aside[:, 0] / depth[:, None]).unbind(1)
    column, row = x * cameras.fx.cpu() + cameras.cx.cpu(), cameras.cy.cpu() - y * cameras.fy.cpu()
    seen = (depth > 0) & (column >= 0) & (column <= cameras.width) & (row >= 0) & (row <= cameras.height)
    if (share := seen.float().mean()) < _SEEN:
        raise ValueError(f"the point nearest to the cameras' optical axes is in the pictures of {share:.0%} of them")
    return centre, depth


def focus_box(cameras: Cameras) -> SceneBox:
    """The cube that cameras around a scene look at, when nothing better is known about its bounds.

    Its centre is their ``focus``; its side is what the median camera sees there, along the longer side of its image.

    Raises:
        ValueError: the cameras have no focus.
    """
    centre, depth = focus(cameras)
    sight = torch.maximum(cameras.width / cameras.fx, cameras.height / cameras.fy).cpu()
    half = (depth * sight).median().item() / 2
    lower, upper = (centre - half).tolist(), (centre + half).tolist()
    return SceneBox((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))


def intersect_box(origins: Tensor, directions: Tensor, box: SceneBox, near: float, far: float) -> tuple[Tensor, Tensor]:
    """Where rays are inside the box and the range [near, far] (slab method, Kay and Kajiya 1986).

    Args:
        origins, directions: (N, 3); directions are unit, components may be zero, origins may be inside the box.
        near, far: the configured range, distance along the unit ray.

    Returns:
        near (N,) and far (N,), ``near <= far``. A ray that misses gets the empty interval ``(near, near)``.
    """
    lower, upper = (constant(corner, origins.device, origins.dtype) for corner in (box.lower, box.upper))
    first, second = (lower - origins) / directions, (upper - origins) / directions
    entry, exit_ = torch.minimum(first, second), torch.maximum(first, second)

    # A ray parallel to a slab is inside it for ever or never; 0/0 above would be NaN.
    parallel = directions == 0
    within = (origins >= lower) & (origins <= upper)
    entry = torch.where(parallel, torch.where(within, -torch.inf, torch.inf), entry)
    exit_ = torch.where(parallel, torch.where(within, torch.inf, -torch.inf), exit_)

    entry = entry.amax(-1).clamp(min=near)
    exit_ = exit_.amin(-1).clamp(max=far)
    missed = exit_ <= entry
    return entry.masked_fill(missed, near), exit_.masked_fill(missed, near)
