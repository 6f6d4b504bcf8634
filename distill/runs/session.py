"""One run from start to end: teacher, training, evaluation."""

from __future__ import annotations

import logging
import os
import shlex
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from distill.alignment.before_training import background_note, check_before_training, explained_errors
from distill.evaluation.evaluator import check_measurable, teacher_psnr
from distill.evaluation.lpips_weights import backbone_weights
from distill.evaluation.student_evaluation import AS_CONFIGURED, EvaluationOptions, evaluate_student
from distill.losses.feature_supervision import supervise
from distill.model.checkpoint import load_checkpoint, rendering_only
from distill.model.model import Model, build_model, restore_model, restore_run
from distill.model.other_config import drawn_as_trained, evaluated_as, note_other_split
from distill.reports.run.run_report import publish
from distill.reports.tensorboard import check_tensorboard
from distill.training.precision import training_precision
from distill.training.sampler_choice import make_sampler
from distill.training.trainer import Trainer
from distill.viewer.subjects import training_subject
from distill.viewer.training_view import check_view, watched
from kernels.dispatch import implementations_in_words
from machine import ranks
from machine.devices import choose_device, device_name
from machine.memory import MIB
from machine.run_folder import RunFolder, checkpoint_at
from machine.run_identity import RunIdentity, identity_of_folder, identity_of_state
from machine.weights_files import restoring
from settings.config import Config
from settings.errors import ExitCode, InputError
from settings.words import counted
from teacher.sources import Teacher, check_assets, likely_supersample, load_teacher, source_of
from teacher.sources.box import stray_note

_log = logging.getLogger(__name__)


class Resumed(NamedTuple):
    """The checkpoint that a run goes on from, and what is in it."""

    checkpoint: Path
    state: dict[str, Any]


def train_and_evaluate(
    config: Config, root: Path, resume: str | None = None, going_on: str = "go on with --resume auto"
) -> int:
    """Trains from the start, or goes on from a checkpoint, then evaluates; returns the exit status.

    Args:
        root: where ``results/`` and ``logs/`` are.
        resume: path of a checkpoint, "auto" for the run's latest (a fresh start if there is none), or None.
        going_on: what to say of how it goes on after a signal.

    Raises:
        InputError: config, assets or checkpoint are not in order, the checkpoint is another run's, or another process
            writes to the run folder; nothing has been written then.
        TrainingDiverged: a loss term was not finite.
    """
    check_assets(config)
    check_tensorboard(config)
    check_view(config)
    device = choose_device(config)
    training_precision(config, device)
    folder = RunFolder(config, root)
    with folder.held() if ranks.is_first() else nullcontext():
        return _train_and_evaluate(config, folder, resume, device, going_on)


def _train_and_evaluate(
    config: Config, folder: RunFolder, resume: str | None, device: torch.device, going_on: str
) -> int:
    teacher, model, trainer = _begin(config, folder, resume, device)
    nets = config.eval.lpips_nets
    weights = threading.Thread(target=lambda: [backbone_weights(net) for net in nets], daemon=True)
    weights.start()  # a download, the first time: it need not wait for the end of training
    with _watched(config, teacher, model, folder, device) as trainer.between_steps:
        trainer.run()
    _log.info("kernels: %s", implementations_in_words())
    step = trainer.progress.step
    if trainer.stopped_by is not None:
        _log.warning("stopped at step %d; %s", step, going_on)
        return 128 + trainer.stopped_by
    weights.join()
    if trainer.compaction:  # what such a run is for
        file = folder.compact_path(step)
        model = restore_model(config, load_checkpoint(file, device), file, device)
        _log.info("compact file %s: %.3f MiB", file, file.stat().st_size / MIB)
    result = evaluate_student(config, teacher, model, step, folder, device)
    if ranks.is_first():
        publish(config, folder, step)
    named = shlex.quote(str(folder.results))
    if result.status == ExitCode.COLLAPSED:
        note = stray_note(config, teacher.gaussians, teacher.box) or source_of(config).outlier_note(teacher.gaussians)
        note = note or background_note(config, teacher)
        _log.warning("%s", note or f"python tools/check_alignment.py {named} finds out why")
    elif ranks.is_first():
        if result.is_far and not trainer.compaction:
            print(f"longer   {_longer(config, folder, step)}")
        print(f"look     python tools/view.py {named}")
        print(f"film     python tools/render_path.py {named}")
        if not trainer.compaction and model.far_field is None:
            print(f"compact  python tools/compress.py {named}")
    return result.status


