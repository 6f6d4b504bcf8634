"""A model's parts as its config and device want them."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from distill.model.checkpoint import load_checkpoint
from distill.model.model import _render_settings, build_model, restore_model, sample_step
from distill.model.safetensors_file import save_safetensors
from scene.rays import SceneBox
from settings.errors import InputError
from settings.loading import REPO_ROOT, load_config
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.sources import load_teacher
from teacher.sources.occupied_cells import cells_of_gaussians
from tests.toy_scene import SIZE, write_toy_scene
from tests.toy_training import CPU, trainer_of


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cpu", "auto", "float16"),
        ("cuda", "auto", "float16"),
        ("cuda", "float32", "float32"),
        ("cpu", "float32", "float32"),
    ],
)
def test_pictures_are_rendered_in_half_precision_unless_the_config_says_otherwise(
    device, asked, expected, field
) -> None:
    config = load_config(REPO_ROOT / "configs/quickstart.yaml", [f"render.precision={asked}"])
    student = field(lambda positions: positions[:, 0])
    assert _render_settings(config, 0.1, 1, student, torch.device(device)).precision == expected


@pytest.mark.parametrize(
    ("setting", "rays", "step"),
    # Pixels at the box's middle are 4 / 100 wide in the median view; a 1024th of the diagonal is 3 / 1024.
    [
        ("step_pixels=0.5", 1, 0.02),
        ("step_pixels=1.5", 2, 0.06),
        ("step_pixels=0.01", 1, 3 / 1024),
        ("step_pixels=auto", 1, 0.06),
        ("step_pixels=auto", 2, 0.04),
        ("step_size=0.3", 1, 0.3),
    ],
)
def test_the_step_is_a_part_of_a_pixel_or_some(setting, rays, step) -> None:
    config = load_config(REPO_ROOT / "configs/quickstart.yaml", [f"render.{setting}"])
    centers = torch.tensor([[0.0, 1.0, 2.5], [4.0, 1.0, 0.5], [0.0, 1.0, 11.0]])
    views = SimpleNamespace(cameras=SimpleNamespace(centers=centers, fx=torch.full((3,), 100.0)))
    assert sample_step(config, SceneBox((-1.0, 0.0, 0.0), (1.0, 2.0, 1.0)), views, rays) == pytest.approx(step)


@pytest.mark.parametrize(("asked", "rays", "step"), [("0.5", 2, 0.05), ("auto", 1, 0.075), ("auto", 2, 0.1)])
def test_the_step_of_pictures_is_a_part_of_trainings(asked, rays, step, field) -> None:
    config = load_config(REPO_ROOT / "configs/quickstart.yaml", [f"render.picture_step={asked}"])
    settings = _render_settings(config, 0.1, rays, field(lambda positions: positions[:, 0]), CPU)
    assert settings.step == 0.1 and settings.of_pictures().step == pytest.approx(step)
    assert settings.of_pictures().of_pictures() == settings.of_pictures()
    # A ray's last sample is as far away.
    assert settings.of_pictures().max_samples_per_ray * step == pytest.approx(settings.max_samples_per_ray * 0.1, 1e-2)
    endless = replace(settings, max_samples_per_ray=10**9, picture_step=0.1)
    assert endless.of_pictures().max_samples_per_ray < 2**31


def test_a_student_is_supersampled_as_it_was_trained_unless_the_config_says_otherwise(tmp_path) -> None:
    path = write_toy_scene(tmp_path, data={"resolution": SIZE // 2}, train={"max_steps": 2})
    trainer = trainer_of(path, "train.max_steps=2")
    trainer.run(show_progress=False)
    stored = trainer.folder.checkpoint_path(2)
    exported = tmp_path / "student.safetensors"
    save_safetensors(exported, load_checkpoint(stored, CPU))
    for file in (stored, exported):
        state = load_checkpoint(file, CPU)
        found = [
            restore_model(load_config(path, [f"render.supersample={chosen}"], tmp_path), state, file, CPU)
            for chosen in ("auto", 1, 3)
        ]
        assert [model.settings.supersample for model in found] == [2, 1, 3]
    del state["occupancy"]["supersample"]  # an earlier version's
    assert restore_model(load_config(path, [], tmp_path), state, exported, CPU).settings.supersample == 1


@pytest.mark.parametrize("kind", ["views", "gaussians", "images"])
def test_of_one_frame_none_is_left_to_train_on(tmp_path, kind) -> None:
    """Whatever guides its rays."""
    overrides = (
        f"teacher.kind={kind}",
        "render.sampling=auto",
        "data.frames=:1",
        "data.box={lower: [-1, -1, -1], upper: [1, 1, 1]}",
    )
    config = load_config(write_toy_scene(tmp_path), overrides, tmp_path)
    with pytest.raises(InputError, match="data.holdout_every: found all 1 frames held out, expected at least one"):
        build_model(config, load_teacher(config), CPU)


def test_cells_hold_gaussians_as_wide_as_stored_views_show_them(tmp_path) -> None:
    """Pixels of 24 across are wider than the cells here."""
    path = write_toy_scene(tmp_path, occupancy={"resolution": 48}, data={"box": {"lower": [-1] * 3, "upper": [1] * 3}})

    def cells(*overrides: str) -> tuple[torch.Tensor, torch.Tensor]:
        config = load_config(path, ["render.sampling=occupancy", *overrides], tmp_path)
        teacher = load_teacher(config)
        grid = build_model(config, teacher, CPU).grid
        return grid.teacher, cells_of_gaussians(teacher.gaussians, grid.layout)

    stored, narrow = cells("teacher.kind=views")
    assert torch.equal(stored, cells("teacher.kind=gaussians")[0]) and stored.sum() > 1.1 * narrow.sum()
    # Fitted at four times the width they are hardly wider, which costs cells and shows nothing.
    assert torch.equal(cells("teacher.kind=views", "teacher.fitted_width=96")[0], narrow)


@pytest.mark.parametrize(
    ("logit", "message"),
    [
        (-4.5, "occupancy.least_weight: found 0.5, and no Gaussian .* in any pixel, .* --set occupancy.least_weight=0"),
        (-7.0, "point_cloud.ply: opacities: found at most 0.00091, expected some of at least 1/255"),
    ],
)
def test_gaussians_that_hardly_show_are_said_to(tmp_path, logit, message) -> None:
    path, ply = write_toy_scene(tmp_path), tmp_path / "point_cloud.ply"
    gaussians = read_ply(ply)
    write_ply(ply, replace(gaussians, opacity_logits=torch.full_like(gaussians.opacity_logits, logit)))
    guided = "teacher.kind=gaussians", "teacher.outputs=null", "render.sampling=teacher"
    with pytest.raises(InputError, match=message):
        trainer_of(path, *guided, "occupancy.least_weight=0.5")
    if logit > -7:
        assert trainer_of(path, *guided, "occupancy.least_weight=0").model.grid.occupied.any()


def test_in_a_scene_of_smoke_fainter_cells_count_as_empty_also_once_it_is_restored(tmp_path) -> None:
    """All opacities are 0.05, so that thresholds are a tenth of what the config says."""
    path, ply = write_toy_scene(tmp_path, train={"max_steps": 2}), tmp_path / "point_cloud.ply"
    gaussians = read_ply(ply)
    write_ply(ply, replace(gaussians, opacity_logits=torch.full((len(gaussians),), 0.05).logit()))
    faint = "teacher.kind=gaussians", "teacher.outputs=null", "render.sampling=teacher", "occupancy.least_weight=0.2"
    trainer = trainer_of(path, *faint, "train.max_steps=2", "occupancy.threshold=0.1")
    trainer.run(show_progress=False)
    grid, stored, exported = trainer.model.grid, trainer.folder.checkpoint_path(2), tmp_path / "student.safetensors"
    assert grid.density_threshold == pytest.approx(-math.log(0.99) / grid.step, rel=1e-4)
    save_safetensors(exported, load_checkpoint(stored, CPU))
    for file in (stored, exported):
        config = load_config(path, ["occupancy.threshold=0.1"], tmp_path)
        restored = restore_model(config, load_checkpoint(file, CPU), file, CPU).grid
        assert restored.density_threshold == grid.density_threshold and restored.opacity_scale < 0.11
