"""The hash-grid student (Müller et al. 2022): a multiresolution hash encoding and two small bias-free MLPs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from kernels.encoding.hash_encoding import hash_encode
from kernels.encoding.hash_layout import HashLayout
from kernels.networks.radiance_mlp import color_mlp, color_of_rays, density_mlp, geometry_mlp, radiance_mlp
from kernels.optimization.updates import Shapes, TouchedRows
from kernels.rendering.fused_render import HashField, density_harmonics
from settings.sections import FromList, PowerOfTwo, Section, problem
from students.base import DENSITY_DEGREE, SHADING, Box, Student, check_density_degree, register


class HashGridSettings(Section):
    """A multiresolution hash grid with two small MLPs (Müller et al. 2022, "Instant NGP")."""

    kind: Literal["hash_grid"] = Field("hash_grid", description="a multiresolution hash grid and two small MLPs")
    levels: int = Field(12, ge=1, le=32, description="resolution levels L")
    features: Literal[1, 2, 4, 8] = Field(2, description="features per table entry F")
    table_size: PowerOfTwo = Field(32768, le=1 << 26, description="entries per level at most, T")
    base_resolution: int = Field(16, ge=1, description="cells per box side, coarsest level")
    finest_resolution: int = Field(512, ge=1, le=1_000_000, description="cells per box side, finest level")
    planes: Annotated[tuple[Annotated[int, Field(ge=2, le=16384)], ...], Field(max_length=8), FromList] = Field(
        (),
        description="planes beside the levels' grids (docs/students.md): each number adds three, across x, y and z, "
        "of as many vertices per side",
    )
    hidden_width: int = Field(32, ge=1, le=4096, description="neurons per hidden layer of the MLPs")
    color_width: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="neurons per hidden layer of the colour MLP; null: hidden_width. With deferred shading, which runs "
        "it once per ray, a wide one costs little",
    )
    density_layers: int = Field(1, ge=1, le=64, description="hidden layers of the density MLP")
    color_layers: int = Field(2, ge=1, le=64, description="hidden layers of the colour MLP")
    geo_features: int = Field(15, ge=1, le=4096, description="features the density MLP hands to the colour MLP")
    direction_degree: int = Field(
        3, ge=0, le=4, description="spherical-harmonics degree of the view direction, for the colour MLP"
    )
    density_degree: int | None = Field(None, ge=1, le=4, description=DENSITY_DEGREE)
    shading: Literal["per_sample", "deferred"] = Field("per_sample", description=SHADING)

    @model_validator(mode="after")
    def _consistent(self) -> HashGridSettings:
        if self.finest_resolution < self.base_resolution:
            raise problem(
                "finest_resolution", self.finest_resolution, f"at least base_resolution {self.base_resolution}"
            )
        check_density_degree(self.density_degree, self.direction_degree)
        return self


@register
class HashGridStudent(Student):
    """Hash encoding -> density MLP -> [geometry features, SH of the direction] -> colour MLP.

    With ``density_degree`` the density MLP takes the direction's SH too, all but the constant, behind the encoding.
    """

    Settings = HashGridSettings
    adam_eps = 1e-15  # the paper's: an entry that few samples reach learns as fast as any other

    def __init__(self, box: Box, settings: HashGridSettings, implementation: str = "auto") -> None:
        super().__init__(box, settings, implementation)
        self.layout = _layout(settings)
        self.direction_degree, self.deferred = settings.direction_degree, settings.shading == "deferred"
        self.density_degree = settings.density_degree
        # The paper's initialisation: small enough that the density starts uniform.
        self.table = nn.Parameter(torch.empty(self.layout.entries, settings.features).uniform_(-1e-4, 1e-4))
        self.density_weights, self.color_weights = (_layers(widths) for widths in _widths(settings))
        self._touched = TouchedRows(self.layout.entries)

    @classmethod
    def parameters_of(cls, settings: HashGridSettings) -> int:
        networks = (pair for widths in _widths(settings) for pair in pairwise(widths))
        return _layout(settings).entries * settings.features + sum(fan_in * fan_out for fan_in, fan_out in networks)

    def forward(self, positions: Tensor, directions: Tensor, ray_index: Tensor) -> tuple[Tensor, Tensor]:
        return self._seen_alone(positions, directions, ray_index)

    def _emission(
        self, positions: Tensor, directions: Tensor, ray_index: Tensor, taps: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        encoding, named = self._encode(positions), {"implementation": self.implementation}
        inner, weights = [tap for tap in taps if tap != "encoding"], list(self.density_weights)
        if self.deferred:
            named |= {"harmonics": self._harmonics(directions), "ray_index": ray_index}
            density, channels, activations = geometry_mlp(encoding, weights, inner, **named)
        else:
            basis = self._direction_basis(directions)
            if self.density_degree is not None:
                named["harmonics"] = basis[:, 1 : 1 + density_harmonics(self.density_degree)]
            networks = weights, list(self.color_weights)
            density, channels, activations = radiance_mlp(encoding, basis, ray_index, *networks, inner, **named)
        return density, channels, activations | ({"encoding": encoding} if "encoding" in taps else {})

    def shade(self, features: Tensor, directions: Tensor) -> Tensor:
        return color_mlp(features.to(self.precision), self._direction_basis(directions), list(self.color_weights))

    def _rgb_of_features(self, features: Tensor, alpha: Tensor, directions: Tensor) -> Tensor:
        named = {"precision": self.precision, "implementation": self.implementation}
        return color_of_rays(features, alpha, self._direction_basis(directions), list(self.color_weights), **named)

    def _inner_width(self, tap: str) -> int:
        widths = {"encoding": self.layout.output_width, "hidden": self.density_weights[0].shape[0]}
        return widths.get(tap, self.density_weights[-1].shape[0] - 1)

    @torch.no_grad()
    def density(self, positions: Tensor, directions: Tensor | None = None) -> Tensor:
        named = {"harmonics": self._harmonics(directions), "implementation": self.implementation}
        return self.in_world_units(density_mlp(self._encode(positions), list(self.density_weights), **named))

    def fused_field(self) -> HashField:
        networks = list(self.density_weights), list(self.color_weights)
        shading = self.direction_degree, self.deferred, self.density_degree, self.density_unit
        return HashField(self.box, self.table, self.layout, *networks, *shading)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"table": [self.table], "mlp": [*self.density_weights, *self.color_weights]}

    def matrices(self) -> dict[nn.Parameter, Shapes]:
        return {weights: [tuple(weights.shape)] for weights in self.parameter_groups()["mlp"]}

    def encoding_width(self) -> int:
        return self.density_weights[0].shape[1]

    def touched_rows(self) -> dict[nn.Parameter, TouchedRows]:
        return {self.table: self._touched}

    def _encode(self, positions: Tensor) -> Tensor:
        return hash_encode(
            self.unit_positions(positions),
            self.table,
            self.layout,
            precision=self.precision,
            touched=self._touched,
            implementation=self.implementation,
        )


def _layout(settings: HashGridSettings) -> HashLayout:
    grid = settings.features, settings.table_size, settings.base_resolution, settings.finest_resolution
    return HashLayout(settings.levels, *grid, settings.planes)


def _widths(settings: HashGridSettings) -> tuple[list[int], list[int]]:
    """Channels of the density and of the colour MLP, from input to output."""
    width, geo = settings.hidden_width, settings.geo_features
    color_inputs = geo + (settings.direction_degree + 1) ** 2
    density_inputs = _layout(settings).output_width + density_harmonics(settings.density_degree)
    density = [density_inputs, *[width] * settings.density_layers, 1 + geo]
    return density, [color_inputs, *[settings.color_width or width] * settings.color_layers, 3]


def _layers(widths: list[int]) -> nn.ParameterList:
    """Bias-free layers (out, in), He-uniform initialisation."""
    return nn.ParameterList(
        torch.empty(fan_out, fan_in).uniform_(-math.sqrt(6 / fan_in), math.sqrt(6 / fan_in))
        for fan_in, fan_out in pairwise(widths)
    )
