"""What a student is: a radiance field over the scene box, with the section of a config that describes it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.networks.radiance_mlp import mean_features
from kernels.optimization.updates import Shapes, TouchedRows
from kernels.rendering.fused_render import Field
from settings.kinds import STUDENT_KINDS
from settings.sections import Section, problem

DENSITY_DEGREE = (
    "spherical-harmonics degree of the view direction, for the density MLP, at most direction_degree: density then "
    "depends on where it is seen from, as Gaussians' opacity does (docs/students.md); null: it does not"
)
SHADING = "per_sample: the colour network is run for every sample; deferred: once per ray, on its mean features"
TAPS = ("encoding", "hidden", "geo", "sample")
UNITS = "lengths in world units, density in 1 / world unit, colours sRGB in [0, 1]"
"""What files of students say of themselves."""
_SAMPLE_WIDTH = 4

Box = tuple[tuple[float, float, float], tuple[float, float, float]]


class Student(nn.Module, ABC):
    """A radiance field.

    Args:
        box: lower and upper corner in world units; the field is only asked inside.
        settings: the student's section of the config, a ``Settings``; stored in checkpoints to build it again.
        implementation: of the kernels it uses.

    Attributes:
        density_unit: 1 / world unit, what the networks' densities are multiples of, see ``density_unit_of``.
    """

    Settings: ClassVar[type[Section]]
    """Its section of a config; the default of its ``kind``, a literal, names the student."""
    adam_eps: ClassVar[float] = 1e-8
    """Adam's epsilon: below such gradients updates shrink. Much smaller, noise kills the ReLUs of rarely seen parts."""
    deferred: bool = False
    """Whether the colour network is run once per ray, on the mean of its samples' features (Hedman et al. 2021)."""
    direction_degree: int = 0
    """Of the directions' spherical harmonics that colour depends on."""
    density_degree: int | None = None
    """Of the directions' spherical harmonics that density depends on; None: it depends on none."""

    def __init__(self, box: Box, settings: Section, implementation: str = "auto") -> None:
        super().__init__()
        self.settings = settings
        self.implementation = implementation
        self.precision = torch.float32
        self.register_buffer("box", torch.tensor(box, dtype=torch.float32))
        self.register_buffer("longest_side", (self.box[1] - self.box[0]).max(), persistent=False)
        self.density_unit = density_unit_of(box)

    @classmethod
    def parameters_of(cls, settings: Section) -> int:
        """Trainable values that a student of these settings would have; nothing is made room for."""
        raise NotImplementedError(f"{cls.__name__} does not say how large it would be")

    @property
    def kind(self) -> str:
        """Its name in configs and checkpoints."""
        return self.settings.kind

    @contextmanager
    def computing_in(self, precision: torch.dtype) -> Iterator[None]:
        """Within it the field is computed with factors of this type: float32, float16 or bfloat16.

        Parameters and their gradients, outputs and activations remain float32.
        """
        before, self.precision = self.precision, precision
        try:
            yield
        finally:
            self.precision = before

    @abstractmethod
    def forward(self, positions: Tensor, directions: Tensor, ray_index: Tensor) -> tuple[Tensor, Tensor]:
        """Density and colour of samples; a deferred student's are those of a ray that sees nothing but the sample.

        Args:
            positions: (N, 3) world.
            directions: (R, 3) unit, one per ray.
            ray_index: (N,) int64, the ray of each sample.

        Returns:
            density (N,) in 1 / world unit and rgb (N, 3) in [0, 1].
        """

    def emission(
        self, positions: Tensor, directions: Tensor, ray_index: Tensor, taps: Sequence[str] = ()
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """As ``forward``, but with the channels to composite along a ray, ``rgb_of_rays`` of which are its colour, and
        activations of the samples, differentiable like the outputs.

        Args:
            taps: ``encoding``, the encoded position; ``hidden``, the density network's first hidden layer after its
                nonlinearity; ``geo``, the features it hands to the colour network; ``sample``, rgb and the natural
                logarithm of the density in multiples of ``density_unit``.

        Returns:
            density (N,), channels (N, C), which are rgb or a deferred student's features, and each tap (N,
            ``tap_width``).

        Raises:
            ValueError: no such tap.
        """
        for tap in taps:
            self.tap_width(tap)
        inner = tuple(tap for tap in taps if tap != "sample")
        density, channels, activations = self._emission(positions, directions, ray_index, inner)
        activations = {tap: values.float() for tap, values in activations.items()}
        if "sample" in taps:
            rgb = self._colors(channels, directions, ray_index)
            # The least density that training can tell from none; the logarithm stays finite.
            activations["sample"] = torch.cat([rgb, density.clamp(min=1e-6).log()[:, None]], dim=-1)
        return self.in_world_units(density), channels, activations

    def rgb_of_rays(self, channels: Tensor, alpha: Tensor, directions: Tensor) -> Tensor:
        """Colour of rays (R, 3), multiplied by alpha, from their composited channels; differentiable.

        Args:
            channels: (R, C) sums of weight * channel.
            alpha: (R,) sums of weight.
            directions: (R, 3) unit.
        """
        return self._rgb_of_features(channels, alpha, directions) if self.deferred else channels

    def _rgb_of_features(self, features: Tensor, alpha: Tensor, directions: Tensor) -> Tensor:
        """``rgb_of_rays`` of a deferred student."""
        return alpha[:, None] * self.shade(mean_features(features, alpha), directions)

    def shade(self, features: Tensor, directions: Tensor) -> Tensor:
        """A deferred student's colours (N, 3) of features (N, C) seen along unit directions (N, 3)."""
        raise NotImplementedError(f"{type(self).__name__} has no colours without samples")

    @property
    def channels(self) -> int:
        """Channels that are composited along a ray."""
        return self.tap_width("geo") if self.deferred else 3

    def tap_width(self, tap: str) -> int:
        """Channels of an activation.

        Raises:
            ValueError: no such tap.
        """
        if tap not in TAPS:
            raise ValueError(f"tap: found {tap!r}, expected one of {list(TAPS)}")
        return _SAMPLE_WIDTH if tap == "sample" else self._inner_width(tap)

    def _seen_alone(self, positions: Tensor, directions: Tensor, ray_index: Tensor) -> tuple[Tensor, Tensor]:
        """``forward`` of a student that has an ``_emission`` of its own."""
        density, channels, _ = self.emission(positions, directions, ray_index)
        return density, self._colors(channels, directions, ray_index)

    def _colors(self, channels: Tensor, directions: Tensor, ray_index: Tensor) -> Tensor:
        return self.shade(channels, directions[ray_index]) if self.deferred else channels

    def _emission(
        self, positions: Tensor, directions: Tensor, ray_index: Tensor, taps: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """``emission`` for the taps inside the field, but with density in multiples of ``density_unit``; a student that
        shows none can be trained by rays alone.
        """
        if taps:
            raise NotImplementedError(f"{type(self).__name__} has no activations to tap")
        density, rgb = self(positions, directions, ray_index)
        return density / self.density_unit, rgb, {}

    def _inner_width(self, tap: str) -> int:
        """Channels of ``encoding``, ``hidden`` or ``geo``."""
        raise NotImplementedError(f"{type(self).__name__} has no activations to tap")

    @abstractmethod
    def density(self, positions: Tensor, directions: Tensor | None = None) -> Tensor:
        """Density (N,) at world positions (N, 3), without gradients.

        Args:
            directions: (N, 3) unit, along which each is seen, for a student to which that matters; None: as if their
                encoding were its mean over all directions.
        """

    def _direction_basis(self, directions: Tensor) -> Tensor:
        """(R, S) what colour depends on of directions (R, 3): their harmonics."""
        return sh_basis(directions, self.direction_degree, implementation=self.implementation)

    def _harmonics(self, directions: Tensor | None) -> Tensor | None:
        """(R, H) what density depends on of directions (R, 3): their harmonics but the constant; None of nothing."""
        if self.density_degree is None or directions is None:
            return None
        return sh_basis(directions, self.density_degree, implementation=self.implementation)[:, 1:]

    def fused_field(self) -> Field | None:
        """What ``FusedRenderer`` needs to know of the field; None of a student it does not know."""
        return None

    def waits_for(self, tap: str) -> list[str]:
        """What has the host wait for a GPU in a step that looks at an activation: clauses that name the field."""
        return []

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the learning rate they follow: ``table`` and ``mlp``."""

    def matrices(self) -> dict[nn.Parameter, Shapes]:
        """Parameters of networks, and the shapes of the matrices that make them up: layers that Muon can move."""
        return {}

    @abstractmethod
    def encoding_width(self) -> int:
        """Values that networks take of a sample: what training keeps of it between its two passes."""

    def touched_rows(self) -> dict[nn.Parameter, TouchedRows]:
        """The rows that a step's gradient touched, for the parameters that keep account of them."""
        return {}

    def in_world_units(self, density: Tensor) -> Tensor:
        """Density in 1 / world unit, of multiples of ``density_unit``."""
        return density if self.density_unit == 1 else density * self.density_unit

    def unit_positions(self, positions: Tensor) -> Tensor:
        """(N, 3) world to [0, 1]: the box's longest side spans the unit, so that cells stay cubes."""
        return (positions - self.box[0]) / self.longest_side

    def parameter_count(self) -> int:
        """Number of trainable values."""
        return sum(parameter.numel() for parameter in self.parameters())

    def networks_with_a_common_part(self) -> Sequence[nn.Parameter]:
        """Parameters whose rows are networks of one layout, started alike, that may take common steps; see
        ``distill.training.optimizer``.
        """
        return ()


def check_density_degree(degree: int | None, direction_degree: int) -> None:
    """Checks ``density_degree``, in a validator of a student's settings.

    Raises:
        PydanticCustomError: density would depend on harmonics that pictures are not made with.
    """
    if (degree or 0) > direction_degree:
        raise problem("density_degree", degree, f"at most direction_degree {direction_degree}, or null")


def density_unit_of(box: Box) -> float:
    """1 / world unit: what a fresh student's density is about, so that a scene is as easy to learn in whatever units.

    Of density 1 / world unit a box hundreds of units wide is opaque at its faces, and nothing behind them is ever
    learnt; one a thousandth wide is clear. In these units the box is at least 1 and less than 8 wide. They are powers
    of 8, so that multiplying by them rounds nothing, and boxes of usual width have the world's own.
    """
    width = max(upper - lower for lower, upper in zip(*box, strict=True))
    exponent = math.frexp(width)[1] - 1  # of 2: the width is 2 ** exponent, or up to twice that
    return 2.0 ** (-3 * (exponent // 3))


STUDENTS: dict[str, type[Student]] = {}
"""The students that configs and checkpoints may name, by kind."""
AnyStudent = TypeVar("AnyStudent", bound=type[Student])


def register(student: AnyStudent) -> AnyStudent:
    """Decorates a student that configs and checkpoints may name."""
    STUDENTS[student.Settings.model_fields["kind"].default] = student
    STUDENT_KINDS.add(student.Settings)
    return student
