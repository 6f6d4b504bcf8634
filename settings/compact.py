"""The settings of making a compact file."""

from __future__ import annotations

from pydantic import Field

from settings.sections import Section


class CompactConfig(Section):
    """A compact file of a trained student (tools/compress.py): training with weights as the file will hold them."""

    seconds: float = Field(50.0, gt=0, description="time to spend, measuring and writing apart, s")
    max_steps: int | None = Field(None, ge=1, description="training steps to take at most; null: no limit")
    rewind: float = Field(
        0.7, gt=0, le=1, description="part of the schedules of `train` and `loss` that is gone through once more"
    )
    shrink: float = Field(
        0.5,
        ge=0,
        description="how far a weight shrinks towards zero in a training step, in rounding steps times `train.lr`",
    )
    price: float = Field(
        0.05, ge=0, description="what a bit has to gain, in squared errors of a step of the rounding, to be spent"
    )
