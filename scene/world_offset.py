"""A world far from its origin, moved to where float32 can tell its parts: ``data.offset``."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from settings.errors import InputError

_log = logging.getLogger(__name__)

Offset = tuple[float, float, float]
"""World units, taken off every position."""

# Float32 positions of a scene within 400 of its own widths from the origin are finer than this share of its width, a
# twenty-fifth of a pixel in a picture 800 wide. At the coordinates of a map they step by centimetres to half a metre.
_COARSEST_STEP = 1 / 20_000
_SAMPLE = 20_000  # positions that tell where a scene is
_FAR_OFFSET = 10.0  # widths of the scene: an offset beyond tells whether it has been taken off already


def moved_positions(
    source: str | Path, what: str, positions: np.ndarray, offset: Offset | None, least_width: float
) -> np.ndarray:
    """Positions less the offset, subtracted in double precision, as float32.

    Where positions lie about the origin and the offset is far away, it has been taken off them already (a teacher
    fitted or exported with it set): they stay as they are, which is said once.

    Args:
        source, what: the file, and what in it is there ("cameras"), for messages.
        positions: (N, 3) finite, N >= 1, as stored: float32 or float64.
        offset: ``data.offset``, world units.
        least_width: the scene is no smaller than this, world units, however close together its positions are.

    Returns:
        (N, 3) float32.

    Raises:
        InputError: float32 would round them to steps that are coarse against the scene; says which offset to set.
    """
    sample = positions[:: max(1, len(positions) // _SAMPLE)].astype(np.float64)
    lower, upper = np.percentile(sample, (2, 98), axis=0)
    center, width = (lower + upper) / 2, max((upper - lower).max(), least_width)
    moved = center
    if offset is not None:
        moved = center - offset
        near, far = np.linalg.norm(center), np.linalg.norm(moved)
        if near < far and np.linalg.norm(offset) > _FAR_OFFSET * width:
            place = _rounded(center, width)
            text = "%s: %s lie about %s, far from data.offset: it has been taken off them already, and is not again"
            _log.warning(text, source, what, place)
            moved = center
        else:
            step = _step(center, width)
            if positions.dtype.itemsize <= 4 and step > _COARSEST_STEP * width:
                _log.warning(
                    "%s: %s are stored as float32 about %s: rounded to steps of %g units in a scene %.3g units wide, "
                    "which no data.offset mends. Export them in double precision, or moved to the origin",
                    *(source, what, _rounded(center, width), step, width),
                )
            positions = positions.astype(np.float64) - offset
    if not (step := _step(moved, width)) <= _COARSEST_STEP * width:
        found = f"{what} about {_rounded(center, width)}, where float32 has steps of {step:g} units"
        expected = f"steps of at most {_COARSEST_STEP * width:.2g} in a scene {width:.3g} units wide"
        hint = f"Set data.offset: {_rounded(center, width)}, which is taken off in double precision."
        raise InputError(source, "positions", found, expected, hint)
    return positions.astype(np.float32)


def _step(center: np.ndarray, width: float) -> float:
    """The distance of neighbouring float32 numbers at a scene's farthest coordinate; NaN beyond all of them."""
    with np.errstate(all="ignore"):
        return float(np.spacing(np.float32(np.abs(center).max() + width / 2)))


def _rounded(center: np.ndarray, width: float) -> list[float]:
    """A position to the next power of ten above the scene's width."""
    digits = -int(np.ceil(np.log10(width)))
    return [round(float(value), digits) + 0.0 for value in center]
