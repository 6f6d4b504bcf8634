"""What every file of Gaussians is held to, whatever its format: values that can be drawn, and mean what they should."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from scene.world_offset import Offset, moved_positions
from settings.errors import InputError
from teacher.gaussians import Gaussians

_log = logging.getLogger(__name__)

FIELDS = tuple(field.name for field in fields(Gaussians))
FITTED_WIDTH = "fitted_width"
"""What files call the width of the pictures that the Gaussians were fitted to, pixels."""
USE_RENDERS = "give that program's renders alone (teacher.kind: views, teacher.ply: null)."
ADD_A_SCALE = f"Make the third scale -14 (log 1e-6) to draw them as flat Gaussians, or {USE_RENDERS}"
DAMAGED = "The file is cut short or was altered: copy it again."

_ROWS = 1 << 14  # looked at together
_MOST_UNUSABLE = 0.01  # share of Gaussians that are left out with a warning; more is a broken file
_SURE_LOGIT = 20.0  # stands for an infinite one: its sigmoid is 1 in float32
_THINNEST = math.log(1e-6)  # log-scale that stands for a width of 0
_MOST = {"means": 1e15, "log_scales": 30.0, "sh": 1e6}  # beyond, float32 loses squares and pictures
_TELLING = 16  # Gaussians from which on their values tell whether they are logarithms and logits
_LEAST_LENGTH, _LONGEST = 1e-12, 1e10  # of a quaternion; within, kernels normalise it


def check_present(path: str | Path) -> None:
    """InputError where there is no such file."""
    if not Path(path).is_file():
        raise InputError(path, "Gaussians", "no such file", "a file of 3D Gaussians", "Check the path.")


def checked_gaussians(path: str | Path, arrays: dict[str, np.ndarray], offset: Offset | None = None) -> Gaussians:
    """The arrays of ``Gaussians`` as a file has them, made fit to be drawn.

    Infinite opacities and widths of 0 become the nearest numbers that can be drawn; Gaussians that cannot be drawn are
    left out; both are counted in a warning, as are Gaussians far wider than the scene or far away from it.

    Args:
        arrays: by the names of ``Gaussians``, of any floating type.
        offset: ``data.offset``: see ``moved_positions``.

    Raises:
        InputError: there are none; the arrays do not fit each other; more than 1 % cannot be drawn; scales or opacities
            are stored without logarithm or logit; the positions are where float32 is coarse.
    """
    if arrays["means"].ndim == 0 or len(arrays["means"]) == 0:
        raise InputError(path, "means", "0 Gaussians", "at least 1", "Did the teacher's training finish?")
    try:
        Gaussians(**{name: torch.empty(values.shape, device="meta") for name, values in arrays.items()})
    except (ValueError, IndexError) as error:
        raise InputError(path, "arrays", error, "arrays of one number of Gaussians") from None
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, which is looked for after the cast
        cast = {name: values.astype(np.float32, copy=False) for name, values in arrays.items()}
    logits, scales, rotations = cast["opacity_logits"], cast["log_scales"], cast["rotations"]
    cast["opacity_logits"] = _replaced(
        path, logits, np.isinf(logits), np.copysign(np.float32(_SURE_LOGIT), logits), "opacities are infinite logits"
    )
    flat = scales < -_MOST["log_scales"]
    if (discs := int(flat.any(axis=1).sum())) > 0.5 * len(scales):
        found = f"{discs} of {len(scales)} Gaussians with a scale of 0 (log -inf)"
        raise InputError(path, "scales", found, "Gaussians; these are discs, of 2DGS as it seems", ADD_A_SCALE)
    cast["log_scales"] = _replaced(path, scales, flat, np.float32(_THINNEST), "scales are 0 or nearly so")
    finite = {name: _rows_that(values, lambda part: np.isfinite(part).all(axis=1)) for name, values in cast.items()}
    _refuse_activated(path, cast, np.logical_and.reduce(list(finite.values())))
    lengths = np.linalg.norm(rotations.astype(np.float64), axis=1)
    usable = _usable(path, cast, finite, lengths)
    if not usable.all():
        cast = {name: values[usable] for name, values in cast.items()}
        lengths = lengths[usable]
    if (lengths > _LONGEST).any():
        cast["rotations"] = (cast["rotations"] / lengths[:, None]).astype(np.float32)
    means = arrays["means"] if usable.all() else arrays["means"][usable]
    deviation = math.exp(float(np.median(cast["log_scales"])))
    cast["means"] = moved_positions(path, "Gaussians", means, offset, 6 * deviation, deviation)
    gaussians = Gaussians(**{name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in cast.items()})
    if outliers := int(gaussians.outliers().sum()):
        _log.warning(
            "%s: %d of %d Gaussians are far wider than the scene (standard deviation up to %.3g), or far away from it: "
            "they are drawn, but do not widen the scene box; delete them from the file if they hide it",
            *(path, outliers, len(gaussians), gaussians.scales.max().item()),
        )
    return gaussians


def warn_of_antialiasing(path: str | Path, why: str) -> None:
    """Warns that these Gaussians were trained with a screen-space filter that is not drawn here."""
    _log.warning(
        "%s: these Gaussians were trained with antialiasing (%s), which is not drawn here: thin parts will look "
        "thicker than in their own program. Its renders are the safer teacher (teacher.kind: views)",
        *(path, why),
    )


def _replaced(path: str | Path, values: np.ndarray, bad: np.ndarray, by: np.ndarray, what: str) -> np.ndarray:
    """The values with the bad ones replaced, which is said."""
    if not (count := int(bad.sum())):
        return values
    _log.warning("%s: %d of %d %s: taken as the nearest that can be drawn", path, count, values.size, what)
    return np.where(bad, by, values)


def _rows_that(values: np.ndarray, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """(N,) bool: what holds of each of N rows, asked of some at a time: of all, what is in between takes gigabytes."""
    rows = values.reshape(len(values), -1)
    return np.concatenate([holds(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS)])


def _usable(
    path: str | Path, arrays: dict[str, np.ndarray], finite: dict[str, np.ndarray], lengths: np.ndarray
) -> np.ndarray:
    """(N,) bool: Gaussians that can be drawn; says how many cannot and why.

    Args:
        finite: (N,) bool by the names of the arrays: whose values are all finite.
        lengths: (N,) of the quaternions.

    Raises:
        InputError: more than 1 % cannot.
    """
    count = len(lengths)
    zero = lengths < _LEAST_LENGTH
    empty = zero & (arrays["means"] == 0).all(axis=1) & (arrays["log_scales"] == 0).all(axis=1)
    reasons = {f"{name} NaN or infinite": ~rows for name, rows in finite.items()}
    reasons |= {
        "rows of zeros": empty,
        "rotations of length zero": zero & ~empty,
    }
    for name, most in _MOST.items():
        reasons[f"{name} beyond {most:g}"] = _rows_that(
            arrays[name], lambda part, most=most: (np.isfinite(part) & (np.abs(part) > most)).any(axis=1)
        )
    unusable = np.logical_or.reduce(list(reasons.values()))
    if not (bad := int(unusable.sum())):
        return ~unusable
    parts = [f"{int(rows.sum())} {reason}" for reason, rows in reasons.items() if rows.any()]
    found = f"{bad} of {count} Gaussians that cannot be drawn ({', '.join(parts)}; the first is {unusable.argmax()})"
    if bad > _MOST_UNUSABLE * count:
        hint = "The export is broken: export it again, use an earlier checkpoint, or delete these rows."
        raise InputError(path, "Gaussians", found, f"at most {_MOST_UNUSABLE:.0%} of such, which are left out", hint)
    _log.warning("%s: found %s: they are left out", path, found)
    return ~unusable


def _refuse_activated(path: str | Path, arrays: dict[str, np.ndarray], known: np.ndarray) -> None:
    """InputError where scales or opacities look as if stored after exp and sigmoid; plain colours are warned of.

    Args:
        known: (N,) bool: the Gaussians whose values are all finite.
    """
    if known.sum() < _TELLING:
        return
    scales, logits, colors = arrays["log_scales"][known], arrays["opacity_logits"][known], arrays["sh"][known, 0]
    least, most, median = scales.min(), scales.max(), np.median(scales).astype(np.float64)
    width = np.ptp(np.percentile(arrays["means"][known], (2, 98), axis=0), axis=0).max() if least >= 0 else 0.0
    if least >= 0 and (0 < median < 1 or np.exp(median) > width):
        found = f"all {scales.size} positive, {least:.3g} to {most:.3g}"
        expected = f"natural logarithms: e^{median:.3g} is {np.exp(median):.3g} units in a scene {width:.3g} wide"
        hint = "They were stored without the logarithm: replace each by its log, or export anew."
        raise InputError(path, "scales", found, expected, hint)
    if logits.min() >= 0 and 0.5 < logits.max() <= 1:
        found = f"all {logits.size} in [0, 1], {logits.min():.3g} to {logits.max():.3g}"
        hint = "They were stored after the sigmoid: replace each o by log(o / (1 - o)), or export anew."
        raise InputError(path, "opacities", found, "logits, mostly outside of [0, 1]", hint)
    if colors.min() >= 0 and 0 < colors.max() <= 1 and np.ptp(colors) > 0.5:
        _log.warning(
            "%s: all %d constant harmonics (f_dc) are in [0, 1]: if they are plain colours, replace each c by "
            "(c - 0.5) / 0.2821, or pictures will be pale",
            *(path, colors.size),
        )
