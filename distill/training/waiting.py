"""What in a run still has the host wait for a GPU, though its steps are made not to."""

from __future__ import annotations

from settings.config import Config
from students.base import Student


def waiting_parts(config: Config, student: Student) -> list[str]:
    """One sentence part each, naming the field; empty where nothing waits between two rows of the log."""
    live = ["teacher.live, whenever a view is rendered"] if config.live else []
    return student.waits_for(config.features.tap if config.loss.aligns else None) + live
