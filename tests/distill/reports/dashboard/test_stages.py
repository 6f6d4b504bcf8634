"""The rule of stages."""

from __future__ import annotations

import pytest

from distill.reports.dashboard.stages import stage_of, student_of

KILO = {"student": {"kind": "kilo_uniform"}}


@pytest.mark.parametrize(
    ("config", "name", "stage"),
    [
        ({"student": {"kind": "hash_grid"}, "teacher": {"live": False}}, "live", "1a"),
        (KILO, "", "1b"),
        (KILO | {"teacher": {"live": {"buffer": 8}}}, "", "live"),
        (KILO | {"teacher": {"live": True}, "loss": {"feature_l2": {"weight": 0.1}}}, "", "2"),
        (KILO | {"loss": {"density": {"point": {"weight": 1}}, "rgb": {"weight": 1.0}}}, "", "2"),
        (KILO | {"loss": {"density": {"weight": 0.0}}}, "", "1b"),
        (KILO | {"teacher": {"kind": "images"}}, "", "control"),
        ({}, "lego stage1a_hash50k_depth", "1a"),
        ({}, "lego x kilo_uniform", "1b"),
        ({}, "lego_live_eighth", "live"),
        ({}, "feature_sh", "2"),
        ({}, "olive", "unknown"),
        ({"student": "text"}, "kilo", "unknown"),
    ],
)
def test_rule(config, name, stage) -> None:
    assert stage_of(config, name, fitted=False) == stage
    assert stage_of(config, name, fitted=True) == "teacher"


def test_student_by_config_then_by_name() -> None:
    assert student_of(KILO, "hash") == "kilo_uniform"
    assert student_of({}, "stage1a") == "hash_grid"
    assert student_of({}, "x") is None
