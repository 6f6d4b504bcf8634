"""Pictures as views at the working size; those without alpha are renders on a background, which show silhouettes, or
photographs of a world about them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scene.formats.dataset_format import note_once
from scene.frames import spread
from scene.images import resize_area, resize_known, to_uint8
from teacher.views.output_folder import Size, shrink_rgba
from teacher.views.rasterized import View

Color = tuple[float, float, float]

# A border is of one colour when this share of its pixels is, in this share of the pictures (JPEG and resizing move it
# by less than ``SAME``).
_ONE_COLOUR, _PICTURES = 0.8, 0.75
SAME = 6 / 255
"""Two colours no farther apart are one."""
_JUDGED = 16  # pictures whose borders are looked at
_BACKGROUND = 0.2  # share of the borders of renders that shows the background, even where the object reaches them


def border_colour(pictures: Tensor) -> Color | None:
    """The one colour that the borders of most of (N, H, W, 3) pictures in [0, 1] have; None when there is none."""
    border = _border(pictures)
    own = border.median(dim=1).values
    even = ((border - own[:, None]).abs().amax(-1) <= SAME).float().mean(1) >= _ONE_COLOUR
    if not even.any():
        return None
    common = own[even].median(dim=0).values
    alike = even & ((own - common).abs().amax(-1) <= SAME)
    return tuple(common.tolist()) if alike.float().mean() >= _PICTURES else None


def has_silhouettes(rgb: Tensor, background: Color, source: Path) -> bool:
    """Whether (N, H, W, 3) uint8 pictures without alpha are on a background; that they are photographs is said."""
    if not are_photographs(rgb[spread(range(len(rgb)), _JUDGED)].float() / 255, background):
        return True
    note_once(
        "info",
        f"{source}: the pictures have no alpha, and their borders no one colour: they are taken for photographs of a "
        "world that fills them. Colour and depth are learnt from; silhouettes there are none.",
    )
    return False


def are_photographs(pictures: Tensor, background: Color) -> bool:
    """Whether (N, H, W, 3) pictures in [0, 1] are of no one background: their borders hardly show it, nor any other."""
    at_border = (_border(pictures) - pictures.new_tensor(background)).abs().amax(-1) <= SAME
    return at_border.float().mean().item() < _BACKGROUND and border_colour(pictures) is None


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


def _border(pictures: Tensor) -> Tensor:
    """(N, P, 3) pixels along the four sides."""
    return torch.cat([pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], dim=1)
