"""The settings of making a compact file."""

from __future__ import annotations

from pydantic import Field

from settings.sections import Section


class CompactConfig(Section):
    """A compact file of a student: training with weights as the file will hold them, in the last part of a run
    (`target_mib`), or from a checkpoint on (tools/compress.py).
    """

    target_mib: float | None = Field(
        None, gt=0, description="size of the compact file that a run ends with, MiB; null: it makes none"
    )
    share: float = Field(
        0.4, gt=0, le=1, description="with `target_mib`: fraction of the run, at its end, that makes the file"
    )
    sparsity: float = Field(
        0.016,
        ge=0,
        description="with `target_mib`: how hard a hash table's values are pulled to zero before weights are "
        "rounded, as a multiple of a typical gradient's pull, if the file has one bit for each value; with n bits n^2 "
        "times less (docs/compact.md)",
    )
    round_every: int = Field(
        50,
        ge=1,
        description="training steps from one choice of integers to the next; choosing takes the CPU, and where the "
        "clock ends the run half of the time at most",
    )
    seconds: float = Field(
        40.0, gt=0, description="tools/compress.py: time to spend, not counting measuring and writing, s"
    )
    max_steps: int | None = Field(
        None, ge=1, description="tools/compress.py: training steps to take at most; null: no limit"
    )
    rewind: float = Field(
        0.5,
        gt=0,
        le=1,
        description="tools/compress.py: fraction of the schedules of `train` and `loss` that is gone through once "
        "more; a larger one pays if a file loses much",
    )
    price: float = Field(
        0.15, gt=0, description="what a bit has to gain to be spent, in squared errors of one step of the rounding"
    )
