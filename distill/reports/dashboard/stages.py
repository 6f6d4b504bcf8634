"""Which stage of the experiment a run belongs to, and with what student."""

from __future__ import annotations

import re
from typing import Any

from distill.reports.dashboard.run_files import section

STAGES = {
    "teacher": "Teachers fitted to images",
    "1a": "Stage 1a: hash grid, response",
    "1b": "Stage 1b: KiloUniform, response",
    "live": "Live teacher",
    "2": "Stage 2: features",
    "control": "Control: a student of the images",
    "unknown": "Stage unknown",
    "linear": "Earlier evaluator, in linear RGB: not to be compared with the others",
}
"""Stage -> its title, in the order of the tables."""

LINEAR = "linear"

RULE = (
    "A run's stage is that of the first that fits, by its config.yaml: a teacher's fit (it has fitting_metrics.csv); "
    "control (teacher.kind: images); Stage 2 (a loss whose name begins with feature, density or color has weight); "
    "live (teacher.live); Stage 1b (student.kind: kilo_uniform); Stage 1a (hash_grid). Without a config.yaml by a word "
    "in its folder's name or tag: control or images; feature or stage2; live; kilo or stage1b; hash or stage1a."
)

_WORDS = (
    ("control", r"control|images"),
    ("2", r"feature|stage_?2"),
    ("live", r"(?<![a-z])live"),
    ("1b", r"kilo|stage_?1b"),
    ("1a", r"hash|stage_?1a"),
)
_STUDENT_WORDS = (("kilo_uniform", r"kilo|stage_?1b"), ("hash_grid", r"hash|stage_?1a"))
_OF_STUDENT = {"kilo_uniform": "1b", "hash_grid": "1a"}


def stage_of(config: dict[str, Any], name: str, fitted: bool) -> str:
    """A key of ``STAGES``, by ``RULE``.

    Args:
        config: the run's config.yaml, empty where there is none.
        name: its folder's name and tag.
        fitted: whether it is the fit of a teacher.
    """
    if fitted:
        return "teacher"
    if not config:
        return _first_word(_WORDS, name) or "unknown"
    if section(config, "teacher", "kind") == "images":
        return "control"
    losses = section(config, "loss")
    if isinstance(losses, dict):
        terms = [term for loss, term in losses.items() if str(loss).startswith(("feature", "density", "color"))]
        if any(_has_weight(term) for term in terms):
            return "2"
    if section(config, "teacher", "live"):
        return "live"
    return _OF_STUDENT.get(str(section(config, "student", "kind")), "unknown")


def student_of(config: dict[str, Any], name: str) -> str | None:
    """The student's kind by the config, else by a word in the name; None where neither says."""
    kind = section(config, "student", "kind")
    return str(kind) if kind is not None else _first_word(_STUDENT_WORDS, name)


def _first_word(words: tuple[tuple[str, str], ...], name: str) -> str | None:
    return next((key for key, pattern in words if re.search(pattern, name.lower())), None)


def _has_weight(term: Any) -> bool:
    """Whether a loss's settings, or those of a part of it, have a weight above 0."""
    if not isinstance(term, dict):
        return False
    weight = term.get("weight")
    if isinstance(weight, int | float) and weight > 0:
        return True
    return any(_has_weight(part) for part in term.values())