def _longer(config: Config, folder: RunFolder, step: int) -> str:
    """The command, for a shell, that trains a run on until it has had twice as much of what ended it: steps or time."""
    train = config.train
    by_steps = step >= train.max_steps
    budget = f"train.max_steps={2 * train.max_steps}" if by_steps else f"train.max_seconds={2 * train.max_seconds:g}"
    config_yaml = shlex.quote(str(folder.config_yaml))
    program = f"python lego_response_distill.py --config {config_yaml}{folder.root_option()}"
    return f"{program} --resume auto --set {budget}"


def _fit(config: Config, folder: RunFolder) -> str:
    """The command, for a shell, that fits a teacher to the photographs of a run."""
    given = f"--config {shlex.quote(str(folder.config_yaml))}{folder.root_option()} --set run=teacher"
    if config.data.transforms.is_dir():  # which --source takes alone
        given = f"--source {shlex.quote(str(config.data.transforms))}"
    return f"python tools/train_teacher.py {given}"


def _begin(
    config: Config, folder: RunFolder, resume: str | None, device: torch.device
) -> tuple[Teacher, Model, Trainer]:
    """Loads the teacher, makes the student or restores it, checks all that can be checked, prepares the folder."""
    resumed = state_to_resume(folder, resume, device)
    identity = RunIdentity(config, source_of(config).asset_digests())
    if resumed is not None:
        check_continues(identity, identity_of_state(resumed.state, resumed.checkpoint), resumed.checkpoint, folder)
    with explained_errors(config):
        teacher = load_teacher(config, finer=likely_supersample(config))
        check_measurable(teacher.views, config.eval)
        model = make_model(config, teacher, resumed, device)
    check_before_training(config, teacher, model)
    trainer = make_trainer(config, teacher, model, resumed, folder, device)
    trainer.check()
    if ranks.is_first():
        folder.prepare(device, identity, resumed and resumed.checkpoint, trainer.progress.step)
    _announce(config, teacher, model, folder, device)
    if trainer.features:
        seconds = trainer.progress.seconds_before
        _log.info("the teacher's features took %.1f s, which count as training time", seconds)
    if resumed is not None:
        _log.info("resuming from %s at step %d", resumed.checkpoint, trainer.progress.step)
    return teacher, model, trainer


def _watched(
    config: Config, teacher: Teacher, model: Model, folder: RunFolder, device: torch.device
) -> AbstractContextManager[Callable[[], float]]:
    """What training does between steps: shows the student, where ``logging.view`` asks for it."""
    if not config.logging.view or not ranks.is_first():
        return nullcontext(lambda: 0.0)
    cameras = teacher.views.cameras
    subject = training_subject(config, teacher, model, folder, device)
    return watched(subject, max(cameras.width, cameras.height))


def make_model(config: Config, teacher: Teacher, resumed: Resumed | None, device: torch.device) -> Model:
    """A run's student: fresh, or as the checkpoint that the run goes on from has it."""
    if resumed is None:
        return build_model(config, teacher, device)
    return restore_model(config, resumed.state, resumed.checkpoint, device)


def make_trainer(
    config: Config, teacher: Teacher, model: Model, resumed: Resumed | None, folder: RunFolder, device: torch.device
) -> Trainer:
    """A run's trainer, as it is before the next step; what the teacher's features take counts as training time.

    Raises:
        InputError: the features cannot be made, or what is in the checkpoint does not fit the config.
    """
    start = time.perf_counter()
    features = supervise(config, teacher, model.student, device)
    spent = ranks.of_first(time.perf_counter() - start) if features else 0.0
    if resumed is not None and features is not None:
        with restoring(resumed.checkpoint, "features"):
            features.restore(resumed.state.get("features") or {}, resumed.checkpoint)
    sampler = make_sampler(config, teacher, model, device)
    trainer = Trainer(config, model, sampler, folder, device, spent, features)
    if resumed is not None:
        with restoring(resumed.checkpoint, "training state"):
            trainer.restore(resumed.state)
    return trainer


def evaluate_checkpoint(
    config: Config,
    root: Path,
    checkpoint: str | Path | None,
    options: EvaluationOptions = AS_CONFIGURED,
) -> ExitCode:
    """Evaluates a checkpoint (None: the latest of the run under ``root``), whatever student the config names.

    Raises:
        InputError: config, assets or checkpoint are not in order, no background asked for is to be had, or another
            process writes to the run folder.
    """
    run = restore_run(config, root, checkpoint)
    config = evaluated_as(config, run.checkpoint, run.own)
    note_other_split(config, run.checkpoint, run.own)
    options.check(config)
    teacher = load_teacher(config, drawn_as_trained(config, run.own))
    check_measurable(teacher.views, config.eval)
    configs = options.configs(config, teacher.views, run.own)
    with run.folder.held() if ranks.is_first() else nullcontext():
        if ranks.is_first():
            run.folder.create()
        results = [
            evaluate_student(each, teacher, run.model, run.step, RunFolder(each, root), run.device, options)
            for each in configs
        ]
    return max(result.status for result in results)


