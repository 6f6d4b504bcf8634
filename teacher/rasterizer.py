"""Images of the teacher's Gaussians from the cameras of a dataset."""

from __future__ import annotations

from torch import Tensor

from kernels.rasterize import RasterOutput, View, rasterize
from scene.cameras import Cameras
from teacher.gaussians import Gaussians

__all__ = ["RasterOutput", "Rasterizer", "camera_view"]


class Rasterizer:
    """Renders a fixed set of Gaussians, what does not depend on the view computed once.

    Args:
        gaussians: the teacher.
        implementation: of the kernel ``rasterize``: ``"auto"``, ``"numba"`` or ``"torch"``.
        near: Gaussians closer than this along the view axis are left out, world units. 0.2 is graphdeco's; a scene
            much smaller than one unit wants less.
        threads: CPU threads; None is all. The images do not depend on it.
    """

    def __init__(
        self, gaussians: Gaussians, implementation: str = "auto", *, near: float = 0.2, threads: int | None = None
    ) -> None:
        self._tensors = gaussians.means, gaussians.covariances(), gaussians.opacities, gaussians.sh
        self._options = {"implementation": implementation, "near": near, "threads": threads}

    def render(self, cameras: Cameras, index: int, channels: Tensor | None = None) -> RasterOutput:
        """The image from camera ``index``, at the cameras' size; ``channels`` (N, C) are blended beside colour.

        Raises:
            ValueError: the implementation is unknown.
        """
        return rasterize(*self._tensors, camera_view(cameras, index), channels=channels, **self._options)


def camera_view(cameras: Cameras, index: int) -> View:
    """Camera ``index`` as the kernel wants it, at the cameras' size."""
    camera = cameras[index].to("cpu")
    fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    return View(camera.world_to_camera()[0], fx, fy, cx, cy, camera.width, camera.height)
