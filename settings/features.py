"""The settings of the teacher's internal features: what is distilled of them, and into which activation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from settings.sections import AssetPath, FromList, Section, Unit, distinct


class FeatureConfig(Section):
    """What the `density`, `color` and `feature_*` losses distil of the teacher's internal features, and from where."""

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
    projector_width: int = Field(0, ge=0, description="neurons of the projector's hidden layer; 0: linear")
    points_per_step: int = Field(4096, ge=1, description="samples of a step at most, evenly spread, that are compared")
    min_confidence: Unit = Field(0.0, description="samples where the teacher's confidence is lower are left out")
