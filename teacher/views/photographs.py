"""Pictures as views at the working size; those without alpha are renders on a background, which show silhouettes, or
photographs of a world about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from scene.dataset_pictures import all_count, counted_of
from scene.formats.dataset_format import note_once
from scene.frames import Frames, Size, spread
from scene.images import resize_area, resize_known, to_uint8
from settings.sections import Color
from teacher.views.output_folder import shrink_rgba
from teacher.views.rasterized import View

# A border is of one colour when this share of its pixels is, in this share of the pictures (JPEG and resizing move it
# by less than ``SAME``).
_ONE_COLOUR, _PICTURES = 0.8, 0.75
SAME = 6 / 255
"""Two colours no farther apart are one."""
_JUDGED = 16  # pictures whose borders are looked at
_BACKGROUND = 0.2  # share of the borders of renders that shows the background, even where the object reaches them


def border_colour(pictures: Iterable[Tensor], counted: Iterable[Tensor] | None = None) -> Color | None:
    """The one colour that the borders of most pictures have; None when there is none.

    Args:
        pictures: (H, W, 3) each, in [0, 1].
        counted: (H, W) bool of each, the pixels that count; None: all.
    """
    borders = _borders(pictures, counted)
    if not borders:
        return None
    own = torch.stack([border.median(dim=0).values for border in borders])
    apart = [(border - colour).abs().amax(-1) for border, colour in zip(borders, own, strict=True)]
    even = torch.stack([(each <= SAME).float().mean() for each in apart]) >= _ONE_COLOUR
    if not even.any():
        return None
    common = own[even].median(dim=0).values
    alike = even & ((own - common).abs().amax(-1) <= SAME)
    return tuple(common.tolist()) if alike.float().mean() >= _PICTURES else None


def has_silhouettes(rgb: Tensor, background: Color, dataset: Frames) -> bool:
    """Whether (N, H, W, 3) uint8 pictures without alpha are on a background; that they are photographs is said.

    Args:
        dataset: their frames. Those that are smaller than its cameras have a border of their own, and what a mask
            leaves out is none.
    """
    judged, counted = spread(range(len(rgb)), _JUDGED), None
    if not all_count(dataset):
        size = rgb.shape[2], rgb.shape[1]
        found = (torch.from_numpy(counted_of(dataset, index, size)) for index in judged)
        counted = [_own_part(each, dataset, index) for index, each in zip(judged, found, strict=True)]
    pictures = [_own_part(rgb[index], dataset, index).float() / 255 for index in judged]
    if not are_photographs(pictures, background, counted):
        return True
    note_once(
        "info",
        f"{dataset.source}: the pictures have no alpha, and their borders are not of a single colour: they are taken "
        "for photographs, which have no silhouettes. Only their colour, and depth if there is any, is learnt from.",
    )
    return False


def _own_part(picture: Tensor, dataset: Frames, index: int) -> Tensor:
    """A plane of a frame at the working size without what is beyond its picture."""
    (width, height), cameras = dataset.size_of(index), dataset.cameras
    rows, columns = picture.shape[0] * height // cameras.height, picture.shape[1] * width // cameras.width
    return picture[: max(1, rows), : max(1, columns)]


def are_photographs(
    pictures: Sequence[Tensor] | Tensor, background: Color, counted: Sequence[Tensor] | None = None
) -> bool:
    """Whether pictures are of no one background: their borders hardly show it, nor any other.

    Args:
        pictures, counted: as ``border_colour``.
    """
    borders = _borders(pictures, counted)
    if not borders:
        return True
    border = torch.cat(borders)
    at_border = (border - border.new_tensor(background)).abs().amax(-1) <= SAME
    return at_border.float().mean().item() < _BACKGROUND and border_colour(pictures, counted) is None


def picture_view(
    picture: np.ndarray,
    size: Size,
    background: Color,
    covered: np.ndarray | None = None,
    distance: np.ndarray | None = None,
) -> View:
    """From native size: a uint8 picture, where the scene is (H, W) bool if known, and the distance, 0 where unknown.

    Without alpha the scene is where it is said to be, else where the picture differs from the background.
    """
    rgba = shrink_rgba(picture, size)
    rgb, alpha = rgba[..., :3], rgba[..., 3] if picture.shape[2] == 4 else None
    coverage = alpha
    if coverage is None:
        if covered is None:
            covered = (np.abs(picture - 255 * np.array(background, np.float32)) > 1.5).any(-1)
        coverage = to_uint8(resize_area(covered.astype(np.float32), *size))
    if distance is not None:
        distance = resize_known(distance, *size)
    rgb, known_alpha, covered, distance = (
        None if plane is None else torch.from_numpy(plane) for plane in (rgb, alpha, coverage, distance)
    )
    return View(rgb, known_alpha, covered if alpha is None else known_alpha, distance)


def photograph_view(picture: np.ndarray, covered: Tensor, distance: np.ndarray | None) -> View:
    """A picture of a world that fills it, and the distance at its native size, where there is one."""
    size = covered.shape[1], covered.shape[0]
    shrunk = None if distance is None else torch.from_numpy(resize_known(distance, *size))
    return View(torch.from_numpy(shrink_rgba(picture, size)[..., :3].copy()), None, covered, shrunk)


def _borders(pictures: Iterable[Tensor], counted: Iterable[Tensor] | None) -> list[Tensor]:
    """(P, 3) pixels along the four sides of each picture that has some there that count."""
    borders = [_border(picture) for picture in pictures]
    if counted is not None:
        known = [_border(each) for each in counted]
        borders = [border[own] for border, own in zip(borders, known, strict=True) if own.any()]
    return borders


def _border(plane: Tensor) -> Tensor:
    return torch.cat([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
