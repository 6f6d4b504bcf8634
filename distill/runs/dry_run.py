"""What a run will do, found out without writing anything: ``--dry-run``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from distill.alignment.before_training import check_before_training, explained_errors
from distill.alignment.comparison import without_depth
from distill.evaluation.evaluator import teacher_psnr
from distill.model.model import Model
from distill.rendering.far_field import FarField
from distill.runs.session import Resumed, check_continues, make_model, make_trainer, state_to_resume
from distill.training.trainer import Progress, Trainer
from kernels.dispatch import implementations_in_words
from kernels.threads import one_torch_thread
from machine.devices import choose_device, device_name
from machine.memory import MIB
from machine.run_folder import RunFolder
from machine.run_identity import RunIdentity, identity_of_state
from machine.telemetry import synchronize
from scene.frames import spread
from settings.config import Config
from settings.errors import InputError
from settings.words import counted
from teacher.sources import Teacher, check_assets, likely_supersample, load_teacher, source_of
from teacher.views.rasterized import VIEW_BYTES

_log = logging.getLogger(__name__)
_FEWEST_STEPS, _MOST_STEPS, _PROBE_SECONDS = 1, 12, 1.0
_LOOKED_AT = 8  # views of those that are drawn when they are asked for


def describe_run(config: Config, root: Path, resume: str | None = None) -> str:
    """The plan as text: frames, rays, parameters, memory, kernels, device, time.

    Trains a throw-away student for a few steps to find the speed.

    Args:
        resume: as for ``train_and_evaluate``: what the run would go on from.

    Raises:
        InputError: the config, its assets or the checkpoint are not in order.
    """
    check_assets(config)
    resumed = _resumed(config, root, resume)
    teacher, model, trainer = _set_up(config, root, resumed)
    device, folder, progress = trainer.device, trainer.folder, replace(trainer.progress)
    with _refusal_as_warning():
        folder.check_creatable()
    lines = [
        ("run", f"{config.scene}/{config.run}" + (f" (tag {config.tag})" if config.tag else "")),
        ("device", f"{device} ({device_name(device)})"),
        ("writes", f"{folder.results} and {folder.logs}"),
        *_resume_lines(resume, resumed, progress),
        *_teacher_lines(config, teacher),
        *_live_lines(config, teacher, model, device),
        *_model_lines(config, teacher, model, trainer),
        *_feature_lines(trainer),
    ]
    probe = _probe(trainer)
    lines += [("kernels", implementations_in_words()), ("time", _duration(config, probe, progress))]
    return plan_text(lines)


def plan_text(lines: Sequence[tuple[str, str]]) -> str:
    """Names and what is to be said of each, in two columns."""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def estimate_seconds(config: Config, root: Path) -> float:
    """Seconds a run will train, by the speed of a throw-away student in a few steps; evaluation comes besides.

    Raises:
        InputError: the config or its assets are not in order.
    """
    check_assets(config)
    _, _, trainer = _set_up(config, root)
    progress = replace(trainer.progress)
    return _training_seconds(config, _probe(trainer).seconds, progress)


@contextmanager
def _refusal_as_warning() -> Iterator[None]:
    """What keeps a run from starting is said, and the plan is made all the same."""
    try:
        yield
    except InputError as error:
        _log.warning("a run will not start: %s", error)


def _resumed(config: Config, root: Path, resume: str | None) -> Resumed | None:
    """What a run would go on from; None: it begins, or is not that of the checkpoint, which a warning says."""
    folder = RunFolder(config, root)
    if (resumed := state_to_resume(folder, resume, choose_device(config))) is None:
        return None
    identity = RunIdentity(config, source_of(config).asset_digests())
    with _refusal_as_warning():
        check_continues(identity, identity_of_state(resumed.state, resumed.checkpoint), resumed.checkpoint, folder)
        return resumed
    return None


def _set_up(config: Config, root: Path, resumed: Resumed | None = None) -> tuple[Teacher, Model, Trainer]:
    """All that a run has before its first step. What contradicts itself is a warning here: the plan is for whoever
    wants to see what was read.
    """
    device = choose_device(config)
    try:
        with explained_errors(config):
            teacher = load_teacher(config, finer=likely_supersample(config))
    except InputError as error:
        if not isinstance(error.__cause__, InputError):  # no contradiction behind it
            raise
        _log.warning("a run will not start: %s", error)
        config = without_depth(config)
        teacher = load_teacher(config)
        model = make_model(config, teacher, resumed, device)
    else:
        model = make_model(config, teacher, resumed, device)
        with _refusal_as_warning():
            check_before_training(config, teacher, model)
    trainer = make_trainer(config, teacher, model, resumed, RunFolder(config, root), device)
    with _refusal_as_warning():
        trainer.check()
    return teacher, model, trainer


class _Probe(NamedTuple):
    """Seconds a step takes: the mean of some steps."""

    seconds: float
    steps: int


def _probe(trainer: Trainer) -> _Probe:
    """Takes steps at the sample budget, fewer where they are slow; the trainer's student is not to be used further."""
    train, step, model = trainer.config.train, trainer.step, trainer.model
    with one_torch_thread(), trainer.sampler:
        model.grid.refresh(model.student, step.generator)
        first = trainer.take_step()  # compiles what is not in numba's cache yet, and tells how many samples a ray has
        samples = max(1, int(first.rendered.samples))
        rays = len(first.batch.rays) * train.samples_per_step // samples
        step.rays_per_step = min(train.rays_per_step, max(64, rays))
        start, taken, spent = time.perf_counter(), 0, 0.0
        while taken < _FEWEST_STEPS or (taken < _MOST_STEPS and spent < _PROBE_SECONDS):
            trainer.take_step()
            synchronize(trainer.device)
            taken, spent = taken + 1, time.perf_counter() - start
    return _Probe(spent / taken, taken)


