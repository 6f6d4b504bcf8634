"""The scene box: as configured, or found from the teacher."""

from __future__ import annotations

import logging
import math

import torch

from scene.cameras import Cameras
from scene.rays import SceneBox, focus_box
from settings.config import Config
from settings.errors import InputError
from teacher.gaussians import Gaussians

_log = logging.getLogger(__name__)

_LEAST_OPACITY = 0.1
_OUTLIERS = 0.001  # share of Gaussians that may lie outside on each side: floaters would blow the box up
_MARGIN = 0.02
# Shares of the opacity outside data.box. Floaters of a good teacher stay under the first; a crop meant to leave out
# the surroundings is between. Beyond the second the pictures show mostly what no student of this box can hold.
_NOTED_OUTSIDE = 0.01
_MOST_OUTSIDE = 0.5


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
            return box_of_gaussians(gaussians), "around the Gaussians of teacher.ply"
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

    Gaussians wider than the scene, or far away from it, are left out: see ``Gaussians.outliers``.
    """
    solid = (gaussians.opacities > _LEAST_OPACITY) & ~gaussians.outliers()
    means = gaussians.means[solid]
    reach = 2 * gaussians.covariances()[solid].diagonal(dim1=1, dim2=2).sqrt()
    if not len(means):
        means, reach = gaussians.means, torch.zeros_like(gaussians.means)
    # kthvalue, not quantile: that refuses more than 16 million values.
    outside = int(_OUTLIERS * len(means))
    lower = (means - reach).kthvalue(outside + 1, dim=0).values
    upper = (means + reach).kthvalue(len(means) - outside, dim=0).values
    margin = (_MARGIN * (upper - lower).max()).clamp(min=1e-3)
    return SceneBox(tuple((lower - margin).tolist()), tuple((upper + margin).tolist()))


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
    around, share = box_of_gaussians(gaussians[inside]), opacities[inside].sum() / opacities.sum()
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
    needed = box_of_gaussians(gaussians)
    lower = [math.floor(value * 1000) / 1000 for value in needed.lower]
    upper = [math.ceil(value * 1000) / 1000 for value in needed.upper]
    found = f"{list(box.lower)} to {list(box.upper)}, outside of which {outside:.1%} of the opacity of teacher.ply lies"
    setting = f"'data.box={{lower: {lower}, upper: {upper}}}'"
    if outside > _MOST_OUTSIDE:
        hint = f"Set data.box to auto, or --set {setting}, which holds it."
        raise InputError("config", "data.box", found, f"at most {_MOST_OUTSIDE:.0%} outside", hint)
    _log.warning("data.box: found %s; nothing there will be learnt. --set %s would hold it", found, setting)
