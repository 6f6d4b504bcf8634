"""The teacher in finer pictures, for students whose pixels are means of several rays."""

from __future__ import annotations

from dataclasses import replace

from machine.devices import choose_device
from machine.memory import check_pictures_fit
from settings.config import Config
from settings.errors import InputError
from teacher.rasterizer import Drawing
from teacher.sources.box import box_of_gaussians
from teacher.sources.drawn_views import FINER_BYTES
from teacher.sources.registry import source_of
from teacher.sources.source import Source
from teacher.sources.teacher import Teacher
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.teacher_views import TeacherViews

_AUTO = 2  # four rays a pixel are worth most of what sixteen are
_WIDTH, _MEMORY = "image size", "data.resolution"  # fields of errors that say that finer pictures cannot be had


def supersample_of(config: Config, teacher: Teacher) -> int:
    """Rays along a side of each pixel of a student of this teacher: ``render.supersample``, or what "auto" is here.

    Raises:
        InputError: a picture of the teacher is damaged.
    """
    chosen = config.render.supersample
    if chosen != "auto":
        return chosen
    drawing, cameras = teacher.drawing, teacher.views.cameras
    # Of a dataset that is in memory a part at a time, four times the pixels would be a smaller part.
    if config.data.memory_gib is not None or (drawing is not None and drawing.multiple(cameras.width) < _AUTO):
        return 1
    size, count = (cameras.width * _AUTO, cameras.height * _AUTO), len(teacher.views)
    try:
        if teacher.views.finer is None:  # nobody has asked for them: into half of what is free
            check_pictures_fit(size, 2 * (teacher.live.buffer if teacher.live else count), FINER_BYTES, _MEMORY)
        teacher.finer = finer_teacher(config, teacher, _AUTO)
    except InputError as error:
        if error.field not in (_WIDTH, _MEMORY):
            raise
        return 1
    return _AUTO


def likely_supersample(config: Config) -> int:
    """What ``supersample_of`` gives where a teacher has pictures for it: at ``load_teacher`` it is not known yet."""
    return _AUTO if config.render.supersample == "auto" else config.render.supersample


def finer_teacher(config: Config, teacher: Teacher, scale: int) -> Teacher:
    """What training rays are drawn of: the teacher in pictures ``scale`` times as wide, of what is trained on at least.

    Those that were drawn beside its views are taken; the teacher keeps them no longer.

    Raises:
        InputError: it has no such pictures, or its Gaussians are not drawn so finely that their pixels are means, or
            memory does not hold them.
    """
    if (beside := teacher.views.finer) is not None:
        teacher.views = replace(teacher.views, finer=None)
    if scale == 1:
        return teacher
    width = teacher.views.cameras.width * scale
    tried, teacher.finer = teacher.finer, None
    if tried is not None and tried.training_cameras.width == width:
        tried.stored_drawing = teacher.stored_drawing  # what it takes seconds to find out, and the log has said
        return tried
    source = source_of(config.model_copy(update={"data": config.data.model_copy(update={"resolution": width})}))
    try:
        if teacher.drawing is None:
            finer = replace(teacher, views=_pictures(source, teacher), sight=None)
        else:
            finer = _drawn(config, teacher, scale, beside)
        if teacher.images is None:
            return finer
        images = source.images(teacher.views).with_distance_of(finer.views)
        return replace(finer, images=images, sight=None)
    except InputError as error:
        if error.field not in (_WIDTH, _MEMORY):
            raise
        expected = f"for render.supersample {scale} pictures {scale} times as wide as the student's, {width} pixels"
        expected += f", and {error.expected}" if error.field == _MEMORY else ""
        hint = "Lower data.resolution, or set render.supersample to 1."
        raise InputError(error.source, error.field, error.found, expected, hint) from error


def _pictures(source: Source, teacher: Teacher) -> TeacherViews:
    """What is on disk, read at the source's size as it was read before."""
    gaussians, box = teacher.gaussians, teacher.box
    if gaussians is None:
        box = None if source.config.data.box == "auto" else box
    elif source.config.far_field.kind != "none":
        box = box_of_gaussians(gaussians)
    return source.views(gaussians, box)


def _drawn(config: Config, teacher: Teacher, scale: int, beside: TeacherViews | None) -> Teacher:
    """Gaussians, drawn from the same cameras: those trained on, or live.

    Args:
        beside: what may have been drawn already, see ``TeacherViews.finer``.
    """
    drawing, views = _finer_drawing(teacher, scale), teacher.views
    if teacher.poses is not None:
        return replace(teacher, poses=teacher.poses.finer(scale), drawing=drawing)
    is_there = beside is not None and beside.cameras.width == scale * views.cameras.width
    finer = beside if is_there else _drawn_anew(config, teacher, drawing, scale)
    if views.counted is not None:
        counted = views.counted[~views.holdout].repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        finer = replace(finer, counted=counted)
    return replace(teacher, views=finer, drawing=drawing, sight=None)


def _drawn_anew(config: Config, teacher: Teacher, drawing: Drawing, scale: int) -> TeacherViews:
    views, trained = teacher.views, ~teacher.views.holdout
    return views_from_gaussians(
        teacher.gaussians,
        views.cameras[trained].finer(scale),
        [name for name, held in zip(views.names, views.holdout.tolist(), strict=True) if not held],
        drawing=drawing,
        rasterizer=config.teacher.rasterizer,
        device=choose_device(config),
        holdout_every=0,
    )


def _finer_drawing(teacher: Teacher, scale: int) -> Drawing:
    """As the Gaussians are drawn now, or more finely; InputError where they are not drawn as finely."""
    width = teacher.views.cameras.width
    finer = teacher.drawing.finer(width, scale)
    if finer is None:
        multiple = teacher.drawing.multiple(width)
        expected = f"at most {multiple}, since Gaussians are drawn at {multiple * width} pixels for pictures of {width}"
        hint = "Lower it, or have teacher.supersample draw them more finely."
        raise InputError("config", "render.supersample", scale, expected, hint)
    return finer
