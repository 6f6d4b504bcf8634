"""The teacher's pictures as rays are drawn of, where a pixel of a student is the mean of several rays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from settings.config import Config
from settings.errors import InputError
from teacher.sources.source import Teacher


def finer_config(config: Config, teacher: Teacher) -> Config:
    """The config of the same pictures, ``render.supersample`` times as wide: what is drawn stays as it is.

    Raises:
        InputError: the teacher's Gaussians are not drawn so finely that their pixels are means of as many.
    """
    scale, width = config.render.supersample, teacher.views.cameras.width
    chosen = config.teacher
    if teacher.drawing is not None:
        drawn = teacher.drawing.multiple(width)
        if drawn % scale:
            hint = f"Set it to a divisor of {drawn}, or teacher.supersample, at which the Gaussians are drawn."
            expected = f"a divisor of {drawn}, since Gaussians are drawn at {drawn * width} pixels for {width}"
            raise InputError("config", "render.supersample", scale, expected, hint)
        chosen = chosen.model_copy(update={"supersample": drawn // scale})
    data = config.data.model_copy(update={"resolution": width * scale})
    return config.model_copy(update={"data": data, "teacher": chosen})


def finer_teacher(config: Config, teacher: Teacher, load: Callable[[Config], Teacher]) -> Teacher:
    """What training rays are drawn of: the teacher, with ``render.supersample`` its pictures at that multiple of their
    width.

    Args:
        load: reads a config's teacher.

    Raises:
        InputError: the teacher has no such pictures.
    """
    if config.render.supersample == 1:
        return teacher
    try:
        finer = load(finer_config(config, teacher))
    except InputError as error:
        if error.field != "image size":
            raise
        width = teacher.views.cameras.width * config.render.supersample
        expected = f"at least render.supersample {config.render.supersample} times as wide as the student's: {width}"
        hint = "Lower data.resolution or render.supersample."
        raise InputError(error.source, error.field, error.found, expected, hint) from error
    return replace(finer, box=teacher.box, sight_drawing=teacher.sight_drawing)
