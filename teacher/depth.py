"""What a teacher's depth files mean, found out from their values, and depth as distance along the ray.

A 3DGS rasteriser blends a depth per Gaussian with the weights w of its colour: X = sum w * x. Programs differ in x
(z along the camera axis, distance along the ray, or 1/z) and in whether X is divided by the accumulated alpha
(``normalized``). Read with the wrong kind, depth is still a plausible picture, so it is never taken on trust.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scene.cameras import Cameras
from scene.rays import SceneBox, distance_per_z, pixel_rays, project
from settings.errors import InputError

# Below this alpha, dividing by it amplifies 8-bit rounding and floaters more than it tells about the surface.
MIN_ALPHA = 0.5
_OPAQUE = 0.99
# A quantity is plausible when this part of the fully covered pixels lands in the box ...
_PLAUSIBLE = 0.8
# ... and true when views agree on the points to this relative difference, and any rival's is so many times more.
_AGREEMENT, _RIVAL = 0.03, 1.5
# A point seen further than this (relative) from where the other view sees a surface is occluded there.
_OCCLUDED = 0.1
# Median silhouette value over the value inside: partly covered pixels of an accumulated kind average half of it or
# less, those of a normalized kind about all of it.
_FADES, _HOLDS, _GROWS = 0.75, 0.88, 1.3
# Degrees between the views of a pair: small ones overlap, large ones tell z from distance.
_PAIR_ANGLE = 25.0


class DepthKind(str, Enum):
    """A blended quantity; ``_normalized``: divided by the accumulated alpha."""

    Z = "z"
    DISTANCE = "distance"
    INVERSE_Z = "inverse_z"
    Z_NORMALIZED = "z_normalized"
    DISTANCE_NORMALIZED = "distance_normalized"
    INVERSE_Z_NORMALIZED = "inverse_z_normalized"

    @property
    def quantity(self) -> str:
        """``"z"``, ``"distance"`` or ``"inverse_z"``."""
        return self.value.removesuffix("_normalized")

    @property
    def normalized(self) -> bool:
        return self.value.endswith("_normalized")

    @classmethod
    def parse(cls, text: str, source: str | Path = "teacher") -> DepthKind | None:
        """The kind of that name; None for ``"auto"``.

        Raises:
            InputError: any other text, naming ``source``.
        """
        if text == "auto":
            return None
        try:
            return cls(text)
        except ValueError:
            expected = "auto or one of " + ", ".join(kind.value for kind in cls)
            raise InputError(source, "depth_kind", f"'{text}'", expected) from None


@dataclass(frozen=True)
class DepthReport:
    """What ``infer_depth_kind`` found.

    Attributes:
        kind: the depth's kind; None when the evidence does not decide.
        evidence: sentences with the figures behind it, the verdict last.
        inside: per quantity, the part of fully covered pixels that lands in the scene box, [0, 1].
        agreement: per plausible quantity, the median relative difference of depth between pairs of views.
    """

    kind: DepthKind | None
    evidence: list[str]
    inside: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)

    def summary(self) -> str:
        """The evidence in one line."""
        return "; ".join(self.evidence)

    def require(self, source: str | Path) -> DepthKind:
        """The kind; InputError with all the evidence when there is none."""
        if self.kind is None:
            hint = f"Set teacher.depth_kind to one of {', '.join(kind.value for kind in DepthKind)}, or none."
            raise InputError(source, "depth kind", self.summary(), "depth whose kind shows", hint)
        return self.kind


# numpy parses a file's header with ast, at which CPython 3.11 may fail when several threads do it: "SystemError: AST
# constructor recursion depth mismatch", seen once in thousands of files.
_HEADER_LOCK = threading.Lock()


def read_depth(path: str | Path) -> Tensor:
    """Reads one ``.npy`` depth map as (H, W) float32; axes of length 1 are dropped.

    Raises:
        InputError: missing or truncated file, pickled objects, not a floating (H, W) array, non-finite or negative
            values (with their count).
    """
    path = Path(path)
    try:
        with _HEADER_LOCK:
            values = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(path, "depth", "no such file", "a float32 (H, W) .npy file") from error
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, "depth", f"unreadable data ({error})", "a whole float32 (H, W) .npy file") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        raise InputError(path, "depth dtype", getattr(values, "dtype", "an archive"), "floating point")
    shape, values = values.shape, values.squeeze()
    if values.ndim != 2:
        raise InputError(path, "depth shape", shape, "(H, W)")
    for name, bad in (("non-finite", ~np.isfinite(values)), ("negative", values < 0)):
        if bad.any():
            found = f"{bad.sum()} {name} of {values.size}"
            raise InputError(path, "depth", found, "finite values, 0 where there is nothing", "Render it again.")
    return torch.from_numpy(values.astype(np.float32))


def to_distance(
    depth: Tensor, kind: DepthKind, cameras: Cameras, frame: int, alpha: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Expected distance along the unit ray.

    Args:
        depth: (H, W) values of ``kind``, >= 0, 0 where there is nothing.
        cameras, frame: the camera it was rendered with, at this size.
        alpha: (H, W) accumulated alpha in [0, 1] if known.

    Returns:
        distance (H, W) in world units, 0 where invalid, and valid (H, W) bool. With alpha, pixels of at least
        ``MIN_ALPHA`` are valid. Without it an accumulated kind cannot be divided: pixels are taken as opaque, and
        valid only where they do not look faded: all 3x3 neighbours have depth, and none within 2 pixels has much
        more of it.
        From 1/z the distance is the harmonic mean, 1 / E[1/z].
    """
    valid = depth > 0
    if alpha is not None:
        valid &= alpha >= MIN_ALPHA
        if not kind.normalized:
            depth = depth / alpha.clamp(min=MIN_ALPHA)
    elif not kind.normalized:
        most = F.max_pool2d(depth[None, None], 5, stride=1, padding=2)[0, 0]
        valid = _eroded(valid, 1) & (depth >= _FADES * most)
    values = torch.where(valid, depth, 1.0)
    if kind.quantity == "inverse_z":
        values = 1.0 / values
    if kind.quantity != "distance":
        values = values * distance_per_z(cameras, frame)
    return torch.where(valid, values, 0.0), valid


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
    solid = torch.stack([_eroded(covered, 2) for covered in depth > 0])
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
    if not plausible:
        evidence.append(
            f"none reaches {_PLAUSIBLE:.0%}: other units, a rescaled picture, or a wrong data.box or data.transforms"
        )
        return DepthReport(None, evidence, inside)

    pairs = view_pairs(cameras, box, _PAIR_ANGLE)
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


