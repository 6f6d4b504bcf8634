"""Pictures of a lens that bends, made those of a pinhole once, and kept.

The lens is OpenCV's with three radial and two tangential coefficients (Brown-Conrady), which COLMAP's SIMPLE_RADIAL,
RADIAL and OPENCV are cases of.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.threads import available_threads, one_torch_thread
from machine.files import cache_dir, write_atomically
from machine.fingerprints import cache_key
from machine.memory import MIB
from machine.terminal import late_bar
from scene.cameras import Cameras
from scene.formats.dataset_format import note_once
from scene.formats.picture_sizes import canvas
from scene.frames import Frames, Size
from scene.images import image_header, read_image, to_uint8
from scene.masks import check_mask_size, read_mask
from settings.errors import InputError
from settings.words import counted

NEGLIGIBLE = 1e-6
"""Such a coefficient of a lens moves no pixel of any camera by a hundredth."""
_EDGE = 257  # points along a side that tell where it goes
_VERSION = 2  # of the pictures kept
_PANORAMA = re.compile(r"equirect|panoram|spheric|cylind", re.IGNORECASE)
_CUT_PANORAMAS = (
    "No single pinhole holds a panorama: cut each into perspective pictures with cameras of their own, as nerfstudio's "
    "`ns-process-data images --camera-type equirectangular --images-per-equirect 8` does."
)


COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3")
"""Of a lens, in OpenCV's order."""


class Lens(NamedTuple):
    """A lens in pixels: fx, fy, cx, cy, and the ``COEFFICIENTS``."""

    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    @property
    def is_pinhole(self) -> bool:
        """Whether it bends no ray worth telling."""
        return max(map(abs, self.distortion)) <= NEGLIGIBLE

    def scaled(self, x: float, y: float) -> Lens:
        """The lens in the pixels of a picture resized by these factors."""
        fx, fy, cx, cy = self.intrinsics
        return Lens((fx * x, fy * y, cx * x, cy * y), self.distortion)


class Straight(NamedTuple):
    """A frame whose lens is a pinhole: its picture, its (width, height), fx, fy, cx, cy in its pixels, and its mask."""

    path: Path | None
    size: Size
    intrinsics: tuple[float, float, float, float]
    mask: Path | None = None


def way_out(lens: str, undistort: str) -> str:
    """The hint about a lens that is not read: ``undistort``, or of panoramas to cut them.

    Args:
        lens: what the file says of it.
    """
    return _CUT_PANORAMAS if _PANORAMA.search(lens) else undistort


def straight_frames(
    source: Path,
    poses: Tensor,
    names: tuple[str, ...],
    lenses: Sequence[Lens],
    sizes: Sequence[Size],
    paths: Sequence[Path | None],
    masks: Sequence[Path | None] | None,
    as_stored: bool = False,
    **more: Any,
) -> Frames:
    """Frames of any lenses as those of pinholes: see ``straightened``, whose arguments these are.

    Args:
        poses: (N, 4, 4) camera-to-world.
        more: what else ``Frames`` has.
    """
    straight = straightened(source, lenses, sizes, paths, masks, as_stored)
    fx, fy, cx, cy = torch.tensor([frame.intrinsics for frame in straight], dtype=torch.float32).T.contiguous()
    size, own_sizes = canvas(source, [frame.size for frame in straight])
    return Frames(
        cameras=Cameras(poses, fx, fy, cx, cy, *size),
        names=names,
        image_paths=tuple(frame.path for frame in straight),
        source=source,
        sizes=own_sizes,
        masks=None if masks is None else tuple(frame.mask for frame in straight),
        as_stored=as_stored,
        undistorted=sum(frame.path != path for frame, path in zip(straight, paths, strict=True)),
        **more,
    )


