"""How the tests call the program on a toy scene, wait for it, and read what it writes."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable
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


def wait_for(condition: Callable[[], bool], seconds: float = 30, process: subprocess.Popen | None = None) -> None:
    """Until it holds; ``process`` must not end before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
