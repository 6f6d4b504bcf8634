"""The schema of what a run tells beside its CSVs."""

from __future__ import annotations

from pydantic import Field

from distill.schema_base import Section


class LoggingConfig(Section):
    """What is written for people beside the CSVs."""

    report: bool = Field(True, description="write `report.md` with curves and pictures at the end of a run")
    tensorboard: bool = Field(
        False,
        description="write the CSVs' figures and the evaluation's pictures to `logs/<scene>/<run>/tensorboard/` too; "
        "needs the tensorboard package",
    )
