"""Trying hypotheses: how close each brings the student to the pictures, and the searches for those with a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from distill.alignment.comparison import Comparison
from distill.alignment.hypotheses import (
    AS_IT_IS,
    Cause,
    Hypothesis,
    another_order,
    axes_hypotheses,
    fitted_background,
    on_background,
    order_hypotheses,
    picture_hypotheses,
    pose_hypotheses,
    scale_hypothesis,
)
from distill.alignment.intrinsics import (
    focal_hypothesis,
    intrinsics_hypotheses,
    moved_principal,
    principal_hypotheses,
    square_pixel_hypotheses,
)
from distill.evaluation.metrics import psnr_blank
from distill.model.view_renderers import Rendering
from scene.cameras import Cameras
from scene.images import psnr

SEARCH_WIDTH, SEARCH_FRAMES = 100, 5
"""Pixels and views: hypotheses are compared on so many of this width; a wrong one shows on few and small ones."""

_SCREEN_WIDTH, _SCREEN_FRAMES = 32, 3
_AXES_KEPT = 3
_GOLDEN = 0.6180339887498949
_SAME_FOCAL, _USUAL_FOCAL, _SAME_COLOR = 0.003, 0.02, 0.02
# Farthest shift of the principal point that is looked for, as a fraction of the side.
_FARTHEST_SHIFT = 0.25


class _Factors(NamedTuple):
    """Factors tried: 2**(k / per_octave) for |k| up to ``steps``; the best one small is within ``shift`` octaves."""

    steps: int
    per_octave: int
    shift: float


_FOCAL, _SCALES = _Factors(12, 8, 0.06), _Factors(14, 2, 0.1)


class Trial(NamedTuple):
    """A hypothesis and the mean PSNR in dB over the compared frames if it is undone."""

    hypothesis: Hypothesis
    psnr: float


class Trials:
    """Tries hypotheses on one comparison; what the given cameras see is rendered once.

    Attributes:
        psnr_blank: mean PSNR of the best single-colour pictures, dB.
        psnr_flat: how close the renders themselves are to a single colour, in dB, the least of the frames.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.renderings = self._render(comparison.cameras)
        pixels = [comparison.pixels(frame) for frame in comparison.frames]
        targets = [each.listed(comparison.pictures[i]) for each, i in zip(pixels, comparison.frames, strict=True)]
        self.psnr_blank = sum(psnr_blank(target.numpy()) for target in targets) / len(targets)
        views = [view.over(comparison.background) for view in self.renderings]
        own = [each.listed(view).numpy() for each, view in zip(pixels, views, strict=True)]
        self.psnr_flat = min(map(psnr_blank, own))

    def psnr(self, hypothesis: Hypothesis) -> float:
        """Mean over the frames that have a picture under the hypothesis; -inf when none has."""
        found = self.psnrs(hypothesis)
        return sum(found) / len(found) if found else -torch.inf

    def psnrs(self, hypothesis: Hypothesis) -> list[float]:
        """That of each frame that has a picture under the hypothesis, dB."""
        given = self.comparison
        renderings = self.renderings
        if hypothesis.cameras is not None:
            renderings = self._render(hypothesis.cameras(given.cameras))
        found = []
        for frame, view in zip(given.frames, renderings, strict=True):
            target = frame if hypothesis.order is None else hypothesis.order[frame]
            if target < 0:
                continue
            picture = hypothesis.picture
            image = view.over(given.background) if picture is None else picture(view, given.background)
            image, wanted = map(given.pixels(target).listed, (image, given.pictures[target]))
            found.append(psnr(image.numpy(), wanted.numpy()))
        return found

    def trial(self, hypothesis: Hypothesis) -> Trial:
        """The hypothesis with its PSNR."""
        return Trial(hypothesis, self.psnr(hypothesis))

    def _render(self, cameras: Cameras) -> list[Rendering]:
        return [self.comparison.render(cameras, frame) for frame in self.comparison.frames]


