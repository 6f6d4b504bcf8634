"""A camera path through recorded viewpoints, written as the JSON that ``tools/render_path.py`` films."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from distill.viewer.viewpoints import Viewpoint
from machine.files import output_errors
from scene.cameras import Cameras
from scene.formats.nerfstudio_json import out_of_world
from scene.formats.transforms_json import load_transforms, write_transforms
from settings.data import DataConfig
from settings.errors import InputError

_KEY = "keyframe_"


class KeyframePath:
    """Viewpoints in the order in which they were recorded, and the file that they are kept in.

    Args:
        file: the JSON; keyframes that it holds are taken up again.
        data: the world that cameras of files are moved into.

    Raises:
        InputError: the file is there and damaged, or not of the viewer's.
    """

    def __init__(self, file: Path, data: DataConfig) -> None:
        self.file, self._data = file, data
        self.viewpoints: list[Viewpoint] = []
        if file.exists():
            frames = load_transforms(file, data=data)
            if not any(name.startswith(_KEY) for name in frames.names):
                hint = "Name a new file: saving a path would replace this one."
                raise InputError(file, "keyframes", f"{len(frames)} cameras", f"frames that are called {_KEY}000", hint)
            keys = [index for index, name in enumerate(frames.names) if name.startswith(_KEY)]
            self.viewpoints = [Viewpoint.of_camera(frames.cameras, index) for index in keys]

    def cameras(self, between: int, width: int, height: int) -> tuple[Cameras, list[str]]:
        """The path's cameras and their names: all keyframes, and ``between`` views between each and the next.

        Places and fields of view follow a cubic spline, rotations one whose angular velocity is continuous.

        Raises:
            ValueError: there are no keyframes.
        """
        if not self.viewpoints:
            raise ValueError("cameras: no keyframes")
        count = len(self.viewpoints)
        times = np.linspace(0, count - 1, (count - 1) * (between + 1) + 1)
        poses = np.stack([view.c2w.numpy() for view in self.viewpoints])
        lens = np.array([[view.fov] for view in self.viewpoints])
        turned = _turned(poses[:, :3, :3], times)
        moved = _smooth(np.concatenate([poses[:, :3, 3], lens], axis=1), times)
        views = []
        for rotation, (x, y, z, fov) in zip(turned, moved, strict=True):
            c2w = np.eye(4)
            c2w[:3, :3], c2w[:3, 3] = rotation, (x, y, z)
            views.append(Viewpoint(torch.from_numpy(c2w), fov).cameras(width, height))
        names = [
            f"{_KEY}{index // (between + 1):03d}" if index % (between + 1) == 0 else f"between_{index:05d}"
            for index in range(len(times))
        ]
        parts = {name: torch.cat([view.tensors()[name] for view in views]) for name in views[0].tensors()}
        return Cameras(**parts, width=width, height=height), names

    def save(self, between: int, width: int, height: int) -> int:
        """Writes the path; returns how many frames it has.

        Raises:
            InputError: the file cannot be written.
            ValueError: there are no keyframes.
        """
        cameras, names = self.cameras(between, width, height)
        with output_errors(self.file):
            poses = out_of_world(self.file, cameras.c2w, self._data).float()
            write_transforms(self.file, replace(cameras, c2w=poses), names)
        return len(names)


def _smooth(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Of (K, C) values at times 0, 1, ... those at others, by a natural cubic spline: (T, C)."""
    if len(values) == 1:
        return values.repeat(len(times), axis=0)
    from scipy.interpolate import CubicSpline  # slow to import, and the viewer is to start at once

    return CubicSpline(np.arange(len(values)), values, bc_type="natural")(times)


def _turned(rotations: np.ndarray, times: np.ndarray) -> np.ndarray:
    """As ``_smooth``, of (K, 3, 3) rotations: (T, 3, 3)."""
    if len(rotations) == 1:
        return rotations.repeat(len(times), axis=0)
    from scipy.spatial.transform import Rotation, RotationSpline  # likewise

    known = Rotation.from_matrix(rotations)
    return RotationSpline(np.arange(len(rotations)), known)(times).as_matrix()
