"""Fitting a teacher from start to end: pictures, Gaussians, the PLY, and how good it is on frames it has not seen."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from distill.evaluation.evaluator import check_measurable, evaluate
from distill.evaluation.results import EvaluationResult
from distill.rendering.renderer import RenderedFrame
from distill.runs.dry_run import plan_text
from distill.runs.session import check_continues
from machine.devices import device_name
from machine.memory import MIB
from machine.run_folder import FIT_STATE, RunFolder
from machine.run_identity import RunIdentity, identity_of_state, identity_state
from machine.weights_files import read_weights, restoring, write_weights
from scene.frames import refuse_only_holdout, spread
from scene.rays import distance_per_z
from settings.config import Config
from settings.errors import InputError
from settings.sections import Color
from settings.words import counted
from teacher.fitting.backends import fitting_device
from teacher.fitting.fit import TeacherFit, scene_extent
from teacher.fitting.initialization import hull_gaussians, points_gaussians
from teacher.fitting.picture_levels import Pictures
from teacher.gaussian_files.ply import write_ply
from teacher.gaussians import Gaussians
from teacher.near_plane import near_plane_advice
from teacher.rasterizer import Drawing, Rasterizer, raster_implementation
from teacher.sources import Teacher, check_assets, load_teacher, source_of
from teacher.views.teacher_views import TeacherViews

FORMAT = 1
_AVERAGED = 32  # photographs
_FEW_ROUNDS = 10  # of cloning and splitting: with fewer a teacher is poor
_log = logging.getLogger(__name__)


class _Begun(NamedTuple):
    """A fit before its next step; nothing has been written.

    Attributes:
        config: the run's, with the background that was found for it.
        state_file: what is gone on from and written.
        is_resumed: whether it was there to go on from.
        implementation: of the rasteriser that the fit is measured by.
    """

    config: Config
    teacher: Teacher
    fit: TeacherFit
    identity: RunIdentity
    device: torch.device
    implementation: str
    state_file: Path
    is_resumed: bool


def fit_teacher(config: Config, root: Path, resume: bool) -> int:
    """Fits 3D Gaussians to the training frames of the config's views, writes them, measures them on the others.

    Returns the exit status.

    Writes ``results/<scene>/<run>/point_cloud/iteration_<step>/point_cloud.ply`` beside what any run writes.

    Args:
        root: where ``results/`` and ``logs/`` are.
        resume: go on from the run's last state; a fresh start if there is none.

    Raises:
        InputError: config, assets or checkpoint are not in order, the checkpoint is another fit's, or another process
            writes to the run folder; nothing has been written then.
        TrainingDiverged: the loss was not finite.
    """
    check_assets(config)
    folder = RunFolder(config, root)
    with folder.held():
        return _fit_teacher(config, folder, resume)


def describe_fit(config: Config, root: Path, resume: bool) -> str:
    """The plan of ``fit_teacher`` as text; nothing is written.

    Raises:
        InputError: as ``fit_teacher``.
    """
    check_assets(config)
    folder = RunFolder(config, root)
    folder.check_creatable()
    begun = _begin(config, folder, resume)
    fit, settings, held = begun.fit, config.fitting, int(begun.teacher.views.holdout.sum())
    cameras = fit.pictures.cameras(fit.pictures.levels - 1)
    lines = [
        ("run", f"{config.scene}/{config.run}"),
        ("device", f"{begun.device} ({device_name(begun.device)})"),
        ("writes", f"{folder.results} and {folder.logs}"),
        ("frames", f"{len(fit.pictures)} to fit at {cameras.width}x{cameras.height}, {held} held out"),
        ("Gaussians", f"{len(fit.model):,} to start with, {settings.max_gaussians:,} at most"),
    ]
    if resume:
        step = f"{begun.state_file}, at step {fit.progress.step:,}" if begun.is_resumed else "nothing: it begins anew"
        lines.append(("resume", f"from {step}"))
    limit = "" if settings.max_seconds is None else f" and {settings.max_seconds:g} s"
    return plan_text([*lines, ("time", f"at most {settings.max_steps:,} steps{limit}, evaluation besides")])


def _fit_teacher(config: Config, folder: RunFolder, resume: bool) -> int:
    begun = _begin(config, folder, resume)
    config, teacher, fit, path = begun.config, begun.teacher, begun.fit, begun.state_file
    folder.config = config  # --model takes the background from there
    folder.prepare(begun.device, begun.identity, path if begun.is_resumed else None)
    _announce(config, fit)
    if fit.fraction_done() >= 1:
        _log.info("nothing is left to fit: the fit is over at step %d", fit.progress.step)
    else:
        state_of = {"format": FORMAT, **identity_state(begun.identity)}
        fit.run(folder, lambda fit: write_weights(path, {**state_of, "fit": fit.state()}))
    if fit.stopped_by is not None:
        _log.warning("stopped at step %d; go on with --resume", fit.progress.step)
        return 128 + fit.stopped_by
    gaussians, step = fit.model.snapshot(), fit.progress.step
    ply = folder.results / "point_cloud" / f"iteration_{step}" / "point_cloud.ply"
    ply.parent.mkdir(parents=True, exist_ok=True)
    write_ply(ply, gaussians, teacher.views.cameras.width)
    result = _evaluate(begun, gaussians, step, folder)
    print(result.summary_text())
    if remark := _remark(fit, result):
        _log.warning("%s", remark)
    print(f"teacher  {ply}: {counted(len(gaussians), 'Gaussian')}, {ply.stat().st_size / MIB:.1f} MiB")
    print(f"figures  {folder.eval_csv(step)}\npictures {folder.eval}")
    print(f"distil   python lego_response_distill.py --model {shlex.quote(str(folder.results))}{folder.root_option()}")
    return result.status


def _begin(config: Config, folder: RunFolder, resume: bool) -> _Begun:
    """Reads the pictures and places the first Gaussians, or takes up those of the last state."""
    path = folder.checkpoints / FIT_STATE
    assets = source_of(config).asset_digests()
    teacher = load_teacher(config)
    if not teacher.views.silhouettes and "background" not in config.teacher.model_fields_set:
        teacher.views = _on_mean_colour(teacher.views)
        update = {"background": teacher.views.background}
        config = config.model_copy(update={"teacher": config.teacher.model_copy(update=update)})
    identity, state = RunIdentity(config, assets, fits_teacher=True), None
    if resume and path.exists():
        state = _load_state(path, identity, folder)
    elif resume:
        _log.warning("there is no %s to resume from: starting from the beginning", path)
    check_measurable(teacher.views, config.eval)
    device = fitting_device(config)
    # What cannot run is refused before the fit.
    implementation = raster_implementation(config.teacher.rasterizer, device)
    fit = _start(config, teacher, device)
    if state is not None:
        with restoring(path, "fit"):
            fit.load_state(state["fit"])
        _log.info("resuming from %s at step %d", path, fit.progress.step)
    return _Begun(config, teacher, fit, identity, device, implementation, path, state is not None)


def _remark(fit: TeacherFit, result: EvaluationResult) -> str:
    """What is to be said of a fit that did hardly anything, with what to do; empty: it did something."""
    settings, progress = fit.settings, fit.progress
    if not progress.rounds and settings.grow_until > 0:
        steps = (settings.grow_from + _FEW_ROUNDS * settings.grow_every) / settings.grow_until
        by_time = progress.step < settings.max_steps
        pace = progress.seconds / max(1, progress.step)
        more = f"fitting.max_seconds={_rounded_up(steps * pace)}" if by_time else f"fitting.max_steps={ceil(steps)}"
        return (
            f"the fit took {counted(progress.step, 'step')} in {progress.seconds:.3g} s and neither cloned nor split a "
            f"Gaussian, which begins at step {settings.grow_from} and ends after {settings.grow_until:.0%} of the fit: "
            f"the teacher is hardly more than what it started from. Go on with --resume --set {more}, or more"
        )
    if result.collapsed:
        return (
            "the fit shows no more than a blank picture: do the pictures belong to the cameras (order of the frames, "
            "axes, camera-to-world), and is what they look at in data.box? See docs/diagnosis.md"
        )
    return ""


def _rounded_up(value: float) -> int:
    """To one digit and zeros."""
    unit = 10 ** max(0, len(str(int(value))) - 1)
    return ceil(value / unit) * unit


def _on_mean_colour(views: TeacherViews) -> TeacherViews:
    """On the mean colour of the photographs that are fitted to: what is seen through a hole that none of them shows."""
    total, count = torch.zeros(3, dtype=torch.float64), 0
    for index in spread(views.training_frames.tolist(), _AVERAGED):
        pixels = views.rgb[index].flatten(0, 1)
        pixels = pixels if views.counted is None else pixels[views.counted[index].flatten()]
        total, count = total + pixels.double().sum(0) / 255, count + len(pixels)
    background = tuple(round(value, 3) for value in (total / max(1, count)).tolist())
    _log.info(
        "the photographs' mean colour, %s, is put behind the Gaussians (teacher.background sets another)", background
    )
    return replace(views, background=background)


def _start(config: Config, teacher: Teacher, device: torch.device) -> TeacherFit:
    settings, views = config.fitting, teacher.views
    refuse_only_holdout(len(views.training_frames), len(views))
    pictures = Pictures(views, settings.coarse_levels)
    generator = torch.Generator().manual_seed(config.seed)
    extent, drawing = scene_extent(pictures.cameras(0), teacher.box), _drawing(config)
    points = None if views.silhouettes else source_of(config).sparse_points()
    if points is not None:
        start = points_gaussians(points, settings.max_gaussians, generator)
        _log.info("the fit starts at %s sparse points of the dataset", f"{len(start):,}")
    else:
        start = hull_gaussians(views, teacher.box, pictures, settings.initial_gaussians, generator, drawing.near)
        if not views.silhouettes:
            _log.info("the dataset has no sparse points: the fit starts at random places in what the cameras look at")
    if advice := near_plane_advice(start, pictures.cameras(0), drawing.near):
        _log.warning("%s", advice)
    return TeacherFit(settings, pictures, start, extent, config.render.background_rgb, config.seed, device, drawing)


def _drawing(config: Config) -> Drawing:
    """At the pictures' size; ``teacher.scale`` is of other Gaussians."""
    near = config.teacher.near
    return Drawing() if near is None else Drawing(near=near)


