"""The settings of what training minimises: each term, how much it weighs and when, and the features behind some."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from settings.sections import AssetPath, FromList, Section, Unit, distinct, problem, text_of

PICTURE_TERMS = ("rgb", "alpha", "depth")
"""Losses of rays against the teacher's pictures."""
INTERNAL_TERMS = ("density", "color", "feature_l2", "feature_cos")
"""Losses of samples, or of their activations, against the teacher's internal features."""
ALIGNING_TERMS = frozenset(("feature_l2", "feature_cos"))
"""Those of them that align an activation."""


class ScheduledTerm(Section):
    """A loss term's weight over the run; progress runs from 0 to 1 by steps or time, whichever ends the run."""

    weight: float = Field(0.0, ge=0, description="factor of the term; 0: off")
    decay_start: Unit = Field(1.0, description="fraction of the run from which the weight falls linearly")
    decay_end: Unit = Field(1.0, description="fraction of the run from which the weight stays at its final value")
    final: Unit = Field(1.0, description="final value, as a fraction of `weight`")

    @model_validator(mode="after")
    def _consistent(self) -> ScheduledTerm:
        if self.decay_end < self.decay_start:
            raise problem("decay_end", self.decay_end, f"at least decay_start {self.decay_start}")
        if self.weight > 0 and self.decay_end == self.final == 0:
            raise problem("decay_end", 0, "more than 0 where final is 0", "The term would never weigh anything.")
        return self

    @property
    def end(self) -> float:
        """Fraction of the run after which it weighs nothing; 1 if it always does."""
        return self.decay_end if self.final == 0 else 1.0


class RgbLossConfig(ScheduledTerm):
    """Colour of a ray against the teacher's, both on the same background, [0, 1]."""

    kind: Literal["l2", "l1", "huber"] = Field("l2", description="distance between colours")
    weight: float = Field(1.0, ge=0, description="factor of the term; 0: off")
    delta: float = Field(0.1, gt=0, description="error at which huber turns from square to linear, colour in [0, 1]")


class AlphaLossConfig(ScheduledTerm):
    """Accumulated alpha of a ray against the teacher's, [0, 1]."""

    kind: Literal["l2", "bce"] = Field("l2", description="square, or binary cross-entropy")


class DepthLossConfig(ScheduledTerm):
    """Expected distance of a ray against the teacher's, normalised to [0, 1] between the ray's near and far."""

    kind: Literal["l1", "l2", "smooth_l1"] = Field("l1", description="distance between normalised depths")
    alpha_threshold: Unit = Field(0.5, description="rays whose teacher alpha is below this have no depth term")
    delta: float = Field(
        0.1, gt=0, description="error at which smooth_l1 turns from square to linear, normalised depth"
    )


class EarlyTerm(ScheduledTerm):
    """A term that helps at the start: unless set otherwise it falls to 0 by the middle of the run."""

    decay_start: Unit = Field(0.0, description="fraction of the run from which the weight falls linearly")
    decay_end: Unit = Field(0.5, description="fraction of the run from which the weight stays at its final value")
    final: Unit = Field(0.0, description="final value, as a fraction of `weight`")


class DensityLossConfig(EarlyTerm):
    """Logarithm of a sample's density against the teacher's, squared; both clamped to a range."""

    lowest: float = Field(
        0.1,
        gt=0,
        description="densities below it count as it; 1 / world unit where the scene box is 1 to 8 units wide, of wider "
        "and narrower boxes in proportion, by powers of 8",
    )
    highest: float = Field(100.0, gt=0, description="densities above it count as it, in the unit of `lowest`")

    @model_validator(mode="after")
    def _ordered(self) -> DensityLossConfig:
        if self.lowest >= self.highest:
            raise problem("highest", self.highest, f"more than lowest {self.lowest}")
        return self


class ColorLossConfig(EarlyTerm):
    """Colour of a sample against that of the teacher's SH there, seen from the ray; weighted by the teacher's alpha."""


class FeatureLossConfig(EarlyTerm):
    """The projected tap against the teacher's features, normalised by their mean and deviation over the scene."""


class RateLossConfig(Section):
    """What bits of a compact file cost while weights are trained rounded."""

    weight: float = Field(
        1.0,
        ge=0,
        description="how hard the file's bits pull in training; at 1 a bit costs there what it costs in rounding "
        "(`compact.price`); 0: off",
    )


class LossConfig(Section):
    """What training minimises: the weighted sum of the terms."""

    rgb: RgbLossConfig = Field(RgbLossConfig(), description="colour")
    alpha: AlphaLossConfig = Field(AlphaLossConfig(), description="accumulated alpha")
    depth: DepthLossConfig = Field(DepthLossConfig(), description="expected distance")
    rate: RateLossConfig = Field(RateLossConfig(), description="bits of the compact file")
    density: DensityLossConfig = Field(DensityLossConfig(), description="density of samples")
    color: ColorLossConfig = Field(ColorLossConfig(), description="colour of samples")
    feature_l2: FeatureLossConfig = Field(FeatureLossConfig(), description="features, mean square error")
    feature_cos: FeatureLossConfig = Field(FeatureLossConfig(), description="features, 1 - cosine")

    @model_validator(mode="after")
    def _teaches(self) -> LossConfig:
        if not any(getattr(self, name).weight > 0 for name in (*PICTURE_TERMS, *INTERNAL_TERMS)):
            expected = "more than 0, here or for another loss that the teacher has a part in"
            raise problem("rgb.weight", self.rgb.weight, expected, "The student would learn nothing.")
        return self

    @property
    def internal_terms(self) -> tuple[str, ...]:
        """Those of ``INTERNAL_TERMS`` that are in use."""
        return tuple(name for name in INTERNAL_TERMS if getattr(self, name).weight > 0)

    @property
    def aligns(self) -> bool:
        """Whether an activation of the student is aligned with teacher features."""
        return not ALIGNING_TERMS.isdisjoint(self.internal_terms)


_Channel = text_of(
    r"^(all|sh|sh_dc|log_scale|opacity|sh_([0-9]|1[0-5])_[rgb]|log_scale_[0-2])$",
    "one of `all`, `sh`, `sh_dc`, `log_scale`, `opacity`, `sh_0_r` to `sh_15_b`, `log_scale_0` to `log_scale_2`",
)


class FeatureConfig(Section):
    """The teacher's internal features, for the `density`, `color` and `feature_*` losses."""

    channels: Annotated[tuple[_Channel, ...], FromList, Field(min_length=1), AfterValidator(distinct)] = Field(
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
    points_per_step: int = Field(4096, ge=1, description="samples of a step at most, evenly spread, that are compared")
