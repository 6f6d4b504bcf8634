"""Times every kernel's implementations side by side, interleaved in one process, and prints Markdown.

    python tools/benchmark.py                                    # kernels at their reference sizes
    python tools/benchmark.py --only hash_encoding --repeats 9
    python tools/benchmark.py --only rasterize --threads 1 --ply point_cloud.ply --transforms transforms_test.json

Ratios are the figures to quote: machines drift, and both sides of a ratio drift together.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from distill.telemetry import device_name
from kernels import adam, compositing, grouped_mlp, hash_encoding, radiance_mlp, ray_marching
from kernels.covariances import rotation_matrices
from kernels.gaussian_statistics import gaussian_statistics
from kernels.rasterize import rasterize
from kernels.ssim import ssim
from kernels.threads import available_threads, one_torch_thread
from scene.blender import load_transforms
from scene.cameras import Cameras
from scene.errors import InputError
from teacher.bricks import BRICKS_BOX, build_bricks, orbit_cameras
from teacher.gaussian_files import read_gaussians
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer, camera_view

Case = tuple[str, str, Callable[[], object]]  # what is timed, implementation, the work


def hash_encoding_cases() -> Iterator[Case]:
    """Forward and backward of 131,072 random points through L16 F2 T2^19."""
    layout = hash_encoding.HashLayout(16, 2, 2**19, 16, 2048)
    x, grad = torch.rand(131072, 3), torch.randn(131072, layout.output_width)
    for implementation in ("torch", "numba"):
        table = torch.nn.Parameter(torch.randn(layout.entries, layout.features))

        def work(implementation: str = implementation, table: torch.nn.Parameter = table) -> None:
            table.grad = None if implementation == "torch" else table.grad
            hash_encoding.hash_encode(x, table, layout, implementation=implementation).backward(grad)

        yield "hash_encoding 131,072 points L16 F2 T2^19, forward+backward", implementation, work


def radiance_mlp_cases() -> Iterator[Case]:
    """Forward and backward of 32,768 samples, width 32."""
    features, basis = torch.randn(24, 32768).t(), torch.randn(2048, 16)
    ray_index = torch.arange(32768) // 16
    shapes = [(32, 24), (16, 32), (32, 31), (32, 32), (3, 32)]
    weights = [torch.nn.Parameter(torch.randn(shape) / 6) for shape in shapes]
    features.requires_grad_()
    for implementation in ("torch", "numba"):

        def work(implementation: str = implementation) -> None:
            density, rgb = radiance_mlp.radiance_mlp(
                features, basis, ray_index, weights[:2], weights[2:], implementation=implementation
            )
            (density.sum() + rgb.sum()).backward()

        yield "radiance_mlp 32,768 samples width 32, forward+backward", implementation, work


def grouped_mlp_cases() -> Iterator[Case]:
    """Forward and backward of 65,536 points in 512 cells of width 32; torch is the loop over the cells.

    torch on one thread, as in training: on two, beside other work, its many small products took minutes.
    """
    layout = grouped_mlp.GroupedLayout(4, 32, 3, 1, 16, 16)
    x, basis = torch.rand(65536, 3) * 2 - 1, torch.randn(4096, layout.direction_width)
    ray_index, cell_index = torch.arange(65536) // 16, torch.randint(512, (65536,))
    for implementation in ("torch", "numba"):
        sizes = (layout.density_size, layout.color_size)
        networks = [torch.nn.Parameter(torch.randn(512, size) / 6) for size in sizes]

        def work(implementation: str = implementation, networks: list[torch.nn.Parameter] = networks) -> None:
            with one_torch_thread():
                density, rgb = grouped_mlp.grouped_radiance_mlp(
                    x, basis, ray_index, cell_index, *networks, layout, implementation=implementation
                )
                (density.sum() + rgb.sum()).backward()

        yield "grouped_mlp 65,536 points in 512 cells, width 32, forward+backward", implementation, work


def marching_cases() -> Iterator[Case]:
    """4,096 rays through a shell of cells, and compositing of their samples."""
    axes = torch.meshgrid(*[torch.linspace(-1, 1, 128)] * 3, indexing="ij")
    radius = torch.stack(axes).norm(dim=0)
    cells = ray_marching.Cells((-1.0, -1.0, -1.0), 2 / 128, ((radius > 0.7) & (radius < 0.8)).to(torch.uint8))
    origins = torch.nn.functional.normalize(torch.randn(4096, 3), dim=-1) * 3
    directions = torch.nn.functional.normalize(torch.rand(4096, 3) - 0.5 - origins, dim=-1)
    near, far = torch.full((4096,), 1.0), torch.full((4096,), 5.0)

    def march(implementation: str) -> ray_marching.Samples:
        return ray_marching.march(
            origins, directions, near, far, cells, step=0.005, limit=1024, seed=1, implementation=implementation
        )

    samples = march("numba")
    density = torch.rand(len(samples.t)).requires_grad_()
    rgb = torch.rand(len(samples.t), 3)
    for implementation in ("torch", "numba"):
        yield (
            f"ray_marching 4,096 rays, {len(samples.t):,} samples", implementation,
            lambda implementation=implementation: march(implementation),
        )  # fmt: skip

        def render(implementation: str = implementation) -> None:
            result = compositing.composite(
                density, rgb, samples.t, samples.dt, samples.offsets, implementation=implementation
            )
            result.rgb.sum().backward()

        yield f"compositing {len(samples.t):,} samples, forward+backward", implementation, render


def adam_cases() -> Iterator[Case]:
    """One update of tables of two sizes after a step that touched the entries of 16,384 samples near a surface."""
    for log2_size in (15, 19):
        layout = hash_encoding.HashLayout(16, 2, 2**log2_size, 16, 2048)
        radius = 0.35 + 0.002 * torch.arange(16)[:, None]
        points = 0.5 + radius * torch.nn.functional.normalize(torch.randn(1024, 1, 3), dim=-1)
        points = points.reshape(-1, 3)
        for name in ("torch.optim.Adam", "dense", "lazy"):
            table = torch.nn.Parameter(torch.randn(layout.entries, layout.features))
            touched = adam.TouchedRows(layout.entries)
            hash_encoding.hash_encode(points, table, layout, touched=touched).sum().backward()
            yield (
                f"adam {layout.entries * layout.features:,} values, 16,384 samples' entries touched", name,
                _adam_work(name, table, touched),
            )  # fmt: skip


def _adam_work(name: str, table: torch.nn.Parameter, touched: adam.TouchedRows) -> Callable[[], object]:
    grad, set_flags = table.grad.clone(), touched.flags.clone()
    moments = torch.zeros_like(table), torch.zeros_like(table)
    optimizer = torch.optim.Adam([table], lr=1e-4, betas=(0.9, 0.99), eps=1e-15, fused=True)

    def restore() -> None:
        table.grad.copy_(grad)
        touched.flags.copy_(set_flags)

    def work() -> None:
        if name == "torch.optim.Adam":
            optimizer.step()
            table.grad.zero_()
            return
        adam.adam_step(
            table.data, table.grad, *moments, step=10, lr=1e-4, betas=(0.9, 0.99), eps=1e-15,
            touched=touched if name == "lazy" else None, implementation="numba",
        )  # fmt: skip

    work.before = restore
    return work


def rasterize_cases(ply: Path | None, transforms: Path | None) -> Iterator[Case]:
    """A frame of the built-in scene at 128x128, and one of the user's (numba alone: torch would take minutes)."""
    bricks, orbit = build_bricks(0), orbit_cameras(4, 128, 128)
    for implementation in ("torch", "numba"):
        rasterizer = Rasterizer(bricks, implementation)
        yield (
            f"rasterize {len(bricks):,} Gaussians 128x128", implementation,
            lambda rasterizer=rasterizer: rasterizer.render(orbit, 0),
        )  # fmt: skip
    if ply is not None:
        gaussians, cameras = read_gaussians(ply), load_transforms(transforms, image_size=(400, 400)).cameras
        large = Rasterizer(gaussians, "numba")
        name = f"rasterize {len(gaussians):,} Gaussians {cameras.width}x{cameras.height}"
        yield name, "numba", lambda: large.render(cameras, 0)
        yield f"{name}, forward+backward", "numba", _gradient_work(gaussians, cameras)


