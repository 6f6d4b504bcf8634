"""The hash-grid student (Mueller et al. 2022): a multiresolution hash encoding and two small bias-free MLPs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from kernels.adam import TouchedRows
from kernels.fused_render import HashField
from kernels.hash_encoding import HashLayout, hash_encode
from kernels.radiance_mlp import density_mlp, tapped_radiance_mlp
from kernels.spherical_harmonics import sh_basis
from students.base import Box, Student


class HashGridStudent(Student):
    """Hash encoding -> density MLP -> [geometry features, SH of the direction] -> colour MLP.

    Args:
        box: lower and upper corner in world units.
        levels, features, table_size, base_resolution, finest_resolution: see ``HashLayout``.
        hidden_width: neurons of every hidden layer.
        density_layers, color_layers: hidden layers of the two MLPs.
        geo_features: channels the density MLP hands to the colour MLP.
        direction_degree: highest degree of the direction's spherical harmonics.
    """

    kind = "hash_grid"
    adam_eps = 1e-15  # the paper's: an entry that few samples reach learns as fast as any other

    def __init__(
        self,
        box: Box,
        *,
        levels: int,
        features: int,
        table_size: int,
        base_resolution: int,
        finest_resolution: int,
        hidden_width: int,
        density_layers: int,
        color_layers: int,
        geo_features: int,
        direction_degree: int,
        implementation: str = "auto",
    ) -> None:
        settings: dict[str, Any] = {
            "levels": levels,
            "features": features,
            "table_size": table_size,
            "base_resolution": base_resolution,
            "finest_resolution": finest_resolution,
            "hidden_width": hidden_width,
            "density_layers": density_layers,
            "color_layers": color_layers,
            "geo_features": geo_features,
            "direction_degree": direction_degree,
        }
        super().__init__(box, settings, implementation)
        self.layout = HashLayout(levels, features, table_size, base_resolution, finest_resolution)
        self.direction_degree = direction_degree
        # The paper's initialisation: small enough that the density starts uniform.
        self.table = nn.Parameter(torch.empty(self.layout.entries, features).uniform_(-1e-4, 1e-4))
        self.density_weights = _layers(self.layout.output_width, hidden_width, density_layers, 1 + geo_features)
        color_inputs = geo_features + (direction_degree + 1) ** 2
        self.color_weights = _layers(color_inputs, hidden_width, color_layers, 3)
        self._touched = TouchedRows(self.layout.entries)

    def forward(self, positions: Tensor, directions: Tensor, ray_index: Tensor) -> tuple[Tensor, Tensor]:
        return self._tapped(positions, directions, ray_index, ())[:2]

    def _tapped(
        self, positions: Tensor, directions: Tensor, ray_index: Tensor, taps: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        encoding = self._encode(positions)
        density, rgb, activations = tapped_radiance_mlp(
            encoding,
            sh_basis(directions, self.direction_degree),
            ray_index,
            list(self.density_weights),
            list(self.color_weights),
            [tap for tap in taps if tap != "encoding"],
            implementation=self.implementation,
        )
        return density, rgb, activations | ({"encoding": encoding} if "encoding" in taps else {})

    def _inner_width(self, tap: str) -> int:
        widths = {"encoding": self.layout.output_width, "hidden": self.density_weights[0].shape[0]}
        return widths.get(tap, self.density_weights[-1].shape[0] - 1)

    @torch.no_grad()
    def density(self, positions: Tensor) -> Tensor:
        return density_mlp(self._encode(positions), list(self.density_weights), implementation=self.implementation)

    def fused_field(self) -> HashField:
        networks = list(self.density_weights), list(self.color_weights)
        return HashField(self.box, self.table, self.layout, *networks, self.direction_degree)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"table": [self.table], "mlp": [*self.density_weights, *self.color_weights]}

    def encoding_width(self) -> int:
        return self.layout.output_width

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


def _layers(inputs: int, width: int, hidden: int, outputs: int) -> nn.ParameterList:
    """Bias-free layers (out, in), He-uniform initialisation."""
    sizes = [inputs, *[width] * hidden, outputs]
    bounds = [math.sqrt(6 / fan_in) for fan_in in sizes[:-1]]
    return nn.ParameterList(
        torch.empty(fan_out, fan_in).uniform_(-bound, bound)
        for fan_in, fan_out, bound in zip(sizes[:-1], sizes[1:], bounds, strict=True)
    )