def try_all(comparison: Comparison, step: Callable[[], None] = lambda: None) -> tuple[list[Trial], Trials]:
    """Every hypothesis, the simplest of a kind first, ``AS_IT_IS`` the first of all; and what they were tried on.

    Args:
        comparison: of any size; it is reduced to ``SEARCH_FRAMES`` of ``SEARCH_WIDTH``.
        step: called once in a while.
    """
    small = comparison.some_frames(SEARCH_FRAMES).shrunk(SEARCH_WIDTH)
    trials, screen = Trials(small), Trials(small.shrunk(_SCREEN_WIDTH).some_frames(_SCREEN_FRAMES))
    cameras = small.cameras
    tried = [AS_IT_IS, *picture_hypotheses(small.background, cameras.width == cameras.height)]
    tried += _fitted(trials)
    tried += [*pose_hypotheses(), *intrinsics_hypotheses(), *square_pixel_hypotheses(cameras)]
    tried += order_hypotheses(small.names)
    tried += _focal(screen, trials, step)
    tried += principal_hypotheses(comparison.cameras, _principal_shift(trials, step))
    tried += _likeliest_axes(screen, step)
    tried += _scaled(screen, trials, step)
    tried += _matched_order(trials)
    found = []
    for hypothesis in tried:
        found.append(trials.trial(hypothesis))
        step()
    return found, trials


def _fitted(trials: Trials) -> list[Hypothesis]:
    """The background that fits best, unless it is the one supposed."""
    given = trials.comparison
    views, pictures = [], []
    for frame, view in zip(given.frames, trials.renderings, strict=True):
        pixels = given.pixels(frame)
        views.append(Rendering(*map(pixels.listed, view)))
        pictures.append(pixels.listed(given.pictures[frame]))
    color = fitted_background(views, pictures)
    if max(abs(one - other) for one, other in zip(color, given.background, strict=True)) < _SAME_COLOR:
        return []
    return [on_background(color, f"the colour ({', '.join(f'{part:.2f}' for part in color)}), which fits best")]


def _likeliest_axes(screen: Trials, step: Callable[[], None]) -> list[Hypothesis]:
    """The best few of all ways to name the axes, judged small."""
    tried = []
    for hypothesis in axes_hypotheses():
        tried.append(screen.trial(hypothesis))
        step()
    return [trial.hypothesis for trial in sorted(tried, key=lambda trial: -trial.psnr)[:_AXES_KEPT]]


def _focal(screen: Trials, trials: Trials, step: Callable[[], None]) -> list[Hypothesis]:
    """The usual factors, and the best one found; none for a best one of 1."""
    scale = _best_factor(screen, trials, focal_hypothesis, _FOCAL, step)
    cameras = trials.comparison.cameras
    aspect = cameras.width / cameras.height
    usual = sorted({0.5, 2.0, aspect, 1 / aspect} - {1.0})
    is_new = abs(scale - 1) > _SAME_FOCAL and all(abs(scale / value - 1) > _USUAL_FOCAL for value in usual)
    return [focal_hypothesis(value, cameras) for value in (*usual, *([scale] if is_new else []))]


def _scaled(screen: Trials, trials: Trials, step: Callable[[], None]) -> list[Hypothesis]:
    """The factor on the cameras' positions that fits best; none for one of about 1."""
    scale = _best_factor(screen, trials, lambda factor, _: scale_hypothesis(factor), _SCALES, step)
    return [] if abs(scale - 1) <= _USUAL_FOCAL else [scale_hypothesis(scale)]


def _best_factor(
    screen: Trials,
    trials: Trials,
    hypothesis: Callable[[float, Cameras], Hypothesis],
    factors: _Factors,
    step: Callable[[], None],
) -> float:
    """The factor whose hypothesis fits best: of a grid, small, then by golden sections about that, small and whole."""

    def score_on(basis: Trials) -> Callable[[float], float]:
        def score(exponent: float) -> float:
            step()
            return basis.psnr(hypothesis(2.0**exponent, basis.comparison.cameras))

        return score

    width = 1 / factors.per_octave
    best = max((k * width for k in range(-factors.steps, factors.steps + 1)), key=score_on(screen))
    best = _golden_section(score_on(screen), best - width, best + width, 4)
    # Small pictures shift the peak a little.
    return 2.0 ** _golden_section(score_on(trials), best - factors.shift, best + factors.shift, 5)


