"""What the viewer looks at: a student while it trains or from a file, or Gaussians alone, and its surroundings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distill.model.model import Model, restore_alone
from distill.model.view_renderers import RenderPart, gaussians_renderer
from distill.viewer.pictures import Pictures
from distill.viewer.viewpoints import DatasetCamera, Viewpoint, dataset_cameras, named_cameras, outside, up_of
from machine.devices import choose_device
from machine.run_folder import RunFolder, results_folder
from settings.config import Config
from settings.errors import InputError
from settings.loading import REPO_ROOT
from settings.words import counted
from teacher.gaussians import Gaussians
from teacher.sources import Teacher, source_of

_KEYFRAMES = "keyframes.json"  # beside a run's checkpoints
_log = logging.getLogger(__name__)


@dataclass
class Subject:
    """What is looked at.

    Attributes:
        title: what it is, in a line.
        config: the run's.
        pictures: draws it.
        cameras: the dataset's; there may be none.
        keyframes: the file of its camera path.
    """

    title: str
    config: Config
    pictures: Pictures
    cameras: list[DatasetCamera]
    keyframes: Path

    def start(self) -> Viewpoint:
        """Where one begins: at the first held-out camera, else the first, else outside the scene box."""
        first = next((camera for camera in self.cameras if camera.held_out), self.cameras[0] if self.cameras else None)
        return outside(self.pictures.box, self.up) if first is None else first.viewpoint

    @property
    def up(self) -> np.ndarray:
        """(3,) what is up, a unit direction: see ``up_of``."""
        return up_of(self.cameras, self.config.teacher.orbit.known_up)

    def load_teacher(self) -> None:
        """Draws the teacher too from now on, where the config names Gaussians that can be read; else says why not."""
        if self.pictures.teacher is not None:
            return
        try:
            gaussians = source_of(self.config).gaussians()
            if gaussians is None:
                _log.warning("the student is shown alone: the config names no Gaussians (teacher.ply)")
                return
            self.pictures.teacher = teacher_renderer(self.config, gaussians)
        except InputError as error:
            _log.warning("the student is shown alone, since its teacher cannot be: %s", error)


def teacher_renderer(config: Config, gaussians: Gaussians, *, as_in_views: bool = True) -> RenderPart:
    """Draws a config's Gaussians: beside a student as it has seen them, see ``Source.rasterizer``."""
    source = source_of(config)
    rasterizer = source.rasterizer(gaussians, as_in_views=as_in_views)
    return gaussians_renderer(rasterizer, source.focal() if rasterizer.drawing.fitted_width else None)


def student_subject(
    checkpoint: Path, config_file: Path | None, overrides: list[str], assets: Path | None, root: Path | None
) -> Subject:
    """A checkpoint's or a compact file's student; its teacher comes with ``load_teacher``.

    Args:
        config_file: instead of the config that the checkpoint carries.
        root: where ``results/`` are, for the keyframes; None: beside the run that the checkpoint is of.

    Raises:
        InputError: the checkpoint or the config is missing, damaged, or does not fit the other.
    """
    config, model, step = restore_alone(checkpoint, config_file, overrides, assets)
    device = model.grid.occupied.device
    pictures = Pictures(model, None, model.grid.box, device, config.render.background_rgb)
    title = f"{config.scene}/{config.run}, {checkpoint.name}: {model.student.kind}, step {step}"
    results = results_folder(checkpoint) if root is None else None
    results = results or RunFolder(config, root or REPO_ROOT).results
    return Subject(title, config, pictures, _cameras(config), results / _KEYFRAMES)


def gaussians_subject(config: Config, root: Path | None) -> Subject:
    """The Gaussians of ``teacher.ply`` alone, with the cameras that are found for them.

    Args:
        root: where ``results/`` are, for the keyframes; None: beside the Gaussians' file, named after it.

    Raises:
        InputError: their file is missing or damaged.
    """
    source, device = source_of(config), choose_device(config)
    gaussians = source.gaussians()
    box, _ = source.box(gaussians, None)
    pictures = Pictures(
        None, teacher_renderer(config, gaussians, as_in_views=False), box, device, config.render.background_rgb
    )
    ply = config.teacher.ply
    title = f"{ply.name}: {counted(len(gaussians.means), 'Gaussian')}"
    keyframes = ply.with_name(f"{ply.name.partition('.')[0]}_{_KEYFRAMES}")
    if root is not None:
        keyframes = RunFolder(config, root).results / _KEYFRAMES
    return Subject(title, config, pictures, _cameras(config), keyframes)


def training_subject(
    config: Config, teacher: Teacher, model: Model, folder: RunFolder, device: torch.device
) -> Subject:
    """A student while it trains, with its teacher where that can be drawn from anywhere."""
    pictures = Pictures(model, None, model.grid.box, device, config.render.background_rgb)
    if teacher.gaussians is not None:
        pictures.teacher = teacher_renderer(config, teacher.gaussians)
    title = f"{config.scene}/{config.run}, training: {model.student.kind}"
    cameras = named_cameras(teacher.views.names, teacher.views.cameras, teacher.views.holdout)
    return Subject(title, config, pictures, cameras, folder.results / _KEYFRAMES)


def _cameras(config: Config) -> list[DatasetCamera]:
    try:
        return dataset_cameras(source_of(config))
    except InputError as error:
        _log.warning("there are no cameras to jump to: %s", error)
        return []
