"""The settings of what is measured at the end, and of what a run tells beside its CSVs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from settings.sections import FromList, Section, distinct


class EvalConfig(Section):
    """What is measured at the end."""

    reference: Literal["both", "teacher", "ground_truth"] = Field(
        "both", description="measure against the teacher, the dataset's images, or both where they exist"
    )
    splits: Annotated[
        tuple[Literal["holdout", "train"], ...], Field(min_length=1), FromList, AfterValidator(distinct)
    ] = Field(("holdout", "train"), description="frames to measure on")
    lpips: bool | Annotated[tuple[Literal["vgg", "alex"], ...], FromList, AfterValidator(distinct)] = Field(
        True, description="measure LPIPS, the slowest metric on a CPU; a list: with these networks; true: VGG"
    )
    max_train_frames: int | None = Field(
        None, ge=1, description="train frames measured at most, evenly spread; null: all"
    )
    save_renders: bool = Field(True, description="write every render as PNG")

    @property
    def lpips_nets(self) -> tuple[str, ...]:
        """The networks that measure LPIPS."""
        if isinstance(self.lpips, bool):
            return ("vgg",) if self.lpips else ()
        return self.lpips


class LoggingConfig(Section):
    """What is written for people beside the CSVs."""

    report: bool = Field(True, description="write `report.md` with curves and pictures at the end of a run")
    tensorboard: bool = Field(
        False,
        description="write the CSVs' figures and the evaluation's pictures to `logs/<scene>/<run>/tensorboard/` too; "
        "needs the tensorboard package",
    )
    view: bool = Field(
        False,
        description="show the student while it trains in a browser on this machine, drawn between steps when somebody "
        "looks (docs/viewer.md); needs the viser package",
    )
