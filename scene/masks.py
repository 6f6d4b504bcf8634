"""Masks of pictures: which of their pixels count."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scene.images import read_image
from settings.errors import InputError

_LOSSY = (".jpg", ".jpeg", ".webp")  # black is only nearly black in them


def read_mask(path: Path, *, upright: bool = True) -> np.ndarray:
    """(H, W) bool: the pixels that count, which are those that are not black, whatever their label.

    Transparent pixels are black; where all pixels are, alpha is the mask. In files that compression has changed those
    count that are at least half as bright as the brightest.

    Args:
        upright: see ``read_image``.

    Raises:
        InputError: the file is missing or damaged.
    """
    mask = read_image(path, upright=upright, rounding=np.ceil)  # a label of 16 bits may be small
    values = mask[..., :3].max(axis=2)
    alpha = mask[..., 3] if mask.shape[2] == 4 else None
    if alpha is not None and (alpha != alpha.flat[0]).any():
        values = np.rint(values * (alpha / 255)).astype(np.uint8) if values.any() else alpha
    if path.suffix.lower() in _LOSSY:
        return values >= max(1.0, values.max() / 2)
    return values > 0


def check_mask_size(path: Path, found: tuple[int, ...], own: tuple[int, int]) -> None:
    """InputError where a mask, (width, height) as found, is not of its picture's own size."""
    if tuple(found) != own:
        expected = f"{own[0]}x{own[1]}, as its picture"
        raise InputError(path, "mask size", f"{found[0]}x{found[1]}", expected, "Masks are not scaled.")
