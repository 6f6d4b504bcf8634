"""What in a run still has the host wait for a GPU, though its steps are made not to."""

from __future__ import annotations

from settings.config import Config


def waiting_parts(config: Config) -> list[str]:
    """One sentence part each, naming the field; empty where nothing waits between two rows of the log."""
    student, found = config.student, []
    if student.kind == "kilo_uniform" and student.blend > 0:
        found.append("student.blend, for the number of evaluations of each step")
    inner = config.loss.aligns and config.features.tap in ("hidden", "geo")
    if student.kind == "kilo_uniform" and inner:
        found.append(f"features.tap: {config.features.tap}, for the number of points of each network")
    if config.live:
        found.append("teacher.live, whenever a view is rendered")
    return found
