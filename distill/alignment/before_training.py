"""Before the first step: do cameras, pictures, Gaussians and scene box belong together, on a few frames?

What contradicts itself is said now, in the words of ``tools/check_alignment.py``, and not by a student that has
collapsed. Where nothing could be learnt it is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.alignment.comparison import (
    DEPTH_FIELDS,
    Comparison,
    shrunk_picture,
    shrunk_plane,
    stacked_pictures,
    stored_depth,
    stored_files,
    without_depth,
    witness_of,
)
from distill.alignment.depth_mistakes import misplaced, wrong_kind
from distill.alignment.depth_reading import depth_readings
from distill.alignment.diagnosis import ABOVE_BLANK_DB, OTHER_WORLD, THRESHOLD_DB, Diagnosis, diagnose
from distill.alignment.hypotheses import ALPHA_ADVICE, AS_IT_IS, Cause, on_background, pose_hypotheses
from distill.alignment.hypothesis_search import SEARCH_WIDTH, Trials
from distill.alignment.picture_evidence import colour_name, other_border, premultiplied_evidence
from distill.alignment.seen_scene import CHECK, TURNING, check_cells, check_looking, check_step, refuse_or_warn
from distill.evaluation.evaluator import teacher_psnr
from distill.model.model import Model
from scene.cameras import Cameras
from scene.frames import spread
from scene.rays import focus
from settings.config import Config
from settings.errors import InputError
from settings.sections import Color
from teacher.near_plane import near_plane_advice
from teacher.sources import Teacher, load_teacher, source_of
from teacher.sources.box import outlier_words, stray_note
from teacher.views.teacher_views import TeacherViews

_log = logging.getLogger(__name__)

_FRAMES = 4  # looked at
_FAINT_COVERAGE = 0.002
_OUTLIERS_GAIN_DB = 3.0  # that pictures gain without Gaussians that hide the scene
# Mistakes that leave poses and pictures as they are: what is trained on is not what was meant, but can be learnt.
_LEARNABLE = {Cause.BACKGROUND, Cause.ALPHA, Cause.COLOUR}


@contextmanager
def explained_errors(config: Config) -> Iterator[None]:
    """Says instead of an error about depth or the scene box what its cause is, where that is in cameras or Gaussians.

    Raises:
        InputError: that of the body, or its cause.
    """
    try:
        yield
    except InputError as error:
        if error.field in DEPTH_FIELDS | {"scene box", "data.box"}:
            _check_causes(config, error)
        raise


def _check_causes(config: Config, error: InputError) -> None:
    """InputError when the cameras look away from the scene, or do not go with the Gaussians."""
    source = source_of(config)
    try:
        gaussians = source.gaussians() if source.uses_gaussians else None
        cameras = source.frames()[0].cameras
    except InputError:
        return
    if gaussians is not None and error.field in DEPTH_FIELDS:
        # By the box the kind is told: which values land in it, and which views look at its middle from two sides.
        note = stray_note(config, gaussians, source.box(gaussians, cameras)[0])
        if note:
            raise InputError(error.source, error.field, error.found, error.expected, note) from error
    try:
        if gaussians is None and config.data.box == "auto":
            _check_focus(config, cameras)
        else:
            check_looking(config, cameras, source.box(gaussians, None)[0])
        if gaussians is not None:
            _check_gaussians(config, load_teacher(without_depth(config)), is_an_error=True)
    except InputError as cause:
        if error.field != "data.box" or "supposing that" in str(cause):
            raise cause from error


def _check_focus(config: Config, cameras: Cameras) -> None:
    """InputError when the optical axes meet before the cameras only once a mistake is undone."""
    try:
        focus(cameras)
    except ValueError as nowhere:
        for one in pose_hypotheses()[:TURNING]:
            try:
                focus(one.cameras(cameras))
            except ValueError:
                continue
            words, expected = f"{nowhere}; supposing that {one.name}, they look at one place", "cameras that look at it"
            advice = f"{one.advice} If they do look outwards, set data.box."
            raise InputError(config.data.transforms, "transform_matrix", words, expected, advice) from nowhere


def check_before_training(config: Config, teacher: Teacher, model: Model) -> None:
    """Warns of what contradicts itself in a run's teacher.

    Raises:
        InputError: nothing could be learnt: the cameras look away from the scene box, nothing is visible, near and far
            leave no sample, samples are farther apart than the scene is wide, hardly anything visible lies in cells, or
            pictures are not of what the Gaussians are.
    """
    views = teacher.views
    _check_silhouettes(config, teacher)
    check_looking(config, views.cameras, teacher.box)
    if teacher.poses is not None:
        check_looking(config, teacher.poses.cameras, teacher.box)
    _check_visible(config, teacher)
    is_close = check_step(config, teacher, model)
    is_said = _check_pictures(config, teacher)
    if not is_said:
        _check_truth(config, teacher)
    if _check_gaussians(config, teacher, known={Cause.BACKGROUND} if is_said else frozenset()):
        _check_depth(config, teacher)
    # A background taken for the scene is everywhere, and samples that are far apart miss cells.
    if is_close and not is_said and model.far_field is None:
        check_cells(config, teacher, model)


def _check_silhouettes(config: Config, teacher: Teacher) -> None:
    """InputError when alpha would be learnt from pictures that tell nothing of it."""
    weight = config.loss.alpha.weight
    if weight > 0 and not all(one.silhouettes for one in (teacher.views, teacher.images) if one is not None):
        expected = "0, since photographs without alpha show no silhouettes"
        raise InputError("config", "loss.alpha.weight", weight, expected, "Set loss.alpha.weight: 0.")


# --- pictures ----------------------------------------------------------------------------------------------------


def _check_visible(config: Config, teacher: Teacher) -> None:
    views = teacher.views
    looked_at = slice(None) if views.store is None else spread(range(len(views)), _FRAMES)
    coverage = views.coverage[looked_at].float() / 255
    counted = torch.ones_like(coverage) if views.counted is None else views.counted[looked_at].float()
    covered = (coverage * counted).sum((1, 2)) / counted.sum((1, 2))
    if (mean := covered.mean()) < _FAINT_COVERAGE:
        words = f"{mean:.3%} of the pixels with something in them, {covered.max():.3%} at most in a view"
        advice = "Is teacher.ply of the same world as the cameras? " if views.background is None else "Look at them. "
        if config.teacher.kind == "gaussians" and config.data.transforms is None:  # the cameras were found for it
            advice = (
                "Its Gaussians are small for how far they lie apart: teacher.orbit.distance brings cameras nearer. "
            )
        if teacher.gaussians is not None and teacher.stored_renders is None:
            near = near_plane_advice(teacher.gaussians, views.cameras, config.teacher.near_plane)
            advice = f"{near} " if near else advice
        source = config.teacher.outputs or config.teacher.ply or config.data.transforms or "config"
        refuse_or_warn(mean == 0, source, "teacher's views", words, "views that show the scene", advice + CHECK)


def _check_pictures(config: Config, teacher: Teacher) -> bool:
    """The borders against the background that is set, and colours under partial alpha, of pictures that were read.

    Returns:
        Whether a border is said to be of another colour.
    """
    is_other = False
    views, is_read = teacher.views, teacher.stored_renders is not None or config.teacher.kind == "images"
    for one in (views if is_read else None, teacher.images):
        if one is None:
            continue
        chosen = spread(range(len(one)), _FRAMES)
        pictures = one.rgb[chosen].float() / 255
        if one.alpha is None:
            named = one.background, "the pictures", "teacher.background"
            is_other |= _check_border(pictures, one, chosen, *named)
        else:
            _check_alpha(pictures, one.alpha[chosen].float() / 255, one, chosen, "the pictures")
    if views.ground_truth is not None and config.teacher.kind != "images":
        chosen = spread(range(len(views)), _FRAMES)
        truth = views.ground_truth[chosen].float() / 255
        if (truth[..., 3] == 1).all():
            named = config.render.background_rgb, "ground truth", "render.background"
            is_other |= _check_border(truth[..., :3], views, chosen, *named)
        else:
            _check_alpha(truth[..., :3], truth[..., 3], views, chosen, "ground truth")
    return is_other


def _check_alpha(rgb: Tensor, alpha: Tensor, views: TeacherViews, chosen: list[int], what: str) -> None:
    """Colours under partial alpha of the chosen views, as far as they count."""
    alpha = alpha if views.counted is None else alpha * views.counted[chosen]
    evidence = premultiplied_evidence(rgb * alpha[..., None], alpha, (0.0, 0.0, 0.0))
    if evidence is not None:
        _log.warning("the alpha of %s looks premultiplied: %s. %s", what, evidence, ALPHA_ADVICE)


def _check_truth(config: Config, teacher: Teacher) -> None:
    """Whether a teacher that no Gaussians speak for shows what the dataset's images show."""
    own = teacher_psnr(teacher.views, config) if teacher.gaussians is None else None
    if own is not None and own < THRESHOLD_DB:
        words = "the teacher's pictures have %.2f dB against ground truth, and so show something else: other frames, "
        words += "another order of them, colours in the order BGR, or another background? %s"
        _log.warning(words, own, CHECK)


