"""A picture of a radiance field in one kernel: march, encode, evaluate and composite, without a way through memory.

Its reference is the composition of ``ray_marching``, the field's own kernels and ``compositing``, in waves of samples
(``distill.rendering.renderer``). Samples are at the same places; a ray ends at the very sample that takes its
transmittance to the termination, the reference looks at that after each wave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.encoding.hash_layout import HashLayout
from kernels.marching.ray_samples import Cells
from kernels.networks.grouped_layout import GroupedLayout
from kernels.rendering import fused_grouped_numba, fused_hash_numba
from kernels.triton_support import MAX_WIDTH, triton_refusal


def density_harmonics(degree: int | None) -> int:
    """Spherical harmonics from degree 1 up to this one; none of None."""
    return 0 if degree is None else (degree + 1) ** 2 - 1


@dataclass(frozen=True)
class HashField:
    """A multiresolution hash grid with two bias-free MLPs; see ``hash_encode`` and ``radiance_mlp``.

    Args:
        box: (2, 3) lower and upper corner in world units; the longest side spans the encoding's unit.
        table, layout: of the encoding.
        density_weights, color_weights: layers (out, in).
        direction_degree: of the direction's spherical harmonics.
        deferred: whether the colour network is run once per ray, on the mean of its samples' geometry features.
        density_degree: of those that the density network takes behind the encoding, all but the constant, at most as
            high; None: it takes none.
        density_unit: 1 / world unit, what the network's densities are multiples of.
    """

    box: Tensor
    table: Tensor
    layout: HashLayout
    density_weights: Sequence[Tensor]
    color_weights: Sequence[Tensor]
    direction_degree: int
    deferred: bool = False
    density_degree: int | None = None
    density_unit: float = 1.0

    @property
    def density_harmonics(self) -> int:
        """How many of the harmonics the density network takes."""
        return density_harmonics(self.density_degree)

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """What the kernel rounds."""
        return self.table, *self.density_weights, *self.color_weights

    def refusal(self) -> str | None:
        """Why the kernel cannot render this field; None where it can."""
        features = self.layout.features
        if features & (features - 1):
            return f"it takes a power of two of features per table entry, found {features}"
        outputs, inputs, *others = (
            width for weight in (*self.density_weights, *self.color_weights) for width in weight.shape
        )
        return _too_wide([outputs, inputs - self.density_harmonics, *others])


@dataclass(frozen=True)
class GroupedField:
    """A grid of tiny MLPs; see ``route_to_cells`` and ``grouped_radiance_mlp``.

    Args:
        box: (2, 3) lower and upper corner in world units.
        grid: cells along x, y, z.
        density_parameters, color_parameters: (cells, P); of deferred colours (1, P), the network of all cells.
        direction_degree: of the direction's spherical harmonics.
        deferred, density_unit: as of ``HashField``.
    """

    box: Tensor
    grid: tuple[int, int, int]
    density_parameters: Tensor
    color_parameters: Tensor
    layout: GroupedLayout
    direction_degree: int
    deferred: bool = False
    density_unit: float = 1.0

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """What the kernel rounds."""
        return self.density_parameters, self.color_parameters

    def refusal(self) -> str | None:
        """Why the kernel cannot render this field; None where it can."""
        return _too_wide([self.layout.widest])


Field = HashField | GroupedField


class RenderedPicture(NamedTuple):
    """Per ray: rgb (R, 3) without a background, alpha (R,), distance (R,), the sum of weight * t."""

    rgb: Tensor
    alpha: Tensor
    distance: Tensor


def fused_refusal(field: Field | None, device: torch.device, implementation: str = "auto") -> str | None:
    """Why ``FusedRenderer`` cannot render a field on a device; None where it can."""
    if field is None:
        return "it does not know this kind of student"
    if implementation == "torch":
        return "it has no torch implementation: its reference renders in waves of samples"
    if implementation == "triton" or device.type != "cpu":
        return triton_refusal(device) or field.refusal()
    return None


class FusedRenderer:
    """Pictures of a field that does not change meanwhile; nothing waits for the device.

    Args:
        field: on the device of the rays to come.
        cells: where samples are wanted.
        precision: type of the tables, and with Triton of the factors of products, float32 or float16; sums are float32.
            A field with parameters beyond it is rendered with float32: infinities would make pictures of NaN.
        implementation: "auto", "numba" (CPU) or "triton".

    Raises:
        ValueError: the kernel cannot render the field there.
    """

    @torch.no_grad()
    def __init__(
        self, field: Field, cells: Cells, precision: torch.dtype = torch.float32, implementation: str = "auto"
    ) -> None:
        device = cells.occupied.device
        refusal = fused_refusal(field, device, implementation)
        if refusal is not None:
            raise ValueError(f"the fused renderer cannot run: {refusal}")
        # The kernels render a world of which a unit is one of density: there the networks' densities are the field's.
        self._unit = unit = field.density_unit
        if unit != 1:
            field = replace(field, box=field.box * unit, density_unit=1.0)
            cells = replace(cells, lower=tuple(unit * corner for corner in cells.lower), size=unit * cells.size)
        self.cells, hashed = cells, isinstance(field, HashField)
        if resolve("fused_render", implementation, device, ("numba", "triton")) == "numba":
            twin = fused_hash_numba if hashed else fused_grouped_numba
        else:
            from kernels.rendering import fused_grouped_triton, fused_hash_triton

            twin = fused_hash_triton if hashed else fused_grouped_triton
        self._prepared = twin.Prepared(field, precision if _fits(field, precision) else torch.float32)

    @torch.no_grad()
    def __call__(
        self,
        origins: Tensor,
        directions: Tensor,
        near: Tensor,
        far: Tensor,
        *,
        width: int,
        step: float,
        limit: int,
        termination: float,
    ) -> RenderedPicture:
        """Renders rays from samples in the middles of occupied bins.

        Args:
            origins, directions: (R, 3) world; directions are unit.
            near, far: (R,) interval; far <= near gives an empty ray.
            width: rays in a row of the picture; they are row-major. Neighbours are rendered together.
            step: bin length in world units.
            limit: most samples per ray.
            termination: a ray ends when its transmittance is no more than this, [0, 1).

        Raises:
            ValueError: rows are not whole.
        """
        if width < 1 or len(origins) % width:
            raise ValueError(f"width: found {width}, expected a divisor of the number of rays, {len(origins)}")
        picture = RenderedPicture(*(origins.new_empty(shape) for shape in (origins.shape, near.shape, near.shape)))
        if not len(origins):
            return picture
        rays = tuple(part.contiguous() for part in (origins, directions, near, far))
        if self._unit != 1:
            rays, step = (rays[0] * self._unit, rays[1], rays[2] * self._unit, rays[3] * self._unit), step * self._unit
        self._prepared.render(rays, width, self.cells, (step, limit, termination), picture)
        if self._unit != 1:
            picture.distance.div_(self._unit)
        return picture


def _fits(field: Field, precision: torch.dtype) -> bool:
    """Whether all of a field's parameters are within the range of the type."""
    most = torch.stack([part.detach().abs().max() for part in field.parameters]).max()
    return bool(most <= torch.finfo(precision).max)


def _too_wide(widths: Sequence[int]) -> str | None:
    widest = int(max(widths))
    return None if widest <= MAX_WIDTH else f"it takes layers up to {MAX_WIDTH} wide, found {widest}"
