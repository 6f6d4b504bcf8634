"""The gate as a program: its answer, its table, its exit status, its one-line errors."""

import json
import math
import re

import pytest

from distill.alignment import comparison
from lego_response_distill import main as train
from tests.program import arguments
from tests.remembered import remembered
from tests.toy_scene import QUICKLY, mask_toy_scene, write_toy_scene
from tools.check_alignment import main


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A trained run of the toy scene."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_scene(folder, train=QUICKLY, data={"ground_truth": False}, teacher={"depth_kind": "auto"})
    assert train(arguments(folder)) == 0
    return folder


@pytest.fixture(scope="module", autouse=True)
def _views_are_rendered_once():
    """All tests look at one student and at one set of Gaussians, mostly through the same cameras."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("student_renderer", "gaussians_renderer"):
            make, views = getattr(comparison, name), {}
            patch.setattr(comparison, name, lambda *given, make=make, views=views: remembered(make(*given), views))
        yield


def edited_poses(toy, change):
    """A config's override that names a copy of the poses with a mistake in it."""
    content = json.loads((toy / "data" / "transforms.json").read_text())
    change(content)
    path = toy / "data" / "wrong.json"
    path.write_text(json.dumps(content))
    return "--set", f"data.transforms={path}"


def opencv(content):
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[1], row[2] = -row[1], -row[2]


def short_focal(content):
    for frame in content["frames"]:
        frame["fl_x"], frame["fl_y"] = 0.7 * frame["fl_x"], 0.7 * frame["fl_y"]


def reverse(content):
    content["frames"].reverse()


def test_a_good_student_passes(toy, capsys):
    before = sorted(toy.rglob("*"))
    assert main([str(toy / "results/toy/first"), "--threshold", "16"]) == 0
    out = capsys.readouterr().out
    assert "step 150, 5 of 17 views at 24x24" in out and "\nPASS: " in out and "Nothing wrong" in out
    assert re.search(r"with each possible mistake undone; .*:\n\n\| supposing that", out)
    assert re.search(r"read as each kind, .*:\n\n\| depth read as", out)
    assert "| nothing is wrong |" in out and "| inverse_z (in use) |" in out
    assert sorted(toy.rglob("*")) == before, "nothing is written"


@pytest.mark.parametrize(
    ("change", "cause", "advice"),
    [
        (opencv, "flipped axis: supposing that camera axes are OpenCV's", "negate the 2nd and 3rd column"),
        (
            short_focal,
            "wrong focal length: supposing that the focal length must be multiplied by 1.4",
            "camera_angle_x",
        ),
        (reverse, "frame order: supposing that the pictures are in reverse order", "0000k.png"),
    ],
)
def test_wrong_poses_fail_and_are_named(toy, capsys, change, cause, advice):
    more = ("--set", "teacher.depth_kind=inverse_z", "--views", "4")
    assert main(arguments(toy, *edited_poses(toy, change), *more)) == 1
    out = capsys.readouterr().out
    assert "\nFAIL: " in out and f"Likeliest cause: {cause}" in out and advice in out
    assert "step 150, 4 of 17 views" in out


def test_without_a_checkpoint_the_gaussians_stand_in(toy, capsys):
    assert main(arguments(toy, "--set", "run=other", "--views", "3")) == 0
    out = capsys.readouterr().out
    assert "no checkpoint yet: " in out and "PASS: " in out and "teacher's Gaussians, dB" in out
    assert main(arguments(toy, "--set", "run=other", *edited_poses(toy, opencv), "--views", "3")) == 1
    out = capsys.readouterr().out
    assert "flipped axis: supposing that camera axes are OpenCV's (y down, looking down +z), the teacher's own" in out


def test_the_background_and_the_depth_kind_of_the_config(toy, capsys):
    black = ("--set", "teacher.background=black", "--set", "teacher.depth_kind=z", "--views", "3")
    assert main(arguments(toy, *black)) == 1
    out = capsys.readouterr().out
    assert "wrong background: supposing that the pictures are on white" in out
    assert "Set teacher.background and render.background to white." in out
    assert main(arguments(toy, "--set", "teacher.depth_kind=z", "--threshold", "16", "--views", "3")) == 0
    assert "Set teacher.depth_kind: inverse_z." in capsys.readouterr().out


def test_a_threshold_that_nothing_reaches(toy, capsys):
    assert main(arguments(toy, "--threshold", "60", "--views", "3")) == 1
    out = capsys.readouterr().out
    assert "the gate is 60 dB" in out and "the student itself: the views are right" in out
    assert "teacher's Gaussians, dB" in out


def test_planted(toy, capsys):
    assert main(arguments(toy, "--planted", "empty", "opencv", "reversed", "depth_z", "--views", "3")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 of 4 named right." and len([line for line in lines if line.startswith("| ")]) == 6
    white = next(line for line in lines if "empty student" in line).split(" | ")
    assert math.isclose(float(white[1]), float(white[2]), abs_tol=3) and float(white[1]) < float(white[2])


def test_without_a_ply_there_is_no_witness(toy, capsys):
    assert main(arguments(toy, "--threshold", "60", "--set", "teacher.ply=null", "--views", "3")) == 1
    out = capsys.readouterr().out
    assert "unknown: nothing that was tried fits" in out and "Gaussians, dB" not in out


def test_what_a_mask_leaves_out_is_not_compared_nor_all_pictures_held_where_memory_is_short(tmp_path, capsys):
    # Of another size than the other tests' pictures: views are remembered by their cameras.
    box = {"lower": [-0.6, -0.6, -0.6], "upper": [0.6, 0.6, 0.6]}
    data = {"ground_truth": False, "resolution": 20, "box": box}
    write_toy_scene(tmp_path, train=QUICKLY, data=data, teacher={"kind": "images", "outputs": None, "ply": None})
    mask_toy_scene(tmp_path)
    assert train(arguments(tmp_path)) == 0
    capsys.readouterr()
    assert main(arguments(tmp_path, "--threshold", "13")) == 0
    whole = capsys.readouterr().out
    assert "step 150, 5 of 17 views at 20x20" in whole and "Nothing wrong" in whole
    assert main(arguments(tmp_path, "--threshold", "13", "--set", "data.memory_gib=2e-5")) == 0
    lazy = capsys.readouterr().out
    assert "step 150, 5 views at 20x20" in lazy
    assert re.search(r"PASS: .*", lazy)[0] == re.search(r"PASS: .*", whole)[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--planted", "gremlin"), "--planted: fault: found gremlin, expected one of empty, dead, opaque"),
        (("--planted", "premultiplied"), "--planted: faults: found premultiplied"),
        (("--views", "0"), "--views: views: found 0"),
        (("--checkpoint", "nowhere.pth"), "nowhere.pth: checkpoint: found no such file"),
        (("--set", "run=other", "--set", "teacher.ply=null"), "no Gaussians of stored renders, expected a checkpoint"),
        (("--set", "teacher.outputs=nowhere"), "teacher.outputs: found nothing"),
    ],
)
def test_bad_input_is_one_message(toy, capsys, more, message):
    assert main(arguments(toy, *more)) == 2
    error = capsys.readouterr().err
    assert [line for line in error.splitlines() if line.startswith("error: ") and message in line], error
