"""The lenses of COLMAP's camera models: those that a pinhole with OpenCV's first coefficients describes."""

from __future__ import annotations

from pathlib import Path

from scene.formats.colmap_records import ColmapCamera
from scene.formats.undistortion import Lens, way_out
from settings.errors import InputError

_UNDISTORT = (
    "Undistort the pictures with COLMAP, and take the folder that it writes: "
    "`colmap image_undistorter --image_path images --input_path sparse/0 --output_path undistorted`."
)
_KNOWN = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_NEGLIGIBLE = 1e-6


def lens_of(source: Path, camera: ColmapCamera) -> Lens:
    """The lens of a camera, at the camera's size.

    Raises:
        InputError: it is a fisheye, or of another kind that is not undistorted here; a focal length is not positive.
    """
    model, values = camera.model, camera.parameters
    if model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        values = (values[0], *values)
    if model not in _KNOWN or any(abs(value) > _NEGLIGIBLE for value in values[8:]):
        found = f"{model} {[round(value, 5) for value in camera.parameters]}"
        expected = "SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL or OPENCV"
        raise InputError(source, f"camera {camera.id}", found, expected, way_out(model, _UNDISTORT))
    fx, fy, cx, cy, *bends = values
    if not (fx > 0 and fy > 0):
        raise InputError(source, f"camera {camera.id}", f"focal lengths {fx:g}, {fy:g}", "positive ones")
    k1, k2, p1, p2 = (*bends[:4], 0.0, 0.0, 0.0, 0.0)[:4]
    return Lens((fx, fy, cx, cy), (k1, k2, p1, p2))