def _check_border(
    rgb: Tensor, views: TeacherViews, chosen: list[int], background: Color, what: str, setting: str
) -> bool:
    color = other_border(rgb, background, None if views.counted is None else views.counted[chosen])
    if color is not None:
        named = colour_name(color)
        words = "the border of %s is %s, %s is %s. %s"
        _log.warning(words, what, named, setting, colour_name(background), on_background(color, named).advice)
    return color is not None


# --- Gaussians ---------------------------------------------------------------------------------------------------


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
        return _Reference(lambda i: views.ground_truth_image(i, background), background, "ground truth", False)
    return None


def _check_gaussians(
    config: Config, teacher: Teacher, *, known: AbstractSet[Cause] = frozenset(), is_an_error: bool = False
) -> bool:
    """The Gaussians, rendered with the run's cameras, against the pictures that they should equal.

    Args:
        known: causes that need not be said again.
        is_an_error: refuse whatever is found: it stops the run anyway.

    Returns:
        Whether they do; False where there is nothing to compare, too.
    """
    reference = None if teacher.gaussians is None else _reference(config, teacher)
    if reference is None:
        return False
    few = _few_trials(config, teacher, reference)
    if min(few.psnrs(AS_IT_IS)) >= THRESHOLD_DB:
        return True
    as_it_is = float(np.median(few.psnrs(AS_IT_IS)))  # a mean says too much for one that is right by chance
    without = _without_outliers(config, teacher, reference)
    if without >= as_it_is + _OUTLIERS_GAIN_DB:
        if config.teacher.clip and without >= THRESHOLD_DB:  # they are not in the teacher's pictures
            return True
        words = f"{outlier_words(teacher.gaussians)}: with them pictures are {as_it_is:.2f} dB from {reference.words}, "
        words += f"without them {without:.2f} dB (a blank picture: {few.psnr_blank:.2f} dB; medians)"
        is_hopeless = as_it_is < few.psnr_blank + ABOVE_BLANK_DB
        expected = f"at least {THRESHOLD_DB:g} dB with these cameras"
        advice = source_of(config).outlier_advice(teacher.gaussians)
        refuse = is_an_error or (is_hopeless and reference.is_trained_on)
        refuse_or_warn(refuse, config.teacher.ply, "Gaussians", words, expected, advice)
        return False
    diagnosis = diagnose(_small_comparison(config, teacher, reference, list(range(len(teacher.views)))), THRESHOLD_DB)
    fill = np.mean([view.alpha.mean().item() for view in few.renderings])
    words = (
        f"the Gaussians of teacher.ply at {as_it_is:.2f} dB from {reference.words} (a blank picture: "
        f"{few.psnr_blank:.2f} dB; medians), filling {fill:.1%} of the pixels"
    )
    cause, explanation, advice = _explained(diagnosis)
    if cause in known or (cause == Cause.WORLD and as_it_is >= THRESHOLD_DB):
        return False
    is_hopeless = as_it_is < few.psnr_blank + ABOVE_BLANK_DB and cause not in _LEARNABLE
    expected = f"at least {THRESHOLD_DB:g} dB with these cameras"
    source = config.data.transforms if diagnosis.likeliest else config.teacher.ply
    refuse = is_an_error or (is_hopeless and reference.is_trained_on)
    refuse_or_warn(refuse, source, cause.value, f"{words}{explanation}", expected, advice)
    return False


