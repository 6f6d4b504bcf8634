"""The cameras of a city, and those of a block as the dataset of its run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from machine.files import write_atomically
from scene.cameras import Cameras, join_cameras
from scene.formats import load_frames
from scene.frames import Frames, chosen_frames, held_out
from teacher.sources import Source


@dataclass(frozen=True)
class CityCameras:
    """Cameras that are trained from, and those that are held out.

    Attributes:
        entries: of the two in turn, a frame's text in a ``transforms.json`` each.
    """

    train: Cameras
    holdout: Cameras
    entries: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def all(self) -> Cameras:
        """The cameras of both, at the larger size of the two."""
        parts = self.train, self.holdout
        size = max(part.width for part in parts), max(part.height for part in parts)
        return join_cameras(*(part.resized(*size) for part in parts))

    def write(self, path: Path, train: np.ndarray, holdout: np.ndarray) -> None:
        """Writes some of the cameras as a ``transforms.json`` that says which are held out.

        Args:
            train, holdout: bool, which of those.
        """
        names: list[list[str]] = []
        frames: list[str] = []
        for split, chosen in enumerate((train, holdout)):
            numbers = chosen.nonzero()[0].tolist()
            names.append([_file_path(split, number) for number in numbers])
            frames += [self.entries[split][number] for number in numbers]
        lists = f'"train_filenames": {json.dumps(names[0])},\n"test_filenames": {json.dumps(names[1])},\n'
        write_atomically(path, "{" + (lists if names[1] else "") + '"frames": [\n' + ",\n".join(frames) + "\n]}\n")


def city_cameras(source: Source) -> CityCameras:
    """The cameras of a city's dataset.

    Raises:
        InputError: the dataset is missing or damaged.
    """
    data, poses = source.config.data, source.training_poses()
    frames = chosen_frames(data.frames, source.frames()[0])
    if poses is None:
        trained, held = frames, held_out(frames, data.holdout_every)
        train, holdout = (part.nonzero()[:, 0].tolist() for part in (~held, held))
    else:
        trained = chosen_frames(data.train_frames, load_frames(poses, data=data))
        train, holdout = list(range(len(trained))), list(range(len(frames)))
    offset = np.zeros(3) if data.offset is None else np.array(data.offset)
    entries = tuple(_entries(trained, 0, train, offset)), tuple(_entries(frames, 1, holdout, offset))
    return CityCameras(trained.cameras[train], frames.cameras[holdout], entries)


def _entries(frames: Frames, split: int, numbers: list[int], offset: np.ndarray) -> Iterator[str]:
    """Each frame as JSON; ``offset`` is put back, since who reads it takes it off."""
    cameras = frames.cameras
    poses = cameras.c2w.double().numpy()
    poses[:, :3, 3] += offset
    poses, fields = poses.tolist(), {name: getattr(cameras, field).tolist() for name, field in _INTRINSICS.items()}
    for place, number in enumerate(numbers):
        width, height = frames.size_of(number)
        own = {name: values[number] for name, values in fields.items()} | {"w": width, "h": height}
        yield json.dumps({"file_path": _file_path(split, place), **own, "transform_matrix": poses[number]})


_INTRINSICS = {"fl_x": "fx", "fl_y": "fy", "cx": "cx", "cy": "cy"}


def _file_path(split: int, number: int) -> str:
    """A frame's name in the blocks' datasets, by its place among those of its split."""
    return f"{('train', 'holdout')[split]}_{number:05d}"
