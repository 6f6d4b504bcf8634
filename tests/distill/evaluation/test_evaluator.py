"""Evaluation of students that are the teacher, the teacher with noise, and a blank picture."""

import math

import numpy as np
import pytest
import torch

from distill.evaluation.evaluator import teacher_psnr
from distill.evaluation.frame_metrics import References
from scene.images import PSNR_CAP_DB
from settings.errors import InputError
from tests.distill.evaluation.disc import (
    GREY,
    SIDE,
    WHITE,
    blank,
    make_frame,
    make_views,
    read_csv,
    run,
    the_teacher,
    with_noise,
)


def test_the_teacher_itself_scores_the_cap(setup):
    views = make_views()
    result, _ = run(the_teacher(views), views, setup)
    holdout, against_truth = result.rows[:2]
    assert holdout["psnr"] == holdout["psnr_foreground"] == PSNR_CAP_DB
    assert holdout["ssim"] == pytest.approx(1.0)
    assert holdout["alpha_mean"] == pytest.approx(views.coverage[0].float().mean().item() / 255)
    assert not result.collapsed and "COLLAPSED" not in result.evidence
    # ground truth lacks one pixel, which is background there: only that one differs
    mse = np.mean(
        [((1 - views.rgb[i, SIDE // 2, SIDE // 2].numpy() / 255) ** 2).sum() / SIDE**2 / 3 for i in (0, 4, 8)]
    )
    assert against_truth["psnr"] == pytest.approx(-10 * math.log10(mse), abs=3)
    assert against_truth["psnr_foreground"] == PSNR_CAP_DB  # its own alpha leaves that pixel out


@pytest.mark.parametrize(("kind", "is_known"), [("bricks", True), ("images", False)])
def test_a_teacher_has_a_psnr_unless_it_is_the_images_themselves(setup, kind, is_known):
    def with_kind(**settings):
        config, folder = setup(**settings)
        return config.model_copy(update={"teacher": config.teacher.model_copy(update={"kind": kind})}), folder

    views = make_views()
    against_teacher, against_truth = run(the_teacher(views), views, with_kind)[0].rows[:2]
    assert against_teacher["psnr_teacher"] is None
    assert (against_truth["psnr_teacher"] is not None) == is_known


def test_a_teachers_own_psnr_is_the_mean_of_four_of_the_frames_that_are_measured(setup):
    views, (config, _) = make_views(), setup()
    for index in range(10):  # a block of white of another size in each
        views.ground_truth[index, : index + 1, :, :] = 255
    references = References(views, ("ground_truth",), WHITE, {})
    each = [references.teacher_psnr(index) for index in (0, 2, 5, 7)]
    assert len(set(each)) == 4 and teacher_psnr(views, config) == pytest.approx(np.mean(each))


def test_pixels_that_are_no_numbers_are_black_or_white_and_told_of(setup, caplog):
    views = make_views()

    def broken(i, background):
        frame = the_teacher(views)(i, background)
        if i in (2, 7):
            frame.rgb[0, 0] = torch.tensor([math.nan, math.inf, -math.inf])  # white, in the teacher's
        return frame

    result, _ = run(broken, views, setup, reference="teacher")
    assert "2 of 10 renders have NaN or infinite pixels, measured as black or white" in caplog.text
    psnr = {row["frame"]: row["psnr"] for row in result.frame_rows}
    assert psnr[2] == psnr[7] == pytest.approx(-10 * math.log10(2 / (3 * SIDE**2))) and psnr[3] == PSNR_CAP_DB


def test_figures_are_means_of_per_frame_figures(setup):
    views = make_views()
    result, _ = run(with_noise(views, lambda i: 0.2 if i == 4 else 0.4), views, setup, reference="teacher")
    by_frame = {row["frame"]: row for row in result.frame_rows}
    assert by_frame[4]["psnr"] == pytest.approx(13.979, abs=1e-3)  # 0.2 is 51 of 255: rounding changes nothing
    assert by_frame[0]["psnr"] == pytest.approx(7.959, abs=1e-3)
    holdout, train, everything = result.rows
    assert holdout["psnr"] == pytest.approx((13.979 + 2 * 7.959) / 3, abs=1e-3)
    assert train["psnr"] == pytest.approx(7.959, abs=1e-3)
    assert everything["psnr"] == pytest.approx((13.979 + 9 * 7.959) / 10, abs=1e-3)
    assert holdout["alpha_mean"] == 0.25
    assert everything["avg_fps"] == pytest.approx(np.median([1 / row["render_s"] for row in result.frame_rows]))


def test_a_blank_student_is_collapsed_with_the_evidence(setup):
    views = make_views()
    result, folder = run(blank, views, setup)
    assert result.collapsed
    row = result.rows[0]
    assert result.evidence.startswith(f"COLLAPSED: holdout PSNR {row['psnr']:.2f} dB against the teacher is below")
    assert f"a blank image ({row['psnr_blank']:.2f} dB); the teacher's silhouette in one colour has" in result.evidence
    assert "mean alpha 0.000, the teacher's coverage 0.3" in result.evidence
    _, rows = read_csv(folder.eval_csv(20000))
    assert {row["collapsed"] for row in rows} == {"COLLAPSED"}
    assert "COLLAPSED" in result.summary_text()


def test_the_best_blank_student_is_collapsed_too(setup):
    views = make_views()

    def mean_colour(i, background):
        image = views.image(i, background)
        return make_frame(image.mean(dim=(0, 1)).expand_as(image), torch.ones(SIDE, SIDE))

    result, _ = run(mean_colour, views, setup)
    assert result.collapsed and "is within 0.5 dB of a blank image" in result.evidence


def test_holdout_decides_and_train_where_there_is_none(setup):
    views = make_views()

    def memorised(i, background):
        return blank(i, background) if views.holdout[i] else the_teacher(views)(i, background)

    result, _ = run(memorised, views, setup)
    assert result.collapsed
    assert [row["collapsed"] for row in result.rows[::2]] == ["COLLAPSED", None, None]

    views = make_views(holdout_every=0)
    result, _ = run(blank, views, setup)
    assert [row["split"] for row in result.rows[::2]] == ["train"]
    assert result.evidence.startswith("COLLAPSED: train PSNR")


def test_backgrounds(setup):
    """With alpha the configured background, without it the one the images have; ground truth follows."""
    asked = []

    def render(i, background):
        asked.append(tuple(background))
        return blank(i, background)

    run(render, make_views(), setup, background="black")
    assert set(asked) == {(0.0, 0.0, 0.0)}
    asked.clear()
    views = make_views(alpha=False)
    run(render, views, setup, background="black")
    assert set(asked) == {GREY}
    result, _ = run(lambda i, b: make_frame(views.ground_truth_image(i, b), torch.ones(SIDE, SIDE)), views, setup)
    assert result.rows[1]["psnr"] > 55  # 8-bit rounding alone


def test_one_warm_up_frame_is_rendered_and_not_counted(setup):
    calls = []

    def render(i, background):
        calls.append(i)
        assert not torch.is_grad_enabled()
        return blank(i, background)

    run(render, make_views(), setup, splits=["holdout"])
    assert calls == [0, 0, 4, 8]


def test_only_frames_of_the_chosen_splits_are_measured(setup):
    result, _ = run(blank, make_views(), setup, max_train_frames=3, splits=["train", "holdout"])
    assert [row["frames"] for row in result.rows[::2]] == [3, 3, 6]
    assert [row["frame"] for row in result.frame_rows[::2] if row["split"] == "train"] == [1, 3, 6]
    result, _ = run(blank, make_views(), setup, splits=["holdout"], reference="teacher")
    assert [(row["split"], row["reference"]) for row in result.rows] == [("holdout", "teacher")]
    result, _ = run(blank, make_views(ground_truth=False), setup, splits=["holdout"])
    assert [row["reference"] for row in result.rows] == ["teacher"]
    result, _ = run(blank, make_views(), setup, splits=["holdout"], reference="ground_truth")
    assert result.evidence.startswith("COLLAPSED: holdout PSNR") and "against ground truth" in result.evidence
    assert "the teacher" not in result.evidence and "; ground truth's silhouette in one colour has" in result.evidence


def test_what_the_views_do_not_have_is_an_input_error(setup):
    with pytest.raises(InputError, match="eval.reference: found ground_truth"):
        run(blank, make_views(ground_truth=False), setup, reference="ground_truth")
    with pytest.raises(InputError, match="eval.splits"):
        run(blank, make_views(holdout_every=0), setup, splits=["holdout"])
