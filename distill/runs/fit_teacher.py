"""Fitting a teacher from start to end: pictures, Gaussians, the PLY, and how good it is on frames it has not seen."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from distill.evaluation.evaluator import EvaluationResult, check_measurable, evaluate
from distill.rendering.renderer import RenderedFrame
from machine.devices import choose_device
from machine.files import atomic_path
from machine.run_folder import RunFolder
from scene.rays import distance_per_z
from settings.config import Config
from settings.errors import ExitCode, InputError
from settings.loading import REPO_ROOT
from teacher.fitting.fit import TeacherFit, scene_extent
from teacher.fitting.initialization import hull_gaussians
from teacher.fitting.picture_levels import Pictures
from teacher.gaussian_files.ply import write_ply
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer
from teacher.sources import Teacher, check_assets, load_teacher

FORMAT = 1
_log = logging.getLogger(__name__)


def fit_teacher(config: Config, root: Path = REPO_ROOT, resume: bool = False) -> ExitCode:
    """Fits 3D Gaussians to the training frames of the config's views, writes them, measures them on the others.

    Writes ``results/<scene>/<run>/point_cloud/iteration_<step>/point_cloud.ply`` beside what any run writes.

    Args:
        root: where ``results/`` and ``logs/`` are.
        resume: go on from the run's last state; a fresh start if there is none.

    Raises:
        InputError: config, assets or checkpoint are not in order; nothing has been written then.
        TrainingDiverged: the loss was not finite.
    """
    check_assets(config)
    folder = RunFolder(config, root)
    path = folder.checkpoints / "fit_latest.pth"
    state = _load_state(path, config) if resume and path.exists() else None
    teacher = load_teacher(config)
    check_measurable(teacher.views, config.eval)
    device = choose_device(config)
    fit = _start(config, teacher, device)
    if state is not None:
        fit.load_state(state["fit"])
        _log.info("resuming from %s at step %d", path, fit.progress.step)
    folder.prepare(device)
    _announce(config, fit)

    def save(fit: TeacherFit) -> None:
        with atomic_path(path) as temporary:
            torch.save({"format": FORMAT, "settings": _identity(config), "fit": fit.state()}, temporary)

    fit.run(folder, save)
    if fit.interrupted:
        _log.warning("stopped at step %d; go on with --resume", fit.progress.step)
        return ExitCode.INTERRUPTED
    gaussians, step = fit.model.snapshot(), fit.progress.step
    ply = folder.results / "point_cloud" / f"iteration_{step}" / "point_cloud.ply"
    ply.parent.mkdir(parents=True, exist_ok=True)
    write_ply(ply, gaussians, teacher.views.cameras.width)
    result = _evaluate(config, teacher, gaussians, step, folder, device)
    print(result.summary_text())
    print(f"teacher  {ply}: {len(gaussians):,} Gaussians, {ply.stat().st_size / 2**20:.1f} MiB")
    print(f"figures  {folder.eval_csv(step)}\npictures {folder.eval}")
    return result.status


def _start(config: Config, teacher: Teacher, device: torch.device) -> TeacherFit:
    settings, views = config.fitting, teacher.views
    if views.holdout.all():
        found = f"all {len(views)} frames held out"
        raise InputError("config", "data.holdout_every", found, "at least one frame to fit", "Use more frames.")
    pictures = Pictures(views, settings.coarse_levels)
    generator = torch.Generator().manual_seed(config.seed)
    start = hull_gaussians(views, teacher.box, pictures, settings.initial_gaussians, generator)
    extent = scene_extent(pictures.cameras(0), teacher.box)
    return TeacherFit(settings, pictures, start, extent, config.render.background_rgb, config.seed, device)


def _evaluate(
    config: Config, teacher: Teacher, gaussians: Gaussians, step: int, folder: RunFolder, device: torch.device
) -> EvaluationResult:
    rasterizer, cameras = Rasterizer(gaussians, device=device), teacher.views.cameras

    def render(index: int, background: tuple[float, float, float]) -> RenderedFrame:
        output = rasterizer.render(cameras, index)
        rgb = output.rgb + (1 - output.alpha)[..., None] * output.rgb.new_tensor(background)
        distance = output.z * distance_per_z(cameras, index).to(output.z) / output.alpha.clamp(min=1e-4)
        return RenderedFrame(rgb.clamp(0, 1), output.alpha, distance)

    return evaluate(render, teacher.views, config, step, folder, device, subject="fitted")


def _identity(config: Config) -> dict[str, Any]:
    """What a resumed fit may not change: all but how long it lasts and what it logs."""
    free = {"max_steps", "max_seconds", "log_every", "checkpoint_every"}
    return {"seed": config.seed, "resolution": config.data.resolution, **config.fitting.model_dump(exclude=free)}


def _load_state(path: Path, config: Config) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, by where the damage is
        found = f"a file that cannot be read ({str(error).splitlines()[0][:120]})"
        raise InputError(path, "checkpoint", found, "a fit's state", "Start anew without --resume.") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or "fit" not in state:
        raise InputError(path, "checkpoint", "another file", "a fit's state", "Start anew without --resume.")
    for key, value in _identity(config).items():
        if state["settings"].get(key) != value:
            raise InputError(
                path,
                f"fitting.{key}",
                state["settings"].get(key),
                f"{value}, as the config says",
                "Resume with the config it was started with, or start anew without --resume.",
            )
    return state


def _announce(config: Config, fit: TeacherFit) -> None:
    cameras = fit.pictures.cameras(fit.pictures.levels - 1)
    _log.info(
        "%s/%s: %d pictures of %dx%d, %s Gaussians to start with, %s at most",
        config.scene,
        config.run,
        len(fit.pictures),
        cameras.width,
        cameras.height,
        f"{len(fit.model):,}",
        f"{config.fitting.max_gaussians:,}",
    )
