"""A student with what it takes to render it: made for a teacher, or restored from a run's checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.model.checkpoint import load_checkpoint, restore_box, restore_student, supersample_in
from distill.model.other_config import note_other_model, with_as_many_rays
from distill.rendering.far_field import CUBE, FarField
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import FrameRenderer, RenderSettings, renders_fused
from kernels.gaussians.gaussian_statistics import VISIBLE_ALPHA
from machine import ranks
from machine.devices import choose_device
from machine.run_folder import RunFolder, checkpoint_at
from machine.weights_files import restoring
from scene.cells import CellGrid
from scene.frames import refuse_only_holdout
from scene.rays import SceneBox, pixel_width
from settings.config import Config
from settings.errors import InputError
from settings.far_field import FarFieldConfig
from settings.loading import config_from_text, load_config
from settings.rendering import RenderConfig
from students import build_student
from students.base import Student
from teacher.sources import Teacher, check_assets, drawing_of, supersample_of, teacher_sight
from teacher.sources.far_cells import cells_beyond, far_cells_of_gaussians
from teacher.sources.occupied_cells import cells_of_gaussians, cells_of_views, drawn_wider_by, opacity_scale
from teacher.views.teacher_views import TeacherViews

_MOST_STEPS = 1024  # per box diagonal
# Of a cell, by which stored views show Gaussians wider: a seventh, as of LEGO, costs 0.3 dB at equal steps.
_LEAST_WIDENING = 1 / 3
_CLOSER = 0.75  # steps between samples of a picture whose pixels are a ray each
_STEP_PIXELS, _STEP_RAYS = 1.0, 1.5  # pixels between samples where a pixel is several rays, and where it is one


@dataclass
class Model:
    """The student with what it takes to render it.

    Attributes:
        compact_bytes: of the compact file it is from, if it is.
        far_field: what is outside its box; None: one colour.
    """

    student: Student
    grid: OccupancyGrid
    settings: RenderSettings
    compact_bytes: int | None = None
    far_field: FarField | None = None

    def renderer(self) -> FrameRenderer:
        """Renders it as it is now."""
        return FrameRenderer(self.student, self.grid, self.settings, self.far_field)

    @property
    def fields(self) -> list[Student]:
        """What is trained: the student, and what is outside its box."""
        return [self.student, *([] if self.far_field is None else [self.far_field.field])]

    def parameter_count(self) -> int:
        """Number of trainable values."""
        return sum(field.parameter_count() for field in self.fields)


def sample_step(config: Config, box: SceneBox, views: TeacherViews, supersample: int = 1) -> float:
    """Distance between samples in world units, with ``supersample`` rays along a side of a pixel.

    auto: ``render.step_pixels`` at the box's centre, but no finer than the box's diagonal / 1024: finer detail than
    the images hold cannot be learnt from them.
    """
    if config.render.step_size != "auto":
        return config.render.step_size
    pixels = config.render.step_pixels
    if pixels == "auto":
        pixels = _STEP_RAYS if supersample == 1 else _STEP_PIXELS
    return max(math.hypot(*box.extent) / _MOST_STEPS, pixels * pixel_width(views.cameras, box))


def build_model(config: Config, teacher: Teacher, device: torch.device) -> Model:
    """A fresh student in the space its teacher occupies; the same for the same seed.

    Raises:
        InputError: nothing of the teacher is in the scene box, no view is left to train on, or the student or its cells
            would be too large.
    """
    if teacher.poses is None:
        refuse_only_holdout(len(teacher.views.training_frames), len(teacher.views))
    scale = ranks.value_of_first(supersample_of(config, teacher))  # what memory has room for differs
    step = sample_step(config, teacher.box, teacher.views, scale)
    torch.manual_seed(config.seed)
    student = build_student((teacher.box.lower, teacher.box.upper), config.student, config.kernels)
    grid = _grid(config, teacher.box, config.occupancy.resolution, step, opacity_scale(teacher.gaussians))
    sight = teacher_sight(config, teacher, grid.layout)
    if sight is not None and sight.cells is not None:
        mask = sight.cells
    elif teacher.gaussians is not None:
        widening = drawn_wider_by(drawing_of(config, teacher), teacher.views.cameras, teacher.box)
        if teacher.drawing is None and widening < _LEAST_WIDENING * grid.cell_size:
            widening = 0.0
        mask = cells_of_gaussians(teacher.gaussians, grid.layout, widening)
    else:
        mask = cells_of_views(teacher.views, grid.layout)
    if not mask.any():
        raise _nothing_there(config, teacher, grid.layout)
    grid.bound_by_teacher(mask)
    far_field = _far_field(config, teacher, device) if config.far_field.kind == "contracted" else None
    settings = _render_settings(config, step, scale, student, device)
    return Model(student.to(device), grid.to(device), settings, far_field=far_field)


def _nothing_there(config: Config, teacher: Teacher, grid: CellGrid) -> InputError:
    """Why no cell is occupied: what the box holds hardly shows, or it holds nothing."""
    gaussians, least = teacher.gaussians, config.occupancy.least_weight
    if gaussians is not None and (most := gaussians.opacities.max().item()) < VISIBLE_ALPHA:
        found, hint = f"at most {most:.2g}", "Is it the file of a trained scene?"
        return InputError(config.teacher.ply, "opacities", found, "some of at least 1/255, less is not drawn", hint)
    if gaussians is not None and least > 0 and cells_of_gaussians(gaussians, grid).any():
        found = f"{least:g}, and no Gaussian of the teacher that weighs more in any pixel"
        hint = "Where all of them are nearly clear, --set occupancy.least_weight=0."
        return InputError("config", "occupancy.least_weight", found, "less than what shows of the scene", hint)
    found = f"a box {teacher.box.lower} to {teacher.box.upper} with nothing of the teacher in it"
    hint = "Set data.box, or auto when there is a PLY."
    return InputError("config", "data.box", found, "the box the scene is in", hint)


def _far_field(config: Config, teacher: Teacher, device: torch.device) -> FarField:
    far_field = FarField(teacher.box, config.far_field, config.occupancy, config.kernels)
    cells = CellGrid(CUBE, config.far_field.occupancy_resolution)
    mask = cells_beyond(teacher.box, cells, config.far_field.reach)
    if teacher.gaussians is not None:
        mask &= far_cells_of_gaussians(teacher.gaussians, teacher.box, cells, config.far_field.reach)
    far_field.grid.bound_by_teacher(mask)
    return far_field.to(device)


def restore_model(config: Config, state: dict[str, Any], path: Path, device: torch.device) -> Model:
    """The student of a checkpoint in its own box and occupancy; only render settings come from the config."""
    stored = state["occupancy"]
    with restoring(path, "occupancy"):
        sizes = restore_box(state), stored["resolution"], stored["step"]
        grid = _grid(config, *sizes, stored.get("opacity_scale", 1.0))
        grid.load_state_dict(stored["state"])
    student = restore_student(state, path, device, config.kernels)
    scale = supersample_in(state) if config.render.supersample == "auto" else config.render.supersample
    settings, far_field = _render_settings(config, stored["step"], scale, student, device), None
    if "far_field" in state:
        with restoring(path, "far_field"):
            far_settings = FarFieldConfig(**state["far_field"]["settings"])
            far_field = FarField(grid.box, far_settings, config.occupancy, config.kernels)
            far_field.restore(state["far_field"])
            far_field.to(device)
    return Model(student, grid.to(device), settings, state.get("compact_bytes"), far_field)


@dataclass(frozen=True)
class RestoredRun:
    """A checkpoint's student; nothing has been written.

    Attributes:
        model: the student with its occupancy, in evaluation mode.
        step: training steps behind it.
        device: where it is.
        folder: the run's, not necessarily there yet.
        checkpoint: the file.
        own: the config in it.
    """

    model: Model
    step: int
    device: torch.device
    folder: RunFolder
    checkpoint: Path
    own: Config


def restore_run(config: Config, root: Path, checkpoint: str | Path | None = None) -> RestoredRun:
    """Restores a checkpoint, the latest of the run under ``root`` by default, whatever student the config names.

    Args:
        checkpoint: a file, or a run's folder: see ``checkpoint_at``.

    Raises:
        InputError: config, assets or checkpoint are not in order.
    """
    check_assets(config)
    device = choose_device(config)
    folder = RunFolder(config, root)
    path = checkpoint_at(Path(checkpoint)) if checkpoint else folder.latest_checkpoint()
    if path is None:
        raise InputError(
            folder.checkpoints, "checkpoint", "none", "a checkpoint to evaluate", "Train first, or use --checkpoint."
        )
    state = load_checkpoint(path, device)
    own = config_from_text(state["config"], path)
    drawn = with_as_many_rays(config, own, supersample_in(state))
    return RestoredRun(_trained(drawn, own, state, path, device), state["step"], device, folder, path, own)


def _trained(config: Config, own: Config, state: dict[str, Any], path: Path, device: torch.device) -> Model:
    """A checkpoint's student in evaluation mode; what of its config ``own`` counts, not the one given, is said."""
    model = restore_model(config, state, path, device)
    model.student.eval()
    note_other_model(config, own, path)
    return model