def straightened(
    source: Path,
    lenses: Sequence[Lens],
    sizes: Sequence[Size],
    paths: Sequence[Path | None],
    masks: Sequence[Path | None] | None = None,
    as_stored: bool = False,
) -> list[Straight]:
    """The frames, those of lenses that bend with pictures of a pinhole in the cache, made where they are not there.

    Such a picture is cropped to the largest rectangle about the lens's axis that it fills; the focal length stays.
    Where no frame has a picture there are no pixels that were bent: cameras are the pinholes, as are those without a
    picture whose lens cannot be undone.

    Args:
        lenses, sizes: of each frame, in pixels of its picture.
        masks: of each frame, bent as its picture is; None: there are none.
        as_stored: see ``Frames``, of pictures and masks.

    Raises:
        InputError: a picture's lens bends so far that it cannot be undone; one is damaged; a mask is of another size.
    """
    frames, missing, some, pinholes = [], {}, any(paths), 0
    for lens, size, path, mask in zip(lenses, sizes, paths, masks or (None,) * len(paths), strict=True):
        try:
            cut = None if lens.is_pinhole or not some else _kept(source, lens, size)
        except InputError:
            if path is not None:
                raise
            cut = None  # whoever takes such frames out deletes their pictures
        if cut is None:
            frames.append(Straight(path, size, lens.intrinsics, mask))
            pinholes += not lens.is_pinhole
            continue
        if mask is not None:
            header = image_header(mask)
            check_mask_size(mask, header.stored_size if as_stored else header.size, size)
        left, top, width, height = cut
        fx, fy, cx, cy = lens.intrinsics
        kept, kept_mask = (file and _place(file, lens, as_stored) for file in (path, mask))
        frames.append(Straight(kept, (width, height), (fx, fy, cx - left, cy - top), kept_mask))
        for to, bent in ((kept, path), (kept_mask, mask)):
            if to is not None and not to.is_file():
                missing[to] = _Bent(bent, size, lens, frames[-1])
    if pinholes:
        note_once(
            "warning",
            f"{source}: {pinholes} of {len(frames)} frames have a lens that distorts and no picture: a pinhole of "
            "their focal length and principal point is taken in its place.",
        )
    if missing:
        _make_all(source, missing, upright=not as_stored)
    return frames


class _Bent(NamedTuple):
    """A picture or mask of a lens that bends, the (width, height) of the picture, and the frame that is made of it."""

    path: Path
    size: Size
    lens: Lens
    frame: Straight


def _make_all(source: Path, missing: Mapping[Path, _Bent], upright: bool) -> None:
    """Writes the straight pictures and masks that are not there yet, and says so."""
    start = time.perf_counter()
    # Pictures are many: torch's own threads would only get in each other's way.
    with one_torch_thread(), ThreadPoolExecutor(available_threads()) as pool:
        made_ones = pool.map(lambda kept: _make(kept, missing[kept], upright), missing)
        try:
            for _ in late_bar(made_ones, "undistorting", len(missing), " picture"):
                pass
        finally:
            made_ones.close()  # where a signal ends it, the rest is not made
    first = next(iter(missing.values()))
    of = "the first one's lens: " if len({bent.lens.distortion for bent in missing.values()}) > 1 else ""
    pictures = sum(to == bent.frame.path for to, bent in missing.items())
    masks = len(missing) - pictures
    made = counted(pictures, "picture") + (f" and {counted(masks, 'mask')}" if masks else "")
    before, after = ("x".join(map(str, size)) for size in (first.size, first.frame.size))
    note_once(
        "info",
        f"{source}: {made} undistorted ({of}{_words(first.lens)}) in {time.perf_counter() - start:.1f} s, once: "
        f"{sum(map(_bytes, missing)) / MIB:.0f} MiB in {next(iter(missing)).parent}. {before} pixels became {after}.",
    )


def distort(points: np.ndarray, distortion: Sequence[float]) -> np.ndarray:
    """(N, 2) float64 points on the plane one unit in front of the camera, y down -> where the lens shows them."""
    k1, k2, p1, p2, k3 = distortion
    x, y = points.T
    square = x * x + y * y
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
            y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=1,
    )


def undistort(shown: np.ndarray, distortion: Sequence[float]) -> np.ndarray:
    """The points that ``distort`` shows at (N, 2) places, by Newton's method; NaN where there is none near them."""
    points, step = shown.copy(), 1e-6
    for _ in range(50):
        value = distort(points, distortion)
        along_x, along_y = (
            (distort(points + np.array(axis) * step, distortion) - value) / step for axis in ((1, 0), (0, 1))
        )
        determinant = along_x[:, 0] * along_y[:, 1] - along_y[:, 0] * along_x[:, 1]
        rest = shown - value
        # Beyond the fold of a lens it shows the same places again, mirrored: no point there is the one sought.
        points[determinant <= 0] = np.nan
        points += (
            np.stack(
                [
                    rest[:, 0] * along_y[:, 1] - rest[:, 1] * along_y[:, 0],
                    rest[:, 1] * along_x[:, 0] - rest[:, 0] * along_x[:, 1],
                ],
                axis=1,
            )
            / np.where(determinant > 0, determinant, 1)[:, None]
        )
    return np.where(np.abs(distort(points, distortion) - shown) < 1e-9, points, np.nan)