def _gradient_work(gaussians: Gaussians, cameras: Cameras) -> Callable[[], object]:
    """Colour and alpha of one view and their gradient in means, covariances, opacities and SH."""
    leaves = [gaussians.means, gaussians.covariances(), gaussians.opacities, gaussians.sh]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    upstream = torch.randn(cameras.height, cameras.width, 3)

    def work() -> None:
        output = rasterize(*leaves, camera_view(cameras, 0), implementation="numba")
        torch.autograd.grad((output.rgb * upstream).sum() + output.alpha.sum(), leaves)

    return work


def ssim_cases() -> Iterator[Case]:
    """Similarity of two pictures of 400x400 and its gradient."""
    picture, reference = torch.rand(400, 400, 3, requires_grad=True), torch.rand(400, 400, 3)
    for implementation in ("torch", "numba"):
        yield (
            "ssim 400x400, forward+backward", implementation,
            lambda implementation=implementation: ssim(picture, reference, implementation=implementation).backward(),
        )  # fmt: skip


def voxelize_cases() -> Iterator[Case]:
    """Cell statistics of 100 Gaussians of the built-in scene at 32 cells, and of all of them at 128 (numba alone)."""
    bricks = build_bricks(0)
    half_axes = rotation_matrices(bricks.rotations) * bricks.scales[:, None, :]
    for count, resolution, implementations in ((100, 32, ("torch", "numba")), (len(bricks), 128, ("numba",))):
        chosen = torch.randperm(len(bricks))[:count]
        gaussians = bricks.means[chosen], half_axes[chosen], bricks.opacities[chosen]
        size = max(BRICKS_BOX.extent) / resolution
        shape = tuple(math.ceil(extent / size) for extent in BRICKS_BOX.extent)
        for implementation in implementations:
            yield (
                f"voxelize {count:,} Gaussians into {'x'.join(map(str, shape))} cells", implementation,
                lambda gaussians=gaussians, size=size, shape=shape, implementation=implementation: (
                    gaussian_statistics(*gaussians, BRICKS_BOX.lower, size, shape, implementation=implementation)
                ),
            )  # fmt: skip


