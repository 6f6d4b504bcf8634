"""The scene box: as configured, or found from the teacher."""

from __future__ import annotations

import torch

from distill.schema import Config
from scene.errors import InputError
from scene.rays import SceneBox
from teacher.bricks import BRICKS_BOX
from teacher.gaussians import Gaussians

_LEAST_OPACITY = 0.1
_OUTLIERS = 0.001  # share of Gaussians that may lie outside on each side: floaters would blow the box up
_MARGIN = 0.02


def scene_box(config: Config, gaussians: Gaussians | None) -> SceneBox:
    """The box of a run.

    Raises:
        InputError: ``data.box`` is auto and there are no Gaussians to find it from.
    """
    if config.data.box != "auto":
        return SceneBox(config.data.box.lower, config.data.box.upper)
    if config.teacher.kind == "bricks":
        return BRICKS_BOX
    if gaussians is None:
        raise InputError(
            "config",
            "data.box",
            "auto without a PLY",
            "a box, or a PLY to find it from",
            "Set teacher.ply, or e.g. --set 'data.box={lower: [-1.5, -1.5, -1.5], upper: [1.5, 1.5, 1.5]}'.",
        )
    return box_of_gaussians(gaussians)


def box_of_gaussians(gaussians: Gaussians) -> SceneBox:
    """The box of all but a few outlying visible Gaussians, two standard deviations of each included."""
    solid = gaussians.opacities > _LEAST_OPACITY
    means = gaussians.means[solid]
    reach = 2 * gaussians.covariances()[solid].diagonal(dim1=1, dim2=2).sqrt()
    if not len(means):
        means, reach = gaussians.means, torch.zeros_like(gaussians.means)
    # kthvalue, not quantile: that refuses more than 16 million values.
    outside = int(_OUTLIERS * len(means))
    lower = (means - reach).kthvalue(outside + 1, dim=0).values
    upper = (means + reach).kthvalue(len(means) - outside, dim=0).values
    margin = _MARGIN * (upper - lower).max()
    return SceneBox(tuple((lower - margin).tolist()), tuple((upper + margin).tolist()))
