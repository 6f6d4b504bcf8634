"""The sections of a config about the teacher's insides: what is distilled of them, and how much it weighs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from distill.schema_base import AssetPath, FromList, Section, Unit, distinct, problem


class ScheduledTerm(Section):
    """A loss term's weight over the run; progress runs from 0 to 1 by steps or time, whichever ends the run."""

    weight: float = Field(0.0, ge=0, description="factor of the term; 0: off")
    warmup: Unit = Field(0.0, description="fraction of the run over which the weight rises linearly from 0")
    decay_start: Unit = Field(1.0, description="fraction of the run from which the weight falls linearly")
    decay_end: Unit = Field(1.0, description="fraction of the run from which it stays at `final`")
    final: Unit = Field(1.0, description="fraction of `weight` left then")

    @model_validator(mode="after")
    def _consistent(self) -> ScheduledTerm:
        if self.decay_start < self.warmup:
            raise problem("decay_start", self.decay_start, f"at least warmup {self.warmup}")
        if self.decay_end < self.decay_start:
            raise problem("decay_end", self.decay_end, f"at least decay_start {self.decay_start}")
        return self


class EarlyTerm(ScheduledTerm):
    """A term that shows the way and then leaves the last word to the rays: it falls to 0 by half-time."""

    decay_start: Unit = Field(0.0, description="fraction of the run from which the weight falls linearly")
    decay_end: Unit = Field(0.5, description="fraction of the run from which it stays at `final`")
    final: Unit = Field(0.0, description="fraction of `weight` left then")


class DensityLossConfig(EarlyTerm):
    """Logarithm of a sample's density against the teacher's, squared; both clamped to a range."""

    lowest: float = Field(0.1, gt=0, description="densities below it, 1 / world unit, count as it")
    highest: float = Field(100.0, gt=0, description="densities above it, 1 / world unit, count as it")

    @model_validator(mode="after")
    def _ordered(self) -> DensityLossConfig:
        if self.lowest >= self.highest:
            raise problem("highest", self.highest, f"more than lowest {self.lowest}")
        return self


class ColorLossConfig(EarlyTerm):
    """Colour of a sample against that of the teacher's SH there, seen from the ray; weighted by the teacher's alpha."""


class FeatureLossConfig(EarlyTerm):
    """The projected tap against the teacher's features, normalised by their mean and deviation over the scene."""


class FeatureConfig(Section):
    """What the `density`, `color` and `feature_*` losses distil of the teacher's insides, and from where."""

    channels: Annotated[tuple[str, ...], FromList, Field(min_length=1), AfterValidator(distinct)] = Field(
        ("sh",),
        description="teacher channels of the feature losses: groups `sh`, `sh_dc`, `log_scale`, `all`, `opacity`, or "
        "single names such as `sh_3_g`",
    )
    file: AssetPath | None = Field(
        None, description="features exported by tools/export_teacher.py --features; null: made from the PLY at start"
    )
    resolution: int = Field(128, ge=8, le=1024, description="cells along the box's longest side, without a file")
    tap: Literal["encoding", "hidden", "geo", "sample"] = Field(
        "geo",
        description="student activation that is aligned: encoded position, first hidden layer, the density MLP's "
        "features, or a sample's colour and log density",
    )
    level: Literal["sample", "ray"] = Field(
        "sample",
        description="align single samples with the volume, or activations composited along a ray with the teacher's "
        "rendered features (fixed views of a PLY)",
    )
    projector_width: int = Field(0, ge=0, description="neurons of the projector's hidden layer; 0: linear")
    points_per_step: int = Field(4096, ge=1, description="samples of a step, drawn at random, that are aligned")
    min_confidence: Unit = Field(0.0, description="samples where the teacher's confidence is lower are left out")
    balance: float | None = Field(
        None,
        gt=0,
        description="largest gradient norm of a term here relative to rgb's; weights are scaled down to keep it. "
        "null: weights as given",
    )
