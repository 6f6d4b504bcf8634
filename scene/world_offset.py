"""A world far from its origin, moved to where float32 can tell its parts: ``data.offset``."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from settings.data import FARTHEST_OFFSET, DataConfig
from settings.errors import InputError

_log = logging.getLogger(__name__)

Offset = tuple[float, float, float]
"""World units, taken off every position."""

# Float32 positions of a scene within 400 of its own widths from the origin are finer than this share of its width, a
# twenty-fifth of a pixel in a picture 800 wide. At the coordinates of a map they step by centimetres to half a metre.
_COARSEST_STEP = 1 / 20_000
_COARSEST_DETAIL = 1 / 2  # of a deviation of what is there: it is off by a quarter of that at most
_SAMPLE = 20_000  # positions that tell where a scene is
_LEAST_WIDTH = 10.0  # of the scene that cameras see, where nothing else tells it: they may all be in one place
_NEAR = 0.25  # share of the offset's length within which all of a file lies about the offset, or about the origin


def moved_cameras(source: str | Path, poses: Tensor, data: DataConfig) -> Tensor:
    """Camera-to-world matrices (F, 4, 4) as float32, positions less ``data.offset`` as ``moved_positions`` has them.

    How wide their scene is they do not tell, since a flight may hover and a survey's one tile may have a single camera:
    it is as wide as ``data.box`` says, or 10 units if that says nothing.
    """
    if data.box == "auto":
        width = _LEAST_WIDTH
    else:
        width = max(high - low for low, high in zip(data.box.lower, data.box.upper, strict=True))
    moved = poses.to(torch.float32, copy=True)
    positions = moved_positions(source, "cameras", poses[:, :3, 3].numpy(), data.offset, width)
    moved[:, :3, 3] = torch.from_numpy(positions)
    return moved


def moved_positions(
    source: str | Path,
    what: str,
    positions: np.ndarray,
    offset: Offset | None,
    least_width: float,
    detail: float = np.inf,
) -> np.ndarray:
    """Positions less the offset, subtracted in double precision, as float32.

    Each file is told by where its positions lie: about the offset, or about the origin, where it has been taken off
    them already (a teacher fitted or exported with it set). Those stay as they are, which is said. So is that float32
    rounds them to steps that are fine against the scene, as wide as a city may be, but coarse against what is there.

    Args:
        source, what: the file, and what in it is there ("cameras"), for messages.
        positions: (N, 3) finite, N >= 1, as stored: float32 or float64.
        offset: ``data.offset``, world units.
        least_width: the scene is no smaller than this, world units, however close together its positions are.
        detail: standard deviation of what is there, world units.

    Returns:
        (N, 3) float32.

    Raises:
        InputError: float32 rounds them, or would, to steps that are coarse against the scene; or they lie plainly
            neither about the offset nor about the origin. Both say which offset to set.
    """
    sample = positions[:: max(1, len(positions) // _SAMPLE)].astype(np.float64)
    lower, upper = np.percentile(sample, (2, 98), axis=0)
    center, width = (lower + upper) / 2, max((upper - lower).max(), least_width)
    place, moved, rounded_by = _rounded(center, width), center, 0.0
    if offset is not None and np.any(offset):
        near = _NEAR * np.linalg.norm(offset)
        if np.linalg.norm(center - offset) + width / 2 <= near:
            rounded_by = _step(center, width) if positions.dtype.itemsize <= 4 else 0.0
            if rounded_by > _COARSEST_STEP * width:
                found = f"{what} stored as float32 about {place}: rounded to steps of {rounded_by:g} units"
                hint = "No data.offset mends that: export them in double precision, or moved to the origin."
                raise InputError(source, "positions", found, _fine_steps(width), hint)
            positions, moved = positions.astype(np.float64) - offset, center - offset
        elif np.linalg.norm(center) + width / 2 <= near:
            _warn_once(
                f"{source}: {what} lie about {place}, far from data.offset: it has been taken off them already, and is "
                "not again"
            )
        else:
            found = f"{what} about {place}, {width:.3g} units wide"
            expected = f"all within {near:.3g} units of data.offset {list(offset)}, or of the origin if moved already"
            raise InputError(source, "positions", found, expected, _remedy(center, width))
    if not (step := _step(moved, width)) <= _COARSEST_STEP * width:
        found = f"{what} about {place}, where float32 has steps of {step:g} units"
        raise InputError(source, "positions", found, _fine_steps(width), _remedy(center, width))
    if (step := max(step, rounded_by)) > _COARSEST_DETAIL * detail:
        _warn_once(
            f"{source}: found {what} about {place}, where float32 has steps of {step:g} units, expected steps of at "
            f"most {_COARSEST_DETAIL * detail:.2g}, half of their median deviation: they are off their places. Export "
            "them in double precision and set data.offset, or export them moved to the origin."
        )
    return positions.astype(np.float32)


@cache
def _warn_once(message: str) -> None:
    """Logs a message once a process: one run reads its cameras and Gaussians several times."""
    _log.warning(message)


def _remedy(center: np.ndarray, width: float) -> str:
    """Which offset to set for positions there."""
    if _step(center, width) <= _COARSEST_STEP * width:
        return "Set data.offset: null: float32 is fine enough there, if cameras and Gaussians are in one world."
    if np.abs(center).max() >= FARTHEST_OFFSET:
        return "No map reaches as far: the file is damaged, or in another unit."
    return f"Set data.offset: {_rounded(center, width)}, which is taken off in double precision."


def _fine_steps(width: float) -> str:
    return f"steps of at most {_COARSEST_STEP * width:.2g} in a scene {width:.3g} units wide"


def _step(center: np.ndarray, width: float) -> float:
    """The distance of neighbouring float32 numbers at a scene's farthest coordinate; NaN beyond all of them."""
    with np.errstate(all="ignore"):
        return float(np.spacing(np.float32(np.abs(center).max() + width / 2)))


def _rounded(center: np.ndarray, width: float) -> list[float]:
    """A position to the next power of ten above the scene's width."""
    digits = -int(np.ceil(np.log10(width)))
    return [round(float(value), digits) + 0.0 for value in center]
