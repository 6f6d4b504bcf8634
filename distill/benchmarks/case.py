"""What is timed, with what it moves and computes, and how large the inputs are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Case:
    """One implementation of one piece of work.

    Attributes:
        name: the work with its sizes; cases of one name are compared with the first of them.
        implementation: whose.
        work: does it once. What it returns is the seconds it took where it keeps its own clock, else it is ignored.
        before: run each time before the clock starts.
        items, unit: how much one call does, e.g. 131072 points, or what tells it after a call; None: not said.
        bytes, flops: the least that any implementation moves to or from memory, each value once, and computes; None
            where that depends on the data and is not counted.
    """

    name: str
    implementation: str
    work: Callable[[], object]
    before: Callable[[], object] = field(default=lambda: None)
    items: float | Callable[[], float] | None = None
    unit: str | None = None
    bytes: float | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Sizes:
    """How large the benchmark's inputs are.

    Attributes:
        points, log2_table, levels: of the hash encoding.
        samples, width: of the radiance MLP.
        grouped_points, cells: of the grouped MLPs.
        rays, resolution: of ray marching, and cells along a side.
        adam_log2_tables: entries per level of the updated tables.
        picture: pixels along a side for SSIM.
        frame: pixels along a side of the rasteriser's picture, and of the training views.
        voxels: cells along a side for the statistics of all of the built-in scene's Gaussians.
        views, warm_steps, timed_steps, samples_per_step: of training.
        copied, matrix: bytes copied and rows of the matrices multiplied to measure what the device can do.
    """

    points: int = 131072
    log2_table: int = 19
    levels: int = 16
    samples: int = 32768
    width: int = 32
    grouped_points: int = 65536
    cells: int = 512
    rays: int = 4096
    resolution: int = 128
    adam_log2_tables: tuple[int, ...] = (15, 19)
    picture: int = 400
    frame: int = 128
    voxels: int = 128
    views: int = 16
    warm_steps: int = 64
    timed_steps: int = 8
    samples_per_step: int = 16384
    copied: int = 2**27
    matrix: int = 1024


ON_CPU = Sizes()
ON_CUDA = Sizes(
    points=2**18, samples=2**18, width=64, grouped_points=2**18, rays=16384, frame=800, warm_steps=128, timed_steps=32,
    samples_per_step=2**18, copied=2**30, matrix=8192,
)  # fmt: skip
TINY = Sizes(
    points=1024, log2_table=12, levels=4, samples=1024, width=16, grouped_points=1024, cells=16, rays=256,
    resolution=32, adam_log2_tables=(12,), picture=48, frame=24, voxels=24, views=4, warm_steps=2, timed_steps=2,
    samples_per_step=2048, copied=2**22, matrix=256,
)  # fmt: skip

_IMPLEMENTATIONS = {"cpu": ("torch", "numba"), "cuda": ("torch", "triton")}


def implementations(device: torch.device) -> tuple[str, ...]:
    """Names that a kernel may have an implementation under on a device, the reference first."""
    return _IMPLEMENTATIONS[device.type]


def precision_on(device: torch.device) -> torch.dtype:
    """The type that training computes in on a device, unless ``train.precision`` says otherwise."""
    return torch.float16 if device.type == "cuda" else torch.float32
