"""The kernels of teachers, on the CPU, where they have their twins: rasteriser, similarity, cell statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from distill.benchmarks.case import Case, Sizes
from kernels.gaussians.covariances import rotation_matrices
from kernels.gaussians.gaussian_statistics import gaussian_statistics
from kernels.gaussians.rasterize import rasterize
from kernels.losses.ssim import ssim
from scene.cameras import Cameras
from scene.formats import load_frames
from teacher.bricks.scene import BRICKS_BOX, build_bricks, orbit_cameras
from teacher.gaussian_files import read_gaussians
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer, camera_view


def user_scene(ply: Path, transforms: Path) -> tuple[Gaussians, Cameras]:
    """The user's Gaussians, and cameras at 400x400.

    Raises:
        InputError: a file is missing or damaged.
    """
    return read_gaussians(ply), load_frames(transforms, image_size=(400, 400)).cameras


def rasterize_cases(sizes: Sizes, scene: tuple[Gaussians, Cameras] | None) -> Iterator[Case]:
    """A frame of the built-in scene, and one of the user's (numba alone: torch would take minutes)."""
    side = min(sizes.frame, 128)
    bricks, orbit = build_bricks(0), orbit_cameras(4, side, side)
    for implementation in ("torch", "numba"):
        rasterizer = Rasterizer(bricks, implementation)
        yield Case(
            f"rasterize {len(bricks):,} Gaussians {side}x{side}", implementation,
            lambda rasterizer=rasterizer: rasterizer.render(orbit, 0), items=1, unit="frames",
        )  # fmt: skip
    if scene is not None:
        gaussians, cameras = scene
        large = Rasterizer(gaussians, "numba")
        name = f"rasterize {len(gaussians):,} Gaussians {cameras.width}x{cameras.height}"
        yield Case(name, "numba", lambda: large.render(cameras, 0), items=1, unit="frames")
        gradient = _gradient_work(gaussians, cameras)
        yield Case(f"{name}, forward+backward", "numba", gradient, items=1, unit="frames")


def _gradient_work(gaussians: Gaussians, cameras: Cameras) -> Callable[[], object]:
    """Colour and alpha of one view and their gradient in means, covariances, opacities and SH."""
    leaves = [gaussians.means, gaussians.covariances(), gaussians.opacities, gaussians.sh]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    upstream = torch.randn(cameras.height, cameras.width, 3)

    def work() -> None:
        output = rasterize(*leaves, camera_view(cameras, 0), implementation="numba")
        torch.autograd.grad((output.rgb * upstream).sum() + output.alpha.sum(), leaves)

    return work


def ssim_cases(sizes: Sizes) -> Iterator[Case]:
    """Similarity of two pictures and its gradient."""
    side = sizes.picture
    picture, reference = torch.rand(side, side, 3, requires_grad=True), torch.rand(side, side, 3)
    for implementation in ("torch", "numba"):
        # Both pictures read forward and backward, one gradient written.
        yield Case(
            f"ssim {side}x{side}, forward+backward", implementation,
            lambda implementation=implementation: ssim(picture, reference, implementation=implementation).backward(),
            items=1, unit="pictures", bytes=5 * picture.nbytes,
        )  # fmt: skip


def voxelize_cases(sizes: Sizes) -> Iterator[Case]:
    """Cell statistics of 100 Gaussians of the built-in scene at 32 cells or fewer, and of all of them (numba alone)."""
    bricks = build_bricks(0)
    half_axes = rotation_matrices(bricks.rotations) * bricks.scales[:, None, :]
    few = (100, min(32, sizes.voxels), ("torch", "numba"))
    for count, resolution, names in (few, (len(bricks), sizes.voxels, ("numba",))):
        chosen = torch.randperm(len(bricks))[:count]
        gaussians = bricks.means[chosen], half_axes[chosen], bricks.opacities[chosen]
        size = max(BRICKS_BOX.extent) / resolution
        shape = tuple(math.ceil(extent / size) for extent in BRICKS_BOX.extent)
        for implementation in names:
            yield Case(
                f"voxelize {count:,} Gaussians into {'x'.join(map(str, shape))} cells", implementation,
                lambda gaussians=gaussians, size=size, shape=shape, implementation=implementation: (
                    gaussian_statistics(*gaussians, BRICKS_BOX.lower, size, shape, implementation=implementation)
                ),
                items=count, unit="Gaussians",
            )  # fmt: skip
