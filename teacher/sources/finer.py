"""The teacher in finer pictures, for students whose pixels are means of several rays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

from machine.memory import check_pictures_fit
from settings.config import Config
from settings.errors import InputError
from teacher.rasterizer import Drawing
from teacher.sources.source import Source, Teacher
from teacher.views.rasterized import VIEW_BYTES

_AUTO = 2  # four rays a pixel are worth most of what sixteen are
_WIDTH, _MEMORY = "image size", "data.resolution"  # fields of errors that say that finer pictures cannot be had

SourceOf = Callable[[Config], Source]


def supersample_of(config: Config, teacher: Teacher, source_of: SourceOf) -> int:
    """Rays along a side of each pixel of a student of this teacher: ``render.supersample``, or what "auto" is here.

    Raises:
        InputError: a picture of the teacher is damaged.
    """
    chosen = config.render.supersample
    if chosen != "auto":
        return chosen
    drawing, views = teacher.drawing, teacher.views
    size = views.cameras.width * _AUTO, views.cameras.height * _AUTO
    try:
        # Of a dataset that is in memory a part at a time, four times the pixels would be a smaller part.
        if views.store is not None or (drawing is not None and drawing.multiple(views.cameras.width) < _AUTO):
            return 1
        check_pictures_fit(
            size, 2 * len(views), VIEW_BYTES, _MEMORY
        )  # into half of what is free: nobody asked for them
        finer_teacher(config, teacher, _AUTO, source_of)
    except InputError as error:
        if error.field not in (_WIDTH, _MEMORY):
            raise
        return 1
    return _AUTO


def finer_teacher(config: Config, teacher: Teacher, scale: int, source_of: SourceOf) -> Teacher:
    """What training rays are drawn of: the teacher in pictures ``scale`` times as wide, made once.

    Raises:
        InputError: it has no such pictures, or its Gaussians are not drawn so finely that their pixels are means.
    """
    if scale == 1:
        return teacher
    width = teacher.views.cameras.width * scale
    if teacher.finer is None or teacher.finer.views.cameras.width != width:
        source = source_of(config.model_copy(update={"data": config.data.model_copy(update={"resolution": width})}))
        try:
            teacher.finer = source.finer(teacher, _finer_drawing(teacher, scale))
        except InputError as error:
            if error.field != _WIDTH:
                raise
            expected = f"at least render.supersample {scale} times as wide as the student's: {width}"
            hint = "Lower data.resolution, or set render.supersample to 1."
            raise InputError(error.source, error.field, error.found, expected, hint) from error
    return teacher.finer


def _finer_drawing(teacher: Teacher, scale: int) -> Drawing | None:
    """The Gaussians as they are drawn now, or more finely, and not thinner for it."""
    drawing, width = teacher.drawing, teacher.views.cameras.width
    if drawing is None:
        return None
    multiple = drawing.multiple(width)
    if multiple < scale:
        expected = f"at most {multiple}, since Gaussians are drawn at {multiple * width} pixels for pictures of {width}"
        hint = "Lower it, or have teacher.supersample draw them more finely."
        raise InputError("config", "render.supersample", scale, expected, hint)
    fitted = drawing.fitted_width or (multiple * width if multiple % scale else None)
    return replace(drawing, fitted_width=fitted, supersample=drawing.supersample and ceil(multiple / scale))
