"""Before the first step: do cameras, pictures, Gaussians and scene box belong together, on a few frames?

What contradicts itself is said now, in the words of ``tools/check_alignment.py``, and not by a student that has
collapsed. Where nothing could be learnt it is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from distill.alignment.comparison import DEPTH_FIELDS, stored_depth, stored_files, without_depth, witness_of
from distill.alignment.depth_mistakes import misplaced, wrong_kind
from distill.alignment.depth_reading import depth_readings
from distill.alignment.diagnosis import THRESHOLD_DB
from distill.alignment.gaussians_check import check_gaussians
from distill.alignment.hypotheses import ALPHA_ADVICE, Cause, on_background, pose_hypotheses
from distill.alignment.picture_evidence import colour_name, other_border, premultiplied_evidence
from distill.alignment.seen_scene import CHECK, TURNING, check_cells, check_looking, check_step, refuse_or_warn
from distill.evaluation.evaluator import teacher_psnr
from distill.evaluation.metrics import psnr_blank
from distill.model.model import Model
from scene.cameras import Cameras
from scene.frames import spread
from scene.rays import focus
from settings.config import Config
from settings.errors import InputError
from settings.sections import Color
from teacher.near_plane import near_plane_advice
from teacher.sources import Teacher, load_teacher, source_of
from teacher.sources.box import stray_note
from teacher.views.teacher_views import TeacherViews

_log = logging.getLogger(__name__)

_FRAMES = 4  # looked at
_FAINT_COVERAGE = 0.002
# Of a blank picture: from where on views are as good as one colour, and how much less it has where they are not.
_ONE_COLOUR_DB, _DIFFERS_DB = 30.0, 10.0


@contextmanager
def explained_errors(config: Config) -> Iterator[None]:
    """Says instead of an error about depth or the scene box what its cause is, where that is in cameras or Gaussians.

    Raises:
        InputError: that of the body, or its cause.
    """
    try:
        yield
    except InputError as error:
        if error.field in DEPTH_FIELDS | {"scene box", "data.box", "occupancy.least_weight"}:
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
            check_gaussians(config, load_teacher(without_depth(config)), is_an_error=True)
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
    if note := background_note(config, teacher):
        _log.warning("%s", note)
    is_close = check_step(config, teacher, model)
    is_said = _check_pictures(config, teacher)
    if not is_said:
        _check_truth(config, teacher)
    if check_gaussians(config, teacher, known={Cause.BACKGROUND} if is_said else frozenset()):
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


def _near_plane(config: Config, teacher: Teacher) -> str | None:
    """What to do where pictures that are drawn here lack what is near; None: they do not."""
    if teacher.gaussians is None or teacher.stored_renders is not None:
        return None
    return near_plane_advice(teacher.gaussians, teacher.views.cameras, config.teacher.near_plane)


# --- pictures ----------------------------------------------------------------------------------------------------


def _check_visible(config: Config, teacher: Teacher) -> None:
    views = teacher.views
    looked_at = range(len(views)) if views.store is None else spread(range(len(views)), _FRAMES)
    covered = torch.stack([_covered(views, index) for index in looked_at])
    near = _near_plane(config, teacher)
    if (mean := covered.mean()) < _FAINT_COVERAGE:
        words = f"{mean:.3%} of the pixels with something in them, {covered.max():.3%} at most in a view"
        advice = "Is teacher.ply of the same world as the cameras? " if views.background is None else "Look at them. "
        if config.teacher.kind == "gaussians" and config.data.transforms is None:  # the cameras were found for it
            advice = (
                "Its Gaussians are small for how far they lie apart: teacher.orbit.distance brings cameras nearer. "
            )
        advice = f"{near} " if near else advice
        source = config.teacher.outputs or config.teacher.ply or config.data.transforms or "config"
        refuse_or_warn(mean == 0, source, "teacher's views", words, "views that show the scene", advice + CHECK)
    elif near:
        _log.warning("%s", near)


def _covered(views: TeacherViews, index: int) -> Tensor:
    """Share of what counts of a view that the scene covers."""
    coverage = views.coverage[index].float() / 255
    counted = torch.ones_like(coverage) if views.counted is None else views.counted[index].float()
    return (coverage * counted).sum() / counted.sum()


def background_note(config: Config, teacher: Teacher) -> str:
    """What is to be said of a scene of the colour of its background, with what to do; empty: it differs.

    On that background a blank picture is as good as any student, so that every one of them counts as collapsed.
    """
    views = teacher.views
    if views.alpha is None:  # on one background for good, which ``coverage`` was told by
        return ""
    chosen, own = spread(range(len(views)), _FRAMES), config.render.background_rgb
    other = (0.0, 0.0, 0.0) if sum(own) > 1.5 else (1.0, 1.0, 1.0)

    def blank_psnr(background: Color) -> float:
        return float(np.mean([psnr_blank(views.image(index, background).numpy()) for index in chosen]))

    blank = blank_psnr(own)
    if blank < max(_ONE_COLOUR_DB, blank_psnr(other) + _DIFFERS_DB):
        return ""
    return (
        f"the scene hardly differs from render.background, {colour_name(own)}: one colour alone has {blank:.1f} dB "
        f"against the teacher's views there. --set render.background={colour_name(other)} tells them apart"
    )


def _check_pictures(config: Config, teacher: Teacher) -> bool:
    """The borders against the background that is set, and colours under partial alpha, of pictures that were read.

    Returns:
        Whether a border is said to be of another colour.
    """
    is_other = False
    views, is_read = teacher.views, teacher.stored_renders is not None or config.taught_by_images
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
    if views.ground_truth is not None and not config.taught_by_images:
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


def _check_depth(config: Config, teacher: Teacher) -> None:
    """The depth files of a few views against the Gaussians, which show what the pictures show."""
    views = teacher.views
    files = None if views.depth_kind is None else stored_files(config, teacher, depth=True)
    if files is None or not files.depths:
        return
    depth = stored_depth(files, views.depth_kind, teacher, spread(range(len(views)), _FRAMES))
    render = witness_of(config, teacher, files.cameras.width)
    readings = depth_readings(render, depth)
    found = wrong_kind(readings, depth.kind) or misplaced(render, depth, readings, is_exact=True)
    if found is not None:
        _log.warning("%s: %s. %s", files.depths[0].parent, found.evidence, found.advice)