def measure(cases: list[Case], repeats: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of each case, ``repeats`` rounds over all of them in turn after one that is not counted."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for round_ in range(repeats + 1):
        for name, implementation, work in cases:
            getattr(work, "before", lambda: None)()
            start = time.perf_counter()
            work()
            if round_:
                seconds.setdefault((name, implementation), []).append(time.perf_counter() - start)
    return seconds


def table(seconds: dict[tuple[str, str], list[float]]) -> str:
    """Markdown: minimum, median and maximum in ms, and the first implementation's median over each one's."""
    lines = ["| kernel | implementation | min ms | median ms | max ms | speed-up |", "|---|---|---|---|---|---|"]
    first: dict[str, float] = {}
    for (name, implementation), values in seconds.items():
        median = statistics.median(values)
        ratio = first.setdefault(name, median) / median
        figures = " | ".join(f"{1e3 * value:.2f}" for value in (min(values), median, max(values)))
        lines.append(f"| {name} | {implementation} | {figures} | {ratio:.1f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Time the kernels' implementations against one another.")
    groups = ("hash_encoding", "radiance_mlp", "grouped_mlp", "marching", "adam", "rasterize", "ssim", "voxelize")
    parser.add_argument("--only", choices=groups, action="append", help="one group; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="counted rounds (default 5)")
    parser.add_argument(
        "--ply", type=Path, help="3D Gaussians (.ply, .npz, .spz) for the rasteriser; with --transforms"
    )
    parser.add_argument("--transforms", type=Path, help="transforms_*.json whose first frame is rendered")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    arguments = parser.parse_args(argv)
    if (arguments.ply is None) != (arguments.transforms is None):
        parser.error("--ply and --transforms go together")
    if arguments.threads:
        os.environ["NUMBA_NUM_THREADS"] = str(arguments.threads)
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    makers = {
        "hash_encoding": hash_encoding_cases,
        "radiance_mlp": radiance_mlp_cases,
        "grouped_mlp": grouped_mlp_cases,
        "marching": marching_cases,
        "adam": adam_cases,
        "rasterize": lambda: rasterize_cases(arguments.ply, arguments.transforms),
        "ssim": ssim_cases,
        "voxelize": voxelize_cases,
    }
    try:
        cases = [case for name in arguments.only or groups for case in makers[name]()]
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{device_name(torch.device('cpu'))}, {available_threads()} threads, torch {torch.__version__}\n")
    print(table(measure(cases, arguments.repeats)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
