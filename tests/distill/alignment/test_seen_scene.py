"""Which cameras see a box, and which views tell of cells; what is said of them: in test_before_training.py."""

from dataclasses import replace

import pytest
import torch

from distill.alignment.seen_scene import check_cells, seeing
from distill.model.model import build_model
from scene.rays import SceneBox
from settings.loading import load_config
from teacher.sources import load_teacher
from tests.toy_scene import ring_of_cameras, write_toy_scene


def test_which_cameras_see_a_box():
    cameras = ring_of_cameras(5)
    assert seeing(cameras, SceneBox((-0.1,) * 3, (0.1,) * 3), 0.0, 10.0).all()
    assert not seeing(cameras, SceneBox((-0.1,) * 3, (0.1,) * 3), 3.0, 10.0).any(), "nearer than near"
    assert not seeing(cameras, SceneBox((0, 0, 5), (1, 1, 6)), 0.0, 10.0).any()
    assert seeing(cameras, SceneBox((-9,) * 3, (9,) * 3), 0.0, 10.0).all(), "from inside"


@pytest.mark.parametrize("of_held_out", [True, False])
def test_cells_are_judged_by_the_views_that_are_trained_on(tmp_path, caplog, of_held_out):
    """Where few are, others see what is in no cell of theirs: here they show something all over."""
    overrides = "teacher.kind=gaussians", "teacher.outputs=null"
    config = load_config(write_toy_scene(tmp_path), overrides, tmp_path)
    teacher = load_teacher(config)
    model, views = build_model(config, teacher, torch.device("cpu")), teacher.views
    elsewhere = views.holdout if of_held_out else ~views.holdout
    shown = torch.where(elsewhere[:, None, None], 255, views.coverage)
    check_cells(config, replace(teacher, views=replace(views, coverage=shown)), model)
    assert len(caplog.records) == (0 if of_held_out else 1)
