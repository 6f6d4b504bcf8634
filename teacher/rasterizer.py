"""Images of the teacher's Gaussians from the cameras of a dataset."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.rasterize import RasterOutput, View, rasterize
from kernels.rasterize_gsplat import rasterize_gsplat
from kernels.ray_weights import RayWeights, ray_weights
from scene.cameras import Cameras
from teacher.gaussians import Gaussians
from teacher.gsplat_setup import ensure_gsplat

__all__ = ["RasterOutput", "Rasterizer", "camera_view"]


class Rasterizer:
    """Renders a fixed set of Gaussians, what does not depend on the view computed once.

    Args:
        gaussians: the teacher.
        implementation: ``"auto"``: gsplat on a CUDA device, else as ``"cpu"``; ``"gsplat"``; ``"cpu"``: the fastest
            of the kernel ``rasterize`` on the CPU, whatever the device; ``"numba"`` or ``"torch"``: that one.
        near: Gaussians closer than this along the view axis are left out, world units. 0.2 is graphdeco's; a scene
            much smaller than one unit wants less.
        threads: CPU threads; None is all. The images do not depend on it.
        device: where the program computes; None is the CPU.

    Raises:
        InputError: gsplat is chosen and cannot run on the device; what is missing.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        implementation: str = "auto",
        *,
        near: float = 0.2,
        threads: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        device = torch.device(device or "cpu")
        if implementation == "auto":
            implementation = "gsplat" if device.type == "cuda" else "cpu"
        if implementation == "gsplat":
            ensure_gsplat(device)
        self.implementation = implementation
        self.device = device if implementation == "gsplat" else torch.device("cpu")
        """Where the images are."""
        tensors = gaussians.means, gaussians.covariances(), gaussians.opacities, gaussians.sh
        self._tensors = tuple(tensor.to(self.device) for tensor in tensors)
        self._near, self._threads = near, threads

    def render(self, cameras: Cameras, index: int, channels: Tensor | None = None) -> RasterOutput:
        """The image from camera ``index``, at the cameras' size.

        Args:
            channels: (N, C) float32 further values of each Gaussian to blend.

        Raises:
            ValueError: the implementation is unknown.
        """
        if self.implementation == "gsplat":
            return RasterOutput(*(plane[0] for plane in self.render_batch(cameras[index], channels)))
        return rasterize(
            *self._tensors,
            camera_view(cameras, index),
            channels=channels,
            near=self._near,
            implementation="auto" if self.implementation == "cpu" else self.implementation,
            threads=self._threads,
        )

    def render_batch(self, cameras: Cameras, channels: Tensor | None = None) -> RasterOutput:
        """The images from all V >= 1 cameras, each field with a leading dimension V.

        On CUDA they are rendered in one call, in memory that grows with V times the number of Gaussians.

        Args, Raises: as ``render``.
        """
        if self.implementation == "gsplat":
            views = [camera_view(cameras, index) for index in range(len(cameras))]
            channels = None if channels is None else channels.to(self.device)
            return rasterize_gsplat(*self._tensors, views, channels=channels, near=self._near)[0]
        single = [self.render(cameras, index, channels) for index in range(len(cameras))]
        return RasterOutput(*(torch.stack(planes) for planes in zip(*single, strict=True)))

    def ray_weights(self, cameras: Cameras, index: int) -> RayWeights:
        """Sums over the blending weights of each pixel of ``render``.

        gsplat does not tell them: with it they are the CPU rasteriser's, and on the CPU.
        """
        return ray_weights(
            *(tensor.cpu() for tensor in self._tensors[:3]),
            camera_view(cameras, index),
            near=self._near,
            implementation="torch" if self.implementation == "torch" else "auto",
            threads=self._threads,
        )


def camera_view(cameras: Cameras, index: int) -> View:
    """Camera ``index`` as the kernel wants it, at the cameras' size."""
    camera = cameras[index].to("cpu")
    fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    return View(camera.world_to_camera()[0], fx, fy, cx, cy, camera.width, camera.height)
