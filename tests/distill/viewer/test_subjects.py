"""Subjects of the viewer: their teacher shows what its views show, whatever the picture's shape."""

from dataclasses import replace
from math import log

import pytest
import torch

from distill.viewer.subjects import teacher_renderer
from distill.viewer.viewpoints import Viewpoint
from settings.loading import load_config
from teacher.gaussian_files.ply import write_ply
from teacher.sources import load_teacher
from tests.toy_scene import SIZE, block_of_gaussians, write_toy_scene


@pytest.mark.parametrize("fitted", [SIZE // 2, 2 * SIZE])
def test_a_teacher_in_a_wide_picture_is_that_of_its_views(tmp_path, fitted):
    path, block = write_toy_scene(tmp_path, data={"ground_truth": False}), block_of_gaussians()
    write_ply(tmp_path / "point_cloud.ply", replace(block, log_scales=torch.full_like(block.log_scales, log(0.004))))
    config = load_config(path, ["teacher.kind=gaussians", f"teacher.fitted_width={fitted}"], tmp_path)
    teacher = load_teacher(config)
    wide = Viewpoint.of_camera(teacher.views.cameras, 0).cameras(2 * SIZE, SIZE)
    shown = teacher_renderer(config, teacher.gaussians)(wide, 0).over((1.0, 1.0, 1.0))
    middle = shown[:, SIZE // 2 : SIZE // 2 + SIZE]
    torch.testing.assert_close(middle, teacher.views.image(0, (1.0, 1.0, 1.0)), rtol=0, atol=0.01)
