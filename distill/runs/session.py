"""One run from start to end: teacher, training, evaluation."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import torch

from distill.evaluation.evaluator import check_measurable, teacher_psnr
from distill.evaluation.lpips_weights import backbone_weights
from distill.evaluation.student_evaluation import AS_CONFIGURED, EvaluationOptions, evaluate_student
from distill.losses.supervision import FeatureSupervision, supervise
from distill.model.checkpoint import load_checkpoint
from distill.model.model import Model, build_model, restore_model, restore_run
from distill.reports.run.run_report import publish
from distill.reports.tensorboard import check_tensorboard
from distill.training.live_sampler import LiveRaySampler
from distill.training.on_device import training_precision
from distill.training.ray_sampler import MixedRaySampler, RaySampler, RaySource
from distill.training.trainer import Trainer
from kernels.dispatch import chosen_implementations
from machine.devices import choose_device, device_name
from machine.run_folder import RunFolder
from settings.config import Config
from settings.errors import ExitCode, InputError
from settings.loading import REPO_ROOT
from teacher.sources import Teacher, check_assets, load_teacher, source_of
from teacher.sources.producers import make_producer

_log = logging.getLogger(__name__)


def make_sampler(config: Config, teacher: Teacher, model: Model, device: torch.device) -> RaySource:
    """Training rays of the teacher's views, fixed or live, and of the dataset's images where they are wanted."""
    render = config.render
    common = (teacher.box, model.settings, render.background_rgb, render.random_background, device)
    if teacher.poses is None:
        sampler = RaySampler(teacher.views, *common)
    else:
        producer = make_producer(config, teacher, device)
        sampler = LiveRaySampler(producer, teacher.poses.cameras[0], config.live, *common)
    if teacher.images is None:
        return sampler
    return MixedRaySampler(sampler, RaySampler(teacher.images, *common), config.data.ground_truth.weight)


def train_and_evaluate(config: Config, root: Path = REPO_ROOT, resume: str | None = None) -> ExitCode:
    """Trains from the start, or goes on from a checkpoint, then evaluates.

    Args:
        root: where ``results/`` and ``logs/`` are.
        resume: path of a checkpoint, "auto" for the run's latest (a fresh start if there is none), or None.

    Raises:
        InputError: config, assets or checkpoint are not in order; nothing has been written then.
        TrainingDiverged: a loss term was not finite.
    """
    check_assets(config)
    check_tensorboard(config)
    device = choose_device(config)
    training_precision(config, device)
    folder = RunFolder(config, root)
    checkpoint = _checkpoint_to_resume(folder, resume)
    state = None if checkpoint is None else load_checkpoint(checkpoint, device)
    teacher = load_teacher(config)
    check_measurable(teacher.views, config.eval)
    if state is None:
        model = build_model(config, teacher, device)
    else:
        _check_same_student(config, state, checkpoint)
        model = restore_model(config, state, checkpoint, device)
    start = time.perf_counter()
    features = supervise(config, teacher, model.student, device)
    spent = time.perf_counter() - start if features else 0.0
    if state is not None and features is not None:
        features.restore(state.get("features") or {}, checkpoint)
    folder.prepare(device)
    _announce(config, teacher, model, device)
    if features:
        _log.info("the teacher's features took %.1f s, which count as training time", spent)
    trainer = make_trainer(config, teacher, model, folder, device, spent, features)
    if state is not None:
        trainer.restore(state)
        _log.info("resuming from %s at step %d", checkpoint, trainer.progress.step)
    nets = config.eval.lpips_nets
    weights = threading.Thread(target=lambda: [backbone_weights(net) for net in nets], daemon=True)
    weights.start()  # a download, the first time: it need not wait for the end of training
    trainer.run()
    _log.info("kernels: %s", ", ".join(f"{kernel} {name}" for kernel, name in chosen_implementations().items()))
    if trainer.interrupted:
        _log.warning("stopped at step %d; go on with --resume auto", trainer.progress.step)
        return ExitCode.INTERRUPTED
    weights.join()
    result = evaluate_student(config, teacher, model, trainer.progress.step, folder, device)
    publish(config, folder, trainer.progress.step)
    return result.status


def make_trainer(
    config: Config,
    teacher: Teacher,
    model: Model,
    folder: RunFolder,
    device: torch.device,
    spent: float = 0.0,
    features: FeatureSupervision | None = None,
) -> Trainer:
    """The trainer of a run; ``spent`` seconds of its time went into the teacher's features."""
    sampler = make_sampler(config, teacher, model, device)
    return Trainer(config, model, sampler, folder, device, spent, features)


def evaluate_checkpoint(
    config: Config,
    root: Path = REPO_ROOT,
    checkpoint: str | Path | None = None,
    options: EvaluationOptions = AS_CONFIGURED,
) -> ExitCode:
    """Evaluates a checkpoint, the latest of the run under ``root`` by default, whatever student the config names.

    Raises:
        InputError: config, assets or checkpoint are not in order, or no background asked for is to be had.
    """
    run = restore_run(config, root, checkpoint)
    teacher = load_teacher(config)
    check_measurable(teacher.views, config.eval)
    configs = options.configs(config, teacher.views)
    run.folder.create()
    results = [
        evaluate_student(each, teacher, run.model, run.step, RunFolder(each, root), run.device, options)
        for each in configs
    ]
    return max(result.status for result in results)


def _checkpoint_to_resume(folder: RunFolder, resume: str | None) -> Path | None:
    if resume is None:
        return None
    if resume != "auto":
        return Path(resume)
    latest = folder.latest_checkpoint()
    if latest is None:
        _log.info("no checkpoint in %s yet: starting from the beginning", folder.checkpoints)
    return latest


def _check_same_student(config: Config, state: dict, path: Path) -> None:
    stored = {"kind": state["student"]["kind"], **state["student"]["settings"]}
    wanted = config.student.model_dump()
    for key, value in wanted.items():
        if stored.get(key) != value:
            raise InputError(
                path,
                f"student.{key}",
                stored.get(key),
                f"{value}, as the config says",
                "Resume with the config it was trained with, or start anew without --resume.",
            )


def _announce(config: Config, teacher: Teacher, model: Model, device: torch.device) -> None:
    views = teacher.views
    _log.info(
        "%s/%s on %s (%s): %d views at %dx%d, %d held out; %s student, %s parameters; %.1f%% of the box occupied",
        config.scene,
        config.run,
        device,
        device_name(device),
        len(views),
        views.cameras.width,
        views.cameras.height,
        int(views.holdout.sum()),
        model.student.kind,
        f"{model.student.parameter_count():,}",
        100 * model.grid.occupied_fraction,
    )
    if teacher.poses is not None:
        _log.info(
            "live teacher: new views near %d training poses, %d kept", len(teacher.poses.cameras), config.live.buffer
        )
    if teacher.images is not None:
        _log.info("images of %s as a second source of rays", source_of(config).image_poses())
    own = teacher_psnr(views, config)
    if own is not None:
        _log.info("the teacher's own views have %.2f dB against ground truth (a few of those measured)", own)
    if views.depth_report is not None:
        _log.info("teacher depth: %s", views.depth_report.summary())
