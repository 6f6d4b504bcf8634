"""A checkpoint's student as a compact file of a wanted size or a wanted loss, in a bounded time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.compact.container import check_size
from distill.compact.rounded_weights import FROM_AFAR, NEARBY, RoundedWeights
from distill.compact.rounding_pace import RoundingPace
from distill.evaluation.evaluator import background_of, frames_by_split
from distill.evaluation.frame_metrics import CountedPixels
from distill.model.checkpoint import load_checkpoint, rendering_only
from distill.model.model import Model, restore_model
from distill.model.other_config import drawn_as_trained
from distill.training.optimizer import without_companions
from distill.training.ray_source import RaySource
from distill.training.sampler_choice import make_sampler
from distill.training.step import TrainingStep
from kernels.threads import one_torch_thread
from machine.devices import choose_device
from machine.files import check_output_file, output_errors, write_atomically
from machine.memory import MIB
from machine.run_folder import RunFolder, checkpoint_at
from machine.terminal import progress_bar
from machine.weights_files import restoring
from scene.frames import spread
from settings.config import Config
from settings.errors import InputError
from settings.loading import config_from_text
from settings.words import counted
from teacher.sources import Teacher, check_assets, load_teacher

_FRAMES = 24
# Of a wanted loss, what is aimed at while training is under way: its end makes up for more than half.
_LOSS_AIMED_AT = 3.0
_LOOKS = (0.4, 0.6, 0.8)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What the file has to be: of at most so many MiB, or so many dB worse than the checkpoint; one of the two.

    ``option`` is what an error calls the first.
    """

    most_mib: float | None = None
    most_loss_db: float | None = None
    option: str = "--target-mib"

    @property
    def most_bytes(self) -> int | None:
        """Of the file."""
        return None if self.most_mib is None else int(self.most_mib * MIB)

    def check_room(self, taken: float) -> None:
        """Refuses a size that is no more than the bytes taken by what is stored besides weights."""
        if self.most_mib is not None:
            check_size(self.option, "size", self.most_mib, taken)


@dataclass(frozen=True)
class Compressed:
    """What came of it.

    Attributes:
        path: the file; size: its bytes; integers: how many are in it; bits: what these take.
        psnr, psnr_before: of the file's student and the checkpoint's, dB against the teacher, means of ``frames``.
        steps, seconds: of training, and in all.
    """

    path: Path
    size: int
    integers: int
    bits: float
    psnr: float
    psnr_before: float
    frames: int
    steps: int
    seconds: float

    def text(self) -> str:
        """Two lines for a person."""
        each = f"{self.bits / max(1, self.integers):.2f} bits for each of {self.integers:,} integers"
        lost = self.psnr_before - self.psnr
        cost = f"{abs(lost):.2f} dB {'below' if lost > 0 else 'above'} the checkpoint's {self.psnr_before:.2f}"
        return (
            f"{self.path}: {self.size / MIB:.3f} MiB ({self.size:,} bytes; {each})\n"
            f"PSNR {self.psnr:.2f} dB against the teacher, {cost}, on {counted(self.frames, 'view')}; "
            f"{counted(self.steps, 'training step')}, {self.seconds:.0f} s in all"
        )


