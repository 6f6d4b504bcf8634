"""Frames of a dataset: cameras, names and images, whatever format they were stored in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from scene.cameras import Cameras
from settings.errors import InputError

T = TypeVar("T")
Size = tuple[int, int]
"""(width, height) in pixels."""

_SAME_POSE = 1e-5  # of the width of all cameras' positions, and of a turn's matrix
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(\d+))?")


@dataclass(frozen=True)
class Frames:
    """Frames of a dataset, in its order.

    Attributes:
        cameras: N cameras at the dataset's own image size; where pictures differ in size, at one that holds them all.
        names: N unique names: the file's stem, or its whole path with ``_`` for ``/`` where stems repeat.
        image_paths: N image files, None where the file is not on disk.
        source: the file or folder they are from.
        sizes: each picture's own (width, height), from the top left corner of its camera's; None: all are the cameras'.
        masks: N pictures, not black where the frame's own counts; None where a frame, or all of them, have none.
        tests: whether each frame is one that the dataset keeps for tests; None: it does not say.
        points: the dataset's sparse point cloud, a file.
        points_world: (4, 4) float64, by which its points come into the world of the cameras; None: they are in it.
        exposures: (3, 4) of each frame, by which a teacher's colours became its picture's, as graphdeco has them: a
            colour is a row, ``color @ exposure[:, :3] + exposure[:, 3]``; None as masks.
        sought: where the first picture that is not on disk was looked for, in words; empty: all are there, or there is
            no folder of pictures.
        as_stored: whether cameras are of the pictures' pixels as stored, whatever EXIF orientations say.
        undistorted: number of pictures that were straightened, whose cameras are no longer those of the dataset.
    """

    cameras: Cameras
    names: tuple[str, ...]
    image_paths: tuple[Path | None, ...]
    source: Path
    sizes: tuple[Size, ...] | None = None
    masks: tuple[Path | None, ...] | None = None
    tests: tuple[bool, ...] | None = None
    points: Path | None = None
    points_world: Tensor | None = None
    exposures: tuple[np.ndarray | None, ...] | None = None
    sought: str = ""
    as_stored: bool = False
    undistorted: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def size_of(self, index: int) -> Size:
        """The (width, height) of a frame's picture."""
        return (self.cameras.width, self.cameras.height) if self.sizes is None else self.sizes[index]

    def on_canvas(self, canvas: Size | None) -> Frames:
        """With cameras of a (width, height) that holds theirs, every picture in the top left corner; None: as it is."""
        own = self.cameras.width, self.cameras.height
        if canvas is None or canvas == own:
            return self
        cameras = replace(self.cameras, width=canvas[0], height=canvas[1])
        return replace(self, cameras=cameras, sizes=self.sizes or (own,) * len(self))

    def __getitem__(self, index: slice | list[int]) -> Frames:
        chosen = range(len(self))[index] if isinstance(index, slice) else index

        def part(name: str) -> tuple | None:
            values = getattr(self, name)
            return None if values is None else tuple(values[each] for each in chosen)

        each = ("names", "image_paths", "sizes", "masks", "tests", "exposures")
        return replace(self, cameras=self.cameras[index], **{name: part(name) for name in each})


def frame_slice(text: str | None, count: int, source: str = "config", field: str = "data.frames") -> slice:
    """``"START:STOP:STEP"`` (None: all frames) as a slice that leaves some of ``count`` frames, else InputError."""
    match = _SLICE.fullmatch(text or ":")
    start, stop, step = (None if part is None else int(part) for part in match.groups()) if match else (0, 0, 1)
    if step == 0 or not range(count)[start:stop:step]:
        expected = f"START:STOP:STEP, STEP positive, that leaves some of the {count} frames"
        raise InputError(source, field, f"'{text}'", expected)
    return slice(start, stop, step)


def chosen_frames(text: str | None, dataset: Frames) -> Frames:
    """The frames of the dataset that ``"START:STOP:STEP"`` picks (None: all); InputError when there are none."""
    return dataset[frame_slice(text, len(dataset))]


def holdout_mask(count: int, every: int) -> Tensor:
    """(count,) bool: frames 0, k, 2k, ... for ``every`` = k; none for 0."""
    index = torch.arange(count)
    return index % every == 0 if every else torch.zeros(count, dtype=torch.bool)


def held_out(dataset: Frames, every: int) -> Tensor:
    """(N,) bool: the frames that the dataset keeps for tests, where it says so; else as ``holdout_mask``.

    Of ``every`` 0 and 1, which ask for no frames and for all, it has no say.
    """
    if every > 1 and dataset.tests is not None:
        return torch.tensor(dataset.tests)
    return holdout_mask(len(dataset), every)


def refuse_leaks(source: Path, train: Cameras, test: Cameras) -> None:
    """InputError where frames to test on have the poses of frames to train on: measured on them, a copy is perfect."""
    from scipy.spatial import KDTree  # takes a tenth of a second to import

    both = torch.cat([train.centers, test.centers]).double()
    width = (both.amax(dim=0) - both.amin(dim=0)).max().clamp(min=1e-12)
    rows = [torch.cat([part.centers / width, part.c2w[:, :3, :3].flatten(1)], dim=1) for part in (train, test)]
    distances, nearest = KDTree(rows[0].numpy()).query(rows[1].numpy())
    leaked = (distances < _SAME_POSE).nonzero()[0]
    if len(leaked):
        found = f"{len(leaked)} of {len(test)} test frames with the pose of a training frame"
        found += f" (test frame {leaked[0]} is training frame {nearest[leaked[0]]})"
        hint = "Are train and test files mixed up? Name others."
        raise InputError(source, "test frames", found, "poses that are not trained on", hint)


def refuse_no_holdout(held_out: int) -> None:
    """InputError where no frame is held out, so that there is none to measure on.

    Args:
        held_out: how many are.
    """
    if not held_out:
        hint = "Set it to 8, say: every 8th frame is then held out."
        raise InputError("config", "data.holdout_every", "no frame held out", "at least one to measure on", hint)


def refuse_only_holdout(trained_on: int, count: int) -> None:
    """InputError where all frames are held out, so that none is left to train on.

    Args:
        trained_on: how many are not.
        count: how many there are.
    """
    if not trained_on:
        found, hint = f"all {count} frames held out", "Use more frames, or set data.holdout_every to 0."
        raise InputError("config", "data.holdout_every", found, "at least one to train on", hint)


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly spread, the first among them."""
    count = min(count, len(items))
    return [items[n * len(items) // count] for n in range(count)]


def scaled_size(native: Cameras, width: int | None) -> Size:
    """The size of that width in the shape of the cameras; None: theirs."""
    if width is None:
        return native.width, native.height
    return width, max(1, round(native.height * width / native.width))


def working_size(native: Cameras, width: int | None, source: Path) -> Size:
    """``scaled_size`` of cameras whose pictures are on disk; InputError when it is larger than they are."""
    if width is not None and width > native.width:
        found = f"a width of {native.width} pixels"
        raise InputError(source, "image size", found, f"at least data.resolution {width}", "Lower data.resolution.")
    return scaled_size(native, width)


def shared_canvas(splits: Sequence[Cameras], width: int | None) -> Size | None:
    """The (width, height) that holds the pictures of splits of different shapes; None where theirs is one.

    Of one shape in two sizes they are a mistake, or made one by the working ``width``.
    """
    common = width or min(cameras.width for cameras in splits)
    if len({round(common * cameras.height / cameras.width) for cameras in splits}) == 1:
        return None
    return max(cameras.width for cameras in splits), max(cameras.height for cameras in splits)
