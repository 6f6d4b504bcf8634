"""The loop of a fit; tests/tools/test_train_teacher.py has whole fits."""

from __future__ import annotations

import pytest
import torch

from machine.run_folder import RunFolder
from scene.rays import SceneBox
from settings.loading import load_config
from teacher.fitting.fit import TeacherFit
from teacher.fitting.initialization import hull_gaussians
from teacher.fitting.picture_levels import Pictures
from teacher.sources import load_teacher
from tests.toy_scene import write_toy_scene

SETTINGS = {"teacher": {"kind": "images", "outputs": None, "ply": None}}
TIME = ("fitting.max_seconds=0.3", "fitting.max_steps=1000000", "fitting.initial_gaussians=100")


@pytest.mark.filterwarnings("error::tqdm.TqdmWarning")
def test_the_bar_of_a_timed_fit_ends_full_and_no_fuller(tmp_path, capsys) -> None:
    config = load_config(write_toy_scene(tmp_path, **SETTINGS), TIME, tmp_path)
    box, settings = SceneBox((-0.6, -0.6, -0.6), (0.6, 0.6, 0.6)), config.fitting
    views = load_teacher(config).views
    pictures = Pictures(views, settings.coarse_levels)
    start = hull_gaussians(views, box, pictures, settings.initial_gaussians, torch.Generator().manual_seed(0))
    fit = TeacherFit(settings, pictures, start, 1.0, (1.0, 1.0, 1.0), 0, torch.device("cpu"))
    folder = RunFolder(config, tmp_path)
    folder.create()
    fit.run(folder, lambda fit: None)
    assert fit.progress.seconds > 0.3
    assert "fit: 100%" in capsys.readouterr().err
    fit.run(folder, lambda fit: None)  # as resumed: there is nothing left to do
