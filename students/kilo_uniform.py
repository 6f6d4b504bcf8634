"""The KiloUniform student (after KiloNeRF, Reiser et al. 2021): a grid of tiny MLPs over the scene box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from kernels.networks.cell_routing import Evaluations, route_to_cells
from kernels.networks.grouped_layout import GroupedLayout, fourier_features
from kernels.networks.grouped_mlp import (
    color_network,
    color_of_rays,
    grouped_density_mlp,
    grouped_geometry_mlp,
    tapped_grouped_radiance_mlp,
)
from kernels.optimization.moving import Shapes, TouchedRows
from kernels.rendering.fused_render import GroupedField, density_harmonics
from machine.memory import GIB
from settings.errors import InputError
from settings.sections import FromList, Section, problem
from students.base import DENSITY_DEGREE, SHADING, Box, Student, check_density_degree, register

MAX_TRAINING_GIB = 8.0
_BYTES_PER_PARAMETER = 16  # weight, gradient and Adam's two moments
LEAST_DENSITY = 1e-6  # 1 / world unit: below it a mixture's colour fades out instead of dividing by nothing


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
    blend: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="margin along a cell's faces, as a fraction of the cell, in which neighbouring cells are blended",
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

    Cells need not be cubes. With ``blend``, a point nearer to a cell's face than that is a mixture of the media of both
    cells, half and half on the face: density and emitted colour (density times rgb) are continuous everywhere in the
    box.

    With deferred shading a ray's features come from several cells; one colour network, which all of them share, is what
    makes these mean the same.

    Raises:
        InputError: more cells than could be trained.
    """

    Settings = KiloUniformSettings

    def __init__(self, box: Box, settings: KiloUniformSettings, implementation: str = "auto") -> None:
        super().__init__(box, settings, implementation)
        self.grid, self.blend, self.direction_degree = settings.grid, settings.blend, settings.direction_degree
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
        return self.tapped(positions, directions, ray_index, ())[:2]

    def _emission(
        self, positions: Tensor, directions: Tensor, ray_index: Tensor, taps: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """A blended point's activations are the weighted means of its cells'. ``encoding`` has no parameters: aligning
        it trains the projector alone.
        """
        asked, inner = self._evaluations(positions), [tap for tap in taps if tap != "encoding"]
        named = {"implementation": self.implementation}
        rows = ray_index if asked.point is None else ray_index[asked.point]
        if self.deferred:
            where = asked.local, asked.cell, self.density_networks, self.layout
            named |= {"precision": self.precision, "touched": self._touched[0]}
            named |= {"harmonics": self._harmonics(directions), "ray_index": rows}
            density, channels, activations = grouped_geometry_mlp(*where, inner, **named)
        else:
            basis = self._direction_basis(directions)
            density, channels, activations = tapped_grouped_radiance_mlp(
                asked.local,
                basis,
                rows,
                asked.cell,
                self.density_networks,
                self.color_networks,
                self.layout,
                inner,
                harmonics=basis[:, 1 : 1 + self.layout.harmonics],
                precision=self.precision,
                touched=self._touched,
                **named,
            )
        channels = channels.float()
        if "encoding" in taps:
            activations["encoding"] = fourier_features(asked.local, self.layout.frequencies)
        if asked.point is None:
            return density, channels, activations
        activations = {
            tap: asked.weight.new_zeros(len(positions), values.shape[1]).index_add(
                0, asked.point, asked.weight[:, None] * values
            )
            for tap, values in activations.items()
        }
        return *_mixed(asked, density, channels, len(positions)), activations

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
        asked = self._evaluations(positions)
        harmonics, networks = self._harmonics(directions), self.density_networks.to(self.precision)
        if harmonics is not None and asked.point is not None:
            harmonics = harmonics[asked.point]
        named = {"harmonics": harmonics, "implementation": self.implementation}
        density = grouped_density_mlp(asked.local, asked.cell, networks, self.layout, **named)
        if asked.point is None:
            return density
        return density.new_zeros(len(positions)).index_add(0, asked.point, asked.weight * density)

    def fused_field(self) -> GroupedField:
        networks = self.density_networks, self.color_networks
        where = self.box, self.grid, self.blend, LEAST_DENSITY
        return GroupedField(*where, *networks, self.layout, self.direction_degree, self.deferred)

    def varying_parts(self) -> list[str]:
        return ["student.blend takes another number of evaluations in each step"] if self.blend > 0 else []

    def waits_for(self, tap: str | None) -> list[str]:
        found = ["student.blend, for the number of evaluations of each step"] if self.blend > 0 else []
        if tap == "hidden" or (tap == "geo" and not self.deferred):
            found.append(f"features.tap: {tap}, for the number of points of each network")
        return found

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

    def _evaluations(self, positions: Tensor) -> Evaluations:
        return route_to_cells(positions, self.box, self.grid, self.blend, implementation=self.implementation)


def _mixed(asked: Evaluations, density: Tensor, channels: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Density (N,) and channels (N, C) of the mixtures of media that evaluations stand for."""
    share = asked.weight * density
    emitted = torch.cat([share[:, None], share[:, None] * channels], dim=-1)
    total = emitted.new_zeros(points, emitted.shape[1]).index_add(0, asked.point, emitted)
    return total[:, 0], total[:, 1:] / total[:, :1].clamp(min=LEAST_DENSITY)


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