def compress(
    config: Config, root: Path, wanted: Wanted, checkpoint: Path | None = None, path: Path | None = None
) -> Compressed:
    """Trains a checkpoint's student on with rounded weights, writes it as a compact file.

    The loss is measured on the frames that an evaluation would take, held-out ones where there are any.

    Args:
        root: where the run's ``results/`` are.
        checkpoint: the run's latest by default.
        path: of the file, which ends in ``.lrd``; ``checkpoints/step_020000.lrd`` of the run by default, unless the run
            itself has ended with that.

    Raises:
        InputError: config, assets or checkpoint are not in order, the file cannot be written, or what is wanted cannot
            be had.
        TrainingDiverged: a loss term was not finite.
    """
    start = time.perf_counter()
    check_assets(config)
    device, folder = choose_device(config), RunFolder(config, root)
    source = checkpoint_at(checkpoint) if checkpoint else folder.latest_checkpoint()
    if source is None:
        raise InputError(folder.checkpoints, "checkpoint", "none", "a checkpoint to compress", "Train first.")
    state = _state_to_compress(source, device)
    path = path or _path_beside(folder, state, source)
    check_output_file("--file", path, (".lrd",))
    with output_errors(path, "compact file"):  # before all the work
        path.parent.mkdir(parents=True, exist_ok=True)
    model = restore_model(config, state, source, device)
    settings = config.compact, config.loss.rate, config.kernels
    wanted.check_room(RoundedWeights(model.student, {}, lambda: state, source, *settings).least_bytes())  # at once
    drawn_as = drawn_as_trained(config, config_from_text(state["config"], source))
    teacher = load_teacher(config, drawn_as, finer=model.settings.supersample)
    measure = _psnr_of(config, teacher, model, device)
    before = measure()
    sampler = make_sampler(config, teacher, model, device)
    step = TrainingStep(config, model, sampler, device, None, device.type == "cuda")
    step.cells_stay = True  # which entries are stored, and what the file says of them, is settled
    with restoring(source, "training state"):
        step.restore(state)
        weights = RoundedWeights(model.student, step.optimizer.state, lambda: state, source, *settings)
        weights.begin()
    search = _Search(weights, wanted, measure, before)
    search.begin()
    with one_torch_thread(), sampler:
        steps = _train(config, step, state["step"], sampler, weights, search)
    content, loss = search.end()
    with output_errors(path, "compact file"):
        write_atomically(path, content)
    frames = len(_frames(config, teacher))
    size, seconds = path.stat().st_size, time.perf_counter() - start
    return Compressed(path, size, weights.integers, weights.bits, before - loss, before, frames, steps, seconds)


def _state_to_compress(source: Path, device: torch.device) -> dict[str, Any]:
    """What a checkpoint holds of the student's training.

    Raises:
        InputError: it is damaged, made for rendering alone, or its student has a far field.
    """
    state = load_checkpoint(source, device)
    if (kind := rendering_only(source)) is not None:
        raise InputError(source, "checkpoint", kind, "the checkpoint that it was made of")
    if "far_field" in state:
        hint = "A compact file holds what is in the scene box alone: distil with far_field.kind: none."
        raise InputError(source, "far_field", "a student with a far field", "one without", hint)
    with restoring(source, "training state"):
        features = state.get("features") or {}
        if features.get("projector") is not None:  # trained beside the student, of no use to it now
            state["optimizer"] = without_companions(state["optimizer"])
    return state


def _path_beside(folder: RunFolder, state: dict[str, Any], source: Path) -> Path:
    """Of the file beside the run's checkpoints.

    Raises:
        InputError: the run itself has ended with a file there, whose figures are the run's.
    """
    path, wanted = folder.compact_path(state["step"]), config_from_text(state["config"], source).compact.target_mib
    if wanted is not None and path.is_file():
        found = f"the file that the run ended with (compact.target_mib: {wanted:g})"
        raise InputError(path, "compact file", found, "a name that is free", "Name another file: --file NAME.lrd.")
    return path


def _train(
    config: Config, step: TrainingStep, first: int, sampler: RaySource, weights: RoundedWeights, search: _Search
) -> int:
    """Trains on from step ``first`` until the time or the steps are over; returns how many steps were taken.

    Raises:
        TrainingDiverged: a step was not finite.
    """
    compact, taken, done, looks = config.compact, 0, 0.0, [*_LOOKS]
    pace = RoundingPace(compact.round_every, by_clock=compact.max_steps is None)
    start = time.perf_counter()
    with progress_bar(
        desc="compress", total=100, unit="%", bar_format="{desc}: |{bar}| {percentage:.0f}%{postfix}"
    ) as bar:
        while done < 1:
            weights.show()
            result = step(first + taken, 1 - compact.rewind * (1 - done))
            sampler.advance(len(result.batch.rays))
            weights.keep(result.lr, len(result.batch.rays), result.terms["rgb"])
            taken += 1
            if taken == 1:
                start = time.perf_counter()  # the first step compiles what is not in numba's cache yet
            done = (time.perf_counter() - start) / compact.seconds
            done = min(1.0, max(done, taken / compact.max_steps if compact.max_steps else 0.0))
            if pace.is_due(taken):
                step.settle(first + taken)  # on CUDA steps do not find out by themselves
                with pace.choosing():
                    if looks and done >= looks[0]:
                        looks.pop(0)
                        search.look()
                    search.follow()
                bar.set_postfix_str(f"{weights.size() / MIB:.3f} MiB", refresh=False)
            bar.n = 100 * done
            bar.update(0)
    step.settle(first + taken)
    return taken