def _training_seconds(config: Config, seconds_per_step: float, progress: Progress) -> float:
    """Of the whole run, what is behind it included."""
    by_steps = _seconds_by_steps(config, seconds_per_step, progress)
    return max(progress.seconds, min(by_steps, config.train.max_seconds or by_steps))


def _seconds_by_steps(config: Config, seconds_per_step: float, progress: Progress) -> float:
    return progress.seconds + max(0, config.train.max_steps - progress.step) * seconds_per_step


def _resume_lines(resume: str | None, resumed: Resumed | None, progress: Progress) -> list[tuple[str, str]]:
    if resume is None:
        return []
    if resumed is None:
        return [("resume", "from nothing: this is the plan of a run that begins anew")]
    return [("resume", f"from {resumed.checkpoint}, at step {progress.step:,}, {progress.seconds:.0f} s into the run")]


def _teacher_lines(config: Config, teacher: Teacher) -> list[tuple[str, str]]:
    views = teacher.views
    held, size = int(views.holdout.sum()), f"{views.cameras.width}x{views.cameras.height}"
    frames = "to measure on" if config.live else f"{len(views) - held} to train on"
    kind = config.teacher.kind
    if teacher.gaussians is not None:
        kind += f", {counted(len(teacher.gaussians), 'Gaussian')}"
    if teacher.drawing is not None:
        width = teacher.training_cameras.width
        fitted = teacher.drawing.fitted_width
        kind += f", drawn {width * teacher.drawing.multiple(width)} pixels wide"
        kind += "" if fitted is None else f" (fitted at {fitted})"
    depth = "none"
    if views.distance is not None:
        looked_at = slice(None) if views.store is None else spread(range(len(views)), _LOOKED_AT)
        depth = f"known in {(views.distance[looked_at] > 0).float().mean():.0%} of pixels"
        if views.depth_kind is not None:
            depth += f", stored as {views.depth_kind.value}"
    return [
        ("teacher", kind),
        ("frames", f"{len(views)} at {size}: {frames}, {held} held out"),
        ("alpha", "none" if views.alpha is None else "yes"),
        ("depth", depth),
        ("ground truth", _ground_truth(config, teacher)),
        (
            "box",
            " to ".join(
                str([round(value, 3) for value in corner]) for corner in (teacher.box.lower, teacher.box.upper)
            ),
        ),
    ]


def _ground_truth(config: Config, teacher: Teacher) -> str:
    if teacher.views.ground_truth is None:
        return "none"
    own = teacher_psnr(teacher.views, config)
    return "yes" + ("" if own is None else f"; the teacher's own views have {own:.2f} dB against it")


def _live_lines(config: Config, teacher: Teacher, model: Model, device: torch.device) -> list[tuple[str, str]]:
    lines, live = [], teacher.live
    if live:
        poses = teacher.training_cameras
        where = "in a thread" if device.type == "cpu" else "in line with training"
        near = "of the" if live.own_share == 1 else "near"
        text = f"new views at {poses.width}x{poses.height} {near} {len(poses)} training poses, rendered {where}: "
        text += f"{live.buffer} are kept; a new one replaces the oldest after {live.reuse:g} x a view's pixels in rays"
        lines.append(("live", text))
    if teacher.images is not None:
        images, share = teacher.images, 1 - 1 / (1 + config.data.ground_truth.weight)
        count, size = int((~images.holdout).sum()), f"{images.cameras.width}x{images.cameras.height}"
        text = f"{count} of {source_of(config).image_poses().name} at {size} give {share:.0%} of the rays"
        # A live teacher's views, which are measured on alone, are not there in finer pictures too.
        has_depth = images.distance is not None and not (live and model.settings.supersample > 1)
        lines.append(("images", f"{text}, with depth" if has_depth else text))
    return lines


