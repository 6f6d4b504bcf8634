"""Where one looks from, in a browser's terms and in ours, and where a dataset's cameras are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels.gaussians.covariances import rotation_matrices
from scene.camera_paths import common_up
from scene.cameras import Cameras
from scene.formats import load_frames
from scene.frames import chosen_frames, held_out
from scene.orbits import spiral_rotations
from scene.rays import SceneBox, Vector
from teacher.sources import Source

# A browser's cameras look down +Z with +Y down, as OpenCV's; ours look down -Z with +Y up.
_AXES = np.diag([1.0, -1.0, -1.0])

# Of a camera that no dataset tells: degrees over the level, diagonals of the box from its middle, radians.
_ELEVATION, _AWAY, _FOV = 25.0, 1.3, math.radians(45)
_ROUNDING = 1e-4  # of what a browser says of its camera: radians, and parts of the scene's width
_DIGITS = 1e-6  # of a coordinate, which counts where a scene is far from the origin


class Lens(NamedTuple):
    """What a browser's camera does not have.

    Attributes:
        stretch: horizontal focal length over the vertical one, in pixels.
        right, down: of the principal point from the middle of the picture, in focal lengths.
    """

    stretch: float = 1.0
    right: float = 0.0
    down: float = 0.0


@dataclass(frozen=True, eq=False)
class Viewpoint:
    """A camera without a picture size.

    Attributes:
        c2w: (4, 4) float64 rigid camera-to-world pose, looking down -Z, +Y up.
        fov: vertical field of view, radians, as if the principal point were in the middle.
        lens: the rest.
    """

    c2w: Tensor
    fov: float
    lens: Lens = Lens()

    def __eq__(self, other: object) -> bool:
        same_kind = isinstance(other, Viewpoint)
        return same_kind and (self.fov, self.lens) == (other.fov, other.lens) and torch.equal(self.c2w, other.c2w)

    @classmethod
    def of_browser(cls, wxyz: np.ndarray, position: np.ndarray, fov: float) -> Viewpoint:
        """From a browser's camera: a unit quaternion and a place in world units; ``fov`` as ours."""
        c2w = np.eye(4)
        c2w[:3, :3] = rotation_matrices(torch.tensor(wxyz).double()).numpy() @ _AXES
        c2w[:3, 3] = position
        return cls(torch.from_numpy(c2w), float(fov))

    @classmethod
    def of_camera(cls, cameras: Cameras, index: int) -> Viewpoint:
        """Of one of some cameras."""
        fx, fy, cx, cy = (getattr(cameras, name)[index].item() for name in ("fx", "fy", "cx", "cy"))
        lens = Lens(fx / fy, (cx - cameras.width / 2) / fx, (cy - cameras.height / 2) / fy)
        return cls(cameras.c2w[index].cpu().double(), 2 * math.atan(cameras.height / 2 / fy), lens)

    def is_where(self, other: Viewpoint, width: float) -> bool:
        """Whether pose and field of view are the other's but for a browser's rounding, in a scene so wide."""
        turned, moved = (self.c2w - other.c2w)[:3].abs().split([3, 1], dim=1)
        least = _ROUNDING * width + _DIGITS * other.c2w[:3, 3].abs().max()
        return abs(self.fov - other.fov) < _ROUNDING and bool(turned.max() < _ROUNDING and moved.max() < least)

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
        """One camera of that picture size, which sees as much from top to bottom whatever the width."""
        fy = height / 2 / math.tan(self.fov / 2)
        fx = fy * self.lens.stretch
        values = fx, fy, width / 2 + self.lens.right * fx, height / 2 + self.lens.down * fy
        return Cameras(self.c2w.float()[None], *(torch.tensor([value]) for value in values), width, height)


class DatasetCamera(NamedTuple):
    """A frame's camera: its name, where it looks from, how much wider than high its view is, and whether it is held
    out of training.
    """

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
    aspects = (cameras.width / cameras.fx / (cameras.height / cameras.fy)).tolist()
    return [
        DatasetCamera(name, Viewpoint.of_camera(cameras, index), aspects[index], bool(held[index]))
        for index, name in enumerate(names)
    ]


def outside(box: SceneBox, up: np.ndarray) -> Viewpoint:
    """Looks at the middle of a box from beside it, a little from above; ``up``: (3,) unit vector."""
    rotation = spiral_rotations(1, _ELEVATION, _ELEVATION, up)[0]
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = rotation, box.centre + _AWAY * math.hypot(*box.extent) * rotation[:, 2]
    return Viewpoint(torch.from_numpy(c2w), _FOV)


def up_of(cameras: list[DatasetCamera], known: Vector | None = None) -> np.ndarray:
    """(3,) unit direction: the known one, or what ``common_up`` finds of the cameras; +Z where they do not agree or
    there are none.
    """
    if known is not None:
        return np.array(known)
    up = common_up(torch.stack([camera.viewpoint.c2w for camera in cameras])) if cameras else None
    return np.array([0.0, 0.0, 1.0]) if up is None else up.numpy()
