"""How the tests call the program on a toy scene, and read what it writes."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from settings.loading import REPO_ROOT

LIVE = ("teacher.kind=gaussians", "teacher.live={buffer: 8, reuse: 1.0}")
MIXED = (*LIVE, "data.ground_truth={split: train, weight: 0.5}")


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, each as texts by column."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def setting(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def arguments(toy: Path, *more: str) -> list[str]:
    """The options of a run: of a config, or of the toy scene in a folder. All that it writes lies there too."""
    config = toy / "toy.yaml" if toy.is_dir() else toy
    return ["--config", str(config), "--assets", str(config.parent), "--output", str(config.parent), *more]


def spawn(config: Path, *more: str) -> subprocess.Popen:
    """The program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(REPO_ROOT / "lego_response_distill.py"), *arguments(config, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=config.parent,
    )
