"""The training loop: draw rays, render, compare with the teacher, step; log, save, stop cleanly."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from distill.losses.pictures import picture_weights
from distill.losses.supervision import FeatureSupervision
from distill.model.checkpoint import box_state, save_checkpoint, student_state
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import RenderedRays, RenderSettings
from distill.reports.tensorboard import Board
from distill.training.lagged_counts import LaggedCounts, RayCount
from distill.training.optimizer import StudentAdam, rate_factor
from distill.training.precision import training_precision
from distill.training.ray_sampler import RaySource
from distill.training.step_graph import StepGraphs, bucket_of, graph_refusal, step_inputs
from distill.training.training_log import COLUMNS, StepRecord, metrics_row, postfix
from distill.training.training_step import Taken, TrainingStep
from distill.training.update import make_update
from distill.training.waiting import waiting_parts
from kernels.threads import one_torch_thread
from machine.devices import generator_on, host_integer
from machine.files import CsvLog
from machine.interrupts import Interrupt
from machine.run_folder import RunFolder
from machine.telemetry import GpuMonitor, synchronize
from settings.config import Config
from settings.loading import to_yaml
from students.base import Student

_log = logging.getLogger(__name__)
# Room for the samples of a step beyond those aimed at: rays differ, and their number follows with a delay.
_HEADROOM = 1.125


@dataclass
class Progress:
    """Where a run stands; restored on resume."""

    step: int = 0
    seconds: float = 0.0
    rays_per_step: int = 0
    seconds_before: float = 0.0  # part of `seconds` that went into assistance and features before the first step


class _Pace:
    """Rays since the last row, by the clock: a step's own time says nothing where the host does not wait for it."""

    def __init__(self) -> None:
        self.rays, self._since = 0, time.perf_counter()

    def rays_per_s(self) -> float:
        """Of the time since the last call, which starts anew."""
        now = time.perf_counter()
        rate = self.rays / max(now - self._since, 1e-9)
        self.rays, self._since = 0, now
        return round(rate, 1)


