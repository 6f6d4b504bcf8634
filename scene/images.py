"""Images on disk, and shrinking them without bias: by exact pixel area, on premultiplied colour."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import imageio.v3 as iio
import numpy as np

from machine.files import write_atomically
from settings.errors import InputError

PSNR_CAP_DB = 100.0
"""PSNR of identical pictures, so that means stay finite; 8-bit rounding alone is 59 dB."""


def read_image(path: str | Path) -> np.ndarray:
    """Reads an image as (H, W, 3) or (H, W, 4) uint8, straight alpha.

    Grey images get three channels; 16-bit ones are rounded to 8.

    Raises:
        InputError: the file is missing, truncated or no picture, or its pixels are neither 8 nor 16 bit integers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "image", "no such file", "a PNG or JPEG file")
    try:
        image = iio.imread(path, plugin="pillow", index=0)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... for bad bytes
        found, hint = f"unreadable data ({error})", "Write the file again."
        raise InputError(path, "image", found, "a whole PNG or JPEG file", hint) from error
    if image.dtype == bool:
        image = image.astype(np.uint8) * 255
    elif image.dtype == np.uint16:
        image = np.rint(image / 257.0).astype(np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4):
        raise InputError(path, "pixels", f"{image.dtype} {image.shape}", "8 or 16 bit grey, RGB or RGBA")
    if image.shape[2] <= 2:
        image = np.concatenate([np.repeat(image[..., :1], 3, axis=2), image[..., 1:]], axis=2)
    return np.ascontiguousarray(image)


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) from the file's header alone; InputError when there is none."""
    try:
        height, width = iio.improps(path, plugin="pillow", index=0).shape[:2]
    except Exception as error:  # as in read_image
        raise InputError(path, "image header", f"unreadable ({error})", "a PNG or JPEG file") from error
    return width, height


def resize_area(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrinks a float32 (H, W) or (H, W, C) image by exact area average, by any ratio >= 1 per axis.

    Each output pixel is the mean of the input over its footprint, edge pixels weighted by the part covered.
    """
    if image.shape[0] < height or image.shape[1] < width:
        raise ValueError(f"cannot shrink {image.shape[1]}x{image.shape[0]} to {width}x{height}")
    for axis, target in ((0, height), (1, width)):
        if image.shape[axis] != target:
            pixels, weights = _area_taps(image.shape[axis], target)
            shape = [1] * image.ndim
            shape[axis] = target
            taps = (
                image.take(pixel, axis) * weight.reshape(shape) for pixel, weight in zip(pixels, weights, strict=True)
            )
            image = sum(taps, start=np.float32(0))
    return image


@lru_cache(maxsize=16)
def _area_taps(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """(K, target) source pixels under each target pixel and the part of its footprint each takes; columns sum to 1.

    K is the most source pixels that one footprint touches; the rest of a column is padded with weight 0.
    """
    edges = [Fraction(index * source, target) for index in range(target + 1)]
    most = max(ceil(right) - floor(left) for left, right in pairwise(edges))
    pixels, weights = np.zeros((most, target), np.int64), np.zeros((most, target), np.float32)
    for column, (left, right) in enumerate(pairwise(edges)):
        for tap, pixel in enumerate(range(floor(left), ceil(right))):
            pixels[tap, column] = pixel
            weights[tap, column] = (min(right, pixel + 1) - max(left, pixel)) / (right - left)
    return pixels, weights


def resize_rgba(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrinks a uint8 (H, W, 4) straight-alpha image to uint8 (height, width, 4), averaging premultiplied colour.

    Colour under alpha 0 has no say in the result and is 0 there.
    """
    alpha = image[..., 3:].astype(np.float32)
    premultiplied = np.concatenate([image[..., :3] * (alpha / 255), alpha], axis=2)
    shrunk = resize_area(premultiplied, width, height)
    covered = np.maximum(shrunk[..., 3:], 1e-6) / 255
    shrunk[..., :3] = np.where(shrunk[..., 3:] > 0, shrunk[..., :3] / covered, 0)
    return to_uint8(shrunk / 255)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (clipped to it) -> uint8, rounded."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def write_image(path: str | Path, array: np.ndarray) -> None:
    """Writes a PNG atomically: (H, W), (H, W, 3) or (H, W, 4), uint8 or float in [0, 1]. Makes its folder."""
    array = np.asarray(array)
    if array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4)):
        raise ValueError(f"found shape {array.shape}, expected (H, W), (H, W, 3) or (H, W, 4)")
    pixels = array if array.dtype == np.uint8 else to_uint8(array)
    write_atomically(path, iio.imwrite("<bytes>", pixels, extension=".png", plugin="pillow"))


def psnr_from_mse(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error, at most ``PSNR_CAP_DB``; NaN stays NaN."""
    return float(-10.0 * np.log10(np.maximum(mse, 10.0 ** (-PSNR_CAP_DB / 10.0))))


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """PSNR in dB over all pixels and channels of two arrays of one shape."""
    return psnr_from_mse(np.mean(np.square(image.astype(np.float64) - reference)))
