"""The scene box: as configured, or found from the teacher."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.gaussians.gaussian_statistics import VISIBLE_ALPHA
from scene.cameras import Cameras
from scene.formats.dataset_format import note_once
from scene.rays import SceneBox, focus_box
from settings.config import Config
from settings.errors import InputError
from teacher.gaussians import Gaussians

_log = logging.getLogger(__name__)

_LEAST_OPACITY = 0.1
_OUTLIERS = 0.001  # share of Gaussians that may lie outside on each side: floaters would blow the box up
_MARGIN = 0.02  # of the width
_AROUND_A_POINT = 1e-3  # world units
# Shares of the opacity outside data.box. Floaters of a good teacher stay under the first; a crop meant to leave out
# the surroundings is between. Beyond the second the pictures show mostly what no student of this box can hold.
_NOTED_OUTSIDE = 0.01
_MOST_OUTSIDE = 0.5
# Strays widen a box to more than so many times what holds the middle share of the opacity along each axis. Captures
# with wide surroundings have up to 2, LEGO with one floater in 300 has 20.
_STRAY_WIDTHS, _CORE = 5.0, 0.96
_SAMPLE = 20_000  # Gaussians that tell where the core is


def scene_box(config: Config, gaussians: Gaussians | None, cameras: Cameras | None) -> tuple[SceneBox, str]:
    """The box of a run, and in words where it is from.

    Args:
        gaussians: the teacher's, where there is a PLY.
        cameras: the dataset's, asked when nothing else bounds the scene, and with a far field: the box is then of what
            they look at.

    Raises:
        InputError: ``data.box`` is auto and nothing tells where the scene is.
    """
    if config.data.box != "auto":
        return SceneBox(config.data.box.lower, config.data.box.upper), "data.box"
    if gaussians is not None:
        if config.far_field.kind == "none" or cameras is None:
            box = box_of_gaussians(gaussians)
            if config.far_field.kind == "none" and (note := stray_note(config, gaussians, box)):
                note_once("warning", note)
            return box, "around the Gaussians of teacher.ply"
        return focused_box(gaussians, cameras)
    try:
        if cameras is None:
            raise ValueError("there are no cameras")
        return focus_box(cameras), "what the cameras look at, since data.box is auto and there is no PLY"
    except ValueError as error:
        hint = "Set e.g. --set 'data.box={lower: [-1.5, -1.5, -1.5], upper: [1.5, 1.5, 1.5]}'."
        raise InputError("config", "data.box", f"auto without a PLY, and {error}", "a box", hint) from error


def box_of_gaussians(gaussians: Gaussians) -> SceneBox:
    """The box of all but a few outlying visible Gaussians, two standard deviations of each included.

    Gaussians wider than the scene, or far away from it, are left out: see ``Gaussians.outliers``. So are faint ones,
    unless they are most of the scene, as of smoke: each shows little, all together do not.
    """
    opacities, kept = gaussians.opacities, ~gaussians.outliers()
    solid = kept & (opacities > _LEAST_OPACITY)
    if opacities[solid].sum() < opacities[kept].sum() / 2:
        solid = kept & (opacities >= VISIBLE_ALPHA)
    means = gaussians.means[solid]
    reach = 2 * gaussians.covariances().diagonal(dim1=1, dim2=2)[solid].sqrt()
    if not len(means):
        means, reach = gaussians.means, torch.zeros_like(gaussians.means)
    # kthvalue, not quantile: that refuses more than 16 million values.
    outside = int(_OUTLIERS * len(means))
    lower = (means - reach).kthvalue(outside + 1, dim=0).values
    upper = (means + reach).kthvalue(len(means) - outside, dim=0).values
    width = (upper - lower).max()
    margin = _MARGIN * width if width > 0 else _AROUND_A_POINT
    return SceneBox(tuple((lower - margin).tolist()), tuple((upper + margin).tolist()))


class Strays(NamedTuple):
    """A few Gaussians far from all others, which widen the box of all.

    Attributes:
        count: how many of the visible ones are outside of ``box``.
        width: longest side of the box of all.
        box: that of the others.
    """

    count: int
    width: float
    box: SceneBox


def find_strays(gaussians: Gaussians, box: SceneBox) -> Strays | None:
    """The Gaussians that widen the scene's box to a multiple of what nearly all of the opacity takes; None: none do."""
    width = max(box.extent)
    kept = (~gaussians.outliers()).nonzero()[:, 0]  # numbers, not a copy of millions
    if not len(kept):
        return None
    some = gaussians[kept[:: max(1, len(kept) // _SAMPLE)]]
    reach = 2 * some.covariances().diagonal(dim1=1, dim2=2).sqrt()
    lower = weighted_quantile(some.means - reach, some.opacities, (1 - _CORE) / 2)
    upper = weighted_quantile(some.means + reach, some.opacities, (1 + _CORE) / 2)
    core = (upper - lower).max()
    if width <= _STRAY_WIDTHS * core:
        return None
    # What is as far out as the core is wide is still of the scene: a thin part that sticks out, or its ground.
    near = ((gaussians.means[kept] - (lower + upper) / 2).abs() <= core).all(dim=1)
    core_box = box_of_gaussians(gaussians.colourless()[kept[near]])
    visible = gaussians.means[gaussians.opacities > _LEAST_OPACITY]
    return Strays(int((~core_box.contains(visible)).sum()), width, core_box)


def stray_note(config: Config, gaussians: Gaussians | None, box: SceneBox) -> str:
    """What is to be said of strays that widen ``box``, which ``data.box: auto`` is, with what to do; empty: none do."""
    if config.data.box != "auto" or gaussians is None or (strays := find_strays(gaussians, box)) is None:
        return ""
    return (
        f"data.box: auto is {strays.width:.4g} wide, since {strays.count:,} of {len(gaussians):,} Gaussians of "
        f"teacher.ply are far from all others, whose box is {max(strays.box.extent):.4g} wide: a student of so wide a "
        f"box shows little of it. If they are floaters, --set {box_setting(strays.box)} (teacher.kind gaussians "
        "draws without them given --set teacher.clip=true); if they are surroundings that matter, "
        "--set far_field.kind=contracted."
    )


def outlier_words(gaussians: Gaussians) -> str:
    """Which Gaussians are outliers, see ``Gaussians.outliers``; empty: none are."""
    if not (count := int((outliers := gaussians.outliers()).sum())):
        return ""
    widest = gaussians.log_scales[outliers].max().exp().item()
    return (
        f"{count:,} of {len(gaussians):,} Gaussians of teacher.ply, far wider than the scene (standard deviation up to "
        f"{widest:.3g}) or far away from it"
    )


def weighted_quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """(C,) per column of (N, C): the least value that, with all below it, holds a share of the weight.

    Args:
        weights: (N,) of the rows, above 0.
    """
    values, order = values.sort(dim=0)
    sums = weights.double()[order].cumsum(dim=0)
    index = (sums < share * sums[-1]).sum(dim=0, keepdim=True).clamp(max=len(values) - 1)
    return values.gather(0, index)[0]


def box_setting(box: SceneBox) -> str:
    """A box for the command line, outwards to a thousandth, or, of a small one, to a hundredth of its width or less."""
    parts = 10 ** max(3, 2 - math.floor(math.log10(max(box.extent))))
    lower = [math.floor(value * parts) / parts for value in box.lower]
    upper = [math.ceil(value * parts) / parts for value in box.upper]
    return f"'data.box={{lower: {lower}, upper: {upper}}}'"


def focused_box(gaussians: Gaussians, cameras: Cameras) -> tuple[SceneBox, str]:
    """The box of the Gaussians that the cameras look at, and in words what it is; all else is the far field's.

    It holds those in the ``focus_box``, by the rules of ``box_of_gaussians``; all where the cameras have no focus, as
    in a room.
    """
    try:
        region = focus_box(cameras)
    except ValueError as error:
        return box_of_gaussians(gaussians), f"around the Gaussians of teacher.ply, since {error}"
    inside, opacities = region.contains(gaussians.means), gaussians.opacities
    if not (inside & (opacities > _LEAST_OPACITY)).any():
        return region, "what the cameras look at, where teacher.ply has nothing"
    around, share = box_of_gaussians(gaussians.colourless()[inside]), opacities[inside].sum() / opacities.sum()
    lower, upper = (torch.tensor([getattr(around, corner), getattr(region, corner)]) for corner in ("lower", "upper"))
    box = SceneBox(tuple(lower.amax(0).tolist()), tuple(upper.amin(0).tolist()))
    return box, f"around the Gaussians that the cameras look at, {share:.0%} of the opacity of teacher.ply"


def check_box_holds(box: SceneBox, gaussians: Gaussians) -> None:
    """Checks a configured box against the teacher: warns when some of it lies outside, refuses when most does.

    A Gaussian counts with its opacity and is where its centre is.

    Raises:
        InputError: more than half of the opacity is outside.
    """
    opacities = gaussians.opacities.double()
    outside = (opacities[~box.contains(gaussians.means)].sum() / opacities.sum().clamp(min=1e-12)).item()
    if outside <= _NOTED_OUTSIDE:
        return
    found = f"{list(box.lower)} to {list(box.upper)}, outside of which {outside:.1%} of the opacity of teacher.ply lies"
    setting = box_setting(box_of_gaussians(gaussians))
    if outside > _MOST_OUTSIDE:
        hint = f"Set data.box to auto, or --set {setting}, which holds it."
        raise InputError("config", "data.box", found, f"at most {_MOST_OUTSIDE:.0%} outside", hint)
    _log.warning("data.box: found %s; nothing there will be learnt. --set %s would hold it", found, setting)
