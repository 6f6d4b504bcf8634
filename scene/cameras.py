"""Pinhole cameras of one dataset: poses, intrinsics and one image size."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_ROUNDING = 1e-5  # of intrinsics that were scaled in one step or in two, as a fraction and in pixels


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras that share one image size.

    Attributes:
        c2w: (N, 4, 4) float32 rigid camera-to-world poses, right-handed; the camera looks down -Z, +Y is up.
        fx, fy: (N,) float32 focal lengths in pixels.
        cx, cy: (N,) float32 principal point in pixels from the image's top left corner; pixel centres are at +0.5.
        width, height: image size in pixels.
    """

    c2w: Tensor
    fx: Tensor
    fy: Tensor
    cx: Tensor
    cy: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        count = self.c2w.shape[0]
        if self.c2w.shape != (count, 4, 4):
            raise ValueError(f"c2w: found shape {tuple(self.c2w.shape)}, expected (N, 4, 4)")
        for name in ("fx", "fy", "cx", "cy"):
            if getattr(self, name).shape != (count,):
                raise ValueError(f"{name}: found shape {tuple(getattr(self, name).shape)}, expected ({count},)")

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, index: int | slice | list[int] | Tensor) -> Cameras:
        """Those cameras; a number, of whatever type, gives a set of one."""
        if not isinstance(index, bool | slice | list) and getattr(index, "ndim", 0) == 0:
            first = range(len(self))[operator.index(index)]
            index = slice(first, first + 1)  # a view: each picture that is rendered begins with it
        return replace(self, **{name: tensor[index] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> Cameras:
        """The same on a device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Poses and intrinsics by name: ``c2w``, ``fx``, ``fy``, ``cx``, ``cy``."""
        return {name: getattr(self, name) for name in ("c2w", "fx", "fy", "cx", "cy")}

    def same_as(self, other: Cameras) -> bool:
        """Whether the other cameras see the same, in the same order: intrinsics may differ by rounding."""
        sizes = len(self), self.width, self.height
        if sizes != (len(other), other.width, other.height) or not torch.equal(self.c2w, other.c2w):
            return False
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("fx", "fy", "cx", "cy"))
        return all(torch.allclose(mine, theirs, rtol=_ROUNDING, atol=_ROUNDING) for mine, theirs in pairs)

    def resized(self, width: int, height: int) -> Cameras:
        """The same views at another image size: intrinsics scale with the pixels, per axis."""
        x, y = width / self.width, height / self.height
        intrinsics = {"fx": self.fx * x, "fy": self.fy * y, "cx": self.cx * x, "cy": self.cy * y}
        return replace(self, **intrinsics, width=width, height=height)

    def finer(self, scale: int) -> Cameras:
        """The same views, of ``scale`` x ``scale`` pixels for each; see ``area_means``."""
        return self if scale == 1 else self.resized(self.width * scale, self.height * scale)

    @property
    def centers(self) -> Tensor:
        """(N, 3) camera centres in world units."""
        return self.c2w[:, :3, 3]

    def world_to_camera(self) -> Tensor:
        """(N, 4, 4) inverse poses (the transpose of the rotation: poses are rigid)."""
        rotation = self.c2w[:, :3, :3].transpose(1, 2)
        inverse = torch.zeros_like(self.c2w)
        inverse[:, :3, :3] = rotation
        inverse[:, :3, 3] = -(rotation @ self.c2w[:, :3, 3:])[..., 0]
        inverse[:, 3, 3] = 1.0
        return inverse


def area_means(planes: Tensor, scale: int) -> Tensor:
    """(H, W, C) means of blocks of ``scale`` x ``scale`` pixels of (H * scale, W * scale, C)."""
    if scale == 1:
        return planes
    height, width, channels = planes.shape
    return planes.view(height // scale, scale, width // scale, scale, channels).mean(dim=(1, 3))


def join_cameras(*parts: Cameras) -> Cameras:
    """The cameras of all, in order; ``ValueError`` unless they share one image size."""
    sizes = {(part.width, part.height) for part in parts}
    if len(sizes) != 1:
        raise ValueError(f"found image sizes {sorted(sizes)}, expected one")
    names = parts[0].tensors()
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
