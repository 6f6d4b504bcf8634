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
    threshold: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="a cell whose alpha over one step is below this counts as empty; lower where the teacher's "
        "Gaussians are faint as a whole (docs/sampling.md)",
    )
    least_weight: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="if the teacher's Gaussians guide rays (`render.sampling`): a cell is left out if nothing in it "
        "weighs more than this in any pixel; 0.15 spares a capture half of its samples, and costs an object of thin or"
        " clear parts up to 2 dB",
    )
    update_every: int = Field(16, ge=1, description="steps between updates of the grid from the student's density")
    decay: float = Field(0.95, gt=0, le=1, description="factor on a cell's remembered density at each update")
    warmup_steps: int = Field(256, ge=0, description="steps before the student may empty a cell")


class RenderConfig(Section):
    """How rays are sampled and composited."""

    step_size: Literal["auto"] | Annotated[float, Field(ge=1e-6, le=1e6)] = Field(
        "auto",
        description="distance between samples, world units; auto: by `step_pixels`",
    )
    step_pixels: Literal["auto"] | Annotated[float, Field(gt=0, le=16)] = Field(
        0.5,
        description="what `step_size: auto` is, in widths of a pixel at the centre of the box, but at least the "
        "box's diagonal / 1024. A coarser step lets a step of training have more rays. auto: 1 if pixels are means of "
        "several rays (`supersample`), else 1.5",
    )
    picture_step: Literal["auto"] | Annotated[float, Field(ge=0.1, le=4)] = Field(
        "auto",
        description="distance between samples of a picture, as a multiple of that in training. Training moves "
        "samples from step to step; the closer those of a picture are, the closer it comes to the average that was "
        "learnt, and the longer it takes. auto: 1 if pixels are means of several rays (`supersample`), else 0.75",
    )
    sampling: Literal["auto", "occupancy", "teacher"] = Field(
        "occupancy",
        description="where rays are sampled (docs/sampling.md); occupancy: in all cells that the teacher's Gaussians"
        " or silhouettes reach; teacher: in cells that its views show, and in training only along rays that meet such "
        "a cell, as far as the views see; auto: teacher if it has Gaussians or distances, else occupancy",
    )
    supersample: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_RAYS)] = Field(
        "auto",
        description="rays along a side of each pixel, which shows their mean; training pictures are as many times "
        "wider. auto: 2 if the teacher's pixels are means of finer ones, drawn or on disk, that fit in memory, else 1,"
        " as in a city's blocks; in evaluation what the student was trained with",
    )
    max_samples_per_ray: int = Field(
        1024,
        ge=1,
        le=MOST_SAMPLES,
        description="most samples on one ray, in training; rays of pictures reach as far",
    )
    termination: float = Field(
        5e-3,
        ge=0,
        lt=1,
        description="in evaluation a ray ends, and counts as opaque, when no more than this of its light "
        "(transmittance) is left",
    )
    max_batch_samples: int = Field(
        262144, ge=1024, description="most samples in memory at a time, in evaluation without the fused renderer"
    )
    fused: Literal["auto"] | bool = Field(
        "auto",
        description="in evaluation, render whole pictures in one kernel; auto: if the kernels are numba's or "
        "Triton's and the student fits; false: always in waves of samples, the reference; true: end with an error if "
        "the kernel cannot render the student",
    )
    precision: Literal["auto", "float32", "float16"] = Field(
        "auto",
        description="type of the fused renderer's tables and, on CUDA, of the factors of products; auto: float16. "
        "Sums are float32, and so is everything for a student whose weights float16 cannot hold",
    )
    background: Background = Field(
        "white",
        description="background of evaluation, and of training if random_background is off; R, G, B in [0, 1]",
    )
    random_background: bool = Field(True, description="train on a random background per ray, if the teacher has alpha")

    @property
    def background_rgb(self) -> Color:
        """sRGB in [0, 1]."""
        return background_rgb(self.background)
