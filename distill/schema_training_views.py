"""The schema of what is trained on beside or instead of fixed views: a live teacher, the dataset's own images."""

from __future__ import annotations

from pydantic import Field

from distill.schema_base import FolderName, Section, Unit


class LiveConfig(Section):
    """A teacher that goes on rendering new views while its student trains."""

    buffer: int = Field(128, ge=2, description="views that rays are drawn from at a time; the oldest makes way")
    reuse: float = Field(
        1.0, gt=0, description="a new view comes after this many times a view's pixels have been drawn as rays"
    )
    ahead: int = Field(4, ge=1, description="views rendered ahead of their turn, on the CPU in a thread of its own")
    own_share: Unit = Field(0.1, description="share of the views that have a training pose as it is")
    angle: float = Field(
        3.0,
        ge=0,
        le=90,
        description="jitter of the others' viewing direction, degrees; they lie between training poses",
    )
    distance: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="jitter of their distance, as a fraction of it; of their position, as a fraction of the distance "
        "to the next pose, where the cameras have no common focus",
    )


class GroundTruthConfig(Section):
    """The dataset's own images as a second source of rays, so that a student can pass its teacher."""

    split: FolderName = Field(description="train on the images of `transforms_<split>.json` beside data.transforms")
    weight: float = Field(
        1.0, gt=0, description="rays drawn from the images for each ray drawn from the teacher: 1 is half of a step"
    )