def restore_alone(
    checkpoint: Path, config_file: str | Path | None, overrides: Sequence[str], assets: str | Path | None
) -> tuple[Config, Model, int]:
    """A checkpoint's student in evaluation mode, with its config and the training steps behind it. No asset is needed.

    Args:
        config_file: instead of the config that the checkpoint carries.
        overrides, assets: as for ``load_config``.

    Raises:
        InputError: the checkpoint or the config is missing, damaged, or does not fit the other.
    """
    state = load_checkpoint(checkpoint, "cpu")
    own = config_from_text(state["config"], checkpoint)
    if config_file is None:
        config = config_from_text(state["config"], checkpoint, overrides, assets)
    else:
        config = load_config(config_file, overrides, assets)
    return config, _trained(config, own, state, checkpoint, choose_device(config)), state["step"]


def _picture_step(render: RenderConfig, supersample: int) -> float:
    """In steps of training, see ``RenderConfig.picture_step``."""
    if render.picture_step != "auto":
        return render.picture_step
    return _CLOSER if supersample == 1 else 1.0


def _grid(config: Config, box: SceneBox, resolution: int, step: float, opacity_scale: float) -> OccupancyGrid:
    return OccupancyGrid(box, resolution, step, config.occupancy.threshold, config.occupancy.decay, opacity_scale)


def _render_settings(
    config: Config, step: float, supersample: int, student: Student, device: torch.device
) -> RenderSettings:
    render = config.render
    settings = RenderSettings(
        step=step,
        max_samples_per_ray=render.max_samples_per_ray,
        termination=render.termination,
        max_batch_samples=render.max_batch_samples,
        near=config.data.nearest(student.longest_side.item()),
        far=config.data.far,
        implementation=config.kernels,
        fused=render.fused,
        precision="float16" if render.precision == "auto" else render.precision,
        supersample=supersample,
        picture_step=_picture_step(render, supersample),
    )
    if render.fused is True:
        try:
            renders_fused(student, settings, device)
        except ValueError as error:
            raise InputError("config", "render.fused", "true", "auto or false", f"T{str(error)[1:]}.") from error
    return settings