# Where coverage is full, dividing by it changes nothing: three kinds stand for all six.
_BASES = (DepthKind.Z_NORMALIZED, DepthKind.DISTANCE_NORMALIZED, DepthKind.INVERSE_Z_NORMALIZED)


def _eroded(mask: Tensor, pixels: int) -> Tensor:
    """(H, W) bool: pixels whose neighbours up to that far are all set; beyond the image counts as set."""
    outside = F.max_pool2d((~mask).float()[None, None], 2 * pixels + 1, stride=1, padding=pixels)
    return outside[0, 0] == 0


def _inside_box(depth: Tensor, solid: Tensor, kind: DepthKind, cameras: Cameras, box: SceneBox) -> float:
    hits = 0
    for frame in range(len(cameras)):
        distance, _ = to_distance(depth[frame], kind, cameras, frame)
        hits += box.contains(back_project(distance, solid[frame], cameras, frame)).sum().item()
    return hits / solid.sum().item()


def back_project(distance: Tensor, valid: Tensor, cameras: Cameras, frame: int) -> Tensor:
    """World points (M, 3) of the M valid pixels, row-major, of a (H, W) distance along the ray."""
    row, col = valid.nonzero(as_tuple=True)
    origins, directions = pixel_rays(cameras, frame, row, col)
    return origins + directions * distance[valid][:, None]


def view_pairs(cameras: Cameras, box: SceneBox, angle: float, limit: int = 12) -> list[tuple[int, int]]:
    """Pairs of frames that see the box from directions about ``angle`` degrees apart, spread over the frames."""
    centre = (torch.tensor(box.lower) + torch.tensor(box.upper)) / 2
    towards = F.normalize(cameras.centers.cpu() - centre, dim=-1)
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
    if ratio <= _FADES:
        return False, f"{figures}: it fades with alpha"
    if _HOLDS <= ratio <= _GROWS:
        return True, f"{figures}: it holds up to the edge"
    return None, f"{figures}, neither fading (under {_FADES}) nor holding ({_HOLDS} to {_GROWS})"
