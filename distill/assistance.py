"""Assisted distillation: a trained student answers at points, where a 3DGS teacher can only be asked along rays.

A sub-network of a KiloUniform sees few of the rays of a step; points it can be shown at will, in and next to occupied
space, with the density and colour a finished field has there (as KiloNeRF is distilled from a NeRF: Reiser et al.
2021, section 3.2).
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from distill.occupancy import OccupancyGrid
from distill.pipeline import Model
from distill.run_folder import CsvLog
from distill.schema import Config
from distill.training.optimizer import StudentAdam, rate_factor
from distill.training.random_numbers import generator_on
from distill.training.step_watch import TrainingDiverged
from distill.training.update import make_update
from kernels.constants import constant
from kernels.threads import one_torch_thread
from scene.cameras import Cameras
from scene.errors import InputError
from scene.rays import SceneBox
from students.base import Student


class PointSupervision:
    """Compares a student with its assistant at random points.

    Args:
        assistant: a trained student.
        grid: the student's occupancy; its teacher's cells and their neighbours are where points are drawn.
        cameras: training cameras; a point is seen from a random one's centre.
        step: length over which a density's alpha is compared, world units.
        points: of one comparison.
    """

    def __init__(self, assistant: Student, grid: OccupancyGrid, cameras: Cameras, step: float, points: int) -> None:
        self.assistant, self.step, self.points = assistant, step, points
        self.lower, self.cell_size = grid.box.lower, grid.cell_size
        near = F.max_pool3d(grid.teacher[None, None].float(), 3, stride=1, padding=1)[0, 0]
        self.cells = near.nonzero()
        self.centers = cameras.centers.to(self.cells.device)

    def loss(self, student: Student, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean square errors of alpha, and of colour weighted by alpha: ``{"alpha": ..., "rgb": ...}``.

        Numbers are drawn where the generator is: with one on the points' device nothing waits for it.
        """
        device, drawn = self.cells.device, {"generator": generator, "device": generator.device}
        cell, view = (
            torch.randint(count, (self.points,), **drawn).to(device) for count in (len(self.cells), len(self.centers))
        )
        place = torch.rand((self.points, 3), **drawn).to(device)
        positions = (self.cells[cell] + place) * self.cell_size + constant(self.lower, device)
        directions = F.normalize(positions - self.centers[view], dim=-1)
        index = torch.arange(self.points, device=positions.device)
        with torch.no_grad():
            density, target_rgb = self.assistant(positions, directions, index)
            target = -torch.expm1(-density * self.step)
        density, rgb = student(positions, directions, index)
        alpha = -torch.expm1(-density * self.step)
        # What neither makes visible has no colour to be right about.
        weight = torch.maximum(target, alpha.detach())[:, None]
        return {
            "alpha": F.mse_loss(alpha, target),
            "rgb": (weight * (rgb - target_rgb) ** 2).mean(),
        }


def check_same_box(assistant: Model, box: SceneBox, source: str) -> None:
    """Refuses an assistant that was trained in another scene box.

    Raises:
        InputError: the boxes differ by more than a thousandth of the longest side.
    """
    theirs, tolerance = assistant.grid.box, 1e-3 * max(box.extent)
    corners = zip((*theirs.lower, *theirs.upper), (*box.lower, *box.upper), strict=True)
    if any(abs(a - b) > tolerance for a, b in corners):
        raise InputError(
            source,
            "box",
            f"{theirs.lower} to {theirs.upper}",
            f"this run's scene box {box.lower} to {box.upper}",
            "Set data.box to the assistant's, or use an assistant of this scene.",
        )


def pretrain_on_points(
    config: Config,
    student: Student,
    supervision: PointSupervision,
    seconds: float | None,
    log: Path,
    resident: bool | None = None,
) -> None:
    """Trains a student on its assistant's answers, for ``seconds`` or else for its share of ``train.max_steps``.

    Figures go to the CSV ``log``: step, wall_s, lr, loss_alpha, loss_rgb.

    Args:
        resident: steps do not wait for the device, as in ``Trainer``.

    Raises:
        TrainingDiverged: the student's answers are not finite.
    """
    try:
        _pretrain(config, student, supervision, seconds, log, resident)
    except TrainingDiverged as error:
        raise TrainingDiverged(f"pointwise {error}") from error


def _pretrain(
    config: Config,
    student: Student,
    supervision: PointSupervision,
    seconds: float | None,
    log: Path,
    resident: bool | None,
) -> None:
    train = config.train
    steps = max(1, round(train.pointwise_share * train.max_steps))
    generator = torch.Generator().manual_seed(config.seed)
    optimizer, device = StudentAdam(student, train, config.kernels), supervision.cells.device
    resident = device.type == "cuda" if resident is None else resident
    update = make_update(optimizer, device, torch.float32, resident)
    rows = CsvLog(log, ("step", "wall_s", "lr", "loss_alpha", "loss_rgb"))
    start, step, done = time.perf_counter(), 0, 0.0
    unit = {"total": steps, "unit": "step"} if seconds is None else {"total": round(seconds, 1), "unit": "s"}
    with one_torch_thread(), tqdm(desc="points", dynamic_ncols=True, mininterval=0.5, **unit) as bar:
        while done < 1:
            terms = supervision.loss(student, generator_on(device, generator) if resident else generator)
            step += 1
            update.check(step, terms)
            optimizer.set_rate(rate_factor(step - 1, done, train))
            update.apply(step, sum(terms.values()), terms)
            elapsed = time.perf_counter() - start
            done = step / steps if seconds is None else elapsed / seconds
            bar.update(1 if seconds is None else elapsed - bar.n)
            if step % train.log_every == 0 or done >= 1:
                update.settle(step)
                figures = {f"loss_{name}": term.item() for name, term in terms.items()}
                rows.append(
                    {"step": step, "wall_s": round(elapsed, 3), "lr": optimizer.param_groups[0]["lr"], **figures}
                )
                bar.set_postfix({name: f"{value:.5f}" for name, value in figures.items()})


def assistant_config(config: Config) -> Config:
    """The run that ``train.assistant: auto`` does first: the same scene, ``assistant_student``, its share of the time.

    It is named ``<run>_assistant``.
    """
    train = config.train
    share = {"assistant": None, "max_steps": max(1, round(train.assistant_share * train.max_steps))}
    if train.max_seconds is not None:
        share = {"assistant": None, "max_seconds": train.assistant_share * train.max_seconds}
    return config.model_copy(
        update={
            "run": f"{config.run}_assistant",
            "student": config.assistant_student,
            "train": train.model_copy(update={**share, "checkpoint_every": None, "checkpoint_steps": ()}),
        }
    )
