"""The pictures and arrays an evaluation leaves behind."""

import logging
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from distill.evaluation import metrics
from distill.evaluation.comparison_pictures import contact_sheet
from distill.evaluation.evaluator import evaluate
from distill.evaluation.render_files import RenderFiles
from distill.rendering.renderer import RenderedFrame
from tests.distill.evaluation.disc import CPU, FRAMES, SIDE, WHITE, make_frame, make_views, run, with_noise


def test_pictures_on_disk(setup, monkeypatch):
    views, labels = make_views(), []

    def sheet(pairs, below, columns):
        labels.append([label.partition(":")[0] for label in below])
        return contact_sheet(pairs, below, columns)

    monkeypatch.setattr("distill.evaluation.render_files.contact_sheet", sheet)
    amounts = {0: 0.05, 4: 0.2, 8: 0.1}
    result, folder = run(with_noise(views, lambda i: amounts.get(i, 0.3)), views, setup, tag="x")
    assert labels == [["0", "4", "8"]]  # in their order, not from the worst on
    names = {path.name for path in folder.eval.iterdir()}
    assert names == {f"step_020000_x_frame_{i:05d}.png" for i in range(FRAMES)} | {
        "step_020000_x_worst_1_frame_00004.png",
        "step_020000_x_worst_2_frame_00008.png",
        "step_020000_x_worst_3_frame_00000.png",
        "step_020000_x_median_frame_00008.png",
        "step_020000_x_contact_sheet.png",
    }
    # anybody can repeat a figure from the files
    render = iio.imread(folder.eval / "step_020000_x_frame_00004.png").astype(np.float32) / np.float32(255)
    assert metrics.psnr(render, views.image(4, WHITE).numpy()) == result.frame_rows[8]["psnr"]
    assert result.frame_rows[8]["frame"] == 4

    # a second look at the same step leaves none of the first's pictures behind, and others' alone
    run(with_noise(views, lambda i: 0.1), views, setup, step=30000, tag="x", splits=["holdout"])
    run(with_noise(views, lambda i: 0.4 - 0.04 * i), views, setup, tag="x", splits=["holdout"], save_renders=False)
    names = {path.name for path in folder.eval.glob("step_020000*")}
    assert names == {
        "step_020000_x_worst_1_frame_00000.png",
        "step_020000_x_worst_2_frame_00004.png",
        "step_020000_x_worst_3_frame_00008.png",
        "step_020000_x_median_frame_00004.png",
        "step_020000_x_contact_sheet.png",
    }
    assert len(list(folder.eval.glob("step_030000*"))) == 8


@pytest.mark.parametrize(("kind", "name"), [("bricks", "teacher"), ("images", "images")])
def test_what_a_student_is_compared_with_has_its_own_name(setup, monkeypatch, kind, name):
    labels = []

    def sheet(pairs, below, columns):
        labels.extend(below)
        return contact_sheet(pairs, below, columns)

    monkeypatch.setattr("distill.evaluation.render_files.contact_sheet", sheet)
    views = make_views()
    config, folder = setup()
    teacher = config.teacher.model_copy(update={"kind": kind})
    evaluate(with_noise(views, lambda i: 0.1), views, config.model_copy(update={"teacher": teacher}), 1, folder, CPU)
    assert all(f": {name} | student, " in label for label in labels) and len(labels) == 3


def test_a_student_of_nan_is_reported(setup, caplog):
    views = make_views()
    frame = make_frame(torch.full((SIDE, SIDE, 3), torch.nan), torch.full((SIDE, SIDE), torch.nan))
    with caplog.at_level(logging.WARNING):
        result, folder = run(lambda i, background: frame, views, setup)
    assert result.collapsed
    assert "10 of 10 renders have NaN" in caplog.text
    assert not iio.imread(folder.eval / "step_020000_frame_00003.png").any()


def test_frames_like_a_teacher_s(setup):
    views = make_views()
    views = replace(views, alpha=views.alpha // 16)  # faint: what is divided by alpha still shows its colour
    config, folder = setup(splits=["holdout"], tag="x")
    files = RenderFiles.like_a_teacher(folder, 20000, rgba=True, depth=True)

    def render(i, background):
        alpha = views.alpha[i].float() / 255
        return RenderedFrame(views.image(i, background), alpha, alpha * 3)

    evaluate(render, views, config, 20000, folder, CPU, files=files)
    root = folder.eval / "step_020000_x"
    for name in ("renders/{}.png", "rgba/{}.png", "depth/{}.npy"):
        folder_of = (root / name).parent
        assert sorted(path.name for path in folder_of.iterdir()) == [
            (root / name.format(f"0000{i}")).name for i in (0, 4, 8)
        ]
    assert not list(folder.eval.glob("step_020000_x_frame_*"))
    rgba = iio.imread(root / "rgba/00004.png").astype(np.float32) / 255
    over = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    assert np.abs(over * 255 - iio.imread(root / "renders/00004.png")).max() <= 1.5
    assert np.array_equal(np.load(root / "depth/00004.npy"), (views.alpha[4].float() / 255 * 3).numpy())
