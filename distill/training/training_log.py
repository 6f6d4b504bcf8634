"""Rows of training_metrics.csv, the same shortened for the progress bar, and where both go."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

import torch
from torch import Tensor

from distill.reports.tensorboard import Board
from distill.training.step import StepResult
from machine import ranks
from machine.files import CsvLog
from machine.run_folder import RunFolder
from machine.telemetry import GpuMonitor, gpu_mem_gib
from machine.terminal import progress_bar
from scene.images import psnr_from_mse
from settings.config import Config
from settings.losses import INTERNAL_TERMS, PICTURE_TERMS

COLUMNS = (
    *("step", "wall_s", "rays_per_s", "samples_per_ray", "lr", "loss"),
    *(f"loss_{term}" for term in PICTURE_TERMS),
    *("psnr_batch", "alpha_mean", "depth_valid_fraction"),
    *(f"teacher_depth_{name}" for name in ("min", "max", "mean")),
    *(f"teacher_depth_norm_{name}" for name in ("min", "max", "mean")),
    *(f"ray_depth_range_{name}" for name in ("min", "max", "mean")),
    *("gpu_mem_gib", "power_w"),
    *("live_views", "live_views_per_s", "live_starved_s"),
    "occupied_fraction",
    *(f"loss_{term}" for term in INTERNAL_TERMS),
    "feature_valid_fraction",
    *(f"grad_ratio_{term}" for term in (*PICTURE_TERMS[1:], *INTERNAL_TERMS)),
    *("loss_scale", "skipped_steps", "dropped_rays"),
    *("loss_distortion", "grad_ratio_distortion"),  # of a term that is gone: CSVs that have them are gone on in
    *("bits_per_entry", "size_estimate_mib"),
)
_log = logging.getLogger(__name__)


class Pace:
    """Rays since the last row, by the clock: a step's own time says nothing where the host does not wait for it."""

    def __init__(self) -> None:
        self.rays, self._since = 0, time.perf_counter()

    def rays_per_s(self) -> float:
        """Of the time since the last call, which starts anew."""
        now = time.perf_counter()
        rate = self.rays / max(now - self._since, 1e-9)
        self.rays, self._since = 0, now
        return round(rate, 1)


class RunLog:
    """Where a run's rows go: its CSV and TensorBoard, of rank 0 alone, and the progress bar.

    The bar counts seconds where time ends the run, else steps.

    Args:
        step, seconds: where the run stands; what it logged after this step is dropped.
        shows_progress: whether there is a bar.
    """

    def __init__(self, config: Config, folder: RunFolder, step: int, seconds: float, shows_progress: bool) -> None:
        train, resumed_at = config.train, step or None
        self._by_time = bool(train.max_seconds)
        self._csv = _open_csv(folder, resumed_at) if ranks.is_first() else None
        unit = {"total": train.max_steps, "initial": step, "unit": "step"}
        if self._by_time:
            unit = {"total": train.max_seconds, "initial": min(seconds, train.max_seconds), "unit": "s"}
            unit["bar_format"] = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
        self._bar = progress_bar(desc="train", disable=not shows_progress, **unit)
        self._board = Board(folder, config.logging.tensorboard and ranks.is_first(), resumed_at)
        self._open = ExitStack()

    def __enter__(self) -> RunLog:
        self._open.enter_context(self._bar)
        self._open.enter_context(self._board)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def draw(self, step: int, seconds: float) -> None:
        """Moves the bar on, and draws it now and then."""
        # The last step ends when the time is over already: the bar is full, not more than full.
        self._bar.n = min(seconds if self._by_time else step, self._bar.total)
        self._bar.update(0)

    def write(self, row: dict[str, object]) -> None:
        """Adds a row.

        Raises:
            OSError: it cannot be written.
        """
        if self._csv is not None:
            self._csv.append(row)
            self._board.add_scalars(row)
        self._bar.set_postfix(postfix(row), refresh=False)


def _open_csv(folder: RunFolder, resumed_at: int | None) -> CsvLog:
    path = folder.training_csv
    if resumed_at is None:
        return CsvLog(path, COLUMNS, None)
    if not path.exists():
        _log.warning("there is no %s to append to: a new one begins at step %d", path, resumed_at + 1)
    return CsvLog(path, COLUMNS, resumed_at + 1)


def metrics_row(
    step: int, wall_s: float, result: StepResult, device: torch.device, monitor: GpuMonitor
) -> dict[str, object]:
    """A row of ``COLUMNS``; what was not measured is None.

    Of several processes' step, figures other than loss, terms and rays a second are of this one's part.

    ``ray_depth_range`` is far - near, in world units, of the rays that cross the scene box.
    """
    batch, composite, kept = result.batch, result.rendered.composite, result.rendered.kept
    rays, kept = len(batch.rays), slice(None) if kept is None else kept
    with torch.no_grad():
        predicted = composite.rgb + (1 - composite.alpha)[:, None] * batch.background
        squared = ((predicted - batch.rgb) ** 2)[kept].mean().item()
        spans = batch.rays.far - batch.rays.near
        row: dict[str, object] = {
            "step": step,
            "wall_s": round(wall_s, 3),
            "rays_per_s": round(result.rays / result.seconds, 1),
            "samples_per_ray": round(int(result.rendered.samples) / rays, 3),
            "lr": result.lr,
            "loss": result.loss.item(),
            **{f"loss_{name}": term.item() for name, term in result.terms.items()},
            "psnr_batch": round(psnr_from_mse(squared), 4),
            "alpha_mean": composite.alpha[kept].mean().item(),
            **_spread("ray_depth_range", spans[spans > 0]),
            "gpu_mem_gib": gpu_mem_gib(device),
            "power_w": monitor.recent_power_w(),
        }
        row |= {f"grad_ratio_{name}": ratio for name, ratio in result.gradient_ratios.items()}
        if result.feature_valid_fraction is not None:
            row["feature_valid_fraction"] = result.feature_valid_fraction.item()
        if result.depth is not None:
            row["depth_valid_fraction"] = result.depth.valid_fraction.item()
            row |= _spread("teacher_depth", result.depth.distance)
            row |= _spread("teacher_depth_norm", result.depth.normalized)
    return row


def postfix(row: dict[str, object]) -> dict[str, str]:
    """The key figures for the progress bar."""
    short = {
        "step": f"{row['step']}",
        "psnr": f"{row['psnr_batch']:.2f}",
        "alpha": f"{row['alpha_mean']:.2f}",
        "krays/s": f"{row['rays_per_s'] / 1e3:.0f}",
        "samples/ray": f"{row['samples_per_ray']:.1f}",
    }
    if row.get("loss_depth") is not None:
        short["depth"] = f"{row['loss_depth']:.4f}"
    if row["gpu_mem_gib"] is not None:
        short["GiB"] = f"{row['gpu_mem_gib']:.1f}"
    if row.get("live_views") is not None:
        short["views"] = f"{row['live_views']}"
        short["waited"] = f"{row['live_starved_s']:.1f}s"
    return short


def _spread(name: str, values: Tensor) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        f"{name}_min": values.min().item(),
        f"{name}_max": values.max().item(),
        f"{name}_mean": values.mean().item(),
    }
