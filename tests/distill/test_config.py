"""Configs: inheritance, overrides, every refusal with its file, field and advice, and the roadmap's run names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

import pytest
from pydantic import Field

from distill.config import REPO_ROOT, check_assets, load_config, to_yaml, validate
from distill.schema import Section, TeacherConfig, background_rgb
from distill.schema_training_views import LiveConfig
from scene.errors import InputError
from teacher.depth import DepthKind
from tools.config_reference import BEGIN, END, config_reference, main

BRICKS = "scene: toy\nrun: first\ndata: {resolution: 64}\nteacher: {kind: bricks}\n"
VIEWS = "scene: toy\nrun: first\ndata: {transforms: t.json}\nteacher: {kind: views, outputs: out, ply: cloud.ply}\n"


@pytest.fixture
def write(tmp_path: Path):
    def _write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def refusal(path: Path, *overrides: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    return caught.value


# --- reading and inheritance


def test_base_is_merged_under_the_file_section_by_section(write):
    write(BRICKS + "train: {lr: 1e-3, max_steps: 10, checkpoint_steps: [1, 2, 3]}\n", "base/far.yaml")
    write("base: base/far.yaml\ntrain: {max_steps: 20}\nseed: 7\n", "middle.yaml")
    config = load_config(write("base: middle.yaml\nrun: second\ntrain: {checkpoint_steps: [9]}\n"))
    assert (config.scene, config.run, config.seed) == ("toy", "second", 7)
    assert config.train.lr == 0.001  # YAML 1.1 would read 1e-3 as text
    assert config.train.max_steps == 20
    assert config.train.checkpoint_steps == (9,)  # lists are replaced, not joined


def test_null_in_the_child_takes_back_a_value_of_the_base(write):
    write(VIEWS, "base.yaml")
    assert load_config(write("base: base.yaml\nteacher: {ply: null}\n")).teacher.ply is None


def test_missing_base_names_the_file_that_asks_for_it(write, tmp_path):
    error = refusal(write("base: nowhere.yaml\n" + BRICKS))
    assert error.source.endswith("run.yaml") and error.field == "base"
    assert "nowhere.yaml" in error.found and str(tmp_path / "nowhere.yaml") in error.hint


def test_base_circle_is_refused_with_the_whole_circle(write):
    write("base: run.yaml\n", "other.yaml")
    error = refusal(write("base: other.yaml\n" + BRICKS))
    assert error.source.endswith("other.yaml") and error.field == "base"
    assert re.search(r"run\.yaml -> \S*other\.yaml -> \S*run\.yaml", error.hint)


def test_base_that_is_no_path_is_refused(write):
    assert refusal(write("base: [a.yaml]\n" + BRICKS)).field == "base"


@pytest.mark.parametrize(
    ("text", "field", "found"),
    [
        ("scene: a\nrun: {b\n", "line 3", "expected"),
        ("scene: a\nscene: b\n", "line 2", "a second key 'scene'"),
        ("train:\n  lr: 1\n  lr: 2\n", "line 3", "a second key 'lr'"),
        ("1: a\n", "line 1", "a key that is not text"),
        ("a: &a {b: *a}\n", "line 1", "recursive"),
        ("a: !!python/object:os.system {}\n", "line 1", "could not determine a constructor"),
        ("- a\n- b\n", "top level", '["a", "b"]'),
        ("", "top level", "an empty file"),
        ("scene: \x07\n", "text", "special characters are not allowed"),
    ],
)
def test_bad_yaml_names_file_and_line(write, text, field, found):
    error = refusal(write(text))
    assert error.source.endswith("run.yaml") and error.field == field and found in error.found


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"scene: caf\xe9\n")
    assert refusal(tmp_path / "absent.yaml").found == "No such file or directory"
    assert "directory" in refusal(tmp_path).found
    assert "UTF-8" in refusal(tmp_path / "latin.yaml").found


def test_slices_and_words_stay_text(write):
    config = load_config(write(BRICKS.replace("resolution: 64", "resolution: 64, frames: 1:50:2") + "tag: on\n"))
    assert config.data.frames == "1:50:2"  # YAML 1.1 reads a number to base 60
    assert config.tag == "on"  # and a boolean


# --- overrides


def test_overrides_are_typed_and_the_last_one_wins(write):
    overrides = ["train.lr=5e-3", "train.lr_mlp=null", "seed=1", "seed=2", "eval.splits=[train]", "data.box=auto"]
    config = load_config(write(BRICKS + "train: {lr_mlp: 0.1}\n"), overrides)
    assert config.train.lr == 0.005 and config.train.lr_mlp is None and config.seed == 2
    assert config.eval.splits == ("train",)


@pytest.mark.parametrize(
    ("override", "field", "found", "expected"),
    [
        ("train.lr=fast", "train.lr", '"fast"', "a number > 0"),
        ("train.max_steps=1.5", "train.max_steps", "1.5", "an integer >= 1"),
        ("train.max_steps=true", "train.max_steps", "true", "an integer >= 1"),
        ("train.max_steps='20'", "train.max_steps", '"20"', "an integer >= 1"),
        ("eval.lpips=1", "eval.lpips", "1", "true or false"),
        ("seed=-1", "seed", "-1", "an integer >= 0 and < 4294967296"),
        ("train.max_seconds=0", "train.max_seconds", "0", "a number > 0 or null"),
        ("loss.rgb.weight=-1", "loss.rgb.weight", "-1", "a number >= 0"),
        ("loss.depth.alpha_threshold=1.5", "loss.depth.alpha_threshold", "1.5", "a number in [0, 1]"),
        ("loss.rgb.kind=l3", "loss.rgb.kind", '"l3"', "one of `l2`, `l1`, `huber`"),
        ("student.features=3", "student.features", "3", "one of `1`, `2`, `4`, `8`"),
        ("student.table_size=30000", "student.table_size", "30000", "a power of two"),
        ("student.kind=cube", "student.kind", "cube", "hash_grid, kilo_uniform"),
        ("data.far=.inf", "data.far", "Infinity", "a finite number"),
        ("data.frames='3'", "data.frames", '"3"', "a slice `START:STOP:STEP` or null"),
        ("data.box={lower: [0, 0, 0]}", "data.box.upper", "nothing", "3 values, each a number"),
        ("data.box=big", "data.box", '"big"', "`auto` or a section with keys lower, upper"),
        ("scene=a/b", "scene", '"a/b"', "a name of letters, digits, `.`, `_`, `-`"),
        ("tag='a b'", "tag", '"a b"', "letters, digits, `_`, `-`, or nothing"),
        ("device=gpu", "device", '"gpu"', "`auto`, `cpu`, `cuda` or `cuda:N`"),
        ("teacher.supersample=5", "teacher.supersample", "5", "an integer in [1, 4]"),
        (
            "teacher.background=[0, 0.5, 2]",
            "teacher.background",
            "[0, 0.5, 2]",
            "3 values, each a number in [0, 1]",
        ),
        ("loss=null", "loss", "null", "a section with keys rgb, alpha, depth"),
        ("no-equals-sign", "argument", "'no-equals-sign'", "section.key=value"),
        ("train..lr=1", "argument", "'train..lr=1'", "section.key=value"),
    ],
)
def test_override_of_wrong_type_or_range(write, override, field, found, expected):
    error = refusal(write(BRICKS), override)
    assert (error.source, error.field, error.found) == ("--set", field, found)
    assert expected in error.expected


def test_override_that_is_no_yaml_names_its_field(write):
    error = refusal(write(BRICKS), "eval.splits=[train")
    assert error.source == "--set eval.splits" and error.field == "line 1"


# --- unknown keys


def test_unknown_key_names_the_file_it_stands_in(write):
    write(BRICKS + "train: {max_step: 5}\n", "base.yaml")
    child = write("base: base.yaml\ntrain: {lr: 0.1}\n")
    in_base = refusal(child)
    assert in_base.source.endswith("base.yaml") and in_base.field == "train.max_step"
    assert in_base.hint == "Did you mean train.max_steps?"
    write(BRICKS, "base.yaml")
    in_child = refusal(write("base: base.yaml\nstudents: {levels: 4}\n"))
    assert in_child.source.endswith("run.yaml") and in_child.hint == "Did you mean student?"
    in_set = refusal(write(BRICKS), "loss.depth.wieght=1")
    assert in_set.source == "--set" and in_set.hint == "Did you mean loss.depth.weight?"


def test_key_in_the_wrong_section_is_found_elsewhere(write):
    error = refusal(write(BRICKS), "max_seconds=3")
    assert error.field == "max_seconds" and error.hint == "Did you mean train.max_seconds?"


def test_key_like_no_other_lists_what_there_is(write):
    error = refusal(write(BRICKS), "data.box.qqq=1")
    assert error.expected == "one of lower, upper" and error.hint == ""


# --- fields that must agree


@pytest.mark.parametrize(
    ("text", "overrides", "field"),
    [
        (VIEWS, ["data.transforms=null"], "data.transforms"),
        (VIEWS, ["teacher.outputs=null"], "teacher.outputs"),
        (VIEWS, ["teacher.kind=images", "data.transforms=null"], "data.transforms"),
        (VIEWS, ["teacher.kind=gaussians", "data.transforms=null"], "data.transforms"),
        (VIEWS, ["teacher.kind=gaussians", "teacher.ply=null"], "teacher.ply"),
        (BRICKS, ["data.resolution=null"], "data.resolution"),
        (VIEWS, ["loss.depth.weight=0.1", "teacher.depth_kind=none"], "loss.depth.weight"),
        (VIEWS, ["loss.depth.weight=0.1", "teacher.kind=images"], "loss.depth.weight"),
        (BRICKS, ["data.holdout_every=1"], "data.holdout_every"),
        (BRICKS, ["data.near=3", "data.far=3"], "data.far"),
        (BRICKS, ["data.box={lower: [0, 0, 0], upper: [1, 0, 1]}"], "data.box.upper"),
        (BRICKS, ["student.base_resolution=64", "student.finest_resolution=63"], "student.finest_resolution"),
        (BRICKS, ["loss.rgb.warmup=0.5", "loss.rgb.decay_start=0.4"], "loss.rgb.decay_start"),
        (BRICKS, ["eval.splits=[train, train]"], "eval.splits"),
        (BRICKS, ["eval.splits=[]"], "eval.splits"),
        (BRICKS, ["eval.splits=[holdout]", "data.holdout_every=0"], "eval.splits"),
        (BRICKS, ["eval.reference=ground_truth", "data.ground_truth=false"], "eval.reference"),
        (VIEWS, ["teacher.live=true"], "teacher.live"),
        (VIEWS, ["teacher.kind=images", "teacher.live={buffer: 8}"], "teacher.live"),
        (VIEWS, ["data.train_transforms=train.json"], "data.train_transforms"),
        (BRICKS, ["data.train_transforms=train.json"], "data.train_transforms"),
        (VIEWS, ["data.train_frames='::2'"], "data.train_frames"),
        (BRICKS, ["data.ground_truth={split: train}"], "data.ground_truth"),
        (VIEWS, ["data.ground_truth={split: train}", "teacher.kind=images"], "data.ground_truth"),
        (VIEWS, ["teacher.kind=gaussians", "teacher.live=true", "eval.splits=[train]"], "eval.splits"),
    ],
)
def test_contradictions_are_refused(write, text, overrides, field):
    error = refusal(write(text), *overrides)
    assert (error.source, error.field) == ("--set", field)


def test_contradictions_resolved_are_accepted(write):
    path = write(VIEWS)
    assert load_config(path, ["teacher.kind=images"]).teacher.outputs is not None  # unused, legal: a control arm
    assert load_config(path, ["loss.depth.weight=0.1"]).loss.depth.weight == 0.1
    assert load_config(path, ["student.base_resolution=64", "student.finest_resolution=64"])
    assert load_config(path, ["data.holdout_every=0"]).data.holdout_every == 0


def test_table_size_names_the_powers_around_it(write):
    path = write(BRICKS)
    assert refusal(path, "student.table_size=30000").hint == "The nearest are 16384 and 32768."
    assert refusal(path, "student.table_size=1").hint == "The nearest are 8 and 16."
    assert load_config(path, ["student.table_size=524288"]).student.table_size == 2**19


def test_missing_required_keys(write):
    assert (refusal(write("run: a\n")).field, refusal(write("run: a\n")).found) == ("scene", "nothing")
    assert refusal(write("scene: a\nrun: a\nteacher: {}\n")).field == "teacher.kind"


class _Cube(Section):
    kind: Literal["cube"]
    side: int = Field(description="cells")


class _Ball(Section):
    kind: Literal["ball"]
    radius: float = Field(description="world units")


class _Toy(Section):
    student: Annotated[_Cube | _Ball, Field(discriminator="kind")]


@pytest.mark.parametrize(
    ("student", "field", "found"),
    [
        ({"kind": "cube", "radius": 1}, "student.radius", "an unknown key"),
        ({"kind": "ball", "radius": "big"}, "student.radius", '"big"'),
        ({"kind": "ball"}, "student.radius", "nothing"),
        ({"kind": "cone", "height": 1}, "student.kind", "cone"),
        ({"side": 1}, "student.kind", "nothing"),
    ],
)
def test_errors_in_a_section_of_several_kinds(student, field, found):
    with pytest.raises(InputError) as caught:
        validate(_Toy, {"student": student}, {"student": "toy.yaml"}, "run.yaml")
    assert (caught.value.source, caught.value.field, caught.value.found) == ("toy.yaml", field, found)


def test_another_kind_of_student_does_not_inherit_the_bases_keys(write):
    write(BRICKS + "student: {kind: hash_grid, levels: 99, table_size: 3}\n", "base.yaml")
    error = refusal(write("base: base.yaml\nstudent: {kind: cube}\n"))
    assert error.field == "student.kind" and error.source.endswith("run.yaml")
    assert refusal(write("base: base.yaml\nstudent: {kind: hash_grid}\n")).field == "student.levels"


# --- assets


def test_asset_paths_are_under_the_assets_root(write, tmp_path):
    path = write(VIEWS)
    config = load_config(path, ["teacher.ply=/elsewhere/cloud.ply"], assets=tmp_path / "assets")
    assert config.data.transforms == tmp_path / "assets" / "t.json"
    assert config.teacher.outputs == tmp_path / "assets" / "out"
    assert config.teacher.ply == Path("/elsewhere/cloud.ply")
    assert load_config(path).data.transforms == REPO_ROOT / "t.json"
    assert (REPO_ROOT / "pyproject.toml").is_file()


def test_check_assets_names_the_first_one_missing(write, tmp_path):
    def missing(*overrides: str) -> InputError:
        with pytest.raises(InputError) as caught:
            check_assets(load_config(path, overrides, tmp_path))
        return caught.value

    path = write(VIEWS)
    assert missing().field == "data.transforms" and missing().source == str(tmp_path / "t.json")
    write("{}", "t.json")
    assert missing().field == "teacher.outputs"
    write("", "out")
    assert missing().found == "something of another type"
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    assert missing().field == "teacher.ply" and "--set teacher.ply=null" in missing().hint
    assert "null" not in missing("teacher.kind=gaussians").hint  # there it is the teacher itself
    check_assets(load_config(path, ["teacher.ply=null"], tmp_path))
    check_assets(load_config(path, ["teacher.kind=images"], tmp_path))
    write("", "cloud.ply")
    check_assets(load_config(path, (), tmp_path))


def test_where_the_training_poses_and_images_are(write, tmp_path):
    def jsons(*overrides: str) -> tuple[str | None, str | None]:
        config = load_config(write(VIEWS), ["data.transforms=d/transforms_test.json", *overrides], tmp_path)
        return tuple(path and str(path.relative_to(tmp_path)) for path in (config.training_json, config.image_json))

    assert jsons() == (None, None)
    assert jsons("teacher.kind=gaussians") == (None, None)
    assert jsons("data.ground_truth={split: val, weight: 2.0}") == (None, "d/transforms_val.json")
    assert jsons("teacher.kind=gaussians", "teacher.live=true") == ("d/transforms_train.json", None)
    assert jsons("teacher.kind=gaussians", "data.train_transforms=e/t.json") == ("e/t.json", None)
    both = ["teacher.kind=gaussians", "teacher.live.buffer=8", "data.train_transforms=t.json"]
    assert jsons(*both, "data.ground_truth={split: train}") == ("t.json", "d/transforms_train.json")


def test_live_settings(write):
    assert load_config(write(BRICKS)).live is None
    assert load_config(write(BRICKS), ["teacher.live=false"]).live is None
    assert load_config(write(BRICKS), ["teacher.live=true"]).live == LiveConfig()
    assert load_config(write(BRICKS), ["teacher.live=true", "teacher.live.reuse=0.5"]).live == LiveConfig(reuse=0.5)


def test_the_json_to_train_on_is_there_and_another(write, tmp_path):
    def refused(*overrides: str) -> InputError:
        with pytest.raises(InputError) as caught:
            check_assets(load_config(path, ["teacher.kind=gaussians", *overrides], tmp_path))
        return caught.value

    path = write(VIEWS.replace("t.json", "transforms_test.json"))
    for name in ("transforms_test.json", "other.json", "cloud.ply"):
        write("{}", name)
    error = refused("teacher.live=true")
    assert (error.field, error.source) == ("data.train_transforms", str(tmp_path / "transforms_train.json"))
    assert "--set data.train_transforms=PATH" in error.hint
    assert "all of which is held out" in refused("data.train_transforms=transforms_test.json").found
    same = refused("data.train_transforms=other.json", "data.ground_truth={split: test}")
    assert same.field == "data.ground_truth" and "held out" in same.found
    assert refused("data.ground_truth={split: train}").field == "data.ground_truth"
    live = ("data.train_transforms=other.json", "teacher.live=true")
    assert refused(*live).field == "teacher.outputs" and "teacher.outputs=null" in refused(*live).hint
    check_assets(load_config(path, ["teacher.kind=gaussians", *live, "teacher.outputs=null"], tmp_path))
    # Of a teacher whose views are of the split itself, the frames that are not held out may be trained on.
    check_assets(load_config(path, ["teacher.kind=gaussians", "data.ground_truth={split: test}"], tmp_path))


# --- what is written reads back


def test_dump_reads_back_equal(write, tmp_path):
    overrides = ["tag='1e-3'", "data.frames='1:50:2'", "train.lr=1.0e-7", "train.checkpoint_steps=[5, 7]"]
    overrides += ["data.box={lower: [-1, -1.5, 0], upper: [1, 1, 1e9]}", "render.background=[0, 0.25, 1]"]
    config = load_config(write(VIEWS), overrides, assets=tmp_path)
    again = load_config(write(to_yaml(config), "dump.yaml"), assets="/another/root")
    assert again == config
    assert again.tag == "1e-3" and again.data.box.upper == (1.0, 1.0, 1e9)


def test_configs_cannot_be_changed(write):
    with pytest.raises(ValueError, match="frozen"):
        load_config(write(BRICKS)).train.lr = 1.0


def test_depth_kinds_are_the_teachers():
    choices = get_args(get_type_hints(TeacherConfig)["depth_kind"])
    assert choices == ("auto", "none", *(kind.value for kind in DepthKind))


def test_background_colours():
    assert background_rgb("white") == (1.0, 1.0, 1.0) and background_rgb("black") == (0.0, 0.0, 0.0)
    assert background_rgb((0.1, 0.2, 0.3)) == (0.1, 0.2, 0.3)


# --- the configs of the repository

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
    assert len(set(places)) == len(places) == len(ROADMAP) + 16  # quickstarts, live, fitted, features


def test_special_configs():
    long_run = load_config(REPO_ROOT / "configs/lego_response_200k.yaml")
    assert long_run.train.checkpoint_every == 50000
    eighth = load_config(REPO_ROOT / "configs/lego_response_eighth.yaml")
    assert eighth.data.resolution == 100 and eighth.train.max_seconds == 120
    smoke = load_config(REPO_ROOT / "configs/lego_response_stage1b_kilo_uniform_smoketest.yaml")
    assert smoke.student.grid == (2, 2, 2) and smoke.train.max_steps == 64
    assert load_config(REPO_ROOT / "configs/lego_response_stage1b_kilo_uniform.yaml").train.max_steps == 50000
    quickstart = load_config(REPO_ROOT / "configs/quickstart.yaml")
    check_assets(quickstart)  # needs none
    assert quickstart.teacher.kind == "bricks" and quickstart.train.max_seconds
    for name in ("lego_live", "lego_live_mixed", "lego_live_eighth", "lego_live_mixed_eighth"):
        live = load_config(REPO_ROOT / "configs" / f"{name}.yaml", assets="/assets")
        assert live.live and live.training_json == Path("/assets/data/lego/transforms_train.json")
        assert (live.image_json is not None) == ("mixed" in name)
        assert (live.data.resolution == 100) == ("eighth" in name)
    assert load_config(REPO_ROOT / "configs/quickstart_live.yaml").live


# --- the reference in the README


def test_reference_tells_type_default_and_meaning():
    lines = config_reference().splitlines()
    assert "| `far` | a number > 0 | `100.0` | farthest distance along a ray, world units |" in lines
    assert "| `scene` | a name of letters, digits, `.`, `_`, `-` | required | " in config_reference()
    assert any(line.startswith("| `table_size` | a power of two, at least 8 | `32768` |") for line in lines)
    assert any(line.startswith("| `box.lower` | 3 values, each a number | required |") for line in lines)
    depth = lines.index("**`loss.depth`: expected distance**")
    assert "| `kind` | one of `l1`, `l2`, `smooth_l1` | `l1` |" in "\n".join(lines[depth : depth + 12])


def test_reference_in_a_file_is_checked_and_replaced(tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text("no place\n")
    assert main(["--write", str(readme)]) == 2 and readme.read_text() == "no place\n"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--check", str(readme)]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["--write", str(readme)]) == 0 and main(["--check", str(readme)]) == 0
    assert readme.read_text() == f"before\n{BEGIN}\n{config_reference()}{END}\nafter\n"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
