"""The KiloUniform student (after KiloNeRF, Reiser et al. 2021): a grid of tiny MLPs over the scene box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from kernels.networks.cell_routing import route_to_cells
from kernels.networks.grouped_layout import GroupedLayout, fourier_features
from kernels.networks.grouped_mlp import (
    color_network,
    color_of_rays,
    grouped_density_mlp,
    grouped_geometry_mlp,
    grouped_radiance_mlp,
)
from kernels.optimization.updates import Shapes, TouchedRows
from kernels.rendering.fused_render import GroupedField, density_harmonics
from machine.memory import GIB
from settings.errors import InputError
from settings.sections import FromList, Section, problem
from students.base import DENSITY_DEGREE, SHADING, Box, Student, check_density_degree, register

MAX_TRAINING_GIB = 8.0
_BYTES_PER_PARAMETER = 16  # weight, gradient and Adam's two moments


class KiloUniformSettings(Section):
    """A uniform grid of tiny MLPs (after Reiser et al. 2021, "KiloNeRF")."""

    kind: Literal["kilo_uniform"] = Field("kilo_uniform", description="a uniform grid of tiny MLPs")
    grid: Annotated[tuple[int, int, int], FromList] = Field((5, 9, 6), description="networks along x, y, z")
    frequencies: int = Field(4, ge=0, le=12, description="octaves of the position's Fourier features")
    hidden_width: Literal[16, 32, 64, 128] = Field(32, description="neurons per hidden layer, both MLPs")
    density_layers: int = Field(3, ge=1, le=64, description="hidden layers of the density MLP")
    color_layers: int = Field(1, ge=1, le=64, description="hidden layers of the colour MLP, which sees the direction")
    geo_features: int = Field(16, ge=1, le=4096, description="features the density MLP hands to the colour MLP")
    direction_degree: int = Field(
        3, ge=0, le=4, description="spherical-harmonics degree of the view direction, for the colour MLP"
    )
    density_degree: int | None = Field(None, ge=1, le=4, description=DENSITY_DEGREE)
    shading: Literal["per_sample", "deferred"] = Field(
        "per_sample", description=f"{SHADING}, by a network that all cells share"
    )

    @model_validator(mode="after")
    def _consistent(self) -> KiloUniformSettings:
        if any(cells < 1 for cells in self.grid):
            raise problem("grid", list(self.grid), "three numbers of cells, each at least 1")
        check_density_degree(self.density_degree, self.direction_degree)
        return self


@register
class KiloUniformStudent(Student):
    """Fourier features of the position in its cell -> the cell's density MLP -> + SH of the direction -> colour MLP.

    With ``density_degree`` the density MLPs take the direction's SH too, all but the constant, behind the features.

    Cells need not be cubes. With deferred shading a ray's features come from several cells; one colour network, which
    all of them share, is what makes these mean the same.

    Raises:
        InputError: more cells than could be trained.
    """

    Settings = KiloUniformSettings

    def __init__(self, box: Box, settings: KiloUniformSettings, implementation: str = "auto") -> None:
        super().__init__(box, settings, implementation)
        self.grid, self.direction_degree = settings.grid, settings.direction_degree
        self.density_degree = settings.density_degree
        self.layout = _layout(settings)
        _check_memory(self.grid, self.parameters_of(settings))
        cells = math.prod(self.grid)
        # Every cell starts from the same network, as if the whole scene were one.
        self.density_networks = nn.Parameter(_density_network(self.layout).repeat(cells, 1))
        self.deferred = settings.shading == "deferred"
        self.color_networks = nn.Parameter(_network(self.layout.color_dims).repeat(1 if self.deferred else cells, 1))
        self._touched = (TouchedRows(cells, rows_per_flag=1), TouchedRows(cells, rows_per_flag=1))

    @classmethod
    def parameters_of(cls, settings: KiloUniformSettings) -> int:
        layout, cells = _layout(settings), math.prod(settings.grid)
        return cells * layout.density_size + (1 if settings.shading == "deferred" else cells) * layout.color_size

    def forward(self, positions: Tensor, directions: Tensor, ray_index: Tensor) -> tuple[Tensor, Tensor]:
        return self._seen_alone(positions, directions, ray_index)

    def _emission(
        self, positions: Tensor, directions: Tensor, ray_index: Tensor, taps: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """``encoding`` has no parameters: aligning it trains the projector alone."""
        (local, cell), inner = self._routed(positions), [tap for tap in taps if tap != "encoding"]
        named = {"implementation": self.implementation}
        if self.deferred:
            where = local, cell, self.density_networks, self.layout
            named |= {"precision": self.precision, "touched": self._touched[0]}
            named |= {"harmonics": self._harmonics(directions), "ray_index": ray_index}
            density, channels, activations = grouped_geometry_mlp(*where, inner, **named)
        else:
            basis = self._direction_basis(directions)
            density, channels, activations = grouped_radiance_mlp(
                local,
                basis,
                ray_index,
                cell,
                self.density_networks,
                self.color_networks,
                self.layout,
                inner,
                harmonics=basis[:, 1 : 1 + self.layout.harmonics],
                precision=self.precision,
                touched=self._touched,
                **named,
            )
        if "encoding" in taps:
            activations["encoding"] = fourier_features(local, self.layout.frequencies)
        return density, channels, activations

    def shade(self, features: Tensor, directions: Tensor) -> Tensor:
        network = self.color_networks[0].to(self.precision)
        return color_network(features, self._direction_basis(directions), network, self.layout)

    def _rgb_of_features(self, features: Tensor, alpha: Tensor, directions: Tensor) -> Tensor:
        named = {"precision": self.precision, "implementation": self.implementation}
        basis, network = self._direction_basis(directions), self.color_networks.view(-1)
        return color_of_rays(features, alpha, basis, network, self.layout, **named)

    def _inner_width(self, tap: str) -> int:
        widths = {"encoding": self.layout.position_width, "hidden": int(self.layout.density_dims[0, 1])}
        return widths.get(tap, self.layout.geo_features)

    @torch.no_grad()
    def density(self, positions: Tensor, directions: Tensor | None = None) -> Tensor:
        named = {"harmonics": self._harmonics(directions), "implementation": self.implementation}
        networks = self.density_networks.to(self.precision)
        return self.in_world_units(grouped_density_mlp(*self._routed(positions), networks, self.layout, **named))

    def fused_field(self) -> GroupedField:
        networks = self.density_networks, self.color_networks
        shading = self.direction_degree, self.deferred, self.density_unit
        return GroupedField(self.box, self.grid, *networks, self.layout, *shading)

    def waits_for(self, tap: str) -> list[str]:
        if tap == "hidden" or (tap == "geo" and not self.deferred):
            return [f"features.tap: {tap}, for the number of points of each network"]
        return []

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """``mlp``, the group with weight decay, is what sees the direction (Reiser et al. 2021, section 4.1)."""
        return {"table": [self.density_networks], "mlp": [self.color_networks]}

    def matrices(self) -> dict[nn.Parameter, Shapes]:
        """The density networks' layers, with the biases as a row of each."""
        return {self.density_networks: [tuple(shape) for shape in self.layout.density_dims.tolist()]}

    def networks_with_a_common_part(self) -> Sequence[nn.Parameter]:
        """The colour networks: with a common part of the density networks too there was no further gain."""
        return () if self.deferred else (self.color_networks,)

    def encoding_width(self) -> int:
        """Three: only the place in the cell is kept, the kernel makes the features anew in its backward pass."""
        return 3

    def touched_rows(self) -> dict[nn.Parameter, TouchedRows]:
        """One flag per cell; a colour network that all of them share needs none."""
        pairs = zip((self.density_networks, self.color_networks), self._touched, strict=True)
        return dict(list(pairs)[:1] if self.deferred else pairs)

    def _routed(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return route_to_cells(positions, self.box, self.grid, implementation=self.implementation)


def _layout(settings: KiloUniformSettings) -> GroupedLayout:
    return GroupedLayout(
        frequencies=settings.frequencies,
        hidden_width=settings.hidden_width,
        density_layers=settings.density_layers,
        color_layers=settings.color_layers,
        geo_features=settings.geo_features,
        direction_width=(settings.direction_degree + 1) ** 2,
        harmonics=density_harmonics(settings.density_degree),
    )


def _check_memory(grid: tuple[int, int, int], parameters: int) -> None:
    memory = parameters * _BYTES_PER_PARAMETER / GIB
    if memory > MAX_TRAINING_GIB:
        raise InputError(
            "config",
            "student.grid",
            f"{list(grid)}, {parameters:,} parameters that take {memory:,.1f} GiB to train",
            f"at most {MAX_TRAINING_GIB:g} GiB",
            "Use fewer cells or a smaller hidden_width.",
        )


def _density_network(layout: GroupedLayout) -> Tensor:
    """``_network`` with octave k of the first layer scaled by 2^-k: its slope along x is then the same for every
    octave, and a fresh cell is smooth. Detail is learnt, not unlearnt.
    """
    network = _network(layout.density_dims)
    rows = network[: layout.position_width * int(layout.density_dims[0, 1])].view(layout.position_width, -1)
    for octave in range(layout.frequencies):
        rows[3 + 6 * octave : 9 + 6 * octave] *= 0.5**octave
    return network


def _network(dims: np.ndarray) -> Tensor:
    """One network's parameters, flat: He-uniform weights, zero biases."""
    matrices = []
    for rows, columns in dims.tolist():
        bound = math.sqrt(6 / (rows - 1))
        matrices += [torch.empty((rows - 1) * columns).uniform_(-bound, bound), torch.zeros(columns)]
    return torch.cat(matrices)
