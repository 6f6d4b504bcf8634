"""Students and Gaussians for scripts: loaded by a line each, rendered by the same call. docs/library.md shows how.

Arguments are called as the options of the command lines are, and mean the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from distill.library.arguments import kind_of, overrides_given, path_of, view_of
from distill.model.model import Model, restore_alone
from distill.model.view_renderers import Rendering, RenderView, gaussians_renderer, student_renderer
from distill.runs.command_line import overrides_of
from distill.runs.given_scene import given_scene
from machine.run_folder import checkpoint_at
from scene.cameras import Cameras
from scene.formats import load_frames
from scene.formats.run_cameras import run_cameras
from scene.frames import frame_slice
from settings.config import Config
from settings.data import DataConfig
from settings.errors import InputError
from settings.loading import load_config
from teacher.gaussian_files import FORMATS
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer
from teacher.sources import source_of


class LoadedStudent:
    """A trained student.

    Attributes:
        model: the student with its occupancy, in evaluation mode.
        config: of its run, with what was changed.
        step: training steps behind it.
        checkpoint: the file it is from.
        device: where it is.
    """

    def __init__(self, model: Model, config: Config, step: int, checkpoint: Path, device: torch.device) -> None:
        self.model, self.config, self.step, self.checkpoint, self.device = model, config, step, checkpoint, device

    def render(self, cameras: Cameras, index: int = 0) -> Rendering:
        """One of some cameras at their size: premultiplied rgb, alpha and distance, on the CPU.

        Raises:
            InputError: there is no camera of that number, or it is none that could be.
        """
        return self._render(cameras, view_of(cameras, index))

    @cached_property
    def _render(self) -> RenderView:
        return student_renderer(self.model, self.device)


class LoadedSplat:
    """3D Gaussians, drawn by the CPU's own rasteriser, which needs no compiler, or on CUDA by gsplat.

    Attributes:
        gaussians: as they were read.
        rasterizer: of them.
    """

    def __init__(self, gaussians: Gaussians, rasterizer: Rasterizer) -> None:
        self.gaussians, self.rasterizer = gaussians, rasterizer
        self._render = gaussians_renderer(rasterizer)

    def render(self, cameras: Cameras, index: int = 0) -> Rendering:
        """As ``LoadedStudent.render``."""
        return self._render(cameras, view_of(cameras, index))


def load_student(
    checkpoint: str | Path,
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    assets: str | Path | None = None,
    device: str | None = None,
) -> LoadedStudent:
    """A student to render. Of its config only rendering, device and kernels matter; no asset has to be there.

    Args:
        checkpoint: a ``.pth``, a compact ``.lrd``, a ``.safetensors``, or a run's folder, whose newest is taken.
        config: a YAML to take instead of the checkpoint's own.
        overrides: as after ``--set``: ``["render.picture_step=0.5"]``; of what training has settled none has an effect,
            which the log says.
        assets: root of relative asset paths.
        device: auto, cpu, cuda or cuda:N; None: as the config says.

    Raises:
        InputError: one of these is not in order, or the file is damaged.
    """
    path = checkpoint_at(path_of(checkpoint, "checkpoint"))
    overrides = [*overrides_given(overrides), *overrides_of({"device": ("device", device)})]
    chosen, model, step = restore_alone(path, config, overrides, assets)
    return LoadedStudent(model, chosen, step, path, model.grid.occupied.device)


def load_splat(splat: str | Path, *, overrides: Sequence[str] = (), device: str | None = None) -> LoadedSplat:
    """Gaussians to draw, from ``.ply``, ``.npz``, ``.spz``, ``.splat`` or SOG.

    Where the file or graphdeco's files beside it say at which width they were fitted, thin ones keep their look at
    other widths too, see ``Drawing``.

    Args:
        overrides: as after ``--set``: ``["teacher.rasterizer=cpu"]``.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InputError: the file is missing, damaged or something else.
    """
    config = splat_config(splat, overrides, device)
    source = source_of(config)
    source.check()
    gaussians = source.gaussians()
    return LoadedSplat(gaussians, source.rasterizer(gaussians))


def splat_config(splat: str | Path, overrides: Sequence[str] = (), device: str | None = None) -> Config:
    """The config that ``--splat FILE`` stands for.

    Raises:
        InputError: as ``load_config``.
    """
    splat = path_of(splat, "splat")
    if not splat.exists():
        raise InputError(splat, "file", "nothing", f"3D Gaussians ({', '.join(f'.{name}' for name in FORMATS)})")
    config, layers = given_scene(argparse.Namespace(config=None, splat=splat))
    overrides = [*overrides_given(overrides), *overrides_of({"device": ("device", device)})]
    return load_config(config, overrides, layers=layers)


def load_cameras(
    cameras: str | Path, *, resolution: int | None = None, frames: str | None = None, data: DataConfig | None = None
) -> Cameras:
    """The cameras of a dataset: a transforms JSON, a COLMAP model, or the folder of a trained model or run.

    Args:
        resolution: width in pixels, height follows; None: the dataset's own. Where neither the dataset nor a picture
            says a size, they are squares of it.
        frames: ``"START:STOP:STEP"``, as a Python slice.
        data: how they are read, and into which world they are moved: ``student.config.data`` for the one that a student
            was trained in. None: they stay where the file has them; a run's are as its config says.

    Raises:
        InputError: missing, damaged, of no known size, or where float32 is too coarse.
    """
    cameras = path_of(cameras, "cameras")
    kind_of(resolution, "resolution", int, "a whole number, the width in pixels")
    kind_of(frames, "frames", str, 'a text, "START:STOP:STEP"')
    kind_of(data, "data", DataConfig, "a DataConfig, as student.config.data")
    if (given := run_cameras(cameras)) is not None:
        cameras, data = given.transforms, data or given
    if resolution is not None and resolution < 1:
        raise InputError("resolution", "width", resolution, "at least 1 pixel")
    size = None if resolution is None else (resolution, resolution)
    found = load_frames(cameras, data=data, image_size=size).cameras
    chosen = found[frame_slice(frames, len(found), "frames", "frames")]
    if resolution is None:
        return chosen
    return chosen.resized(resolution, max(1, round(found.height * resolution / found.width)))
