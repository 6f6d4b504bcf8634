"""Measures the first occupancy that a teacher's Gaussians give against the cells that matter to its pictures.

    python tools/measure_occupancy.py --config configs/lego_response_eighth.yaml [--assets DIR] \\
        [--transforms transforms_train.json] [--resolution 96 --resolution 128] [--width 200]

True are the cells in which some ray of some camera loses more than 1/255 of its light, by the Gaussians' own
thickness on that ray (``kernels.gaussian_visibility``); cameras are those of ``data.transforms`` and of every
--transforms, a ray for each pixel at --width. Occupied are the cells a run starts from. Prints Markdown, writes
nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from distill.command_line import add_config_options, config_of, run_command
from distill.config import REPO_ROOT, check_assets
from distill.occupancy import OccupancyGrid
from distill.occupancy_init import cells_of_gaussians, statistics_of_gaussians
from distill.scene_box import scene_box
from distill.schema import Config
from kernels.gaussian_statistics import visible_radii
from kernels.gaussian_visibility import Visibility, trace_gaussians
from scene.blender import load_transforms
from scene.cameras import Cameras
from scene.errors import InputError
from scene.rays import image_rays
from teacher.gaussian_files import read_gaussians
from teacher.gaussians import Gaussians

COLUMNS = (
    "cells", "build s", "MiB", "true %", "occupied %", "occupied / true",
    "visible Gaussians", "without their cell", "light lost %", "most on a ray %",
)  # fmt: skip
_RAYS_AT_ONCE = 1 << 20


def measure(config: Config, gaussians: Gaussians, cameras: Sequence[Cameras], resolution: int) -> list[str]:
    """A row of the table: the figures under ``COLUMNS`` for a grid of ``resolution`` cells along the longest side."""
    box, _ = scene_box(config, gaussians, None)
    # The step cancels out of the threshold across a cell.
    grid = OccupancyGrid(box, resolution, 1.0, config.occupancy.threshold, config.occupancy.decay)
    start = time.perf_counter()
    kept = cells_of_gaussians(gaussians, grid)
    seconds = time.perf_counter() - start
    statistics = statistics_of_gaussians(gaussians, grid)
    seen = _trace(gaussians, grid, cameras, kept)
    visible = gaussians.means[(seen.gaussians != 0) & box.contains(gaussians.means)]
    rows = statistics.rows(visible)
    inside = kept.view(-1)[statistics.indices[rows]] != 0
    lost, true = seen.alpha - seen.kept_alpha, seen.cells.sum().item()
    share = 100 / kept.numel()
    return [
        "x".join(map(str, grid.shape)), f"{seconds:.2f}", f"{statistics.nbytes / 2**20:.1f}", f"{share * true:.1f}",
        f"{share * kept.sum().item():.1f}", f"{kept.sum().item() / true:.2f}", f"{len(visible):,}",
        f"{int(((rows < 0) | ~inside).sum()):,}", f"{100 * (lost.sum() / seen.alpha.sum()).item():.4f}",
        f"{100 * lost.max().item():.1f}",
    ]  # fmt: skip


def _trace(gaussians: Gaussians, grid: OccupancyGrid, cameras: Sequence[Cameras], kept: Tensor) -> Visibility:
    """What all rays of all cameras see, some frames at a time."""
    shapes = gaussians.means, gaussians.covariances(), gaussians.opacities, visible_radii(gaussians.opacities)
    frames = [(dataset, index) for dataset in cameras for index in range(len(dataset))]
    parts = []
    at_once = max(1, _RAYS_AT_ONCE // max(dataset.width * dataset.height for dataset in cameras))
    for first in range(0, len(frames), at_once):
        rays = [image_rays(*frame) for frame in frames[first : first + at_once]]
        origins, directions = (torch.cat(part) for part in zip(*rays, strict=True))
        parts.append(trace_gaussians(*shapes, origins, directions, grid.box.lower, grid.cell_size, kept))
    cells, seen, alpha, kept_alpha = zip(*parts, strict=True)
    return Visibility(torch.stack(cells).amax(0), torch.stack(seen).amax(0), torch.cat(alpha), torch.cat(kept_alpha))


def main(argv: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Measure the occupancy that a teacher's Gaussians give.")
    add_config_options(parser)
    parser.add_argument("--transforms", action="append", default=[], metavar="FILE", help="further cameras")
    parser.add_argument("--resolution", action="append", type=int, metavar="N", help="default: the config's")
    parser.add_argument("--width", type=int, default=200, metavar="PIXELS", help="rays along an image's width")
    arguments = parser.parse_args(argv)
    if arguments.width < 1 or any(not 1 <= value <= 1024 for value in arguments.resolution or ()):
        parser.error("--width is at least 1, --resolution from 1 to 1024")
    return run_command(lambda: _print_table(arguments), arguments.debug)


def _print_table(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    check_assets(config)
    if config.teacher.ply is None:
        raise InputError(arguments.config, "teacher.ply", "nothing", "a 3DGS PLY", "Set teacher.ply.")
    gaussians = read_gaussians(config.teacher.ply)
    root = Path(arguments.assets or REPO_ROOT)
    paths = [config.data.transforms, *(root / path for path in arguments.transforms)]
    datasets = [load_transforms(path).cameras for path in paths if path is not None]
    if not datasets:
        raise InputError(arguments.config, "data.transforms", "nothing", "the dataset's cameras")
    height = [max(1, round(one.height * arguments.width / one.width)) for one in datasets]
    cameras = [one.resized(arguments.width, rows) for one, rows in zip(datasets, height, strict=True)]
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for resolution in arguments.resolution or [config.occupancy.resolution]:
        print(f"| {' | '.join(measure(config, gaussians, cameras, resolution))} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
