"""How the tests call the program on a toy scene, wait for what it does, and read what it writes."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

LIVE = ("teacher.kind=gaussians", "teacher.live={buffer: 8, reuse: 1.0}")
MIXED = (*LIVE, "data.ground_truth={split: train, weight: 0.5}")
# Whether a process may train that goes on as a copy of this one. Once a GPU is there, torch's backward pass has threads
# for it, and refuses in a copy, which has none of them; on macOS its libraries may crash there.
FORKS = sys.platform == "linux" and not torch.cuda.is_available()
# Python warns from 3.12 on; kernels' threads are idle meanwhile, and the copy does without them.
quiet_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


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


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
