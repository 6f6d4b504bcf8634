"""Where one looks from, in a browser's terms and in ours, and where a dataset's cameras are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels.covariances import rotation_matrices
from scene.cameras import Cameras
from scene.formats import load_frames
from scene.frames import chosen_frames, held_out
from scene.orbits import spiral_rotations
from scene.rays import SceneBox
from teacher.sources import Source

# A browser's cameras look down +Z with +Y down, as OpenCV's; ours look down -Z with +Y up.
_AXES = np.diag([1.0, -1.0, -1.0])

# Of a camera that no dataset tells: degrees over the level, diagonals of the box from its middle, radians.
_ELEVATION, _AWAY, _FOV = 25.0, 1.3, math.radians(45)


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """A camera without a picture size: its axis goes through the middle of the picture.

    Attributes:
        c2w: (4, 4) float64 rigid camera-to-world pose, looking down -Z, +Y up.
        fov: vertical field of view, radians.
    """

    c2w: Tensor
    fov: float

    def __eq__(self, other: object) -> bool:
        same_kind = isinstance(other, Viewpoint)
        return same_kind and self.fov == other.fov and torch.equal(self.c2w, other.c2w)

    @classmethod
    def of_browser(cls, wxyz: np.ndarray, position: np.ndarray, fov: float) -> Viewpoint:
        """From a browser's camera: a unit quaternion and a place in world units; ``fov`` as ours."""
        c2w = np.eye(4)
        c2w[:3, :3] = rotation_matrices(torch.tensor(wxyz).double()).numpy() @ _AXES
        c2w[:3, 3] = position
        return cls(torch.from_numpy(c2w), float(fov))

    @classmethod
    def of_camera(cls, cameras: Cameras, index: int) -> Viewpoint:
        """Of one of some cameras; where its principal point is not in the middle, the axis stays as it is."""
        fov = 2 * math.atan(cameras.height / 2 / cameras.fy[index].item())
        return cls(cameras.c2w[index].cpu().double(), fov)

    @property
    def wxyz(self) -> np.ndarray:
        """(4,) the orientation of a browser's camera."""
        from scipy.spatial.transform import Rotation  # slow to import, and not needed for the first picture

        return np.roll(Rotation.from_matrix(self.c2w[:3, :3].numpy() @ _AXES).as_quat(), 1)

    @property
    def position(self) -> np.ndarray:
        """(3,) world units."""
        return self.c2w[:3, 3].numpy()

    @property
    def ahead(self) -> np.ndarray:
        """(3,) unit direction of the axis."""
        return -self.c2w[:3, 2].numpy()

    def cameras(self, width: int, height: int) -> Cameras:
        """One camera with square pixels, of that picture size."""
        focal = torch.tensor([height / 2 / math.tan(self.fov / 2)])
        middle = torch.tensor([width / 2]), torch.tensor([height / 2])
        return Cameras(self.c2w.float()[None], focal, focal, *middle, width, height)


class DatasetCamera(NamedTuple):
    """A frame's camera: its name, where it looks from, width over height, and whether it is held out of training."""

    name: str
    viewpoint: Viewpoint
    aspect: float
    held_out: bool


def dataset_cameras(source: Source) -> list[DatasetCamera]:
    """The frames that are measured on, and those that are trained on where they are others; no picture is decoded.

    Raises:
        InputError: there is no dataset, or one of its files is missing or damaged.
    """
    data, poses = source.config.data, source.training_poses()
    measured = chosen_frames(data.frames, source.frames()[0])
    held = held_out(measured, data.holdout_every if poses is None else 1)
    cameras = named_cameras(measured.names, measured.cameras, held)
    if poses is not None:
        trained = chosen_frames(data.train_frames, load_frames(poses, data=data))
        cameras += named_cameras(trained.names, trained.cameras, torch.zeros(len(trained), dtype=torch.bool))
    return cameras


def named_cameras(names: tuple[str, ...], cameras: Cameras, held: Tensor) -> list[DatasetCamera]:
    """N cameras with their names; ``held``: (N,) bool."""
    aspect = cameras.width / cameras.height
    return [
        DatasetCamera(name, Viewpoint.of_camera(cameras, index), aspect, bool(held[index]))
        for index, name in enumerate(names)
    ]


def outside(box: SceneBox) -> Viewpoint:
    """Looks at the middle of a box from beside it, a little from above, +Z being up."""
    rotation = spiral_rotations(1, _ELEVATION, _ELEVATION, np.array([0.0, 0.0, 1.0]))[0]
    middle = (np.array(box.lower) + np.array(box.upper)) / 2
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation, middle + _AWAY * math.hypot(*box.extent) * rotation[:, 2]
    return Viewpoint(torch.from_numpy(c2w), _FOV)


def common_up(cameras: list[DatasetCamera]) -> np.ndarray:
    """(3,) what is up in the cameras' pictures on average, a unit direction; +Z where they do not agree."""
    mean = np.mean([camera.viewpoint.c2w[:3, 1].numpy() for camera in cameras] or [np.zeros(3)], axis=0)
    length = np.linalg.norm(mean)
    return mean / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])
