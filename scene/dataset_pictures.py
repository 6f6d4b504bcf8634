"""A dataset's own pictures at the size of its cameras, and which of their pixels count."""

from __future__ import annotations

import numpy as np

from scene.frames import Frames, Size
from scene.images import read_image, resize_area, to_uint8
from scene.masks import check_mask_size, read_mask
from settings.errors import InputError

ALL = 1 - 1e-4
"""Of a pixel's area; area averages of ones are off by rounding."""


def read_picture(frames: Frames, index: int) -> np.ndarray:
    """The picture of a frame, (H, W, 3) or (H, W, 4) uint8; where sizes differ, of the cameras' and 0 beyond its own.

    Where a teacher has learnt the exposure of each picture, they are all brought to that of the teacher.

    Raises:
        InputError: it is damaged, or not of the size that was found when the dataset was read.
    """
    path = frames.image_paths[index]
    picture = read_image(path, upright=not frames.as_stored)
    exposure = None if frames.exposures is None else frames.exposures[index]
    if exposure is not None:
        picture = _without(exposure, picture)
    if frames.sizes is None:
        return picture
    width, height = frames.sizes[index]
    if picture.shape[:2] != (height, width):
        found = f"{picture.shape[1]}x{picture.shape[0]}"
        raise InputError(path, "image size", found, f"{width}x{height}, as when the dataset was read")
    return padded(picture, frames)


def counted_pixels(frames: Frames, size: Size) -> np.ndarray | None:
    """(N, H, W) bool: pixels of working size that lie wholly in the frame's picture and its mask; None: all do.

    Args:
        size: (width, height), in the shape of the cameras.

    Raises:
        InputError: a mask is damaged, of another size than its picture, or leaves nothing.
    """
    if all_count(frames):
        return None
    counted = np.empty((len(frames), size[1], size[0]), bool)
    for index in range(len(frames)):
        counted[index] = counted_of(frames, index, size)
    return counted


def counted_of(frames: Frames, index: int, size: Size) -> np.ndarray:
    """(H, W) bool: ``counted_pixels`` of one frame.

    Raises:
        InputError: its mask leaves nothing, or is missing or damaged.
    """
    counts = _counts(frames, index)
    for axis, pixels in ((0, size[1]), (1, size[0])):  # of a size that is larger each pixel first becomes several
        counts = counts.repeat(-(-pixels // counts.shape[axis]), axis)
    counted = resize_area(counts, *size) >= ALL
    if not counted.any():
        mask = None if frames.masks is None else frames.masks[index]
        found = f"nothing of frame {frames.names[index]} at {size[0]}x{size[1]}"
        raise InputError(mask or frames.source, "mask", found, "some pixels that are not black")
    return counted


def all_count(frames: Frames) -> bool:
    """Whether all pixels of all pictures count."""
    return frames.sizes is None and not any(frames.masks or ())


def _without(exposure: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The picture as it was before an exposure (3, 4) was applied to its colours, see ``Frames``."""
    inverse = np.linalg.inv(exposure[:, :3]).astype(np.float32)
    colors = (picture[..., :3] / np.float32(255) - exposure[:, 3].astype(np.float32)) @ inverse
    return np.concatenate([to_uint8(colors), picture[..., 3:]], axis=2)


def _counts(frames: Frames, index: int) -> np.ndarray:
    """(H, W) float32 at the size of the cameras: 1 for the pixels of the picture that its mask keeps, else 0."""
    own = frames.size_of(index)
    path = None if frames.masks is None else frames.masks[index]
    if path is None:
        return padded(np.ones((own[1], own[0]), np.float32), frames)
    mask = read_mask(path, upright=not frames.as_stored)
    check_mask_size(path, mask.shape[::-1], own)
    return padded(mask.astype(np.float32), frames)


def padded(plane: np.ndarray, frames: Frames) -> np.ndarray:
    """The plane at the size of the cameras: 0 beyond its own size."""
    beyond = (frames.cameras.height - plane.shape[0], frames.cameras.width - plane.shape[1])
    return np.pad(plane, [(0, beyond[0]), (0, beyond[1]), *[(0, 0)] * (plane.ndim - 2)])