class _Search:
    """Finds how coarse the rounding has to be for what is wanted."""

    def __init__(self, weights: RoundedWeights, wanted: Wanted, measure: Callable[[], float], before: float) -> None:
        self._weights, self._wanted, self._measure, self._before = weights, wanted, measure, before
        self._loss_at_first, self._coarseness_at_first = 0.0, weights.coarseness

    def begin(self) -> None:
        """Finds where to start from.

        Raises:
            InputError: what is stored besides weights takes more than is wanted.
        """
        weights, wanted = self._weights, self._wanted
        most = wanted.most_bytes
        if most is not None:
            wanted.check_room(weights.fixed)
            weights.seek_size(most)
        else:
            most_at_first = _LOSS_AIMED_AT * wanted.most_loss_db
            weights.seek(lambda: self._loss() - most_at_first, 1 / FROM_AFAR)
        self._loss_at_first, self._coarseness_at_first = self._loss(), weights.coarseness

    def follow(self) -> None:
        """Rounds anew; what shrinks the file while training is under way makes room for finer steps."""
        if self._wanted.most_bytes is None:
            self._weights.round()
        else:
            self._weights.follow(self._wanted.most_bytes)

    def look(self) -> None:
        """With a wanted loss: measures it, and makes steps finer or coarser."""
        most = self._wanted.most_loss_db
        if most is not None:
            self._weights.round()
            self._weights.coarseness *= float(np.clip(most / max(self._loss(), most / 4), 0.25, 4.0)) ** 0.5

    def end(self) -> tuple[bytes, float]:
        """The file and its loss, dB: of the trained weights; of those before where training has not paid off.

        Raises:
            InputError: what is wanted cannot be had.
        """
        found = self._best()
        if found is None or (self._wanted.most_bytes is not None and found[1] > self._loss_at_first):
            _log.warning(
                "training with rounded weights did not pay off in this time: the weights from before it are rounded"
            )
            self._weights.restart()
            self._weights.coarseness = self._coarseness_at_first
            found = self._best()
        if found is None:
            wanted = f"{self._wanted.most_loss_db} dB" if self._wanted.most_bytes is None else "that size"
            raise InputError("--max-loss-db, --target-mib", "file", "none by any rounding", f"one within {wanted}")
        return found

    def _best(self) -> tuple[bytes, float] | None:
        """The file within the size or the loss that is nearest to it, and its loss; None if none tried is."""
        wanted, weights = self._wanted, self._weights
        if wanted.most_bytes is None:
            weights.seek(lambda: self._loss() - wanted.most_loss_db, 1 / NEARBY)
            file = weights.file()
        else:
            file = weights.file_within(wanted.most_bytes)
        loss = self._loss()
        fits = loss <= wanted.most_loss_db if wanted.most_bytes is None else len(file) <= wanted.most_bytes
        return (file, loss) if fits else None

    def _loss(self) -> float:
        """dB, of the weights as they are rounded."""
        self._weights.content()
        return self._before - self._measure()


def _frames(config: Config, teacher: Teacher) -> list[int]:
    splits = frames_by_split(teacher.views, config.eval)
    return spread(splits.get("holdout") or next(iter(splits.values())), _FRAMES)


def _psnr_of(config: Config, teacher: Teacher, model: Model, device: torch.device) -> Callable[[], float]:
    """Measures the student's mean PSNR, dB, of renders in 8 bits and of pixels that count, as an evaluation does."""
    views, background = teacher.views, background_of(teacher.views, config)
    cameras, references = views.cameras.to(device), []
    for index in _frames(config, teacher):
        pixels = CountedPixels(None if views.counted is None else views.counted[index].to(device))
        references.append((index, pixels, pixels.listed(views.image(index, background).to(device))))

    def measure() -> float:
        model.student.eval()
        found, renderer = [], model.renderer()
        for index, pixels, reference in references:
            rgb = pixels.listed(renderer.render(cameras, index, background).rgb)
            error = ((rgb.nan_to_num() * 255).round() / 255 - reference).square().mean()
            found.append(-10 * torch.log10(error.clamp(min=1e-10)).item())
        model.student.train()
        return float(np.mean(found))

    return measure
