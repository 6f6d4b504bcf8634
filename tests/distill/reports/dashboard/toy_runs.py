"""Runs as a few files: enough of logs/ and results/ for the dashboard, with no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from distill.evaluation.comparison_pictures import triptych
from distill.evaluation.results import EVAL_COLUMNS, FRAME_COLUMNS
from machine.files import write_csv
from scene.images import write_image


def write_run(
    root: Path,
    run: str,
    psnr: float = 30.0,
    *,
    blank: float | None = 10.0,
    fps: float | None = 20.0,
    step: int = 1000,
    config: dict | None = None,
    side: int = 32,
    rows: int = 20,
    seed: int = 0,
    pictures: bool = True,
) -> Path:
    """A whole run of the scene ``toy``; its logs folder."""
    logs, results = root / "logs" / "toy" / run, root / "results" / "toy" / run
    logs.mkdir(parents=True)
    results.mkdir(parents=True)
    settings = {"data": {"resolution": 100}, "teacher": {"kind": "views"}, "student": {"kind": "hash_grid"}}
    (results / "config.yaml").write_text(yaml.safe_dump(settings | (config or {})))
    figures = {"psnr": psnr, "ssim": 0.9, "psnr_blank": blank, "avg_fps": fps}
    base = {"step": step, "split": "holdout", "reference": "teacher", "frames": 2}
    write_csv(logs / f"eval_step_{step:06d}.csv", [base | figures], EVAL_COLUMNS)
    frames = [
        {"step": step, "frame": n, "name": f"r_{n}", "split": "holdout", "reference": "teacher", "psnr": psnr + n - 1}
        for n in range(4)
    ]
    write_csv(logs / f"eval_step_{step:06d}_frames.csv", frames, FRAME_COLUMNS)
    training = [{"step": 50 * n, "wall_s": 0.5 * n, "psnr_batch": psnr - 9 / n} for n in range(1, rows + 1)]
    write_csv(logs / "training_metrics.csv", training, ("step", "wall_s", "psnr_batch"))
    generator = np.random.default_rng(seed)
    for n, kind in enumerate(("worst_1", "worst_2", "worst_3", "median") if pictures else ()):
        image = generator.random((side, side, 3)).astype(np.float32)
        sheet = triptych(image, np.roll(image, 1, 0), "step 1")
        write_image(results / "eval" / f"step_{step:06d}_{kind}_frame_{n:05d}.png", sheet)
    return logs
