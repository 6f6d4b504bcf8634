"""The settings of empty space, and of how rays are sampled and composited."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from settings.sections import Background, Color, Section, background_rgb

MOST_SAMPLES = 1 << 30
"""On a ray: more than any has, and kernels count in 32 bits."""
MOST_RAYS = 4
"""Along a side of a pixel."""


class OccupancyConfig(Section):
    """The grid that tells empty space from occupied."""

    resolution: int = Field(128, ge=1, le=1024, description="cells along the box's longest side")
    threshold: float = Field(0.01, ge=0, lt=1, description="a cell whose alpha over one step is below this is empty")
    least_weight: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="where the teacher's Gaussians guide rays (`render.sampling`): a cell is left out where nothing in "
        "it weighs more than this in a pixel; 0.15 spares a capture half of its samples, and costs an object of thin "
        "or clear parts up to 2 dB",
    )
    update_every: int = Field(16, ge=1, description="steps between refreshes from the student")
    decay: float = Field(0.95, gt=0, le=1, description="factor on a cell's remembered density at each refresh")
    warmup_steps: int = Field(256, ge=0, description="steps before the student may empty a cell")


class RenderConfig(Section):
    """How rays are sampled and composited."""

    step_size: Literal["auto"] | Annotated[float, Field(ge=1e-6, le=1e6)] = Field(
        "auto",
        description="distance between samples, world units; auto: by `step_pixels`",
    )
    step_pixels: Literal["auto"] | Annotated[float, Field(gt=0, le=16)] = Field(
        0.5,
        description="the distance that `step_size: auto` takes, in widths of a pixel at the centre of the box, but no "
        "less than the box's diagonal / 1024; a coarser one leaves a step of training more rays; auto: 1 where pixels "
        "are means of several rays (`supersample`), else 1.5",
    )
    picture_step: Literal["auto"] | Annotated[float, Field(ge=0.1, le=4)] = Field(
        "auto",
        description="distance between samples of a picture, in those of training: finer ones show more truly what was "
        "learnt from places that change from step to step, and take longer; auto: 0.75, but 1 where pixels are means "
        "of several rays (`supersample`), whose places differ",
    )
    sampling: Literal["auto", "occupancy", "teacher"] = Field(
        "occupancy",
        description="where rays are sampled; occupancy: in all cells that the teacher's Gaussians or silhouettes "
        "reach; teacher: in cells that show in its views, in training only as far as these see, and along rays that "
        "meet such a cell; auto: teacher, where it has Gaussians or distances",
    )
    supersample: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_RAYS)] = Field(
        "auto",
        description="rays along a side of each pixel, whose mean it shows; trained by pictures that are so much wider. "
        "auto: 2 where a teacher's pixels are means of finer ones, drawn or on disk, that memory holds, else 1, as in "
        "a city's blocks; in evaluation what the student was trained with",
    )
    max_samples_per_ray: int = Field(
        1024,
        ge=1,
        le=MOST_SAMPLES,
        description="samples on one ray at most, in training; rays of pictures reach as far",
    )
    termination: float = Field(
        5e-3,
        ge=0,
        lt=1,
        description="a ray that has no more than this transmittance left ends and is taken for opaque (evaluation)",
    )
    max_batch_samples: int = Field(
        262144, ge=1024, description="samples in memory at a time (evaluation without the fused renderer)"
    )
    fused: Literal["auto"] | bool = Field(
        "auto",
        description="render whole pictures in one kernel (evaluation); auto: where the kernels are numba's or Triton's "
        "and the student fits it, false: always in waves of samples, the reference, true: fused or an error",
    )
    precision: Literal["auto", "float32", "float16"] = Field(
        "auto",
        description="type of the fused renderer's tables, and on CUDA of the factors of products too; auto: float16; "
        "sums are float32, and all of a student whose weights float16 cannot hold",
    )
    background: Background = Field(
        "white",
        description="background of evaluation, and of training without random_background; R, G, B in [0, 1]",
    )
    random_background: bool = Field(
        True, description="train on a random background per ray, where the teacher has alpha"
    )

    @property
    def background_rgb(self) -> Color:
        """sRGB in [0, 1]."""
        return background_rgb(self.background)
