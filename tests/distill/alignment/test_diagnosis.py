"""What is concluded: which explanation is believed, who is asked, what is said when nothing explains."""

from dataclasses import replace

import pytest
import torch

from distill.alignment.comparison import Gate, Loaded, measure
from distill.alignment.diagnosis import GAUSSIANS, check, diagnose, likeliest_trial
from distill.alignment.hypotheses import AS_IT_IS, Cause, Hypothesis
from distill.alignment.hypothesis_search import Trial
from distill.alignment.planted_mistakes import FAULTS
from distill.alignment.verdict_text import depth_table, trials_table, verdict_text
from distill.model.view_renderers import gaussians_renderer
from teacher.depth import DepthKind
from teacher.rasterizer import Rasterizer
from tests.remembered import remembered
from tests.toy_scene import block_of_gaussians

PLANT = {fault.name: fault.plant for fault in FAULTS}


def trials(*figures):
    return [Trial(AS_IT_IS if n == 0 else Hypothesis(str(n), Cause.AXES), psnr) for n, psnr in enumerate(figures)]


@pytest.mark.parametrize(
    ("figures", "chosen"),
    [
        ((9.0, 30.0, 25.0), 1),
        ((9.0, 29.8, 30.0), 1),  # equally good: the simpler one
        ((9.0, 29.0, 30.0), 2),
        ((29.9, 30.0), None),  # nothing gained
        ((28.0, 29.6), 1),  # a gain that reaches the gate
        ((14.0, 15.6), None),  # the same gain below it
        ((14.0, 17.5), 1),
        ((8.0, 12.5), None),  # hardly better than a blank picture
    ],
)
def test_what_explains(figures, chosen):
    found = likeliest_trial(trials(*figures), psnr_blank=11.0, threshold=20.0)
    assert (None if found is None else found.hypothesis.name) == (None if chosen is None else str(chosen))


def test_a_blank_picture_does_not_pass_a_gate_it_is_above(comparison):
    """A small object on white: white alone scores well."""
    small = replace(comparison, pictures=1 - 0.15 * (1 - comparison.pictures))
    verdict = check(Loaded(PLANT["empty"](small)))
    assert verdict.gate.psnr > 20 and not verdict.passed and verdict.cause == Cause.DENSITY
    assert verdict_text(verdict).startswith("FAIL: ") and "mean alpha 0.000" in verdict.sentence


@pytest.fixture(scope="module")
def mush():
    """Renders what a student makes of views that contradict each other: a fog of a block, everywhere alike."""
    block = block_of_gaussians()
    grey = replace(block, sh=block.sh * 0, means=block.means * 1.6, log_scales=block.log_scales + 1)
    return remembered(gaussians_renderer(Rasterizer(replace(grey, opacity_logits=grey.opacity_logits - 4))))


@pytest.mark.parametrize("name", ["reversed", "opencv"])
def test_the_teachers_own_gaussians_find_what_a_spoilt_student_cannot(comparison, teacher, mush, name):
    wrong = PLANT[name](replace(comparison, render=mush))
    expected = next(fault.cause for fault in FAULTS if fault.name == name)
    verdict = check(Loaded(wrong, witness=teacher))
    assert verdict.cause == expected and "the teacher's own Gaussians score" in verdict.sentence
    assert verdict.witness.likeliest.psnr > 50


def test_right_views_and_a_spoilt_student(comparison, teacher, mush):
    verdict = check(Loaded(replace(comparison, render=mush), witness=teacher))
    assert not verdict.passed and verdict.cause == Cause.STUDENT and "the views are right" in verdict.sentence
    alone = check(Loaded(replace(comparison, render=mush)))
    assert alone.cause == Cause.UNKNOWN and "set teacher.ply" in alone.advice and alone.witness is None


def test_gaussians_that_are_there_are_not_asked_for(comparison, mush):
    drawn = check(Loaded(replace(comparison, render=mush), is_drawn=True))
    assert drawn.cause == Cause.STUDENT and "data.box" in drawn.advice and "teacher.ply" not in drawn.advice


def test_strays_that_widen_the_box_are_what_a_spoilt_student_is_explained_by(comparison, mush):
    spoilt = replace(comparison, render=mush)
    assert check(Loaded(spoilt, is_drawn=True, strays="auto is 469 wide")).advice == "auto is 469 wide"
    assert check(Loaded(PLANT["opencv"](comparison), strays="auto is 469 wide")).cause == Cause.AXES


