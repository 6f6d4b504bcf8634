"""Configs: inheritance, overrides and unknown keys, every refusal with its file and advice; assets; what is written."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest
import yaml

from settings.config import Config
from settings.errors import InputError
from settings.loading import ASSETS, REPO_ROOT, config_from_text, load_config, to_yaml
from settings.words import expanded_schema, fields, options
from settings.yaml_text import _FastLoader, _Loader, parse_yaml, read_mapping
from tests.toy_configs import BRICKS, VIEWS, refusal


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
        ("train:\n  lr: 1\n\tseed: 1\n", "line 3", "a tab at column 1"),
        ("scene: a\nseed: " + "9" * 5000, "line 2", "an integer of 5000 digits"),
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


def test_values_too_long_to_repeat_are_not_repeated(write):
    error = refusal(write(BRICKS), "seed=" + "9" * 5000)
    assert (error.source, error.found, error.hint) == (
        "--set seed",
        "an integer of 5000 digits, more than 64 bits hold",
        "",
    )


def test_slices_and_words_stay_text(write):
    config = load_config(write(BRICKS.replace("resolution: 64", "resolution: 64, frames: 1:50:2") + "tag: on\n"))
    assert config.data.frames == "1:50:2"  # YAML 1.1 reads a number to base 60
    assert config.tag == "on"  # and a boolean


def test_overrides_are_typed_and_the_last_one_wins(write):
    overrides = ["train.lr=5e-3", "train.lr_mlp=null", "seed=1", "seed=2", "eval.splits=[train]", "data.box=auto"]
    config = load_config(write(BRICKS + "train: {lr_mlp: 0.1}\n"), overrides)
    assert config.train.lr == 0.005 and config.train.lr_mlp is None and config.seed == 2
    assert config.eval.splits == ("train",)


def test_override_that_is_no_yaml_names_its_field(write):
    error = refusal(write(BRICKS), "eval.splits=[train")
    assert error.source == "--set eval.splits" and error.field == "line 1"


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


def test_another_kind_of_student_does_not_inherit_the_bases_keys(write):
    write(BRICKS + "student: {kind: hash_grid, levels: 99, table_size: 3}\n", "base.yaml")
    error = refusal(write("base: base.yaml\nstudent: {kind: cube}\n"))
    assert error.field == "student.kind" and error.source.endswith("run.yaml")
    assert refusal(write("base: base.yaml\nstudent: {kind: hash_grid}\n")).field == "student.levels"


def test_the_kind_that_a_student_has_without_being_named_keeps_its_keys(write):
    write(BRICKS + "student: {levels: 5}\n", "base.yaml")
    path = write("base: base.yaml\nstudent: {kind: hash_grid, table_size: 64}\n")
    assert load_config(path).student.levels == 5 and load_config(path).student.table_size == 64
    assert load_config(path, ["student.kind=hash_grid"]).student.levels == 5
    other = load_config(path, ["student={kind: kilo_uniform, grid: [1, 1, 1]}"]).student
    assert other.kind == "kilo_uniform" and not hasattr(other, "levels")


def test_asset_paths_are_under_the_assets_root(write, tmp_path):
    path = write(VIEWS)
    config = load_config(path, ["teacher.ply=/elsewhere/cloud.ply"], assets=tmp_path / "assets")
    assert config.data.transforms == tmp_path / "assets" / "t.json"
    assert config.teacher.outputs == tmp_path / "assets" / "out"
    assert config.teacher.ply == Path("/elsewhere/cloud.ply")
    assert load_config(path).data.transforms == REPO_ROOT / "t.json"
    assert (REPO_ROOT / "pyproject.toml").is_file()


def test_every_path_of_the_schema_is_an_assets(write, tmp_path):
    schema = expanded_schema(Config)
    paths = {name for name, node in fields(schema) if any(one.get("format") == "path" for one in options(node))}
    assert paths == {*ASSETS} and "data.depth" in ASSETS
    assert json.dumps(schema).count('"format": "path"') == len(ASSETS), "none is in a list, where ``fields`` looks not"


IMAGES = "scene: toy\nrun: first\ndata: {transforms: t.json, depth: city/depth}\nteacher: {kind: images}\n"


def test_the_folder_of_depth_is_under_the_assets_root_and_moves_with_it(write, tmp_path):
    made, moved = tmp_path / "made", tmp_path / "moved"
    config = load_config(write(IMAGES), assets=made)
    assert config.data.depth == made / "city/depth"
    for root in (made, moved):
        (root / "city/depth").mkdir(parents=True)
    dump = write(to_yaml(config), "dump.yaml")
    assert load_config(dump, assets=moved) == config
    (made / "city/depth").rmdir()
    assert load_config(dump) == config, "without --assets all stays where it was"
    assert load_config(dump, assets=moved).data.depth == moved / "city/depth"
    assert load_config(dump, assets=os.path.relpath(moved)).data.depth == moved / "city/depth"
    assert load_config(dump, ["data.depth=/none/at/all"], assets=moved).data.depth == Path("/none/at/all")
    assert config_from_text(to_yaml(config), "run.pth", assets=moved).data.depth == moved / "city/depth"
    (moved / "depth").mkdir()  # earlier versions wrote the path as it was given
    assert config_from_text(IMAGES, "run.pth", assets=moved).data.depth == moved / "city/depth"


def test_another_root_of_assets_has_to_be_there_and_what_is_not_in_it_is_said(write, tmp_path, caplog):
    stored = to_yaml(load_config(write(IMAGES), assets=tmp_path / "made"))
    with pytest.raises(InputError, match="--assets: folder: found none at .*nowhere"):
        config_from_text(stored, "run.pth", assets=tmp_path / "nowhere")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved/t.json").touch()
    config = config_from_text(stored, "run.pth", assets=tmp_path / "moved")
    assert config.data.transforms == tmp_path / "moved/t.json" and config.data.depth == tmp_path / "made/city/depth"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'made/city/depth'}: not found under --assets {tmp_path / 'moved'}, so this path is used"
    ]


def test_a_file_taken_in_the_place_of_one_that_is_gone_is_named_once(write, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "assets/splats").mkdir(parents=True)
    (tmp_path / "assets/splats/truck.splat").touch()
    gone, there = tmp_path / "here/splats/truck.splat", tmp_path / "assets/splats/truck.splat"
    for _ in range(2):
        config = load_config(write(VIEWS), [f"teacher.ply={gone}"], assets=tmp_path / "assets")
        config_from_text(to_yaml(config), "run.pth", assets=tmp_path / "assets")
    assert config.teacher.ply == there
    told = [record.getMessage() for record in caplog.records if "truck" in record.getMessage()]
    assert told == [f"{gone}: {there} is used instead (--assets)"]


@pytest.mark.parametrize("loader", [_Loader, _FastLoader])
def test_with_libyaml_and_without_it_a_text_means_the_same(loader):
    text = "a: 1e-3\nb: on\nc: 1:50:2\nd: [~, 0x1f, 017, .inf, 'x', 2024-01-01]\ne: &x {f: yes}\ng: *x\n"
    assert yaml.load(text, Loader=loader) == {
        "a": 0.001, "b": "on", "c": "1:50:2", "d": [None, "0x1f", 17, math.inf, "x", "2024-01-01"],
        "e": {"f": "yes"}, "g": {"f": "yes"},
    }  # fmt: skip
    for wrong in ("a: 1\na: 2\n", "1: a\n", f"a: {'9' * 20}\n"):
        with pytest.raises(yaml.MarkedYAMLError):
            yaml.load(wrong, Loader=loader)


def test_dump_reads_back_equal(write, tmp_path):
    overrides = ["tag='1e-3'", "data.frames='1:50:2'", "train.lr=1.0e-7", "train.checkpoint_steps=[5, 7]"]
    overrides += ["data.box={lower: [-1, -1.5, 0], upper: [1, 1, 1e9]}", "render.background=[0, 0.25, 1]"]
    config = load_config(write(VIEWS), overrides, assets=tmp_path)
    again = load_config(write(to_yaml(config), "dump.yaml"), assets="/another/root")
    assert again == config
    assert again.tag == "1e-3" and again.data.box.upper == (1.0, 1.0, 1e9)


RETIRED = """
assistant_student: {kind: hash_grid, levels: 12}
student: {kind: kilo_uniform, blend: 0.0}
features: {level: sample, balance: null, tap: geo}
train: {assistant: null, assistant_share: 0.25, pointwise_share: 0.25, points_per_step: 16384, lr: 0.02}
loss: {distortion: {weight: 0.0, warmup: 0.0, decay_start: 1.0, decay_end: 1.0, final: 1.0}}
"""


@pytest.mark.parametrize("read", [load_config, lambda path: config_from_text(path.read_text(), path)])
def test_settings_that_are_gone_are_passed_over_where_they_were_off(write, read):
    config = read(write(BRICKS + RETIRED))
    left = "student: {kind: kilo_uniform}\ntrain: {lr: 0.02}\nfeatures: {tap: geo}\n"
    assert config == load_config(write(BRICKS + left, "new.yaml"))
    kept = set(re.findall(r"\w+(?=:)", to_yaml(config)))
    assert not {"assistant_student", "assistant", "level", "balance", "distortion", "blend"} & kept


def gone(field: str, value: str) -> str:
    *sections, key = field.split(".")
    return BRICKS + "".join(f"{section}: {{" for section in sections) + f"{key}: {value}" + "}" * len(sections) + "\n"


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"),
    [
        ("train.assistant", "auto", '"auto"', "null"),
        ("train.assistant", "hash.pth", '"hash.pth"', "null"),
        ("features.level", "ray", '"ray"', '"sample"'),
        ("features.balance", "0.5", "0.5", "null"),
        ("loss.distortion.weight", "0.001", "0.001", "0.0"),
        ("loss.distortion", "0.001", "0.001", "{}"),
        ("loss.depth.warmup", "0.1", "0.1", "0.0"),
        ("features.min_confidence", "0.2", "0.2", "0.0"),
        ("features.projector_width", "32", "32", "0"),
        ("fitting.fade_every", "3000", "3000", "null"),
        ("student.blend", "0.1", "0.1", "0.0"),
    ],
)
def test_what_is_gone_is_refused_where_it_was_on(write, field, value, found, expected):
    write(gone(field, value), "base.yaml")
    in_base, in_set = refusal(write("base: base.yaml\n")), refusal(write(BRICKS), f"{field}={value}")
    assert (in_base.field, in_base.found, in_base.expected) == (field, found, expected)
    assert in_base.source.endswith("base.yaml") and in_set.source == "--set"
    assert "docs/experiments" in in_base.hint and in_set.hint == in_base.hint


def test_a_student_that_was_trained_with_what_is_gone_is_read_with_a_warning(write, caplog):
    text = gone("loss.distortion.weight", "0.001")
    assert config_from_text(text, "run.pth") == load_config(write(BRICKS))
    assert "run.pth: trained with loss.distortion.weight: 0.001" in caplog.text
    with pytest.raises(InputError, match="--set: train.assistant"):
        config_from_text(text, "run.pth", ["train.assistant=auto"])


def test_a_retired_key_of_another_name_is_as_unknown_as_any(write):
    assert refusal(write(BRICKS), "train.assistants=auto").found == "an unknown key"
    assert refusal(write(BRICKS), "features=3").field == "features"  # no section to look for one in


@pytest.mark.parametrize("text", ["/x/scan #2/p.ply", "#2.ply", "/x/a: b/p.ply", "a:", "[scan]/p.ply", "@home/p.ply"])
def test_an_override_that_yaml_would_misread_says_how_to_quote_it(write, text):
    path = write("scene: toy\nrun: first\ndata: {resolution: 8}\nteacher: {kind: bricks}\n")
    with pytest.raises(InputError) as caught:
        load_config(path, [f"teacher.ply={text}"])
    quoted = f'teacher.ply="{text}"'
    assert f"--set '{quoted}'" in str(caught.value)
    assert load_config(path, [quoted], "/").teacher.ply == Path("/", text)


def test_configs_in_other_encodings_are_read_and_other_files_are_named(tmp_path):
    text, path = "scene: tüy\nrun: a\n", tmp_path / "run.yaml"
    for data in (text.encode("utf-8-sig"), text.encode("utf-16")):
        path.write_bytes(data)
        assert read_mapping(path) == {"scene": "tüy", "run": "a"}
    for data, found in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html>\n<html>", "an HTML or XML page"),
        (b"PK\x03\x04\0\0", "binary data"),
        (text.encode("utf-32"), "text in UTF-32"),
        (b"[" * 5000, "maximum recursion depth"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=found):
            read_mapping(path)


@pytest.mark.parametrize("value", ["!!bool x", "!!timestamp x", "!!int ''", "!!float ''"])
def test_a_tag_that_its_value_does_not_fit_is_bad_yaml(value) -> None:
    with pytest.raises(InputError, match="valid YAML"):
        parse_yaml(f"run: {value}", "--set")


def test_test_every_is_another_name_of_holdout_every(write):
    path = write(BRICKS.replace("resolution: 64", "resolution: 64, test_every: 5"))
    assert load_config(path).data.holdout_every == 5
    assert load_config(path, ["data.holdout_every=3"]).data.holdout_every == 3
    assert load_config(path, ["data.test_every=4"]).data.holdout_every == 4
