"""Which kind of depth a teacher's files hold, found out from their values, their cameras and the scene box.

Read with the wrong kind, depth is still a plausible picture, so it is never taken on trust.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from scene.cameras import Cameras
from scene.rays import SceneBox, image_rays, intersect_box, project
from settings.errors import InputError
from teacher.depth import FADES, DepthKind, back_project, eroded, to_distance

_OPAQUE = 0.99
# A quantity is plausible when this part of the fully covered pixels lands in the box ...
_PLAUSIBLE = 0.8
# ... and true when views agree on the points to this relative difference, and any rival's is so many times more.
_AGREEMENT, _RIVAL = 0.03, 1.5
# A point seen further than this (relative) from where the other view sees a surface is occluded there.
_OCCLUDED = 0.1
# As ``FADES``: what holds up to the edge was divided by alpha.
_HOLDS, _GROWS = 0.88, 1.3
# Degrees between the views of a pair: small ones overlap, large ones tell z from distance.
_PAIR_ANGLE = 25.0
# Factors tried about the one that puts surfaces amid the box, and how well some pairs of views must agree on one.
_FACTORS, _FACTOR_PAIRS, _FACTOR_AGREEMENT = tuple(1.04**k for k in range(-12, 13)), 4, 0.0125
# Greatest values of pictures: depth stretched for viewing has the same one in every view.
_PICTURE_MAXIMA, _LEAST_VIEWS = (1.0, 255.0, 65535.0), 3


@dataclass(frozen=True)
class DepthReport:
    """What ``infer_depth_kind`` found.

    Attributes:
        kind: the depth's kind; None when the evidence does not decide.
        evidence: sentences with the figures behind it, the verdict last.
        inside: per quantity, the part of fully covered pixels that lands in the scene box, [0, 1].
        agreement: per plausible quantity, the median relative difference of depth between pairs of views.
        advice: what to do where there is no kind.
    """

    kind: DepthKind | None
    evidence: list[str]
    inside: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    advice: str = f"Set teacher.depth_kind to one of {', '.join(kind.value for kind in DepthKind)}, or none."

    def summary(self) -> str:
        """The evidence in one line."""
        return "; ".join(self.evidence)

    def require(self, source: str | Path) -> DepthKind:
        """The kind; InputError with all the evidence when there is none."""
        if self.kind is None:
            raise InputError(source, "depth kind", self.summary(), "depth whose kind shows", self.advice)
        return self.kind


def infer_depth_kind(depth: Tensor, alpha: Tensor | None, cameras: Cameras, box: SceneBox) -> DepthReport:
    """Finds what kind the depth of a few views is, or refuses.

    The quantity must put the surfaces inside the box, and in the same place for different views. Whether it was
    divided by alpha shows at partly covered pixels.

    Args:
        depth: (N, H, W) >= 0; two dozen views spread over the scene are enough.
        alpha: (N, H, W) in [0, 1] if known.
        cameras: the N cameras, at this size.
        box: the scene box.
    """
    if (greatest := stretched_to(depth.amax((1, 2)).tolist())) is not None:
        return DepthReport(None, [f"{STRETCHED} {greatest:g}"], advice=f"Save depth in world units{_OR_NONE}")
    if not depth.any():
        return DepthReport(None, ["all values are 0"], advice=f"Write the depth files again{_OR_NONE}")
    solid = torch.stack([eroded(covered, 2) for covered in depth > 0])
    if alpha is not None:
        solid &= alpha >= _OPAQUE
    if not solid.any():
        return DepthReport(None, ["no pixel is fully covered, so there is nothing to judge by"])
    inside = {kind.quantity: _inside_box(depth, solid, kind, cameras, box) for kind in _BASES}
    evidence = [
        "fully covered pixels that land in the scene box: "
        + ", ".join(f"{name} {share:.1%}" for name, share in inside.items())
    ]
    plausible = [kind for kind in _BASES if inside[kind.quantity] >= _PLAUSIBLE]
    pairs = view_pairs(cameras, box, _PAIR_ANGLE)
    if not plausible:
        factor, words = _other_units(depth, solid, cameras, box, pairs)
        evidence.append(f"none reaches {_PLAUSIBLE:.0%}: {words}")
        advice = {} if factor is None else {"advice": f"Multiply the files' values by {factor:.4g}{_OR_NONE}"}
        return DepthReport(None, evidence, inside, **advice)

    differences = {kind: _pair_differences(depth, solid, kind, cameras, pairs) for kind in plausible}
    agreement = {kind.quantity: d.median().item() for kind, d in differences.items() if len(d)}
    if agreement:
        figures = ", ".join(f"{name} {median:.2%}" for name, median in agreement.items())
        evidence.append(f"median difference of back-projected points between {len(pairs)} pairs of views: {figures}")
    quantity, reason = _choose_quantity([kind.quantity for kind in plausible], agreement)
    evidence.append(reason)
    if quantity is None:
        return DepthReport(None, evidence, inside, agreement)

    normalized, reason = _is_normalized(depth, alpha, solid)
    evidence.append(reason)
    kind = None if normalized is None else DepthKind(quantity + ("_normalized" if normalized else ""))
    if kind is not None:
        evidence.append(f"so the depth is {kind.value}")
    return DepthReport(kind, evidence, inside, agreement)


_OR_NONE = ", or set teacher.depth_kind to none."
STRETCHED = "no metric depth: each view was stretched by itself, for its greatest value is"


def stretched_to(greatest: Sequence[float]) -> float | None:
    """The greatest value of every view (0: of an empty one) when it is that of a picture; None when it is not."""
    present = [value for value in greatest if value > 0]
    if len(present) < _LEAST_VIEWS:
        return None
    return next((most for most in _PICTURE_MAXIMA if all(abs(v / most - 1) < 1e-6 for v in present)), None)


def _other_units(
    depth: Tensor, solid: Tensor, cameras: Cameras, box: SceneBox, pairs: list[tuple[int, int]]
) -> tuple[float | None, str]:
    """The factor on the values that puts surfaces in the box, and in the same place for different views; in words."""
    found: list[tuple[float, float, float, str]] = []
    for kind in _BASES:
        # An error in the factor moves surfaces as it moves distances: the box tells it roughly, the views exactly.
        rough = _factor_into_box(depth, solid, kind, cameras, box)
        if rough is None:
            continue
        tens = 10.0 ** round(math.log10(rough))
        for factor in (tens, *(rough * step for step in _FACTORS)):
            inside = _inside_box(depth * factor, solid, kind, cameras, box)
            if inside < _PLAUSIBLE:
                continue
            differences = _pair_differences(depth * factor, solid, kind, cameras, pairs[:_FACTOR_PAIRS])
            if len(differences) and (median := differences.median().item()) <= _FACTOR_AGREEMENT:
                found.append((median, factor, inside, kind.quantity))
                if factor == tens:
                    break
    if not found:
        return None, "other units, a rescaled picture, or a wrong data.box or data.transforms"
    median, factor, inside, quantity = min(found)
    words = f"{inside:.1%} land in the box and views agree to {median:.2%}"
    return factor, f"other units: multiplied by {factor:.4g} and read as {quantity}, {words}"


def _factor_into_box(depth: Tensor, solid: Tensor, kind: DepthKind, cameras: Cameras, box: SceneBox) -> float | None:
    """The median factor on values of ``kind`` that puts surfaces amid the box; None when no ray meets it."""
    factors = []
    for frame in range(len(cameras)):
        near, far = intersect_box(*image_rays(cameras, frame), box, 0.0, torch.inf)
        distance = to_distance(depth[frame], kind, cameras, frame)[0].flatten()
        usable = solid[frame].flatten() & (far > near) & (distance > 0)
        ratio = ((near + far) / 2 / distance.clamp(min=1e-30))[usable]
        factors.append(1 / ratio if kind.quantity == "inverse_z" else ratio)
    together = torch.cat(factors)
    return together.median().item() if len(together) else None


# Where coverage is full, dividing by it changes nothing: three kinds stand for all six.
_BASES = (DepthKind.Z_NORMALIZED, DepthKind.DISTANCE_NORMALIZED, DepthKind.INVERSE_Z_NORMALIZED)


def _inside_box(depth: Tensor, solid: Tensor, kind: DepthKind, cameras: Cameras, box: SceneBox) -> float:
    hits = 0
    for frame in range(len(cameras)):
        distance, _ = to_distance(depth[frame], kind, cameras, frame)
        hits += box.contains(back_project(distance, solid[frame], cameras, frame)).sum().item()
    return hits / solid.sum().item()


def view_pairs(cameras: Cameras, box: SceneBox, angle: float, limit: int = 12) -> list[tuple[int, int]]:
    """Pairs of frames that see the box from directions about ``angle`` degrees apart, spread over the frames."""
    towards = F.normalize(cameras.centers.cpu() - torch.tensor(box.centre), dim=-1)
    apart = torch.rad2deg(torch.arccos((towards @ towards.T).clamp(-1, 1)))
    partner = (apart - angle).abs().fill_diagonal_(torch.inf).argmin(1).tolist()
    anchors = torch.linspace(0, len(cameras) - 1, min(limit, len(cameras))).round().long().tolist()
    return [(i, partner[i]) for i in anchors if 0.1 * angle < apart[i, partner[i]] < 2 * angle]


def view_agreement(
    distance: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor], cameras: Cameras, pair: tuple[int, int]
) -> Tensor:
    """Relative difference between a view's points and the surface another view sees there.

    Args:
        distance: (H, W) distance along the ray of both views.
        valid: (H, W) bool of both.
        pair: their frames.

    Returns:
        (M,) (own - other) / other at the first view's points that the second sees; 0 is perfect. Points that
        are occluded in the second view, more than 10% off, are left out.
    """
    row, col, depth, own = project(cameras, pair[1], back_project(distance[0], valid[0], cameras, pair[0]))
    grid = torch.stack([2 * col / cameras.width - 1, 2 * row / cameras.height - 1], dim=-1)[None, None]
    stack = torch.stack([distance[1], valid[1].float()])[None]
    seen, weight = F.grid_sample(stack, grid, align_corners=False)[0, :, 0]
    # Only where all four samples of the interpolation are valid; grid_sample pads with 0, so the image too.
    usable = (weight > 0.999) & (depth > 0)
    difference = own[usable] / seen[usable] - 1
    return difference[difference.abs() < _OCCLUDED]


def _pair_differences(
    depth: Tensor, solid: Tensor, kind: DepthKind, cameras: Cameras, pairs: list[tuple[int, int]]
) -> Tensor:
    """Absolute relative differences over all pairs that overlap enough to say something."""
    found = [torch.zeros(0)]
    for pair in pairs:
        distance = tuple(to_distance(depth[frame], kind, cameras, frame)[0] for frame in pair)
        difference = view_agreement(distance, (solid[pair[0]], solid[pair[1]]), cameras, pair)
        if len(difference) >= 0.1 * solid[pair[0]].sum().item():
            found.append(difference.abs())
    return torch.cat(found)


def _choose_quantity(plausible: list[str], agreement: dict[str, float]) -> tuple[str | None, str]:
    if not agreement:
        if len(plausible) == 1:
            return plausible[0], f"only {plausible[0]} lands in the box, and no two views overlap to check it"
        return None, f"{' and '.join(plausible)} land in the box, and no two views overlap enough to tell them apart"
    best, *rivals = sorted(agreement, key=agreement.__getitem__)
    if agreement[best] > _AGREEMENT:
        return None, f"no reading agrees between views to {_AGREEMENT:.0%}: is data.transforms what was rendered?"
    if rivals and agreement[rivals[0]] < _RIVAL * agreement[best]:
        return None, f"{best} and {rivals[0]} agree about equally well, so these views do not tell them apart"
    times = f", {agreement[rivals[0]] / agreement[best]:.1f} times better than {rivals[0]}" if rivals else ""
    return best, f"views agree when the depth is read as {best}{times}"


def _is_normalized(depth: Tensor, alpha: Tensor | None, solid: Tensor) -> tuple[bool | None, str]:
    """Whether depth was divided by alpha, judged at partly covered pixels against solid ones up to 4 off."""
    weight = F.avg_pool2d(solid[:, None].float(), 9, stride=1, padding=4)[:, 0]
    reference = F.avg_pool2d((depth * solid)[:, None], 9, stride=1, padding=4)[:, 0] / weight.clamp(min=1e-9)
    if alpha is not None:
        partial = (weight > 0) & (depth > 0) & (alpha > 0.1) & (alpha < 0.9)
        ratio, cover = (depth / reference.clamp(min=1e-12))[partial], alpha[partial]
        if len(ratio) == 0:
            return True, "no pixel is partly covered, so dividing by alpha makes no difference"
        accumulated, divided = (ratio - cover).abs().median().item(), (ratio - 1).abs().median().item()
        figures = (
            f"at {len(ratio)} partly covered pixels, depth over the depth beside it is off by "
            f"{accumulated:.3f} from alpha and by {divided:.3f} from 1 (medians)"
        )
        if min(accumulated, divided) > min(0.25, max(accumulated, divided) / 2):
            return None, f"{figures}: neither accumulated nor normalized"
        return divided < accumulated, figures
    empty_near = F.max_pool2d((depth == 0).float()[:, None], 3, stride=1, padding=1)[:, 0] > 0
    rim = (depth > 0) & empty_near & (weight > 0)
    if not rim.any():
        return None if (depth == 0).any() else False, "no silhouette is in view"
    ratio = (depth / reference.clamp(min=1e-12))[rim].median().item()
    figures = f"at {rim.sum().item()} silhouette pixels depth is {ratio:.2f} of its value inside (median)"
    if ratio <= FADES:
        return False, f"{figures}: it fades with alpha"
    if _HOLDS <= ratio <= _GROWS:
        return True, f"{figures}: it holds up to the edge"
    return None, f"{figures}, neither fading (under {FADES}) nor holding ({_HOLDS} to {_GROWS})"