@lru_cache(maxsize=64)
def _kept(source: Path, lens: Lens, size: Size) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part of the straight picture that the bent one fills, in its pixels."""
    (fx, fy, cx, cy), (width, height) = lens.intrinsics, size
    along = np.linspace(0, 1, _EDGE)
    sides = {"left": (0 * along, along), "right": (0 * along + 1, along), "top": (along, 0 * along)}
    sides["bottom"] = (along, 0 * along + 1)
    found = {}
    for name, (x, y) in sides.items():
        shown = np.stack([(x * width - cx) / fx, (y * height - cy) / fy], axis=1)
        found[name] = undistort(shown, lens.distortion) * (fx, fy) + (cx, cy)
    left, right = np.ceil(found["left"][:, 0].max()), np.floor(found["right"][:, 0].min())
    top, bottom = np.ceil(found["top"][:, 1].max()), np.floor(found["bottom"][:, 1].min())
    if not (right - left >= 0.25 * width and bottom - top >= 0.25 * height):
        expected = f"a lens that can be undone in all of its {width}x{height} pixels"
        hint = "Is it a fisheye, or for pictures of another size? `colmap image_undistorter` may do more."
        raise InputError(source, "lens", _words(lens), expected, hint)
    return int(left), int(top), int(right - left), int(bottom - top)


def _place(path: Path, lens: Lens, as_stored: bool) -> Path:
    """Where the straight picture of a file is kept: another one when the file or the lens is another."""
    stat = path.stat()
    file = [str(path.resolve()), stat.st_mtime_ns, stat.st_size]
    *bends, k3 = lens.distortion
    bends += [k3] if k3 else []  # what earlier versions kept, of lenses without it, is found
    key = cache_key(file, [*lens.intrinsics, *bends, as_stored], _VERSION)
    return cache_dir() / "undistorted" / f"{path.stem[:80]}_{key[:20]}.png"


def _make(kept: Path, bent: _Bent, upright: bool) -> None:
    """Writes the straight picture, or mask, of a bent one."""
    is_mask = bent.frame.mask == kept
    pixels = (read_mask if is_mask else read_image)(bent.path, upright=upright)
    places = _places(bent.lens, (pixels.shape[1], pixels.shape[0]), bent.frame.intrinsics, bent.frame.size)
    values = to_uint8((_straight_mask if is_mask else _straight_picture)(pixels, places))
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, iio.imwrite("<bytes>", values, extension=".png", plugin="pillow", compress_level=1))


def _straight_picture(bent: np.ndarray, places: torch.Tensor) -> np.ndarray:
    """(H, W, 3 or 4) in [0, 1] of a uint8 picture at some places, by cubic convolution of premultiplied colour."""
    pixels = torch.from_numpy(bent).permute(2, 0, 1)[None].float() / 255
    alpha = pixels[:, 3:] if pixels.shape[1] == 4 else None
    if alpha is not None:
        pixels = torch.cat([pixels[:, :3] * alpha, alpha], dim=1)
    straight = F.grid_sample(pixels, places, mode="bicubic", padding_mode="border", align_corners=False)
    if alpha is not None:
        cover = straight[:, 3:].clamp(0, 1)
        straight = torch.cat([straight[:, :3] / cover.clamp(min=1e-3), cover], dim=1)
    return straight[0].permute(1, 2, 0).numpy()


def _straight_mask(bent: np.ndarray, places: torch.Tensor) -> np.ndarray:
    """(H, W) bool: where all 4 x 4 pixels that cubic convolution takes count, so that none of the others shows."""
    excluded = F.pad(1 - torch.from_numpy(bent).float()[None], (1, 2, 1, 2), mode="replicate")
    excluded = F.max_pool2d(excluded, 4, stride=1)[0]  # of the pixels from one before each place to two after it
    height, width = bent.shape
    before = (places[0] * torch.tensor([width, height]) + torch.tensor([width, height]) - 1) / 2
    column, row = before.floor().long().unbind(dim=-1)
    return (excluded[row.clamp(0, height - 1), column.clamp(0, width - 1)] == 0).numpy()


@lru_cache(maxsize=4)  # most captures are of one lens
def _places(lens: Lens, size: Size, intrinsics: tuple[float, float, float, float], straight: Size) -> Tensor:
    """(1, H, W, 2) where the pixels of a straight picture are in a bent one of a size, from -1 to 1 as torch has it."""
    (fx, fy, cx, cy), (width, height) = intrinsics, straight
    x, y = np.meshgrid((np.arange(width) + 0.5 - cx) / fx, (np.arange(height) + 0.5 - cy) / fy)
    shown = distort(np.stack([x.ravel(), y.ravel()], axis=1), lens.distortion)
    grid = (shown * lens.intrinsics[:2] + lens.intrinsics[2:]) / (size[0] / 2, size[1] / 2) - 1
    return torch.from_numpy(grid.astype(np.float32)).view(1, height, width, 2)


def _words(lens: Lens) -> str:
    """The coefficients with their names; what is 0 after the first four is left out."""
    named = list(zip(COEFFICIENTS, lens.distortion, strict=True))
    return ", ".join(f"{key} {value:.4g}" for key, value in named if value or key != "k3")


def _bytes(path: Path) -> int:
    return path.stat().st_size
