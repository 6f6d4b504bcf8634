"""A teacher's depth files as distance: of which kind they are, view by view, and whether all of them say anything."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from scene.cameras import Cameras
from scene.rays import SceneBox, focus_box
from settings.errors import InputError
from teacher.depth import DepthKind, back_project, covered, to_distance
from teacher.depth_inference import STRETCHED, DepthReport, infer_depth_kind, stretched_to
from teacher.views.output_folder import OutputFiles, parallel_map

_log = logging.getLogger(__name__)

# As many views as it takes to infer the depth kind; more only cost time.
_INFERENCE_VIEWS = 24
# Shares worth a warning: pixels that show a sky, covered pixels without a usable distance.
_NOTED_SKY, _NOTED_UNKNOWN = 0.01, 0.75
_WITHOUT = "Set teacher.depth_kind: none to do without depth."


class DepthReader:
    """Reads the depth of a teacher's views, and watches what comes of it.

    Args:
        box: the scene box; distances that end outside are dropped, and far beyond it nothing is covered. None: nothing
            is dropped, and beyond is far from what the cameras look at.
        kind: what the files hold; None: found out, see ``infer_depth_kind``.

    Attributes:
        report: how the kind was inferred; None when it was given.

    Raises:
        InputError: damaged files; depth of unclear kind.
    """

    def __init__(self, files: OutputFiles, box: SceneBox | None, kind: DepthKind | None) -> None:
        self._files, self._box, self._folder = files, box, files.depths[0].parent
        self.report = infer_from_files(files, box) if kind is None else None
        self.kind = kind or self.report.require(self._folder)
        self._bounds = box or _supposed_box(files.cameras)
        self._greatest: list[float] = []
        self._present = self._covered = self._known = 0

    def read(self, i: int, picture: np.ndarray, depth: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of view i, (H, W) each: bool, where the scene covers the pixel; float32 distance, 0 where unknown."""
        cameras = self._files.cameras
        cover = covered(depth, self.kind, cameras, i, self._bounds)
        distance, _ = to_distance(depth * cover, self.kind, cameras, i, alpha_of(picture))
        if self._box is not None:
            distance = _inside(distance, cameras, i, self._box)
        self._greatest.append(depth.max().item())
        self._present += int((depth > 0).sum())
        self._covered += int(cover.sum())
        self._known += int((distance > 0).sum())
        return cover.numpy(), distance.numpy()

    def check(self) -> None:
        """Warns of what is unlikely in all that was read.

        Raises:
            InputError: the files are pictures of depth, or no pixel has a distance.
        """
        if (greatest := stretched_to(self._greatest)) is not None:
            raise InputError(self._folder, "depth", f"{STRETCHED} {greatest:g}", "distances in world units", _WITHOUT)
        if self._known == 0:
            what = f"no pixel with a distance when read as {self.kind.value}"
            seen = self.report or infer_from_files(self._files, self._box)
            advice = f"Set teacher.depth_kind to {seen.kind.value}." if seen.kind else seen.advice
            found = f"{what}; {seen.summary()}"
            raise InputError(self._folder, "depth", found, "surfaces in the scene box", advice)
        if (sky := 1 - self._covered / self._present) > _NOTED_SKY:
            _log.warning(
                "%s: %.1f%% of the pixels with depth are far beyond the scene box; they count as empty",
                self._folder,
                100 * sky,
            )
        if (unknown := 1 - self._known / self._covered) > _NOTED_UNKNOWN:
            _log.warning(
                "%s: %.1f%% of the covered pixels have no distance in the scene box when read as %s; "
                "tools/inspect_teacher_depth.py shows what the files hold",
                self._folder, 100 * unknown, self.kind.value,
            )  # fmt: skip


def infer_from_files(files: OutputFiles, box: SceneBox | None) -> DepthReport:
    """``infer_depth_kind`` on some two dozen evenly spread frames.

    Raises:
        InputError: damaged files; no box given, and none can be supposed from the cameras.
    """
    if box is None:
        try:
            box = focus_box(files.cameras)
        except ValueError as error:
            found = f"none given, and {error}"
            raise InputError(files.dataset.source, "scene box", found, "data.box", "Set data.box.") from error
    count = min(_INFERENCE_VIEWS, len(files))
    chosen = [round(i) for i in np.linspace(0, len(files) - 1, count)]
    pictures, depths = zip(*parallel_map(lambda i: files.load(chosen[i]), count), strict=True)
    alpha = torch.stack([alpha_of(picture) for picture in pictures]) if files.has_alpha else None
    return infer_depth_kind(torch.stack(depths), alpha, files.cameras[chosen], box)


def _supposed_box(cameras: Cameras) -> SceneBox | None:
    try:
        return focus_box(cameras)
    except ValueError:
        return None


def _inside(distance: Tensor, cameras: Cameras, frame: int, box: SceneBox) -> Tensor:
    """The distance where it ends inside the box, else 0."""
    valid = distance > 0
    inside = box.contains(back_project(distance, valid, cameras, frame))
    return distance.masked_scatter(valid, distance[valid] * inside)


def alpha_of(picture: np.ndarray) -> Tensor | None:
    """(H, W) in [0, 1] of a uint8 picture that has it."""
    return torch.from_numpy(picture[..., 3] / np.float32(255)) if picture.shape[2] == 4 else None