def _principal_shift(trials: Trials, step: Callable[[], None]) -> tuple[float, float] | None:
    """How far the principal point has to move, in fractions of width and height; None: not by a pixel.

    By cross-correlation to a pixel (the pictures' borders are taken to meet), then by searches along each axis.
    """
    given = trials.comparison
    chosen = list(given.frames)
    counted = None if given.counted is None else given.counted[chosen]
    images = _evened(torch.stack([view.over(given.background) for view in trials.renderings]), counted).transpose(1, 3)
    pictures = _evened(given.pictures[chosen], counted).transpose(1, 3)
    spectrum = torch.fft.rfft2(pictures) * torch.fft.rfft2(images).conj()
    score = torch.fft.irfft2(spectrum.sum((0, 1)), s=images.shape[2:])  # (W, H): how well moved images fit
    columns, rows = (torch.fft.fftfreq(size, 1 / size) for size in score.shape)
    near = (columns.abs() <= _FARTHEST_SHIFT * len(columns))[:, None] & (rows.abs() <= _FARTHEST_SHIFT * len(rows))
    best = torch.where(near, score, -torch.inf).argmax().item()
    column, row = columns[best // len(rows)].item(), rows[best % len(rows)].item()
    if column == row == 0:
        return None
    width, height = given.cameras.width, given.cameras.height

    def psnr_at(x: float, y: float) -> float:
        step()
        moved = Hypothesis("", Cause.PRINCIPAL, cameras=lambda cameras: moved_principal(cameras, x / width, y / height))
        return trials.psnr(moved)

    column = _golden_section(lambda x: psnr_at(x, row), column - 1, column + 1, 5)
    row = _golden_section(lambda y: psnr_at(column, y), row - 1, row + 1, 5)
    return column / width, row / height


def _evened(images: Tensor, counted: Tensor | None) -> Tensor:
    """(V, H, W, 3) images, their mean where nothing counts: an edge there would hold them in place."""
    if counted is None:
        return images
    known = counted[..., None]
    means = (images * known).sum((1, 2), keepdim=True) / known.sum((1, 2), keepdim=True)
    return torch.where(known, images, means)


def _golden_section(score: Callable[[float], float], low: float, high: float, rounds: int) -> float:
    """Where ``score`` is largest between ``low`` and ``high``, if it has one peak there."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = score(left), score(right)
    for _ in range(rounds):
        if at_left > at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = score(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = score(right)
    return left if at_left > at_right else right


def _matched_order(trials: Trials) -> list[Hypothesis]:
    """The order in which each rendering has the picture it is most like; none when two want the same one."""
    given = trials.comparison
    images = torch.stack([view.over(given.background) for view in trials.renderings])
    matched = picture_errors(images, given.pictures, given.counted).argmin(1).tolist()
    if len(set(matched)) < len(matched) or matched == list(given.frames):
        return []
    order = [-1] * len(given)
    for frame, picture in zip(given.frames, matched, strict=True):
        order[frame] = picture
    return [another_order(tuple(order), given.names)]


def picture_errors(images: Tensor, pictures: Tensor, counted: Tensor | None = None) -> Tensor:
    """(V, N) mean squared errors of V images against N pictures, (H, W, 3) each, of which (N, H, W) pixels count."""
    first, second = images.flatten(1).double(), pictures.flatten(1).double()
    if counted is None:
        return torch.cdist(first, second).square() / first.shape[1]
    known = counted[..., None].expand_as(pictures).flatten(1).double()
    seen = second * known
    return (first.square() @ known.T - 2 * first @ seen.T + seen.square().sum(1)) / known.sum(1)