def _few_trials(config: Config, teacher: Teacher, reference: _Reference) -> Trials:
    """The Gaussians beside a few of the pictures."""
    return Trials(_small_comparison(config, teacher, reference, spread(range(len(teacher.views)), _FRAMES - 1)))


def _without_outliers(config: Config, teacher: Teacher, reference: _Reference) -> float:
    """How near to the pictures the Gaussians are without those far too wide or far away, dB; -inf: none are."""
    kept = ~teacher.gaussians.outliers()
    if kept.all() or not kept.any():
        return -np.inf
    rest = replace(teacher, gaussians=teacher.gaussians[kept])
    return float(np.median(_few_trials(config, rest, reference).psnrs(AS_IT_IS)))


def _check_depth(config: Config, teacher: Teacher) -> None:
    """The depth files of a few views against the Gaussians, which show what the pictures show."""
    views = teacher.views
    files = None if views.depth_kind is None else stored_files(config, teacher, depth=True)
    if files is None or not files.depths:
        return
    depth = stored_depth(files, views.depth_kind, views, spread(range(len(views)), _FRAMES))
    render = witness_of(config, teacher, files.cameras.width)
    readings = depth_readings(render, depth)
    found = wrong_kind(readings, depth.kind) or misplaced(render, depth, readings, is_exact=True)
    if found is not None:
        _log.warning("%s: %s. %s", files.depths[0].parent, found.evidence, found.advice)


def _explained(diagnosis: Diagnosis) -> tuple[Cause, str, str]:
    """The cause of a difference, in words, and what to do."""
    likeliest = diagnosis.likeliest
    if likeliest is not None:
        one = likeliest.hypothesis
        return one.cause, f"; supposing that {one.name}, they are {likeliest.psnr:.2f} dB from them", one.advice
    return Cause.WORLD, "", f"{OTHER_WORLD} {CHECK}"


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
