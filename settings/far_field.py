"""The settings of the world beyond the scene box."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from settings.sections import PowerOfTwo, Section, problem


class FarFieldConfig(Section):
    """What is outside the scene box."""

    kind: Literal["none", "contracted"] = Field(
        "none",
        description="none: one colour, `render.background`; contracted: a second, small hash grid over all of space "
        "outside the box, contracted into a cube (Mip-NeRF 360); `data.box: auto` then holds what the cameras look at "
        "(docs/students.md)",
    )
    reach: float = Field(
        64.0, ge=1, le=1e5, description="how far rays are sampled behind the box, as a multiple of its longest side"
    )
    step: float = Field(
        0.03,
        ge=1e-3,
        le=0.5,
        description="distance between samples, as a fraction of their distance from the middle of the box",
    )
    occupancy_resolution: int = Field(96, ge=8, le=512, description="cells along a side of the contracted cube")
    levels: int = Field(8, ge=1, le=32, description="resolution levels L of the hash grid")
    features: Literal[1, 2, 4, 8] = Field(4, description="features per table entry F")
    table_size: PowerOfTwo = Field(32768, le=1 << 26, description="entries per level at most, T")
    base_resolution: int = Field(16, ge=1, description="cells per side of the contracted cube, coarsest level")
    finest_resolution: int = Field(
        256, ge=1, le=1_000_000, description="cells per side of the contracted cube, finest level"
    )
    hidden_width: int = Field(32, ge=1, le=4096, description="neurons per hidden layer, both MLPs")

    @model_validator(mode="after")
    def _consistent(self) -> FarFieldConfig:
        if self.finest_resolution < self.base_resolution:
            raise problem(
                "finest_resolution", self.finest_resolution, f"at least base_resolution {self.base_resolution}"
            )
        return self
