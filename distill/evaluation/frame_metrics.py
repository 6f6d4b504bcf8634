"""The figures of one frame against each of its references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch import Tensor

from distill.evaluation import metrics
from machine.fingerprints import cache_key
from scene.images import to_uint8
from settings.sections import Color

if TYPE_CHECKING:
    from distill.rendering.renderer import RenderedFrame
    from scene.cameras import Cameras
    from teacher.views.teacher_views import TeacherViews

_Plane = TypeVar("_Plane", np.ndarray, Tensor)

MOST_TURN = 10.0
"""Degrees between frames of the JSON that count as neighbours on a camera path; 200 about an object are 1.8 apart."""


@dataclass(frozen=True)
class Render:
    """A rendered frame on the CPU.

    Attributes:
        image: (H, W, 3) uint8 on the background.
        alpha: (H, W) float32.
        distance: (H, W) float32 along the unit ray, world units, 0 where empty.
        seconds: what rendering it took.
        is_finite: whether all colours were numbers; others are black or white in ``image``.
    """

    image: np.ndarray
    alpha: np.ndarray
    distance: np.ndarray
    seconds: float
    is_finite: bool

    @classmethod
    def of(cls, frame: RenderedFrame, seconds: float) -> Render:
        """Of a frame on any device, which took so long."""
        rgb = frame.rgb.float().cpu().numpy()
        image = to_uint8(np.nan_to_num(rgb, nan=0.0, posinf=1.0, neginf=0.0))
        alpha, distance = (plane.float().cpu().numpy() for plane in (frame.alpha, frame.distance))
        return cls(image, alpha, distance, seconds, bool(np.isfinite(rgb).all()))


@dataclass(frozen=True)
class CountedPixels:
    """Those pixels of a picture that are measured.

    Args:
        counted: (H, W) bool, a tensor where planes are; None: all.
    """

    counted: np.ndarray | Tensor | None

    def listed(self, plane: _Plane) -> _Plane:
        """(H, W, ...) -> (1, K, ...): them alone; the plane itself where all count."""
        return plane if self.counted is None else plane[self.counted][None]

    def window(self, image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Both (H, W, 3) pictures within the rectangle about them, alike where a pixel in it does not count.

        Last which of its pixels count, (h, w) bool; None where all do, as in a picture on a larger canvas.
        """
        if self.counted is None:
            return image, target, None
        rows, columns = (np.flatnonzero(self.counted.any(axis)) for axis in (1, 0))
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        counted = self.counted[part]
        alike = np.where(counted[..., None], image[part], target[part])
        return alike, target[part], None if counted.all() else counted