def state_to_resume(folder: RunFolder, resume: str | None, device: torch.device) -> Resumed | None:
    """The checkpoint that ``--resume`` names; None: the run begins, which is said where "auto" finds nothing.

    Raises:
        InputError: no run can go on from it; names the one before it, where there is one.
    """
    checkpoint = ranks.value_of_first(_checkpoint_to_resume(folder, resume))
    if checkpoint is None:
        return None
    try:
        return Resumed(checkpoint, load_checkpoint(checkpoint, device))
    except InputError as error:
        before = folder.checkpoint_before(checkpoint) if os.path.isfile(checkpoint) else None
        if before is None:
            raise
        hint = f"{error.hint} Or go on from the one before it: --resume {before}"
        raise InputError(error.source, error.field, error.found, error.expected, hint) from error


def _checkpoint_to_resume(folder: RunFolder, resume: str | None) -> Path | None:
    if resume is None:
        return None
    if resume != "auto":
        resume = checkpoint_at(Path(resume))
        if (kind := rendering_only(resume)) is not None:
            hint = "It holds what rendering takes; go on from the checkpoint that it was made of."
            raise InputError(resume, "--resume", kind, "a checkpoint to go on from", hint)
        return resume
    latest = folder.latest_checkpoint()
    if latest is None:
        _log.warning("there is no checkpoint in %s to resume from: starting from the beginning", folder.checkpoints)
    return latest


def check_continues(identity: RunIdentity, stored: RunIdentity, checkpoint: Path, folder: RunFolder) -> None:
    """Checks that a checkpoint is of this run, and that so are the files in the folder, whose CSVs will grow.

    Raises:
        InputError: one of them is of other settings or assets.
    """
    identity.check_continues(stored, checkpoint)
    in_folder = identity_of_folder(folder.results, identity.fits_teacher)
    if in_folder is not None:
        identity.check_continues(in_folder, folder.identity_json)


def _announce(config: Config, teacher: Teacher, model: Model, folder: RunFolder, device: torch.device) -> None:
    views = teacher.views
    _log.info(
        "%s/%s on %s (%s): %s at %dx%d, %d held out; %s student, %s parameters; %.1f%% of the box occupied",
        config.scene,
        config.run,
        device,
        device_name(device),
        counted(len(views), "view"),
        views.cameras.width,
        views.cameras.height,
        int(views.holdout.sum()),
        model.student.kind,
        f"{model.parameter_count():,}",
        100 * model.grid.occupied_fraction,
    )
    if (scale := model.settings.supersample) > 1:
        size = views.cameras.width * scale, views.cameras.height * scale
        _log.info("a pixel is the mean of %d x %d rays; training rays are of pictures of %dx%d", scale, scale, *size)
    if ranks.size() > 1:
        _log.info("%d processes train it together, each on a part of every step's rays", ranks.size())
    if (far := model.far_field) is not None:
        _log.info(
            "far field: %s of the parameters; %.1f%% of contracted space occupied, sampled up to %.4g behind the box",
            f"{far.parameter_count():,}", 100 * far.grid.occupied_fraction, far.edges[-1],
        )  # fmt: skip
    if teacher.poses is not None:
        new = "the" if teacher.live.own_share == 1 else "new views near the"
        _log.info("live teacher: %s %d training poses, %d kept", new, len(teacher.poses.cameras), teacher.live.buffer)
    if teacher.images is not None:
        _log.info("images of %s as a second source of rays", source_of(config).image_poses())
    if config.taught_by_images and not views.silhouettes:
        _log.info(
            "photographs alone do not tell well where things are: a teacher fitted to them first (%s, which ends with "
            "the command for it) gives a student that is closer to photographs not seen, and drawn faster",
            _fit(config, folder),
        )
    own = teacher_psnr(views, config)
    if own is not None:
        _log.info("the teacher's own views have %.2f dB against ground truth (mean of a few that are measured)", own)
    if views.depth_report is not None:
        _log.info("teacher depth: read as %s. Why: %s", views.depth_kind.value, views.depth_report.summary())
