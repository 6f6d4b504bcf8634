"""The students' settings: one section per kind of student, told apart by ``kind``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from settings.sections import FromList, PowerOfTwo, Section, problem


class HashGridConfig(Section):
    """A multiresolution hash grid with two small MLPs (Müller et al. 2022, "Instant NGP")."""

    kind: Literal["hash_grid"] = Field("hash_grid", description="a multiresolution hash grid and two small MLPs")
    levels: int = Field(12, ge=1, le=32, description="resolution levels L")
    features: Literal[1, 2, 4, 8] = Field(2, description="features per table entry F")
    table_size: PowerOfTwo = Field(32768, description="entries per level at most, T")
    base_resolution: int = Field(16, ge=1, description="cells per box side, coarsest level")
    finest_resolution: int = Field(512, ge=1, description="cells per box side, finest level")
    hidden_width: int = Field(32, ge=1, description="neurons per hidden layer, both MLPs")
    density_layers: int = Field(1, ge=1, description="hidden layers of the density MLP")
    color_layers: int = Field(2, ge=1, description="hidden layers of the colour MLP")
    geo_features: int = Field(15, ge=1, description="features the density MLP hands to the colour MLP")
    direction_degree: int = Field(3, ge=0, le=4, description="spherical-harmonics degree of the view direction")

    @model_validator(mode="after")
    def _consistent(self) -> HashGridConfig:
        if self.finest_resolution < self.base_resolution:
            raise problem(
                "finest_resolution", self.finest_resolution, f"at least base_resolution {self.base_resolution}"
            )
        return self


class KiloUniformConfig(Section):
    """A uniform grid of tiny MLPs (after Reiser et al. 2021, "KiloNeRF")."""

    kind: Literal["kilo_uniform"] = Field("kilo_uniform", description="a uniform grid of tiny MLPs")
    grid: Annotated[tuple[int, int, int], FromList] = Field((5, 9, 6), description="networks along x, y, z")
    frequencies: int = Field(4, ge=0, le=12, description="octaves of the position's Fourier features")
    hidden_width: Literal[16, 32, 64, 128] = Field(32, description="neurons per hidden layer, both MLPs")
    density_layers: int = Field(3, ge=1, description="hidden layers of the density MLP")
    color_layers: int = Field(1, ge=1, description="hidden layers of the colour MLP, which sees the direction")
    geo_features: int = Field(16, ge=1, description="features the density MLP hands to the colour MLP")
    direction_degree: int = Field(3, ge=0, le=4, description="spherical-harmonics degree of the view direction")
    blend: float = Field(
        0.0, ge=0, le=0.5, description="margin of a face, as a fraction of a cell, in which neighbours are blended"
    )


def _name_the_kind(value: Any) -> Any:
    return {"kind": "hash_grid", **value} if isinstance(value, dict) else value


# Another kind of student is one more section with its own `kind`, joined here. Without `kind` it is a hash grid.
StudentConfig = Annotated[
    Annotated[HashGridConfig | KiloUniformConfig, Field(discriminator="kind")], BeforeValidator(_name_the_kind)
]
