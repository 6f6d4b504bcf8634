"""What a study file may say."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from settings.sections import FolderName, FromList, Section, distinct, problem


class Metric(NamedTuple):
    """How a column of an evaluation CSV is called in a study's table, compared and written."""

    title: str
    higher_is_better: bool
    digits: int


METRICS = {
    "psnr": Metric("PSNR, dB", True, 2),
    "ssim": Metric("SSIM", True, 4),
    "psnr_foreground": Metric("PSNR of the object, dB", True, 2),
    "lpips_vgg": Metric("LPIPS (VGG)", False, 4),
    "lpips_alex": Metric("LPIPS (Alex)", False, 4),
    "depth_abs": Metric("error of distances, world units", False, 4),
    "alpha_iou": Metric("overlap of silhouettes", True, 4),
    "avg_fps": Metric("frames/s", True, 1),
}
"""The columns that a study may compare."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*$")
Overrides = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "words": "a mapping of settings, nested as in a config"})
]
Named = Annotated[
    dict[str, Overrides],
    WithJsonSchema({"type": "object", "words": "a mapping of names, each with settings nested as in a config"}),
]


def _metric(name: str) -> str:
    if name not in METRICS:
        raise problem("", name, "one of " + ", ".join(METRICS))
    return name


class StudyConfig(Section):
    """Arms x budgets x seeds; later overrides win: an arm's base, ``common``, the arm, the budget, the seed."""

    name: FolderName = Field(description="the study's folder under `results/<scene>/studies/`, and its runs' prefix")
    base: str | None = Field(None, description="config of every arm that names none, relative to this file")
    seeds: Annotated[
        tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], FromList, Field(min_length=1), AfterValidator(distinct)
    ] = Field((0, 1, 2), description="seed of each repetition")
    common: Overrides = Field({}, description="settings of all runs")
    budgets: Named = Field({}, description="named settings, each run with every arm; none: as the configs say")
    arms: Named = Field(description="what is compared: name and settings, its `base` among them")
    baseline: str = Field(description="arm that the others' differences are taken to, seed by seed")
    metrics: Annotated[
        tuple[Annotated[str, AfterValidator(_metric)], ...], FromList, Field(min_length=1), AfterValidator(distinct)
    ] = Field(("psnr",), description="columns of the evaluation CSV to compare, on held-out frames")
    never_worse: float | None = Field(
        None,
        ge=0,
        description="PSNR in dB by which an arm may be worse with a longer budget than with a shorter one before the "
        "table says so; `budgets` are then written from short to long; null: not looked at",
    )

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        if not self.arms:
            raise problem("arms", "none", "at least one")
        for section, named in (("arms", self.arms), ("budgets", self.budgets)):
            for name, overrides in named.items():
                if not _NAME.match(name):
                    raise problem(f"{section}.{name}", f"the name '{name}'", "A-Z, a-z, 0-9, `.`, `-`, single `_`")
                _refuse_identity(f"{section}.{name}", overrides)
        _refuse_identity("common", self.common)
        if self.baseline not in self.arms:
            raise problem("baseline", f"'{self.baseline}'", "an arm: " + ", ".join(self.arms))
        if self.never_worse is not None and (len(self.budgets) < 2 or "psnr" not in self.metrics):
            raise problem("never_worse", self.never_worse, "null, or two budgets or more and psnr among the metrics")
        for name, overrides in self.arms.items():
            base = overrides.get("base", self.base)
            if not isinstance(base, str):
                raise problem(f"arms.{name}.base", base, "the path of a config, or one in `base` for all arms")
            self._refuse_contest(name, overrides)
        return self

    def _refuse_contest(self, arm: str, overrides: dict[str, Any]) -> None:
        """An arm and a budget that set the same key would contradict what the table's row says."""
        for budget, others in self.budgets.items():
            both = leaves(overrides) & leaves(others)
            if both:
                raise problem(
                    f"arms.{arm}.{min(both)}",
                    "a value",
                    f"none, since budgets.{budget} sets it",
                    "Set it in one of the two.",
                )


def leaves(overrides: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted keys of a nested mapping's values."""
    found: set[str] = set()
    for key, value in overrides.items():
        nested = isinstance(value, dict)
        found |= leaves(value, f"{prefix}{key}.") if nested else {prefix + key}
    return found


def _refuse_identity(place: str, overrides: dict[str, Any]) -> None:
    for key in ("run", "seed"):
        if key in overrides:
            raise problem(f"{place}.{key}", overrides[key], "nothing: a study names and seeds its runs itself")