def _model_lines(config: Config, teacher: Teacher, model: Model, trainer: Trainer) -> list[tuple[str, str]]:
    grid, train, pixels = model.grid, config.train, trainer.sampler.pixels
    parameters, far = model.student.parameter_count(), model.far_field
    cells = "x".join(map(str, grid.shape))
    step, pictures = model.settings.step, f"every {model.settings.of_pictures().step:.3g} in pictures"
    return [
        ("pixels", _pixels(model.settings.supersample, teacher)),
        ("rays", f"{pixels:,} to train on, at most {train.rays_per_step:,} a step"),
        ("student", f"{model.student.kind}, {parameters:,} parameters, {_mib(4 * parameters)} as float32"),
        *_far_lines(far),
        *_compact_lines(config),
        ("occupancy", f"{cells} cells of {grid.cell_size:.4f} world units, {grid.occupied_fraction:.1%} occupied"),
        ("samples", f"every {step:.3g} world units, about {train.samples_per_step:,} a step; {pictures}"),
        ("precision", _precision(trainer)),
        ("memory", _memory(config, teacher, trainer)),
    ]


def _pixels(scale: int, teacher: Teacher) -> str:
    if scale == 1:
        return "one ray each"
    width, height = teacher.views.cameras.width * scale, teacher.views.cameras.height * scale
    return f"the mean of {scale} x {scale} rays each; training rays are of pictures of {width}x{height}"


def _far_lines(far: FarField | None) -> list[tuple[str, str]]:
    if far is None:
        return []
    parameters, space = far.parameter_count(), f"{far.grid.occupied_fraction:.1%} of contracted space occupied"
    return [("far field", f"{parameters:,} parameters, {space}, up to {far.edges[-1]:.4g} world units behind the box")]


def _compact_lines(config: Config) -> list[tuple[str, str]]:
    compact = config.compact
    if compact.target_mib is None:
        return []
    return [("compact file", f"{compact.target_mib:g} MiB at most, made in the last {compact.share:.0%} of the run")]


def _feature_lines(trainer: Trainer) -> list[tuple[str, str]]:
    if trainer.features is None:
        return []
    volume, seconds = trainer.features.volume, trainer.progress.seconds_before
    text = (
        f"{', '.join(trainer.config.loss.internal_terms)} from {len(volume.table) - 1:,} cells, {_mib(volume.nbytes)}"
    )
    return [("features", f"{text}, made in {seconds:.1f} s, which count as training time")]


def _precision(trainer: Trainer) -> str:
    name = str(trainer.step.precision).removeprefix("torch.")
    if not trainer.step.asynchronous:
        return name
    return f"{name}; steps do not wait for the device, with room for {trainer.step.capacity:,} samples each"


def _memory(config: Config, teacher: Teacher, trainer: Trainer) -> str:
    student = trainer.model.student
    sets = [views for views in (teacher.views, teacher.images) if views is not None]
    stores, whole = [views.store for views in sets if views.store], [views for views in sets if not views.store]
    pictures = [
        getattr(views, name) for views in whole for name in ("rgb", "alpha", "coverage", "distance", "ground_truth")
    ]
    # Parameters, gradients and Adam's two moments; then a sample's place, encoding, its gradient, and outputs.
    training = 4 * 4 * trainer.model.parameter_count()
    encoded = 2 * trainer.step.precision.itemsize * student.encoding_width()
    samples = (trainer.step.capacity or config.train.samples_per_step) * (encoded + 4 * 24)
    # Coverage may be the very alpha, and ground truth may be made of the others.
    views_bytes = sum({id(picture): picture.nbytes for picture in pictures if isinstance(picture, Tensor)}.values())
    views_bytes += sum(store.nbytes for store in stores)
    if teacher.live:
        cameras = teacher.training_cameras
        pixels = cameras.width * cameras.height * trainer.model.settings.supersample**2
        views_bytes += teacher.live.buffer * pixels * VIEW_BYTES
    on_device = f"for drawing rays {_mib(trainer.sampler.nbytes)}, training state {_mib(training)}"
    return f"views {_mib(views_bytes)}; on {trainer.device}: {on_device}, a step's samples {_mib(samples)}"


def _mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB"


def _duration(config: Config, probe: _Probe, progress: Progress) -> str:
    train = config.train
    by_steps = _seconds_by_steps(config, probe.seconds, progress)
    seconds = _training_seconds(config, probe.seconds, progress) - (progress.seconds if progress.step else 0.0)
    if progress.step and seconds <= 0:
        return f"nothing is left to train: the run is over at step {progress.step:,}, and is only evaluated"
    left = f" are left, at most {counted(train.max_steps - progress.step, 'step')}" if progress.step else ""
    limit = f", stopped at {train.max_seconds:.0f} s" if train.max_seconds and train.max_seconds < by_steps else ""
    return (
        f"about {seconds:.0f} s of training{left}{limit} "
        f"({probe.seconds * 1e3:.0f} ms a step in a probe of {probe.steps}), evaluation besides"
    )
