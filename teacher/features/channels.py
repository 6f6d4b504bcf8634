"""What each Gaussian of the teacher knows besides a colour seen from somewhere: 52 named channels.

``sh_<k>_<r|g|b>`` (48): spherical-harmonics coefficients times opacity, coefficient 0 being the constant one and those
above the file's degree 0; ``opacity``; ``log_scale_<0|1|2>``, natural logarithms of the standard deviations along the
principal axes in the file's order. The names and their order are part of the format of
``teacher.features.volume_files``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from settings.errors import InputError
from teacher.gaussians import Gaussians

_SH = tuple(f"sh_{k}_{color}" for k in range(16) for color in "rgb")
_LOG_SCALES = tuple(f"log_scale_{axis}" for axis in range(3))
FEATURE_CHANNELS = (*_SH, "opacity", *_LOG_SCALES)
FEATURE_GROUPS = {"all": FEATURE_CHANNELS, "sh": _SH, "sh_dc": _SH[:3], "log_scale": _LOG_SCALES}


def select_channels(chosen: Sequence[str], source: str = "channels") -> tuple[str, ...]:
    """Names of the channels that ``chosen`` names singly or by group, each once, in the order of FEATURE_CHANNELS.

    Args:
        source: where the choice was made, for the message.

    Raises:
        InputError: nothing is chosen, or a name is neither a channel nor a group.
    """
    valid = f"some of {', '.join(FEATURE_GROUPS)}, opacity, sh_0_r to sh_15_b, log_scale_0 to log_scale_2"
    if isinstance(chosen, str) or not chosen:
        raise InputError(source, "channels", repr(chosen), f"a list with {valid}")
    names: set[str] = set()
    for name in chosen:
        if name not in FEATURE_GROUPS and name not in FEATURE_CHANNELS:
            raise InputError(source, "channels", repr(name), valid)
        names.update(FEATURE_GROUPS.get(name, (name,)))
    return tuple(name for name in FEATURE_CHANNELS if name in names)


def gaussian_features(gaussians: Gaussians, channels: Sequence[str] = ("all",)) -> Tensor:
    """(G, C) float32 features of G Gaussians: what ``select_channels(channels)`` names, in its order.

    Raises:
        InputError: see ``select_channels``.
    """
    columns = [FEATURE_CHANNELS.index(name) for name in select_channels(channels)]
    opacities = gaussians.opacities[:, None]
    sh = (gaussians.sh.flatten(1) * opacities).float()
    padding = sh.new_zeros(len(gaussians), len(_SH) - sh.shape[1])
    return torch.cat([sh, padding, opacities, gaussians.log_scales], dim=1)[:, columns]
