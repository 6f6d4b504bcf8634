"""The figure to reach: of the mistakes planted, at least 9 of 10 are named."""

from dataclasses import replace

import pytest
import torch

from distill.alignment.comparison import Loaded, measure
from distill.alignment.diagnosis import check
from distill.alignment.hypotheses import Cause
from distill.alignment.planted_mistakes import FAULTS
from distill.alignment.verdict_text import Planted, planted_table
from scene.frames import spread
from teacher.depth import DepthKind


@pytest.fixture(scope="module")
def comparison(comparison, stored_depth):
    """The same with three frames: each of all the mistakes is searched for."""
    frames = tuple(spread(range(len(comparison.names)), 3))
    return replace(comparison, frames=frames, depth=stored_depth(frames, DepthKind.INVERSE_Z))


@pytest.fixture(scope="module")
def planted(comparison):
    return [Planted(fault, check(Loaded(fault.plant(comparison)))) for fault in FAULTS]


def test_nine_of_ten_are_named(planted):
    wrong = [f"{one.fault.name}: {one.verdict.cause.value}" for one in planted if not one.is_named]
    assert len(planted) >= 20 and {one.fault.cause for one in planted} == set(Cause) - {
        Cause.NONE, Cause.STUDENT, Cause.UNKNOWN,
    }  # fmt: skip
    assert len(wrong) <= 0.1 * len(planted), wrong


def test_every_verdict_has_its_evidence(planted, comparison):
    good = measure(comparison).psnr
    for one in planted:
        verdict, likeliest = one.verdict, one.verdict.student.likeliest
        assert verdict.sentence and verdict.advice
        if one.fault.name.startswith("learnt"):
            assert verdict.passed and likeliest is None, "the student shows what the pictures show"
        elif verdict.cause not in (Cause.BLANK, Cause.DENSITY, Cause.DEPTH_KIND, Cause.DEPTH_FILES):
            assert verdict.gate.psnr < good - 1, one.fault.name
            assert likeliest.psnr > good - 2, "undoing the mistake brings the student back to what it was"
            assert f"{likeliest.psnr:.2f} dB instead of" in verdict.sentence


def test_nothing_is_named_where_nothing_is_wrong(comparison):
    verdict = check(Loaded(comparison))
    assert verdict.passed and verdict.cause == Cause.NONE and 24 < verdict.gate.psnr < 32


@pytest.fixture(scope="module")
def masked(comparison):
    """The same with pictures that show something else along two sides, which does not count."""
    counted, pictures = torch.ones_like(comparison.coverage, dtype=torch.bool), comparison.pictures.clone()
    counted[:, :7], counted[:, :, 27:] = False, False
    pictures[~counted] = torch.tensor([1.0, 0.0, 1.0])
    coverage = torch.where(counted, comparison.coverage, 1.0)  # as views of the teacher have it
    return replace(comparison, pictures=pictures, coverage=coverage, counted=counted, depth=None)


def test_nothing_is_named_where_all_that_is_wrong_does_not_count(masked):
    verdict = check(Loaded(masked))
    assert verdict.passed and verdict.cause == Cause.NONE and 22 < verdict.gate.psnr < 32
    assert check(Loaded(replace(masked, counted=None))).gate.psnr < 10


@pytest.mark.parametrize(
    "name", ["opencv", "mirrored", "transposed", "focal_0.9", "principal", "background", "premultiplied", "shuffled"]
)
def test_mistakes_are_named_where_not_all_pixels_count(masked, name):
    fault = next(fault for fault in FAULTS if fault.name == name)
    assert Planted(fault, check(Loaded(fault.plant(masked)))).is_named


def test_what_a_mistake_needs(comparison):
    faults = {fault.name: fault for fault in FAULTS}
    assert faults["depth_z"].plant(replace(comparison, depth=None)) is None
    without_alpha = replace(comparison, has_alpha=False)
    assert faults["premultiplied"].plant(without_alpha) is faults["learnt_premultiplied"].plant(without_alpha) is None
    oblong = replace(comparison, cameras=comparison.cameras.resized(32, 30), pictures=comparison.pictures[:, :30])
    assert faults["transposed"].plant(oblong) is None


def test_the_table_counts_them(planted):
    lines = planted_table(planted).splitlines()
    right = sum(one.is_named for one in planted)
    assert lines[-1] == f"{right} of {len(planted)} named right."
    assert len(lines) == len(planted) + 4 and "| an empty student: the background alone |" in lines[2]


def test_pictures_in_a_wrong_order_are_the_same_pictures(comparison):
    for fault in FAULTS:
        if fault.cause == Cause.ORDER:
            moved = fault.plant(comparison).pictures
            assert not torch.equal(moved, comparison.pictures)
            key = comparison.pictures.flatten(1).double().sum(1).sort().values
            torch.testing.assert_close(moved.flatten(1).double().sum(1).sort().values, key)
