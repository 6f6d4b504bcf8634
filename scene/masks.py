"""Masks of pictures: which of their pixels count."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scene.images import read_image
from settings.errors import InputError

_LABELS = 64
"""Brightest value of a mask that numbers what it shows, such as 0 and 1: all but 0 count there."""


def read_mask(path: Path) -> np.ndarray:
    """(H, W) bool: the pixels that count, which are those that are not black.

    Transparent pixels are black; where all pixels are, alpha is the mask. Of values between black and the
    brightest, such as the ringing of a JPEG, those from half of the brightest on count.

    Raises:
        InputError: the file is missing or damaged.
    """
    mask = read_image(path)
    values = mask[..., :3].max(axis=2)
    alpha = mask[..., 3] if mask.shape[2] == 4 else None
    if alpha is not None and (alpha != alpha.flat[0]).any():
        values = np.rint(values * (alpha / 255)).astype(np.uint8) if values.any() else alpha
    levels = np.flatnonzero(np.bincount(values.ravel(), minlength=256)[1:]) + 1
    if len(levels) < 2 or levels[-1] < _LABELS:
        return values > 0
    return values >= levels[-1] / 2


def check_mask_size(path: Path, found: tuple[int, ...], own: tuple[int, int]) -> None:
    """InputError where a mask, (width, height) as found, is not of its picture's own size."""
    if tuple(found) != own:
        expected = f"{own[0]}x{own[1]}, as its picture"
        raise InputError(path, "mask size", f"{found[0]}x{found[1]}", expected, "Masks are not scaled.")