class Trainer:
    """Trains a student on the rays of its teacher's views.

    Args:
        config: the run.
        student, grid, sampler, settings: what is trained, where it is sampled, on what, how.
        folder: prepared run folder.
        device: where the student lives.
        seconds_before: training time already spent on assistance and on features; counts towards ``train.max_seconds``.
        features: supervision by the teacher's insides; None: rays alone.
        resident: a step never waits for the device, at the price of room for a fixed number of samples: what is not
            finite, and how many samples there were, is found out later. None: on CUDA, where waiting costs most.
    """

    def __init__(
        self,
        config: Config,
        student: Student,
        grid: OccupancyGrid,
        sampler: RaySource,
        settings: RenderSettings,
        folder: RunFolder,
        device: torch.device,
        seconds_before: float = 0.0,
        features: FeatureSupervision | None = None,
        resident: bool | None = None,
    ) -> None:
        self.config, self.student, self.grid, self.sampler = config, student, grid, sampler
        self.settings, self.folder, self.device, self.features = settings, folder, device, features
        companions = features.parameters() if features else ()
        self.resident = device.type == "cuda" if resident is None else resident
        self.precision = training_precision(config, device)
        self.optimizer = StudentAdam(student, config.train, config.kernels, companions)
        self.update = make_update(self.optimizer, device, self.precision, self.resident)
        self.counts = LaggedCounts(device)
        self._dropped_rays = torch.zeros((), dtype=torch.int64, device=device)
        self._told_of_refusal = False
        self.generator = torch.Generator().manual_seed(config.seed)
        self.training_step = TrainingStep(
            config, student, grid, settings, features, self.update, self.generator, self.capacity
        )
        self.graphs = self._make_graphs()
        self.progress = Progress(
            seconds=seconds_before,
            rays_per_step=min(config.train.rays_per_step, 1024),
            seconds_before=seconds_before,
        )
        self.interrupted = False

    @property
    def capacity(self) -> int | None:
        """Samples there is room for in a resident step; None: as many as there are."""
        if not self.resident:
            return None
        return max(int(self.config.train.samples_per_step * _HEADROOM), self.settings.max_samples_per_ray)

    def _make_graphs(self) -> StepGraphs[Taken] | None:
        if not self.config.train.cuda_graphs:
            return None
        refusal = graph_refusal(self.config, self.resident)
        if refusal is not None:
            _log.warning("train.cuda_graphs is without effect: %s", refusal)
            return None
        return StepGraphs(self.training_step.take_recorded, self.device)

    def fraction_done(self) -> float:
        """0 to 1, by steps or by time, whichever will end the run first."""
        train, progress = self.config.train, self.progress
        by_time = 0.0
        if train.max_seconds:
            left = train.max_seconds - progress.seconds_before
            by_time = (progress.seconds - progress.seconds_before) / left if left > 0 else 1.0
        return max(progress.step / train.max_steps, by_time)

    def run(self, show_progress: bool = True) -> None:
        """Trains to the end of the schedule, or until Ctrl-C (``interrupted``); the last state is saved either way.

        Raises:
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
        if self.resident and (parts := waiting_parts(self.config)):
            _log.info("steps do not wait for the device, but for: %s", "; ".join(parts))
        self.probe(1)  # compiles what is not in numba's cache yet, so that the clock measures training
        resumed_at = progress.step if progress.step else None
        log = CsvLog(self.folder.training_csv, COLUMNS, None if resumed_at is None else resumed_at + 1)
        bar = self._bar(show_progress)
        start = time.perf_counter() - progress.seconds
        saved_at = -1
        pace = _Pace()
        board = Board(self.folder, self.config.logging.tensorboard, resumed_at)
        with bar, board, Interrupt() as interrupt, GpuMonitor(self.device) as monitor:
            while self.fraction_done() < 1 and not interrupt.asked:
                record = self._step()
                progress.step += 1
                self.sampler.advance(len(record.batch.rays))
                pace.rays += len(record.batch.rays)
                progress.seconds = time.perf_counter() - start
                bar.update(progress.seconds - bar.n if train.max_seconds else 1)
                ends = self.fraction_done() >= 1
                if progress.step % train.log_every == 0 or ends:
                    self._settle()
                    progress.seconds = time.perf_counter() - start
                    row = metrics_row(progress.step, progress.seconds, record, self.device, monitor)
                    row |= self.sampler.figures() | self.update.figures()
                    row["occupied_fraction"] = self.grid.occupied_fraction
                    if self.resident:
                        row |= {"rays_per_s": pace.rays_per_s(), "dropped_rays": self._dropped_rays.item()}
                        self._dropped_rays.zero_()
                    log.append(row)
                    board.add_scalars(row)
                    bar.set_postfix(postfix(row))
                if self._checkpoint_due():
                    self.save()
                    saved_at = progress.step
            self.interrupted = interrupt.asked
        if saved_at != progress.step:
            self.save()

    def probe(self, steps: int) -> float:
        """Seconds a step takes, tried on a copy: this trainer stays exactly as it is."""
        student, grid = copy.deepcopy(self.student), copy.deepcopy(self.grid)
        features = self.features.copy() if self.features else None
        twin = Trainer(
            self.config, student, grid, self.sampler, self.settings, self.folder, self.device,
            features=features, resident=self.resident,
        )  # fmt: skip
        twin.progress = copy.copy(self.progress)
        grid.refresh(student, twin.generator)
        with one_torch_thread():
            start = time.perf_counter()
            for _ in range(steps):
                twin._step()
            synchronize(self.device)
        return (time.perf_counter() - start) / steps

    def _bar(self, shown: bool) -> tqdm:
        """Counts seconds where time ends the run, else steps."""
        train, progress = self.config.train, self.progress
        unit = {"total": train.max_steps, "initial": progress.step, "unit": "step"}
        if train.max_seconds:
            unit = {"total": train.max_seconds, "initial": progress.seconds, "unit": "s"}
            unit["bar_format"] = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{postfix}]"
        return tqdm(desc="train", disable=not shown, dynamic_ncols=True, mininterval=0.5, **unit)

    def _step(self) -> StepRecord:
        with self.student.computing_in(self.precision):
            return self._step_in_precision()

    def _step_in_precision(self) -> StepRecord:
        config, progress = self.config, self.progress
        if progress.step % config.occupancy.update_every == 0 and progress.step >= config.occupancy.warmup_steps:
            self.grid.refresh(self.student, self._drawing())
            if not self.resident:
                self._tell_of_refusal()
        began = time.perf_counter()
        batch = self.sampler.draw(self._rays_to_draw(), self._drawing())
        seed = host_integer(1 << 31, self.generator)
        done = self.fraction_done()
        factor, weights = rate_factor(progress.step, done, config.train), picture_weights(config.loss, done)
        self.optimizer.set_rate(factor)
        if self.graphs is not None:
            numbers = {"seed": seed, "step": progress.step + 1, "factor": factor} | weights
            taken = self.graphs(step_inputs(batch, numbers, self.device))
        else:
            taken = self.training_step.take(batch, seed, progress.step + 1, weights, done)
        self._adapt_rays(len(batch.rays), taken.rendered)
        return StepRecord(
            loss=taken.loss,
            terms=taken.terms,
            result=taken.rendered.composite,
            batch=batch,
            depth=taken.depth,
            samples=taken.rendered.samples,
            seconds=time.perf_counter() - began - taken.measuring,  # which is no part of a step's time
            lr=self.optimizer.param_groups[0]["lr"],
            feature_valid_fraction=taken.inside.valid_fraction,
            gradient_ratios=taken.ratios,
            kept=taken.rendered.kept,
        )

    def _rays_to_draw(self) -> int:
        rays = self.progress.rays_per_step
        return min(bucket_of(rays), self.config.train.rays_per_step) if self.graphs is not None else rays

    def _drawing(self) -> torch.Generator:
        """For what a step draws: the run's own, or one on the device that follows from it."""
        return generator_on(self.device, self.generator) if self.resident else self.generator

    def _settle(self) -> None:
        """Makes sure that all steps so far were sound; waits for the device.

        Raises:
            TrainingDiverged: they were not.
        """
        self.update.settle(self.progress.step)
        self._tell_of_refusal()

    def _tell_of_refusal(self) -> None:
        if not self._told_of_refusal and self.grid.refusals > 0:
            self._told_of_refusal = True
            _log.warning(
                "step %d: the student is empty almost everywhere; keeping the teacher's occupied space.",
                self.progress.step,
            )

    def _adapt_rays(self, drawn: int, rendered: RenderedRays) -> None:
        """Follows the number of rays that fills the sample budget; depends on counts alone, so it can be resumed."""
        train, rays = self.config.train, self.progress.rays_per_step
        count = RayCount(drawn, rendered.samples)
        if self.resident:
            self._dropped_rays += (~rendered.kept).sum()
            self.counts.put(*count)
            count = self.counts.take()
        if count is None:
            return
        wanted = count.rays * train.samples_per_step / max(1, count.samples)
        blended = 0.8 * rays + 0.2 * min(wanted, 2.0 * rays)
        self.progress.rays_per_step = int(min(train.rays_per_step, max(64, round(blended))))

    def _checkpoint_due(self) -> bool:
        train, step = self.config.train, self.progress.step
        every = train.checkpoint_every
        return (every is not None and step % every == 0) or step in train.checkpoint_steps

    def save(self) -> None:
        """Writes the checkpoint of the current step.

        Raises:
            TrainingDiverged: there is nothing sound to write.
        """
        self._settle()
        save_checkpoint(
            self.folder.checkpoint_path(self.progress.step),
            {
                "step": self.progress.step,
                "seconds": self.progress.seconds,
                "rays_per_step": self.progress.rays_per_step,
                "seconds_before": self.progress.seconds_before,
                "student": student_state(self.student),
                "box": box_state(self.grid.box),
                "occupancy": {
                    "resolution": self.grid.resolution,
                    "step": self.grid.step,
                    "state": self.grid.state_dict(),
                },
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "sampler": self.sampler.state(),
                "loss_scale": self.update.state(),
                "counts": self.counts.pending(),
                "features": self.features.state() if self.features else None,
                "config": to_yaml(self.config),
            },
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint exactly where it was written; the student's weights and the feature supervision
        are already restored.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        self.update.restore(state.get("loss_scale"))
        self.counts.restore(state.get("counts", []))
        self.progress = Progress(**{key: state[key] for key in Progress.__dataclass_fields__})
        if state.get("sampler"):
            self.sampler.restore(state["sampler"])