def _evaluate(begun: _Begun, gaussians: Gaussians, step: int, folder: RunFolder) -> EvaluationResult:
    config, views, device = begun.config, begun.teacher.views, begun.device
    rasterizer = Rasterizer(gaussians, begun.implementation, device=device, drawing=_drawing(config))
    cameras = views.cameras

    def render(index: int, background: Color) -> RenderedFrame:
        output = rasterizer.render(cameras, index)
        rgb = output.rgb + (1 - output.alpha)[..., None] * output.rgb.new_tensor(background)
        distance = output.z * distance_per_z(cameras, index).to(output.z) / output.alpha.clamp(min=1e-4)
        return RenderedFrame(rgb.clamp(0, 1), output.alpha, distance)

    return evaluate(render, views, config, step, folder, device, subject="fitted")


def _load_state(path: Path, identity: RunIdentity, folder: RunFolder) -> dict[str, Any]:
    """The state of a fit, which is that of ``identity``."""
    state = read_weights(path, "checkpoint", "a fit's state")
    if state.get("format") != FORMAT or "fit" not in state:
        raise InputError(path, "checkpoint", "another file", "a fit's state", "Start anew without --resume.")
    if "config" in state:
        stored = identity_of_state(state, path, fits_teacher=True)
    else:  # of an earlier version: the settings of the fit, and what else could not change
        kept = {**state["settings"]}
        data = identity.config.data.model_copy(update={"resolution": kept.pop("resolution")})
        update = {"seed": kept.pop("seed"), "data": data, "fitting": identity.config.fitting.model_copy(update=kept)}
        stored = RunIdentity(identity.config.model_copy(update=update), fits_teacher=True)
    check_continues(identity, stored, path, folder)
    return state


def _announce(config: Config, fit: TeacherFit) -> None:
    cameras = fit.pictures.cameras(fit.pictures.levels - 1)
    _log.info(
        "%s/%s: %s of %dx%d, %s to start with, %s at most",
        config.scene,
        config.run,
        counted(len(fit.pictures), "picture"),
        cameras.width,
        cameras.height,
        counted(len(fit.model), "Gaussian"),
        f"{config.fitting.max_gaussians:,}",
    )
