"""Training rays of two kinds in one batch: the teacher's, and those of the dataset's images."""

from __future__ import annotations

from typing import Any

import torch

from distill.losses.pictures import RayBatch
from distill.training.ray_source import RaySource
from kernels.rays.interleaving import interleaved
from scene.rays import Rays

_OF_RAYS = ("origins", "directions", "near", "far")
_OF_BATCHES = ("rgb", "background", "coverage", "distance", "reach")
_UNKNOWN = {"reach": torch.inf}  # of a column that one of the two has; others are 0


class MixedRaySampler(RaySource):
    """Draws a fixed share of the rays from the dataset's images, the others from the teacher.

    Rays of images have the teacher's depth where its views are of the same poses. The two kinds are interleaved: where
    there is no room for all samples of a batch it is its last rays that are left out, and they must be of both kinds
    alike.

    Args:
        teacher: gives rays with all that it knows.
        images: gives the others.
        weight: rays of images for each of the teacher's.
        implementation: of the kernel ``interleaving``.
    """

    def __init__(self, teacher: RaySource, images: RaySource, weight: float, implementation: str = "auto") -> None:
        self.teacher, self.images, self._implementation = teacher, images, implementation
        self.share = weight / (1 + weight)

    @property
    def pixels(self) -> int:
        return self.teacher.pixels + self.images.pixels

    @property
    def nbytes(self) -> int:
        return self.teacher.nbytes + self.images.nbytes

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        own = self._of_teacher(count)
        return _mixed(self.teacher.draw(own, generator), self.images.draw(count - own, generator), self._implementation)

    def __enter__(self) -> RaySource:
        self.teacher.__enter__()
        self.images.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.images.__exit__(*error)
        self.teacher.__exit__(*error)

    def advance(self, rays: int) -> None:
        self.teacher.advance(self._of_teacher(rays))
        self.images.advance(rays - self._of_teacher(rays))

    def figures(self) -> dict[str, float]:
        return self.teacher.figures()

    def summary(self) -> str | None:
        return ". ".join(filter(None, (self.teacher.summary(), self.images.summary()))) or None

    def state(self) -> dict[str, Any]:
        images = self.images.state()
        return self.teacher.state() | ({"images": images} if images else {})

    def restore(self, state: dict[str, Any]) -> None:
        self.teacher.restore(state)
        if "images" in state:
            self.images.restore(state["images"])

    def _of_teacher(self, count: int) -> int:
        return count - round(self.share * count)


def _mixed(first: RayBatch, second: RayBatch, implementation: str) -> RayBatch:
    """Both batches in one; where only one knows distances or how far it sees, the other's are unknown."""
    columns = [
        (*(getattr(part.rays, name) for name in _OF_RAYS), *(getattr(part, name) for name in _OF_BATCHES))
        for part in (first, second)
    ]
    counts = len(first.rays), len(second.rays)
    unknown = [_UNKNOWN.get(name, 0.0) for name in (*_OF_RAYS, *_OF_BATCHES)]
    found = interleaved(*columns, counts, unknown, implementation=implementation)
    return RayBatch(Rays(*found[: len(_OF_RAYS)]), *found[len(_OF_RAYS) :])
