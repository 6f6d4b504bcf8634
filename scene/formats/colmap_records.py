"""What the files of a COLMAP model hold, and the camera models that it knows."""

from __future__ import annotations

from typing import NamedTuple

CAMERA_MODELS: dict[str, tuple[int, int]] = {
    "SIMPLE_PINHOLE": (0, 3),
    "PINHOLE": (1, 4),
    "SIMPLE_RADIAL": (2, 4),
    "RADIAL": (3, 5),
    "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (5, 8),
    "FULL_OPENCV": (6, 12),
    "FOV": (7, 5),
    "SIMPLE_RADIAL_FISHEYE": (8, 4),
    "RADIAL_FISHEYE": (9, 5),
    "THIN_PRISM_FISHEYE": (10, 12),
    "RAD_TAN_THIN_PRISM_FISHEYE": (11, 16),
    "SIMPLE_DIVISION": (12, 4),
    "DIVISION": (13, 5),
    "SIMPLE_FISHEYE": (14, 3),
    "FISHEYE": (15, 4),
    "EUCM": (16, 6),
    "EQUIRECTANGULAR": (17, 2),
}
"""Number in binary files and count of parameters of each camera model."""


class ColmapCamera(NamedTuple):
    """A camera: its model by name, (width, height) in pixels, and the model's parameters, focal length first."""

    id: int
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


class ColmapImage(NamedTuple):
    """A registered image: its world-to-camera quaternion w, x, y, z and translation, its camera's id, its file.

    The camera looks down +Z, +Y is down (OpenCV's axes).
    """

    id: int
    rotation: tuple[float, float, float, float]
    translation: tuple[float, float, float]
    camera: int
    name: str
