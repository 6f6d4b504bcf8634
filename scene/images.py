"""Images on disk, and shrinking them without bias: by exact pixel area, on premultiplied colour."""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from typing import NamedTuple, TypeVar

import imageio.v3 as iio
import numpy as np
import torch
from PIL import ExifTags, Image

from machine.file_kinds import refuse_other_kinds
from machine.files import write_atomically
from settings.errors import InputError

Values = TypeVar("Values", np.ndarray, torch.Tensor)
Rounding = Callable[[np.ndarray], np.ndarray]
PSNR_CAP_DB = 100.0
"""PSNR of identical pictures, so that means stay finite; 8-bit rounding alone is 59 dB."""

_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
# EXIF orientation: what shows the picture upright, and which of them swap its sides.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK = {Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90}
_QUARTER_TURNS = (5, 6, 7, 8)
# TIFF tags, and what they say of a negative and of colours in a plane each.
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO, _PLANES, _ONE_BY_ONE = 258, 262, 0, 284, 2
# Raw modes of 16-bit colour; that of premultiplied colour is left to Pillow, which divides 8 bits of it by alpha.
_DEEP_COLOUR = re.compile(r"(RGB|RGBA|RGBX|LA);16[BLN]")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class ImageHeader(NamedTuple):
    """What an image file says of itself, without its pixels.

    Attributes:
        size: (width, height) as shown.
        stored_size: (width, height) as stored, before the turn that the EXIF orientation asks for.
        orientation: EXIF tag 274, 1 to 8; 1: shown as stored.
        has_alpha: whether it has alpha, or a colour declared transparent.
        mode: Pillow's name of the colour mode, such as ``"RGB"`` or ``"CMYK"``.
    """

    size: tuple[int, int]
    stored_size: tuple[int, int]
    orientation: int
    has_alpha: bool
    mode: str


def read_image(path: str | Path, *, upright: bool = True, rounding: Rounding = np.rint) -> np.ndarray:
    """Reads an image as (H, W, 3) or (H, W, 4) uint8 sRGB, straight alpha.

    By colour mode: grey gets three channels, 16 bits are rounded to 8, CMYK and YCbCr are converted without a colour
    profile, and a transparent colour of a palette or a tRNS chunk becomes alpha.

    Args:
        upright: turned as its EXIF orientation says, as viewers show it; False: as it is stored.
        rounding: of values of 16 bits, in units of 8-bit ones.

    Raises:
        InputError: the file is missing, truncated or no picture, or its colour mode has no such reading.
    """
    path = Path(path)
    with _opened(path) as image:
        if image.format == "PNG":
            _check_png(path)
        raw_mode, turn = _raw_mode(image), _turn(image, upright)
        image.load()
        turned = image if turn is None else image.transpose(turn)
        deep = _deep_pixels(path, image, turned, raw_mode, turn)
        return _pixels(path, turned, raw_mode) if deep is None else rounding(deep / np.float32(257)).astype(np.uint8)


def image_header(path: str | Path) -> ImageHeader:
    """The header of an image file, whose pixels are not read; InputError when there is none.

    A file that is as it was is opened once a process: one run asks for the headers of its dataset several times.
    """
    try:
        stat = os.stat(path)
        state = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    except (OSError, ValueError):  # ValueError: a null character in the path
        state = ()
    return _header(str(path), state)


