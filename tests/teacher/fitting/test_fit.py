"""The loop of a fit; tests/tools/test_train_teacher.py has whole fits."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from machine.run_folder import RunFolder
from scene.rays import SceneBox
from settings.loading import load_config
from teacher.fitting.fit import TeacherFit
from teacher.fitting.initialization import hull_gaussians
from teacher.fitting.picture_levels import Pictures
from teacher.rasterizer import Drawing
from teacher.sources import load_teacher
from tests.toy_scene import write_toy_scene

SETTINGS = {"teacher": {"kind": "images", "outputs": None, "ply": None}}
TIME = ("fitting.max_seconds=0.3", "fitting.max_steps=1000000", "fitting.initial_gaussians=100")


def started(path, *overrides, change=lambda views: views, drawing=None) -> tuple[TeacherFit, RunFolder]:
    config = load_config(write_toy_scene(path, **SETTINGS), overrides, path)
    box, settings = SceneBox((-0.6, -0.6, -0.6), (0.6, 0.6, 0.6)), config.fitting
    views = load_teacher(config).views
    start = hull_gaussians(views, box, Pictures(views, 0), settings.initial_gaussians, torch.Generator().manual_seed(0))
    pictures = Pictures(change(views), settings.coarse_levels)
    fit = TeacherFit(settings, pictures, start, 1.0, (1.0, 1.0, 1.0), 0, torch.device("cpu"), drawing)
    folder = RunFolder(config, path)
    folder.create()
    return fit, folder


@pytest.mark.filterwarnings("error::tqdm.TqdmWarning")
def test_the_bar_of_a_timed_fit_ends_full_and_no_fuller(tmp_path, capsys) -> None:
    fit, folder = started(tmp_path, *TIME)
    fit.run(folder, lambda fit: None)
    assert fit.progress.seconds > 0.3
    assert "fit: 100%" in capsys.readouterr().err
    fit.run(folder, lambda fit: None)  # as resumed: there is nothing left to do


def test_the_clock_starts_once_kernels_are_compiled_and_compiling_changes_nothing(tmp_path, monkeypatch) -> None:
    brief = "fitting.max_steps=3", "fitting.initial_gaussians=100"
    (fit, folder), (other, _) = started(tmp_path, *brief), started(tmp_path, *brief)
    for _ in range(3):
        other._step()
        other.progress.step += 1
    render, calls = fit.backend.render, []

    def slow_at_first(*arguments):
        if not calls:
            time.sleep(1)
        calls.append(1)
        return render(*arguments)

    monkeypatch.setattr(fit.backend, "render", slow_at_first)
    fit.run(folder, lambda fit: None)
    assert len(calls) == 4 and fit.progress.step == 3 and fit.progress.seconds < 1
    assert all(torch.equal(fit.model.params[name], other.model.params[name]) for name in fit.model.params)


@pytest.mark.parametrize(("silhouettes", "is_random"), [(False, True), (True, False)])
def test_of_photographs_nothing_is_left_to_a_background(tmp_path, silhouettes: bool, is_random: bool) -> None:
    def opaque(views):
        return replace(views, alpha=None, background=(0.5, 0.5, 0.5), silhouettes=silhouettes)

    fit, _ = started(tmp_path, "fitting.initial_gaussians=100", change=opaque)
    before = fit.generator.get_state()
    fit.order = [0]  # no drawing of views
    fit._step()
    assert torch.equal(before, fit.generator.get_state()) != is_random


def test_pixels_that_do_not_count_teach_nothing(tmp_path) -> None:
    counted = torch.ones(17, 24, 24, dtype=torch.bool)
    counted[:, :, :9] = False

    def painted(shade: int):
        def change(views):
            return replace(views, counted=counted, rgb=torch.where(counted[..., None], views.rgb, shade))

        return change

    brief = ("fitting.max_steps=5", "fitting.initial_gaussians=100")
    dark, bright = (started(tmp_path, *brief, change=painted(shade))[0] for shade in (0, 250))
    # Silhouettes are behind the mask, too: pictures of one shade there have one alpha.
    losses = [fit._step()["loss"].item() for fit in (dark, bright) for _ in range(3)]
    assert losses[:3] == losses[3:] and losses[0] > 0
    assert torch.equal(dark.model.params["sh0"], bright.model.params["sh0"])


def test_a_loss_is_the_mean_over_what_counts(tmp_path) -> None:
    counted = torch.zeros(17, 24, 24, dtype=torch.bool)
    counted[:, 8:16] = True
    brief = ("fitting.max_steps=5", "fitting.initial_gaussians=100")

    def blackened(views):
        return replace(views, rgb=views.rgb * 0, alpha=torch.full_like(views.alpha, 255), counted=counted)

    fit, _ = started(tmp_path, *brief, change=blackened)
    with torch.no_grad():
        fit.model.params["opacities"].fill_(-20)
    fit.random_background = False
    assert fit._step()["loss_l1"].item() == pytest.approx(1, abs=1e-4)  # white against black


def test_a_fit_leaves_out_what_its_drawing_s_near_plane_leaves_out(tmp_path) -> None:
    for plane, shows in ((0.2, True), (3.0, False)):  # before the block, and behind it
        fit, _ = started(tmp_path, "fitting.initial_gaussians=100", drawing=Drawing(near=plane))
        assert bool((fit._drawn(fit.pictures.cameras(0), 0, 0, torch.ones(3)) < 1).any()) == shows
