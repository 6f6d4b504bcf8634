"""The teacher's Gaussians, before training, against the pictures that they should equal."""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.alignment.comparison import (
    Comparison,
    shrunk_picture,
    shrunk_plane,
    stacked_pictures,
    stored_files,
    witness_of,
)
from distill.alignment.diagnosis import ABOVE_BLANK_DB, OTHER_WORLD, THRESHOLD_DB, Diagnosis, diagnose
from distill.alignment.hypotheses import AS_IT_IS, Cause, Finding
from distill.alignment.hypothesis_search import SEARCH_WIDTH, Trials
from distill.alignment.seen_scene import CHECK, refuse_or_warn
from scene.frames import spread
from settings.config import Config
from settings.sections import Color
from teacher.sources import Teacher, source_of
from teacher.sources.box import outlier_words

_log = logging.getLogger(__name__)

_FRAMES = 3  # looked at
_OUTLIERS_GAIN_DB = 3.0  # that pictures gain without Gaussians that hide the scene
# Mistakes that leave poses and pictures as they are: what is trained on is not what was meant, but can be learnt.
_LEARNABLE = {Cause.BACKGROUND, Cause.ALPHA, Cause.COLOUR}


class _Reference(NamedTuple):
    """Pictures that the teacher's Gaussians should equal: view i, its background, in words, and whether trained on."""

    picture: Callable[[int], Tensor]
    background: Color
    words: str
    is_trained_on: bool


def _reference(config: Config, teacher: Teacher) -> _Reference | None:
    views, background = teacher.views, config.render.background_rgb
    if teacher.stored_renders is not None:
        background = views.background or background
        return _Reference(lambda i: views.image(i, background), background, "the renders", teacher.poses is None)
    if views.ground_truth is not None:
        is_trained_on = teacher.images is not None  # as a second source of rays: what contradicts it cannot be learnt
        return _Reference(lambda i: views.ground_truth_image(i, background), background, "ground truth", is_trained_on)
    return None


def check_gaussians(
    config: Config, teacher: Teacher, *, known: AbstractSet[Cause] = frozenset(), is_an_error: bool = False
) -> bool:
    """The Gaussians, rendered with the run's cameras, against the pictures that they should equal.

    Args:
        known: causes that need not be said again.
        is_an_error: refuse whatever is found: it stops the run anyway.

    Returns:
        Whether they do; False where there is nothing to compare, too.

    Raises:
        InputError: they are not what is trained on, so that nothing could be learnt.
    """
    reference = None if teacher.gaussians is None else _reference(config, teacher)
    if reference is None:
        return False
    few = _few_trials(config, teacher, reference)
    psnrs = few.psnrs(AS_IT_IS)
    if min(psnrs) >= THRESHOLD_DB:
        return True
    as_it_is = float(np.median(psnrs))  # a mean says too much for one that is right by chance
    is_hopeless = reference.is_trained_on and as_it_is < few.psnr_blank + ABOVE_BLANK_DB
    expected = f"at least {THRESHOLD_DB:g} dB with these cameras"
    without = _without_outliers(config, teacher, reference)
    if without >= as_it_is + _OUTLIERS_GAIN_DB:
        if config.teacher.clip and without >= THRESHOLD_DB:  # they are not in the teacher's pictures
            return True
        words = f"{outlier_words(teacher.gaussians)}: with them pictures are {as_it_is:.2f} dB from {reference.words}, "
        words += f"without them {without:.2f} dB (a blank picture: {few.psnr_blank:.2f} dB; medians)"
        advice = source_of(config).outlier_advice(teacher.gaussians)
        refuse_or_warn(is_an_error or is_hopeless, config.teacher.ply, "Gaussians", words, expected, advice)
        return False
    words = "the Gaussians of teacher.ply are %.2f dB from %s: looking for the cause, which may take minutes"
    _log.info(words, as_it_is, reference.words)
    diagnosis = diagnose(_small_comparison(config, teacher, reference, list(range(len(teacher.views)))), THRESHOLD_DB)
    fill = np.mean([view.alpha.mean().item() for view in few.renderings])
    words = (
        f"the Gaussians of teacher.ply at {as_it_is:.2f} dB from {reference.words} (a blank picture: "
        f"{few.psnr_blank:.2f} dB; medians), filling {fill:.1%} of the pixels"
    )
    cause, explanation, advice = _explained(diagnosis)
    if cause in known or (cause == Cause.WORLD and as_it_is >= THRESHOLD_DB):
        return False
    source = config.data.transforms if diagnosis.likeliest else config.teacher.ply
    refuse = is_an_error or (is_hopeless and cause not in _LEARNABLE)
    refuse_or_warn(refuse, source, cause.value, f"{words}{explanation}", expected, advice)
    return False


def _few_trials(config: Config, teacher: Teacher, reference: _Reference) -> Trials:
    """The Gaussians beside a few of the pictures."""
    return Trials(_small_comparison(config, teacher, reference, spread(range(len(teacher.views)), _FRAMES)))


def _without_outliers(config: Config, teacher: Teacher, reference: _Reference) -> float:
    """How near to the pictures the Gaussians are without those far too wide or far away, dB; -inf: none are."""
    outliers, logits = teacher.gaussians.outliers(), teacher.gaussians.opacity_logits
    if outliers.all() or not outliers.any():
        return -np.inf
    clear = replace(teacher.gaussians, opacity_logits=logits.masked_fill(outliers, -torch.inf))  # no copy of millions
    rest = replace(teacher, gaussians=clear)
    return float(np.median(_few_trials(config, rest, reference).psnrs(AS_IT_IS)))


def _explained(diagnosis: Diagnosis) -> Finding:
    """The cause of a difference, its evidence as the end of a sentence."""
    likeliest = diagnosis.likeliest
    if likeliest is not None:
        one = likeliest.hypothesis
        return Finding(
            one.cause, f"; supposing that {one.name}, they are {likeliest.psnr:.2f} dB from them", one.advice
        )
    return Finding(Cause.WORLD, "", f"{OTHER_WORLD} {CHECK}")


def _small_comparison(config: Config, teacher: Teacher, reference: _Reference, frames: list[int]) -> Comparison:
    """The Gaussians beside some of the pictures, all of these compared, at the width of the search."""
    views = teacher.views
    width = min(SEARCH_WIDTH, views.cameras.width)
    height = max(1, round(views.cameras.height * width / views.cameras.width))
    counted = [None if views.counted is None else views.counted[i] for i in frames]
    pictures = [
        shrunk_picture(reference.picture(i), counts, width, height) for i, counts in zip(frames, counted, strict=True)
    ]
    files = stored_files(config, teacher, depth=False)
    drawn = teacher.drawing.drawn_width(views.cameras.width) if files is None else files.cameras.width
    return Comparison(
        render=witness_of(config, teacher, drawn),
        cameras=views.cameras[frames].resized(width, height),
        **stacked_pictures(pictures),
        coverage=torch.stack([shrunk_plane(views.coverage[i].float() / 255, width, height) for i in frames]),
        background=reference.background,
        names=tuple(views.names[i] for i in frames),
        frames=tuple(range(len(frames))),
        has_alpha=views.alpha is not None,
    )
