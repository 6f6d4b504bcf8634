"""What a config's fields may be and which must agree: every refusal with its field and advice."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from settings.data import DataConfig
from settings.loading import load_config
from settings.sections import background_rgb
from settings.teacher import LiveConfig, TeacherConfig
from teacher.depth import DepthKind
from tests.toy_configs import BRICKS, VIEWS, refusal


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
        ("data.far=1.0e+300", "data.far", "1e+300", "a number > 0 and <= 1000000000"),
        ("render.step_size=1.0e-300", "render.step_size", "1e-300", "a number in [1e-06, 1000000]"),
        ("data.frames='3'", "data.frames", '"3"', "a slice `START:STOP:STEP` or null"),
        ("data.box={lower: [0, 0, 0]}", "data.box.upper", "nothing", "3 values, each a number"),
        ("data.box=big", "data.box", '"big"', "`auto` or a section with keys lower, upper"),
        ("scene=a/b", "scene", '"a/b"', "at most 200 of A-Z, a-z, 0-9, `.`, `_`, `-`"),
        ("run=" + "r" * 201, "run", '"' + "r" * 56 + "...", "at most 200 of A-Z"),
        ("tag=" + "t" * 101, "tag", '"' + "t" * 56 + "...", "at most 100 of A-Z"),
        ('teacher.ply=""', "teacher.ply", "an empty path", "the path of a file or folder"),
        ("data.transforms=" + "p" * 256, "data.transforms", f"'...{'p' * 50}'", "names have at most 255 bytes"),
        ('features.file="/a\\0b"', "features.file", "'.../a\\0b'", "none of them 0"),
        ("run=größe", "run", '"größe"', "at most 200 of A-Z, a-z, 0-9, `.`, `_`, `-`"),
        ("tag='a b'", "tag", '"a b"', "at most 100 of A-Z, a-z, 0-9, `_`, `-`, or nothing"),
        ("student.planes=[1]", "student.planes", "[1]", "a list of at most 8, each an integer in [2, 16384]"),
        ("eval.splits=[]", "eval.splits", "[]", "a list of at least 1, each one of `holdout`, `train`"),
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


def test_of_several_errors_the_one_that_says_what_is_wrong(write):
    short, twice = (refusal(write(VIEWS), each) for each in ("data.offset=[0, 0]", "eval.lpips=[vgg, vgg]"))
    assert (short.field, short.found, short.expected) == ("data.offset", "[0, 0]", "3 values, each a number or null")
    assert (twice.field, twice.found, twice.expected) == ("eval.lpips", "['vgg', 'vgg']", "each name once")


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
        (VIEWS, ["data.offset=[1.0e+30, 0, 0]"], "data.offset"),
        (BRICKS, ["data.box={lower: [0, 0, 0], upper: [1, 0, 1]}"], "data.box.upper"),
        (BRICKS, ["student.base_resolution=64", "student.finest_resolution=63"], "student.finest_resolution"),
        (BRICKS, ["loss.rgb.decay_start=0.5", "loss.rgb.decay_end=0.4"], "loss.rgb.decay_end"),
        (BRICKS, ["eval.splits=[train, train]"], "eval.splits"),
        (BRICKS, ["eval.splits=[]"], "eval.splits"),
        (BRICKS, ["eval.splits=[holdout]", "data.holdout_every=0"], "eval.splits"),
        (BRICKS, ["eval.reference=ground_truth", "data.ground_truth=false"], "eval.reference"),
        (BRICKS, ["compact.target_mib=1", "far_field.kind=contracted"], "compact.target_mib"),
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


@pytest.mark.parametrize(
    ("near", "width", "nearest"),
    [(None, 2.4, 0.05), (None, 1.0, 0.05), (None, 0.5, 0.025), (None, 1e-3, 5e-5), (0.3, 1e-3, 0.3), (0.0, 4.0, 0.0)],
)
def test_rays_begin_nearer_in_a_box_of_less_than_a_unit_unless_the_config_says_where(near, width, nearest):
    assert DataConfig(near=near).nearest(width) == pytest.approx(nearest)


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


def test_live_settings(write):
    assert load_config(write(BRICKS)).live is None
    assert load_config(write(BRICKS), ["teacher.live=false"]).live is None
    assert load_config(write(BRICKS), ["teacher.live=true"]).live == LiveConfig()
    assert load_config(write(BRICKS), ["teacher.live=true", "teacher.live.reuse=0.5"]).live == LiveConfig(reuse=0.5)


def test_configs_cannot_be_changed(write):
    with pytest.raises(ValueError, match="frozen"):
        load_config(write(BRICKS)).train.lr = 1.0


def test_depth_kinds_are_the_teachers():
    choices = get_args(get_type_hints(TeacherConfig)["depth_kind"])
    assert choices == ("auto", "none", *(kind.value for kind in DepthKind))


def test_background_colours():
    assert background_rgb("white") == (1.0, 1.0, 1.0) and background_rgb("black") == (0.0, 0.0, 0.0)
    assert background_rgb((0.1, 0.2, 0.3)) == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("overrides", "field", "expected"),
    [
        ([], "data.transforms", "a value, since data.resolution is null too"),
        (["data.resolution=8", "data.train_transforms=t.json"], "data.train_transforms", "null, since data.transforms"),
        (["data.resolution=8", "data.ground_truth={split: train}"], "data.ground_truth", "since there is no dataset"),
        (["teacher.orbit.up=[0, 0, 0]"], "teacher.orbit.up", "a direction"),
        (["teacher.orbit.elevation=[30, 10]"], "teacher.orbit.elevation", "the lower one first"),
        (["teacher.orbit.elevation=[30, 90]"], "teacher.orbit.elevation", "each a number in [-85, 85]"),
        (["teacher.orbit.distance=0"], "teacher.orbit.distance", "a number > 0 or null"),
    ],
)
def test_gaussians_without_a_dataset(write, overrides, field, expected):
    error = refusal(write(VIEWS), "teacher.kind=gaussians", "data.transforms=null", *overrides)
    assert error.field == field and expected in error.expected


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("[-.inf, .nan, 3]", ("inf", "nan", 3.0)), ("inf", ("inf",)), ("negative", ("negative",)), ("[]", ())],
)
def test_what_means_that_no_depth_is_there(write, text, wanted):
    assert load_config(write(VIEWS), [f"teacher.depth_empty={text}"]).teacher.depth_empty == wanted


@pytest.mark.parametrize("text", ["[[1]]", "{}", "[{}]", "[0]", "[1, [2, 3]]", "true"])
def test_what_cannot_mean_it_is_refused(write, text):
    assert refusal(write(VIEWS), f"teacher.depth_empty={text}").field.startswith("teacher.depth_empty")
