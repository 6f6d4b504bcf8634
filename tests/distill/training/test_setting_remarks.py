"""What a run is told of settings that change nothing, leave something untaught, or cost waiting."""

from __future__ import annotations

import pytest

from distill.training.setting_remarks import idle_settings, waiting_parts
from settings.loading import REPO_ROOT, load_config
from students import build_student
from tests.toy_scene import write_toy_scene

KILO = "student={kind: kilo_uniform, grid: [1, 1, 1], frequencies: 1, hidden_width: 16}"
FEATURES = "none of loss.density, loss.color, loss.feature_l2, loss.feature_cos has a weight"


def told(*overrides: str) -> list[str]:
    config = load_config(REPO_ROOT / "configs/quickstart.yaml", ["train.max_steps=100", *overrides])
    return idle_settings(config, build_student(((-1, -1, -1), (1, 1, 1)), config.student, "torch"))


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("train.checkpoint_steps=[50, 100]", "train.lr_warmup_steps=100"),
        (KILO, "train.lr_common=0.1"),
        ("loss.rgb.weight=0", "loss.color={weight: 1.0, final: 0.1}"),
        ("loss.density.weight=0.1", "features.resolution=64"),
        ("loss.rgb={decay_start: 0.2, decay_end: 1.0, final: 0.0}",),
        ("compact.share=0.5", "compact.target_mib=0.1"),
        ("occupancy.least_weight=0.15", "render.sampling=auto"),
        ("teacher.kind=room", "data.frames='0:8:2'"),
        ("teacher={kind: gaussians, ply: a.ply, orbit: {distance: 2}}", "data={transforms: null, resolution: 8}"),
        ("teacher={kind: gaussians, ply: a.ply, outputs: null}", "data={transforms: t.json, frames: '0:9'}"),
    ],
)
def test_nothing_where_all_has_its_effect(overrides) -> None:
    assert told(*overrides) == []


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("train.checkpoint_steps=[50, 101]",), "train.checkpoint_steps: the run ends at step 100, before 101"),
        (
            ("train.lr_warmup_steps=400",),
            "train.lr_warmup_steps 400: the run ends at step 100, when learning rates have risen to 0.25 of what they "
            "are set to",
        ),
        (
            ("occupancy.least_weight=0.15", "render.sampling=occupancy"),
            "occupancy.least_weight has no effect: with render.sampling occupancy no teacher guides rays",
        ),
        (("train.lr_common=0.1",), "train.lr_common has no effect: a hash_grid has no networks with a part in common"),
        (
            ("loss.rgb.weight=0", "loss.alpha.weight=1"),
            "neither loss.rgb nor loss.color has a weight: no colour is taught",
        ),
        (
            ("loss.rgb.weight=0", "loss.depth.weight=0", "loss.color.weight=1"),
            "nothing is learnt after 50% of the run: the last loss, loss.color, ends there",
        ),
        (
            ("data.frames=0:1", "data.images=elsewhere"),
            "data.images, data.frames have no effect: a teacher of kind bricks has cameras of its own",
        ),
        (
            ("teacher.orbit={distance: 2, up: [0, 0, 1]}",),
            "teacher.orbit.distance has no effect: cameras are found for Gaussians without data.transforms alone",
        ),
        (("compact.share=0.5",), "compact.share has no effect: compact.target_mib is not set"),
        (("features.tap=hidden",), f"features.tap has no effect: {FEATURES}"),
        (("features={tap: hidden, resolution: 64}",), f"features.resolution, features.tap have no effect: {FEATURES}"),
    ],
)
def test_each_is_a_sentence(overrides, sentence) -> None:
    assert told(*overrides) == [sentence]


BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
KILO = "student={kind: kilo_uniform, grid: [1, 1, 2], hidden_width: 16}"
ALIGNED = ("loss.feature_l2.weight=0.1", "features.tap=geo")
LIVE = ("teacher.kind=gaussians", "teacher.outputs=null", "teacher.live=true")


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        ((), []),
        ((KILO,), []),
        (ALIGNED, []),
        ((KILO, *ALIGNED), ["features.tap: geo"]),
        ((KILO, "loss.feature_l2.weight=0.1", "features.tap=sample"), []),
        (LIVE, ["teacher.live"]),
    ],
)
def test_what_waits_is_named_by_its_field(tmp_path, overrides, fields):
    config = load_config(write_toy_scene(tmp_path), [*overrides], tmp_path)
    parts = waiting_parts(config, build_student(BOX, config.student))
    assert [part.split(",")[0] for part in parts] == fields
