"""The figures of training: a row of training_metrics.csv, and the same shortened for the progress bar."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.training.step import StepResult
from machine.telemetry import GpuMonitor, gpu_mem_gib
from scene.images import psnr_from_mse
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
