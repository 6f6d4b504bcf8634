"""Which source a config names.

A new kind is a ``Source`` in ``source_kinds.py`` (of no files: ``brick_kinds.py``) and one more name in ``SOURCES``.
"""

from __future__ import annotations

from settings.config import Config
from teacher.sources.brick_kinds import BrickRoom, BrickScene, ProceduralCity
from teacher.sources.source import Source
from teacher.sources.source_kinds import (
    DatasetImages,
    LiveGaussians,
    OrbitedGaussians,
    RasterizedGaussians,
    StoredViews,
)
from teacher.sources.teacher import Teacher

SOURCES: dict[str, type[Source]] = {
    source.kind: source
    for source in (StoredViews, RasterizedGaussians, DatasetImages, BrickScene, BrickRoom, ProceduralCity)
}


def source_of(config: Config) -> Source:
    """The source that the config names; nothing is read yet."""
    if config.finds_cameras:
        return OrbitedGaussians(config)
    sources = SOURCES | {LiveGaussians.kind: LiveGaussians} if config.live else SOURCES
    return sources[config.teacher.kind](config)


def check_assets(config: Config) -> None:
    """Checks that what the teacher needs on disk is there: see ``Source.check``."""
    source_of(config).check()


def load_teacher(config: Config, drawn_as: Config | None = None, finer: int = 1) -> Teacher:
    """Reads or makes the teacher: see ``Source.load``.

    Args:
        drawn_as: the same at another size, whose views say how the Gaussians are drawn: see ``Drawing.as_for``.
        finer: how many times as wide pictures ``finer_teacher`` will be asked for: they may come of the same drawings.
    """
    source = source_of(config)
    source.finer = 1 if config.live else finer  # views of a live teacher are measured on alone
    if drawn_as is not None:
        source.draw_as(source_of(drawn_as))
    return source.load()
