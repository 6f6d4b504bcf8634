"""The configs of the repository: all load, and the roadmap's runs have their names and settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from settings.loading import REPO_ROOT, load_config
from teacher.sources import check_assets, source_of

ROADMAP = {
    "lego_response_eighth": ("eighth", "", 0.05, 0.5),
    "lego_response_stage1a_20k": ("stage1a_hash20k", "", 0.0, 0.5),
    "lego_response_stage1a_50k": ("stage1a_hash50k", "", 0.0, 0.5),
    "lego_response_stage1a_50k_depth": ("stage1a_hash50k_depth", "depth", 0.05, 0.5),
    "lego_response_stage1a_50k_depth_w020": ("stage1a_hash50k_depth_w020", "depth_w020", 0.2, 0.5),
    "lego_response_stage1a_50k_depth_w050": ("stage1a_hash50k_depth_w050", "depth_w050", 0.5, 0.6),
    "lego_response_stage1a_50k_depth_w050_smoothl1": (
        "stage1a_hash50k_depth_w050_smoothl1", "depth_w050_smoothl1", 0.5, 0.6,
    ),
    "lego_response_200k": ("hash200k", "", 0.0, 0.5),
    "lego_response_stage1b_kilo_uniform": ("stage1b_kilo_uniform_50k", "kilo_uniform", 0.0, 0.5),
    "lego_response_stage1b_kilo_uniform_smoketest": (
        "stage1b_kilo_uniform_smoketest", "kilo_uniform_smoketest", 0.05, 0.5,
    ),
    "lego_response_eighth_kilo": ("eighth_kilo", "kilo_uniform", 0.05, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", ROADMAP)
def test_roadmap_config(name):
    config = load_config(REPO_ROOT / "configs" / f"{name}.yaml", assets="/assets")
    run, tag, weight, alpha_threshold = ROADMAP[name]
    assert (config.scene, config.run, config.tag) == ("lego", run, tag)
    assert (config.loss.depth.weight, config.loss.depth.alpha_threshold) == (weight, alpha_threshold)
    assert config.loss.depth.kind == ("smooth_l1" if "smooth" in name or "smoke" in name else "l1")
    assert config.data.transforms == Path("/assets/data/lego/transforms_test.json")
    assert config.teacher.outputs == Path("/assets/teacher/outputs/lego/test_white/ours_30000")
    assert config.data.holdout_every == 8
    if steps := re.search(r"_(\d+)k", name):
        assert config.train.max_steps == int(steps[1]) * 1000
        assert (config.student.levels, config.student.table_size, config.student.hidden_width) == (16, 2**19, 64)
        assert config.student.finest_resolution == 2048 and config.data.resolution is None


def test_every_config_loads_and_no_two_write_to_the_same_place():
    configs = [load_config(path) for path in sorted((REPO_ROOT / "configs").glob("*.yaml"))]
    places = [(config.scene, config.run) for config in configs]
    # Beside those quickstarts, 400 px, compact, live, fitted, features, splat, captures and city.
    assert len(set(places)) == len(places) == len(ROADMAP) + 28


def test_special_configs():
    long_run = load_config(REPO_ROOT / "configs/lego_response_200k.yaml")
    assert long_run.train.checkpoint_every == 50000
    eighth = load_config(REPO_ROOT / "configs/lego_response_eighth.yaml")
    assert eighth.data.resolution == 100 and eighth.train.max_seconds == 120
    smoke = load_config(REPO_ROOT / "configs/lego_response_stage1b_kilo_uniform_smoketest.yaml")
    assert smoke.student.grid == (2, 2, 2) and smoke.train.max_steps == 64
    assert load_config(REPO_ROOT / "configs/lego_response_stage1b_kilo_uniform.yaml").train.max_steps == 50000
    check_assets(load_config(REPO_ROOT / "configs/capture_quickstart.yaml"))  # needs none
    quickstart = load_config(REPO_ROOT / "configs/quickstart.yaml")
    check_assets(quickstart)
    assert quickstart.teacher.kind == "bricks" and quickstart.train.max_seconds
    for name in ("lego_live", "lego_live_mixed", "lego_live_eighth", "lego_live_mixed_eighth"):
        live = load_config(REPO_ROOT / "configs" / f"{name}.yaml", assets="/assets")
        assert live.live and source_of(live).training_poses() == Path("/assets/data/lego/transforms_train.json")
        assert (source_of(live).image_poses() is not None) == ("mixed" in name)
        assert (live.data.resolution == 100) == ("eighth" in name)
    assert load_config(REPO_ROOT / "configs/quickstart_live.yaml").live
    for name in ("lego_compact", "lego_compact_half", "quickstart_compact"):
        assert load_config(REPO_ROOT / "configs" / f"{name}.yaml").compact.target_mib <= 1
