"""The training loop: takes steps, logs, saves, stops cleanly. What a step is: see ``step``."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from distill.losses.feature_supervision import FeatureSupervision
from distill.model.checkpoint import box_state, save_checkpoint, student_state
from distill.model.model import Model
from distill.training.compaction import Compaction
from distill.training.ray_source import RaySource
from distill.training.setting_remarks import idle_settings, waiting_parts
from distill.training.step import StepResult, TrainingStep
from distill.training.training_log import Pace, RunLog, metrics_row
from kernels.threads import one_torch_thread
from machine import ranks
from machine.interrupts import Interrupt, SaveClock
from machine.run_folder import RunFolder
from machine.run_identity import identity_state
from machine.telemetry import GpuMonitor, synchronize
from settings.config import Config
from settings.errors import InputError

_AUTOSAVES_KEPT = 2
_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run stands; restored on resume.

    Attributes:
        step: steps taken.
        seconds: training time so far, s.
        seconds_before: the part of it that went into the teacher's features before the first step.
    """

    step: int = 0
    seconds: float = 0.0
    seconds_before: float = 0.0


class Trainer:
    """Trains a student on the rays of its teacher's views.

    Args:
        config: the run.
        model: what is trained, and how it is rendered.
        sampler: gives the training rays.
        folder: prepared run folder.
        device: where the student lives.
        seconds_before: training time already spent on features; counts towards ``train.max_seconds``.
        features: supervision by the teacher's internal features; None: rays alone.
        asynchronous: see ``TrainingStep``; None: on CUDA, where waiting costs most.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        sampler: RaySource,
        folder: RunFolder,
        device: torch.device,
        seconds_before: float = 0.0,
        features: FeatureSupervision | None = None,
        asynchronous: bool | None = None,
    ) -> None:
        self.config, self.model, self.sampler = config, model, sampler
        self.folder, self.device, self.features = folder, device, features
        asynchronous = device.type == "cuda" if asynchronous is None else asynchronous
        self.step = TrainingStep(config, model, sampler, device, features, asynchronous)
        self.compaction: Compaction | None = None
        if config.compact.target_mib is not None:
            self.compaction = Compaction(config.compact, self.step, self._header)
        self.progress = Progress(seconds=seconds_before, seconds_before=seconds_before)
        self.stopped_by: int | None = None
        """Number of the signal that ended the run early."""
        self.between_steps: Callable[[], float] = lambda: 0.0
        """Called after each step; the seconds that it gives do not count as training time."""

    def fraction_done(self) -> float:
        """0 to 1, by steps or by time, whichever will end the run first."""
        train, progress = self.config.train, self.progress
        by_time = 0.0
        if train.max_seconds:
            left = train.max_seconds - progress.seconds_before
            by_time = (progress.seconds - progress.seconds_before) / left if left > 0 else 1.0
        return max(progress.step / train.max_steps, by_time)

    def run(self, show_progress: bool = True) -> None:
        """Trains to the end of the schedule, or until a signal (``stopped_by``); the last state is saved either way.

        Of several processes the clock is that of rank 0, a signal to any of them is one to all, and rank 0 writes.

        Raises:
            InputError: a compact file of the wanted size cannot be had after all.
            OSError: a row or a checkpoint cannot be written; after a row the state is saved, if that can be.
            TrainingDiverged: a loss term became NaN or infinite, or float16 overflowed for good; names the step and the
                term. On CUDA that is found out when the next row or checkpoint is due; until then the parameters are
                not touched.
        """
        with one_torch_thread(), self.sampler:
            self._run(show_progress)
        if self.sampler.summary():
            _log.info("%s", self.sampler.summary())

    def _run(self, show_progress: bool) -> None:
        train, progress = self.config.train, self.progress
        is_over = ends = self.fraction_done() >= 1
        if is_over:
            _log.info("nothing is left to train: the run is over at step %d", progress.step)
        if self.step.asynchronous and (parts := waiting_parts(self.config, self.model.student)):
            _log.info("steps do not wait for the device, except for: %s", "; ".join(parts))
        self.probe(1)  # compiles what is not in numba's cache yet, so that the clock measures training
        log = RunLog(self.config, self.folder, progress.step, progress.seconds, show_progress)
        start = time.perf_counter() - progress.seconds
        is_saved = is_over and ranks.value_of_first(self.folder.checkpoint_path(progress.step).is_file())
        saved_at = progress.step if is_saved else -1
        pace, clock = Pace(), SaveClock(train.checkpoint_minutes)
        with log, Interrupt() as interrupt, GpuMonitor(self.device) as monitor:
            # Which step is the last is asked once, before its row: that takes time too, and only a last step ends with
            # a compact file.
            while not ends and not self._is_asked_to_stop(interrupt):
                result = self.take_step()
                self.sampler.advance(result.rays)
                pace.rays += result.rays
                start += self.between_steps()
                save_now = self._agree(time.perf_counter() - start, interrupt, clock)
                log.draw(progress.step, progress.seconds)
                ends = self.fraction_done() >= 1
                if ends and self.compaction:
                    self._finish_compaction()
                if progress.step % train.log_every == 0 or ends:
                    self.step.settle(progress.step)
                    progress.seconds = ranks.of_first(time.perf_counter() - start)
                    row = self._row(result, monitor, pace)
                    try:
                        log.write(row)
                    except OSError:
                        self.save()  # only the row is lost: the step is whole
                        raise
                if self._checkpoint_due():
                    self.save()
                    saved_at = progress.step
                elif save_now:
                    self.save(automatic=True)
            if is_over and self._is_compact_file_due():
                self._finish_compaction()
            if saved_at != progress.step:
                self.save()  # still within: another signal must not end it
            # All wait for it: torchrun ends the others when one has ended early.
            self.stopped_by = int(ranks.largest_of(interrupt.signal or 0)[0]) or None
        if ranks.is_first():
            self.folder.keep_autosaves(0)

    def check(self) -> None:
        """Refuses, before anything is written, a run that cannot succeed, and warns of settings without effect.

        Compiles what a compact file needs.

        Raises:
            InputError: the run is over before its first step, or a compact file of the wanted size cannot be had.
        """
        for sentence in idle_settings(self.config, self.model.student, self.step.unrecorded):
            _log.warning(sentence)
        if self.compaction:
            self.compaction.check()
        if not self.progress.step and self.fraction_done() >= 1:
            before = f"{self.progress.seconds_before:.4g} s, which the teacher's features took before the first step"
            found, expected = f"{self.config.train.max_seconds:g}", f"more than {before}"
            raise InputError("config", "train.max_seconds", found, expected)

    def _is_compact_file_due(self) -> bool:
        """Whether there is to be a compact file and there is none yet."""
        path = self.folder.compact_path(self.progress.step)
        return bool(self.compaction) and not ranks.value_of_first(path.is_file())

    def _finish_compaction(self) -> None:
        """Writes the compact file; the student has its weights then."""
        self.step.settle(self.progress.step)
        self.compaction.finish(self.folder.compact_path(self.progress.step))

    def _agree(self, seconds: float, interrupt: Interrupt, clock: SaveClock) -> bool:
        """Has all processes see the same time, and a signal to one of them; whether an automatic checkpoint is due."""
        signal, first = interrupt.signal or 0, ranks.is_first()
        numbers = (seconds, signal, clock.due()) if first else (0.0, signal, False)
        self.progress.seconds, signal, due = ranks.largest_of(*numbers)
        self.stopped_by = int(signal) or None
        return bool(due)

    def _is_asked_to_stop(self, interrupt: Interrupt) -> bool:
        """By what all processes know; one alone has nobody to agree with."""
        return interrupt.asked if ranks.size() == 1 else self.stopped_by is not None

    def take_step(self) -> StepResult:
        """Takes the next step, and counts it."""
        done = self.fraction_done()
        if self.compaction:
            self.compaction.before_step(done)
        result = self.step(self.progress.step, done)
        self.progress.step += 1
        if self.compaction:
            self.compaction.after_step(result, self.progress.step)
        return result

    def probe(self, steps: int) -> float:
        """Seconds a step takes, tried on a copy: this trainer stays exactly as it is."""
        twin = Trainer(
            self.config, copy.deepcopy(self.model), self.sampler, self.folder, self.device,
            features=self.features.copy() if self.features else None, asynchronous=self.step.asynchronous,
        )  # fmt: skip
        twin.progress, twin.step.rays_per_step = copy.copy(self.progress), self.step.rays_per_step
        with twin.step.computing():  # as the run's own: another type, another kernel
            twin.model.grid.refresh(twin.model.student, twin.step.generator)
        with one_torch_thread():
            start = time.perf_counter()
            for _ in range(steps):
                twin.step(self.progress.step, self.fraction_done())
            synchronize(self.device)
        return (time.perf_counter() - start) / steps

    def _row(self, result: StepResult, monitor: GpuMonitor, pace: Pace) -> dict[str, object]:
        """A row of training_metrics.csv."""
        step, progress = self.step, self.progress
        row = metrics_row(progress.step, progress.seconds, result, self.device, monitor)
        row |= self.sampler.figures() | (step.watched.figures() if step.watched else {})
        row["occupied_fraction"] = self.model.grid.occupied_fraction
        row |= self.compaction.figures() if self.compaction else {}
        if step.asynchronous:
            row |= {"rays_per_s": pace.rays_per_s(), "dropped_rays": step.take_dropped_rays()}
        return row

    def _checkpoint_due(self) -> bool:
        train, step = self.config.train, self.progress.step
        every = train.checkpoint_every
        return (every is not None and step % every == 0) or step in train.checkpoint_steps

    def save(self, automatic: bool = False) -> None:
        """Writes the checkpoint of the current step, on rank 0; of automatic ones the last few are kept.

        Raises:
            TrainingDiverged: there is nothing sound to write.
            OSError: it cannot be written; earlier ones are whole.
        """
        step, folder = self.progress.step, self.folder
        self.step.settle(step)
        compaction = {"compaction": self.compaction.state()} if self.compaction else {}
        if not ranks.is_first():
            return
        save_checkpoint(
            folder.autosave_path(step) if automatic else folder.checkpoint_path(step),
            {
                **asdict(self.progress),
                **self.step.state(),
                **self._header(),
                "sampler": self.sampler.state(),
                "features": self.features.state() if self.features else None,
                **({} if (far := self.model.far_field) is None else {"far_field": far.state()}),
                **compaction,
            },
        )
        if automatic:
            folder.keep_autosaves(_AUTOSAVES_KEPT)

    def _header(self) -> dict[str, Any]:
        """What a checkpoint holds of the run and its student, and a compact file knows too."""
        grid = self.model.grid
        return {
            "step": self.progress.step,
            "student": student_state(self.model.student),
            "box": box_state(grid.box),
            "occupancy": {
                "resolution": grid.resolution,
                "step": grid.step,
                "supersample": self.model.settings.supersample,
                **({} if grid.opacity_scale == 1 else {"opacity_scale": grid.opacity_scale}),
                "state": grid.state_dict(),
            },
            **identity_state(self.folder.identity),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a checkpoint exactly as it was written; the student's weights and the feature supervision are
        restored already.
        """
        self.step.restore(state)
        self.progress = Progress(**{key: state[key] for key in Progress.__dataclass_fields__})
        if self.compaction:
            self.compaction.restore(state.get("compaction"))
        if state.get("sampler"):
            self.sampler.restore(state["sampler"])