def test_gaussians_that_may_hide_the_scene_are_told_of_before_what_else_it_may_be(comparison, mush):
    spoilt = check(Loaded(replace(comparison, render=mush), is_drawn=True, outliers="2 Gaussians hide it."))
    assert spoilt.advice.startswith("2 Gaussians hide it. Otherwise: ")
    assert "hide" not in check(Loaded(PLANT["opencv"](comparison), outliers="2 Gaussians hide it.")).advice


def test_a_good_student_needs_no_search_with_the_witness(comparison, teacher):
    assert check(Loaded(replace(comparison, depth=None), witness=teacher)).witness is None


def test_a_witness_is_not_asked_where_the_student_explains(comparison):
    def witness(cameras, index):
        raise AssertionError("asked")

    assert check(Loaded(replace(PLANT["opencv"](comparison), depth=None), witness=witness)).cause == Cause.AXES


def test_a_student_that_learnt_a_wrong_principal_point_passes_and_its_teacher_tells(comparison, teacher):
    learnt = replace(PLANT["principal"](comparison), depth=None)
    learnt = replace(learnt, render=lambda cameras, index: teacher(comparison.cameras, index))
    verdict = check(Loaded(learnt, witness=teacher))
    assert verdict.passed and verdict.cause == Cause.PRINCIPAL
    assert "from which cx and cy are shifted by (2.56, -3.84) pixels, the teacher's own" in verdict.sentence


def test_an_empty_view_of_wrong_cameras_is_not_a_blank_student(comparison):
    wrong = PLANT["opencv"](comparison)
    assert measure(wrong).alpha_mean == 0
    assert check(Loaded(wrong)).cause == Cause.AXES


def test_texts(comparison, stored_depth):
    verdict = check(Loaded(PLANT["focal_twice"](comparison)))
    text = verdict_text(verdict)
    assert text.startswith("FAIL: ") and "Likeliest cause: wrong focal length" in text and "camera_angle_x" in text
    table = trials_table(verdict, (32, 32)).splitlines()
    assert table[0] == "| supposing that (at 32x32) | cause | student, dB |" and len(table) > 40
    assert table[2].endswith("<- fits |") and "twice too long" in table[2]
    figures = [float(line.split(" | ")[2].split()[0]) for line in table[2:]]
    assert figures == sorted(figures, reverse=True)
    lines = depth_table(verdict.readings, verdict.depth_kind).splitlines()
    assert len(lines) == 8 and "inverse_z (in use)" in lines[4]
    passing = verdict_text(check(Loaded(comparison)))
    assert passing.startswith("PASS: ") and "Nothing wrong" in passing
    hidden = check(Loaded(replace(comparison, depth=stored_depth(comparison.frames, DepthKind.Z, DepthKind.INVERSE_Z))))
    assert hidden.passed and "It passes, but something is wrong: depth kind" in verdict_text(hidden)
    assert hidden.advice == "Set teacher.depth_kind: z."


def test_gaussians_that_pass_with_a_mistake_are_said_to_fail_in_spite_of_it(comparison, teacher):
    """One view of five is right by chance."""
    count = len(comparison)
    pictures = torch.stack([teacher(comparison.cameras, index).over((1.0, 1.0, 1.0)) for index in range(count)])
    exact = replace(comparison, render=teacher, pictures=(pictures * 255).round() / 255, depth=None)
    verdict = check(Loaded(replace(PLANT["text_sorted"](exact), frames=(0, 6, 12, 18, 24))), subject=GAUSSIANS)
    assert verdict.gate.psnr > 20 and verdict.cause == Cause.ORDER and not verdict.passed
    assert verdict.sentence.endswith(" dB on 5 views at 32x32, before they are rounded to 8 bits")
    passes = f"FAIL: {verdict.gate.psnr:.2f} dB passes the gate of 20 dB, but Gaussians should fit their pictures; a"
    assert verdict_text(verdict).startswith(passes)


def test_a_wide_picture_is_searched_too(comparison, teacher):
    cameras = comparison.cameras.resized(48, 32)
    pictures = torch.stack([teacher(cameras, index).over((1.0, 1.0, 1.0)) for index in range(len(comparison))])
    wide = replace(comparison, cameras=cameras, pictures=pictures, coverage=pictures[..., 0], depth=None)
    assert diagnose(wide, 20.0).likeliest is None
    found = diagnose(PLANT["focal_0.9"](wide), 20.0).likeliest
    assert found.hypothesis.cause == Cause.FOCAL
    assert isinstance(measure(wide), Gate)
