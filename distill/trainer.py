"""The training loop: draw rays, render, compare with the teacher, step; log, save, stop cleanly."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from distill.checkpoint import box_state, save_checkpoint, student_state
from distill.config import to_yaml
from distill.feature_distillation.gradients import gradient_ratios
from distill.feature_distillation.supervision import FeatureSupervision, InsideTerms
from distill.interrupts import Interrupt
from distill.losses import scheduled_weight, total_loss
from distill.occupancy import OccupancyGrid
from distill.optimizer import StudentAdam, rate_factor
from distill.ray_sampler import RaySource
from distill.renderer import RenderSettings, render_rays
from distill.run_folder import CsvLog, RunFolder
from distill.schema import Config
from distill.telemetry import GpuMonitor, synchronize
from distill.tensorboard import Board
from distill.training_log import COLUMNS, StepRecord, metrics_row, postfix
from kernels.threads import one_torch_thread
from students.base import Student

_log = logging.getLogger(__name__)


class TrainingDiverged(Exception):
    """A loss term is not a finite number."""


@dataclass
class Progress:
    """Where a run stands; restored on resume."""

    step: int = 0
    seconds: float = 0.0
    rays_per_step: int = 0
    seconds_before: float = 0.0  # part of `seconds` that went into assistance and features before the first step


class Trainer:
    """Trains a student on the rays of its teacher's views.

    Args:
        config: the run.
        student, grid, sampler, settings: what is trained, where it is sampled, on what, how.
        folder: prepared run folder.
        device: where the student lives.
        seconds_before: training time already spent on assistance and on features; counts towards ``train.max_seconds``.
        features: supervision by the teacher's insides; None: rays alone.
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
    ) -> None:
        self.config, self.student, self.grid, self.sampler = config, student, grid, sampler
        self.settings, self.folder, self.device, self.features = settings, folder, device, features
        companions = features.parameters() if features else ()
        self.optimizer = StudentAdam(student, config.train, config.kernels, companions)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.progress = Progress(
            seconds=seconds_before,
            rays_per_step=min(config.train.rays_per_step, 1024),
            seconds_before=seconds_before,
        )
        self.interrupted = False

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
            TrainingDiverged: a loss term became NaN or infinite; names the step and the term.
        """
        with one_torch_thread(), self.sampler:
            self._run(show_progress)
        if self.sampler.summary():
            _log.info("%s", self.sampler.summary())

    def _run(self, show_progress: bool) -> None:
        train, progress = self.config.train, self.progress
        self.probe(1)  # compiles what is not in numba's cache yet, so that the clock measures training
        resumed_at = progress.step if progress.step else None
        log = CsvLog(self.folder.training_csv, COLUMNS, None if resumed_at is None else resumed_at + 1)
        bar = self._bar(show_progress)
        start = time.perf_counter() - progress.seconds
        saved_at = -1
        board = Board(self.folder, self.config.logging.tensorboard, resumed_at)
        with bar, board, Interrupt() as interrupt, GpuMonitor(self.device) as monitor:
            while self.fraction_done() < 1 and not interrupt.asked:
                record = self._step()
                progress.step += 1
                self.sampler.advance(len(record.batch.rays))
                progress.seconds = time.perf_counter() - start
                bar.update(progress.seconds - bar.n if train.max_seconds else 1)
                ends = self.fraction_done() >= 1
                if progress.step % train.log_every == 0 or ends:
                    row = metrics_row(progress.step, progress.seconds, record, self.device, monitor)
                    row |= self.sampler.figures()
                    row["occupied_fraction"] = self.grid.occupied_fraction
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
            self.config, student, grid, self.sampler, self.settings, self.folder, self.device, features=features
        )
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
        config, progress = self.config, self.progress
        if progress.step % config.occupancy.update_every == 0 and progress.step >= config.occupancy.warmup_steps:
            refused = self.grid.refusals
            self.grid.refresh(self.student, self.generator)
            if self.grid.refusals == 1 and refused == 0:
                _log.warning(
                    "step %d: the student is empty almost everywhere; keeping the teacher's occupied space.",
                    progress.step,
                )
        began = time.perf_counter()
        batch = self.sampler.draw(progress.rays_per_step, self.generator)
        seed = int(torch.randint(1 << 31, (1,), generator=self.generator))
        done = self.fraction_done()
        taps = self.features.taps(done) if self.features else ()
        rendered = render_rays(self.student, self.grid, batch.rays, self.settings, seed, taps)
        loss, terms, depth = total_loss(rendered.composite, batch, config.loss, done)
        inside = InsideTerms({}, {})
        if self.features:
            inside = self.features.compare(rendered, batch, done, self.generator)
        loss, terms = loss + inside.total(), terms | inside.terms
        self._check_finite(terms)
        start = time.perf_counter()
        ratios = self._gradient_ratios(terms, inside, done)
        began += time.perf_counter() - start  # measuring is no part of a step's time
        loss.backward()
        self.optimizer.set_rate(rate_factor(progress.step, done, config.train))
        self.optimizer.step()
        if self.features:
            self.features.forget_gradients()
        self._adapt_rays(rendered.samples)
        return StepRecord(
            loss=loss.detach(),
            terms={name: term.detach() for name, term in terms.items()},
            result=rendered.composite,
            batch=batch,
            depth=depth,
            samples=rendered.samples,
            seconds=time.perf_counter() - began,
            lr=self.optimizer.param_groups[0]["lr"],
            feature_valid_fraction=inside.valid_fraction,
            gradient_ratios=ratios,
        )

    def _gradient_ratios(self, terms: dict[str, torch.Tensor], inside: InsideTerms, done: float) -> dict[str, float]:
        """How hard the terms pull, in a step that is logged and has terms on the teacher's insides; balances those."""
        if not inside.terms or (self.progress.step + 1) % self.config.train.log_every:
            return {}
        loss = self.config.loss
        weights = {name: scheduled_weight(getattr(loss, name), done) for name in terms} | inside.weights
        ratios = gradient_ratios(self.student, terms, weights)
        self.features.rebalance({name: ratios[name] for name in inside.terms if name in ratios})
        self.features.forget_gradients()
        return ratios

    def _check_finite(self, terms: dict[str, torch.Tensor]) -> None:
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise TrainingDiverged(
                    f"step {self.progress.step + 1}: loss term '{name}' is {term.item()}; "
                    "lower train.lr, or resume from the last checkpoint with a lower one"
                )

    def _adapt_rays(self, samples: int) -> None:
        """Follows the number of rays that fills the sample budget; depends on counts alone, so it can be resumed."""
        train, rays = self.config.train, self.progress.rays_per_step
        wanted = rays * train.samples_per_step / max(1, samples)
        blended = 0.8 * rays + 0.2 * min(wanted, 2.0 * rays)
        self.progress.rays_per_step = int(min(train.rays_per_step, max(64, round(blended))))

    def _checkpoint_due(self) -> bool:
        train, step = self.config.train, self.progress.step
        every = train.checkpoint_every
        return (every is not None and step % every == 0) or step in train.checkpoint_steps

    def save(self) -> None:
        """Writes the checkpoint of the current step."""
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
        self.progress = Progress(**{key: state[key] for key in Progress.__dataclass_fields__})
        if state.get("sampler"):
            self.sampler.restore(state["sampler"])
