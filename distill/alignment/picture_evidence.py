"""What pictures themselves say of how they were written: the colour of their border, and of their partly clear pixels.

A student that learnt from such pictures shows what they show, so no comparison with it tells.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from settings.sections import Color
from teacher.views.photographs import SAME, border_colour

_OTHER = 16 / 255  # a border's colour that differs by more from the background is another
# Partly clear pixels are judged beside opaque ones that are bright enough to tell, where there are enough.
_OPAQUE, _PARTIAL, _BRIGHT, _REACH, _ENOUGH = 0.98, (0.1, 0.9), 0.2, 4, 50
_CLEARLY = 0.5


def other_border(pictures: Tensor, background: Color, counted: Tensor | None = None) -> Color | None:
    """The colour of the borders where it is one, and not the background; else None.

    Args:
        pictures, counted: as ``border_colour``.
    """
    color = border_colour(pictures, counted)
    differs = color is not None and max(abs(a - b) for a, b in zip(color, background, strict=True)) > _OTHER
    return color if differs else None


def colour_name(color: Color) -> str:
    """``"black"``, ``"white"`` or the values."""
    named = {0.0: "black", 1.0: "white"}
    for value, name in named.items():
        if all(abs(part - value) <= SAME for part in color):
            return name
    return "[" + ", ".join(f"{part:.2g}" for part in color) + "]"


def premultiplied_evidence(pictures: Tensor, alpha: Tensor, background: Color) -> str | None:
    """Figures that say that colours, read as straight, had been multiplied by alpha; None when they do not.

    Beside an opaque pixel a partly clear one has its colour if straight, that times alpha if premultiplied.

    Args:
        pictures: (N, H, W, 3) in [0, 1], composited on ``background`` as straight colour.
        alpha: (N, H, W) in [0, 1].
    """
    cover = alpha[..., None]
    straight = (pictures - (1 - cover) * pictures.new_tensor(background)) / cover.clamp(min=1e-3)
    opaque = (cover >= _OPAQUE).float()

    def around(planes: Tensor) -> Tensor:
        pooled = F.avg_pool2d(planes.permute(0, 3, 1, 2), 2 * _REACH + 1, stride=1, padding=_REACH)
        return pooled.permute(0, 2, 3, 1)

    beside = around(straight * opaque) / around(opaque).clamp(min=1e-9)
    partial = (cover > _PARTIAL[0]) & (cover < _PARTIAL[1]) & (around(opaque) > 1e-6) & (beside > _BRIGHT)
    if partial.sum() < _ENOUGH:
        return None
    ratio, share = (straight / beside.clamp(min=1e-6))[partial], cover.expand_as(partial)[partial]
    multiplied, own = (ratio - share).abs().median().item(), (ratio - 1).abs().median().item()
    if multiplied > _CLEARLY * own:
        return None
    return (
        f"at {len(ratio)} values of partly clear pixels, colour over the colour beside is off by {multiplied:.3f} from "
        f"alpha and by {own:.3f} from 1 (medians): colours were multiplied by alpha before they were written"
    )