@lru_cache(maxsize=1 << 18)  # 100 MB at most
def _header(path: str, state: tuple[int, ...]) -> ImageHeader:
    """The header of a file in a state that tells it from what it was before."""
    with _opened(Path(path)) as image:
        orientation = _orientation(image)
        shown, stored = image.size, image.size
        if orientation in _QUARTER_TURNS:
            # Pillow turns TIFF files itself, and its size is then that of the turned picture.
            shown, stored = (shown, stored[::-1]) if image.format == "TIFF" else (shown[::-1], stored)
        return ImageHeader(shown, stored, orientation, image.has_transparency_data, image.mode)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file open in Pillow; what fails while it is becomes an InputError."""
    expected = "a whole picture, such as a PNG or JPEG file"
    if not path.is_file():
        raise InputError(path, "image", "no such file", expected)
    try:
        # Given a name, Pillow maps uncompressed TIFF files into memory, and garbles those with an orientation.
        with open(path, "rb") as file, Image.open(file) as image:
            yield image
    except (InputError, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error ... for bad bytes
        refuse_other_kinds(path, "image", expected, "png", "jpeg", "gif", "tiff", "webp")
        found, hint = f"unreadable data ({error})", "Write the file again."
        raise InputError(path, "image", found, expected, hint) from error


def _check_png(path: Path) -> None:
    """InputError where a chunk of a PNG is not what its checksum says: Pillow decodes damaged pixels without a word."""
    data = memoryview(path.read_bytes())
    place, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(data[place : place + 4], "big")
        kind, stored = bytes(data[place + 4 : place + 8]), data[place + 8 + length : place + 12 + length]
        if int.from_bytes(stored, "big") != zlib.crc32(data[place + 4 : place + 8 + length]) or len(stored) < 4:
            found = f"a damaged part '{kind.decode('latin-1')}' at byte {place}, whose checksum is another"
            raise InputError(path, "image", found, "a whole PNG file", "Copy or write the file again.")
        place += 12 + length


def _orientation(image: Image.Image) -> int:
    """EXIF tag 274; 1 where there is none or none that can be read."""
    try:
        # Not PNG's own getexif, which decodes all pixels to look behind them.
        tag = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
        return tag if tag in _TURNS else 1
    except Exception:  # damaged EXIF raises SyntaxError, struct.error, ...; the picture itself is none the worse
        return 1


def _turn(image: Image.Image, upright: bool) -> Image.Transpose | None:
    """What is to be done with a file once it is loaded: Pillow turns TIFF files itself."""
    turn = _TURNS.get(_orientation(image))
    if image.format != "TIFF":
        return turn if upright else None
    return None if upright else _BACK.get(turn, turn)


def _raw_mode(image: Image.Image) -> str:
    """How pixels are stored, such as ``"L;4"`` or ``"RGB;16B"``, where Pillow says so; before they are loaded."""
    tile = image.tile[0][3] if image.tile else ""
    return tile if isinstance(tile, str) else str(tile[0]) if tile else ""


def _pixels(path: Path, image: Image.Image, raw_mode: str) -> np.ndarray:
    """(H, W, 3) or (H, W, 4) uint8 of up to 8 bits."""
    mode, clear = image.mode, image.info.get("transparency")
    if mode not in _MODES:
        found, expected = f"pixels of mode {mode}", "colour or grey of up to 16 bits"
        raise InputError(path, "pixels", found, expected, "Save the image as 8-bit RGB or RGBA.")
    if isinstance(clear, int) and mode in ("1", "L"):
        # The key is in the file's own bits, the pixels have been spread over 8.
        grey = np.asarray(image.convert("L"))
        shade = clear * {"L;2": 85, "L;4": 17}.get(raw_mode, 1)
        return np.dstack([grey, grey, grey, np.where(grey == shade, 0, 255).astype(np.uint8)])
    target = "RGBA" if image.has_transparency_data else "RGB"
    return np.array(image if mode == target else image.convert(target))


def _deep_pixels(
    path: Path, image: Image.Image, turned: Image.Image, raw_mode: str, turn: Image.Transpose | None
) -> np.ndarray | None:
    """(H, W, 3) or (H, W, 4) uint16 of a file of 16 bits; None where it is of others."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    bits = tags.get(_BITS, ())
    hint = "Save the image as 8-bit or unsigned 16-bit colour or grey."
    if tags.get(_PLANES) == _ONE_BY_ONE and len(bits) > 1 and max(bits) > 8:
        # Pillow takes each byte of it for a pixel, or loses the lower ones.
        expected = "the colours of a pixel side by side"
        raise InputError(path, "pixels", "16-bit colours in a plane each", expected, hint)
    if ";16" in raw_mode and raw_mode.endswith("S"):
        expected = "colour or grey of up to 16 bits, from 0 on"
        raise InputError(path, "pixels", "signed 16-bit grey", expected, hint)
    if image.mode.startswith("I") and ";16" in raw_mode:
        deep = np.asarray(turned).astype(np.uint16)
        deep = np.dstack([65535 - deep if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else deep] * 3)
    elif _DEEP_COLOUR.fullmatch(raw_mode):
        deep = _deep_colour(path, turned, raw_mode, turn)
    else:
        return None
    if (clear := image.info.get("transparency")) is None:
        return deep
    return np.dstack([deep, np.where((deep == clear).all(axis=2), 0, 65535).astype(np.uint16)])


def _deep_colour(path: Path, turned: Image.Image, raw_mode: str, turn: Image.Transpose | None) -> np.ndarray:
    """(H, W, 3) or (H, W, 4) uint16: Pillow gives the upper bytes alone, and as those of the other order the lower."""
    grey = raw_mode.startswith("LA")  # of one order only: its four bytes are read as a colour's
    swapped = "RGBA" if grey else raw_mode[:-1] + _OTHER_ORDER[raw_mode[-1]]
    with _opened(path) as other:
        for index, (*place, how) in enumerate(other.tile):
            parts = (*place, swapped if isinstance(how, str) else (swapped, *how[1:]))
            other.tile[index] = parts if type(other.tile[index]) is tuple else type(other.tile[index])(*parts)
        other.load()
        low = np.asarray(other if turn is None else other.transpose(turn), np.uint16)
    if grey:
        return low[..., [0, 0, 0, 2]] * 256 + low[..., [1, 1, 1, 3]]
    return np.asarray(turned, np.uint16) * 256 + low


def resize_area(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrinks a float32 (H, W) or (H, W, C) image by exact area average, by any ratio >= 1 per axis.

    Each output pixel is the mean of the input over its footprint, edge pixels weighted by the part covered.

    Raises:
        ValueError: a side would grow.
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


def resize_known(values: np.ndarray, width: int, height: int) -> np.ndarray:
    """Shrinks (H, W) float32 values that are 0 where unknown: the mean of those known, if half of them or more are."""
    known = resize_area((values > 0).astype(np.float32), width, height)
    mean = resize_area(values, width, height) / np.maximum(known, 0.1)
    return np.where(known > 0.5 - 1e-4, mean, np.float32(0))


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


def srgb_to_linear(values: Values) -> Values:
    """sRGB values in [0, 1] as linear light (IEC 61966-2-1)."""
    where = torch.where if isinstance(values, torch.Tensor) else np.where
    return where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Values in [0, 1] (clipped to it) -> uint8, rounded."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def write_image(path: str | Path, array: np.ndarray) -> None:
    """Writes a PNG atomically: (H, W), (H, W, 3) or (H, W, 4), uint8 or float in [0, 1]. Makes its folder.

    Raises:
        ValueError: an array of another shape.
    """
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
