"""Training rays of two kinds in one batch: the teacher's, and those of the dataset's images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distill.losses.pictures import RayBatch
from distill.training.ray_source import RaySource
from scene.rays import Rays


class MixedRaySampler(RaySource):
    """Draws a fixed share of the rays from the dataset's images, the others from the teacher.

    Rays of images have the teacher's depth where its views are of the same poses. The two kinds are interleaved: where
    there is no room for all samples of a batch it is its last rays that are left out, and they must be of both kinds
    alike.

    Args:
        teacher: gives rays with all that it knows.
        images: gives the others.
        weight: rays of images for each of the teacher's.
    """

    def __init__(self, teacher: RaySource, images: RaySource, weight: float) -> None:
        self.teacher, self.images = teacher, images
        self.share = weight / (1 + weight)

    @property
    def pixels(self) -> int:
        return self.teacher.pixels + self.images.pixels

    @property
    def nbytes(self) -> int:
        return self.teacher.nbytes + self.images.nbytes

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        own = self._of_teacher(count)
        joined = _joined(self.teacher.draw(own, generator), self.images.draw(count - own, generator))
        return joined[interleaving(own, count - own, joined.rgb.device)]

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


def interleaving(first: int, second: int, device: torch.device) -> Tensor:
    """(first + second,) int64: an order of two joined lists that spreads the second evenly in the first."""
    place = torch.arange(first + second, device=device)
    before = place * second // max(1, first + second)  # of the second's
    is_second = (place + 1) * second // max(1, first + second) > before
    return torch.where(is_second, first + before, place - before)


def _joined(first: RayBatch, second: RayBatch) -> RayBatch:
    """Both batches in one; where only one knows distances or how far it sees, the other's are unknown."""
    parts = (first, second)

    def known(name: str, unknown: float) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        if all(value is None for value in values):
            return None
        filled = (torch.full_like(part.coverage, unknown) for part in parts)
        return torch.cat([fill if value is None else value for value, fill in zip(values, filled, strict=True)])

    ends = (
        torch.cat([getattr(part.rays, name) for part in parts]) for name in ("origins", "directions", "near", "far")
    )
    columns = (torch.cat([getattr(part, name) for part in parts]) for name in ("rgb", "background", "coverage"))
    return RayBatch(Rays(*ends), *columns, known("distance", 0.0), known("reach", torch.inf))