@dataclass(frozen=True)
class References:
    """What renders are compared with.

    Args:
        views: the teacher's views.
        names: of ``teacher`` and ``ground_truth`` those to compare with.
        background: what renders and references are on, sRGB in [0, 1].
        lpips: networks that measure LPIPS, by name.
        has_teacher: whether the teacher is another than ground truth, and so has a PSNR against it.
    """

    views: TeacherViews
    names: tuple[str, ...]
    background: Color
    lpips: dict[str, metrics.Lpips]
    has_teacher: bool = True

    def image(self, index: int, name: str) -> np.ndarray:
        """(H, W, 3) float32 in [0, 1]."""
        image = self.views.image if name == "teacher" else self.views.ground_truth_image
        return image(index, self.background).numpy()

    def coverage(self, index: int, name: str) -> np.ndarray:
        """(H, W) in [0, 1]: how much of a pixel the object fills; of opaque ground truth the teacher knows better."""
        if name == "ground_truth" and bool((self.views.ground_truth[index, ..., 3] < 255).any()):
            return self.views.ground_truth[index, ..., 3].numpy() / np.float32(255)
        return self.views.coverage[index].numpy() / np.float32(255)

    def measure(self, index: int, render: Render, previous: np.ndarray | None) -> dict[str, dict[str, float | None]]:
        """By reference: a value for each of the metrics of ``results``, None where there is none.

        Args:
            previous: (H, W, 3) uint8 render of the view before, where flicker is wanted.
        """
        return {name: self._against(name, index, render, previous) for name in self.names}

    def key(self, index: int) -> str:
        """Of all that ``measure`` knows of view ``index`` beside its render."""
        views = self.views
        planes = (views.rgb, views.alpha, views.coverage, views.distance, views.ground_truth)
        planes += () if views.counted is None else (views.counted,)
        return cache_key(
            *(None if plane is None else plane[index] for plane in planes),
            *camera_values(views.cameras, index),
            views.names[index],
            [self.names, self.background, sorted(self.lpips), views.background, self.has_teacher],
        )

    def _against(self, name: str, index: int, render: Render, previous: np.ndarray | None) -> dict[str, float | None]:
        whole, whole_target = _float(render.image), self.image(index, name)
        pixels = self._pixels(index)
        image, target, alpha, coverage = map(
            pixels.listed, (whole, whole_target, render.alpha, self.coverage(index, name))
        )
        depth = self._depth_error(index, render) if name == "teacher" else None
        window = pixels.window(whole, whole_target)
        lpips = {net: model(*window) for net, model in self.lpips.items()}
        return {
            "psnr": metrics.psnr(image, target),
            "ssim": metrics.ssim(*window),
            "psnr_foreground": metrics.psnr_foreground(image, target, coverage),
            "psnr_blank": metrics.psnr_blank(target),
            "alpha_mean": float(alpha.mean(dtype=np.float64)),
            "depth_abs": depth.absolute if depth else None,
            "depth_rel": depth.relative if depth else None,
            "alpha_iou": metrics.alpha_iou(alpha, coverage),
            "flicker": None if previous is None else self._flicker(name, index, whole, previous),
            "psnr_teacher": self.teacher_psnr(index) if name == "ground_truth" and self.has_teacher else None,
            "psnr_silhouette": metrics.psnr_silhouette(target, coverage, self.background),
            "coverage": float(coverage.mean(dtype=np.float64)),
            **{f"lpips_{net}": lpips.get(net) for net in metrics.NETS},
        }

    def _flicker(self, name: str, index: int, image: np.ndarray, previous: np.ndarray) -> float | None:
        """Of the pixels that count in this frame and in the one before; None where there are none."""
        counted = self.views.counted
        both = CountedPixels(None if counted is None else (counted[index] & counted[index - 1]).numpy())
        pictures = image, self.image(index, name), _float(previous), self.image(index - 1, name)
        pictures = [both.listed(picture) for picture in pictures]
        return metrics.flicker(*pictures) if pictures[0].size else None

    def teacher_psnr(self, index: int) -> float:
        """Of the teacher's own picture against ground truth, in the 8 bits that the student's has."""
        pictures = _float(to_uint8(self.image(index, "teacher"))), self.image(index, "ground_truth")
        return metrics.psnr(*map(self._pixels(index).listed, pictures))

    def _pixels(self, index: int) -> CountedPixels:
        counted = self.views.counted
        return CountedPixels(None if counted is None else counted[index].numpy())

    def _depth_error(self, index: int, render: Render) -> metrics.DepthError | None:
        if self.views.distance is None:
            return None
        planes = render.distance, render.alpha, self.views.distance[index].numpy(), self.coverage(index, "teacher")
        return metrics.depth_error(*map(self._pixels(index).listed, planes))


def has_neighbour(cameras: Cameras, index: int) -> bool:
    """Whether view ``index`` comes next on a camera path: the one before looks within ``MOST_TURN`` of its way."""
    if index == 0:
        return False
    cosine = float(cameras.c2w[index - 1, :3, 2] @ cameras.c2w[index, :3, 2])
    return cosine >= math.cos(math.radians(MOST_TURN))


def camera_values(cameras: Cameras, index: int) -> Sequence[object]:
    """All there is to know of a camera, as ``cache_key`` takes it."""
    return [*(values[index] for values in cameras.tensors().values()), [cameras.width, cameras.height]]


def _float(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / np.float32(255.0)
