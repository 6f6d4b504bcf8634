"""The settings of a city: a scene distilled in blocks, each by a run of its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from settings.executors import ExecutorConfig
from settings.sections import FromList, Section, Unit

Parts = Annotated[int, Field(ge=1, le=4096)]


class BlocksConfig(Section):
    """The blocks of a city (tools/distill_city.py); other programs take no notice of it."""

    blocks: Parts | Annotated[tuple[Parts, Parts, Parts], FromList] = Field(
        4,
        description="number of blocks, cut in two again and again along the longest side; or how many along x, y and z",
    )
    coverage_weight: Unit = Field(
        0.3,
        description="what the cuts balance; 0: only the number of Gaussians, 1: only how many cameras see them",
    )
    least_share: Unit = Field(
        0.005,
        description="a camera counts as seeing a block that takes up at least this share of its picture; the pixels "
        "of smaller ones tell little",
    )
    budget_mib: float | None = Field(
        None,
        gt=0,
        description="size of the compact files of all blocks together, MiB: 8 KiB for each block that is "
        "trained, the rest in proportion to their Gaussians; null: checkpoints alone",
    )
    joint_steps: int = Field(
        0,
        ge=0,
        description="steps of training all blocks together on whole rays, after their runs; 0: none. With "
        "`budget_mib` their compact files are then made anew, of the same sizes",
    )
    coarser: int = Field(
        0,
        ge=0,
        le=4,
        description="for hash grids: most coarser students to make of each block. Each has cells about four times as"
        " large as the one before it, and is shown where its cells are smaller than a pixel",
    )
    executor: ExecutorConfig = Field(ExecutorConfig(), description="what runs the blocks")
