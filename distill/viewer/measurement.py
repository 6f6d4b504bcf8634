"""How fast the viewer is, without a browser: the render worker behind a camera that never rests, and then does."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from distill.viewer.render_worker import REST_S, Look, Picture, RenderWorker
from distill.viewer.subjects import Subject
from distill.viewer.viewpoints import Viewpoint

DEFAULT_WIDTH = 800
"""Longest side of full pictures where the config has no resolution, pixels."""
_TURN_S = 8.0  # a round about the scene


def measure(subject: Subject, width: int, seconds: float, ready: float) -> str:
    """The figures as a Markdown table: a row per mode. The teacher is loaded once the first picture is there.

    Args:
        width: of full pictures, which are square.
        seconds: for which the camera moves, in each mode.
        ready: when the program's modules were there, by ``time.perf_counter``.
    """
    view, up = subject.start(), subject.up
    got: list[Picture] = []
    worker = RenderWorker(subject.pictures, lambda _, __, picture: got.append(picture))
    rows = ["| mode | coarse/s | at, px | full, s |", "|---|---|---|---|"]
    worker.ask(0, Look(subject.pictures.modes[0], view, width, width))
    worker.turn()
    since = f"{_process_age():.2f} s after the program's start ({time.process_time():.2f} s of processor time),"
    after = f"{time.perf_counter() - ready:.2f} s of it after the imports"
    first = f"first picture {since} {after}, at {got[0].image.shape[1]} px"
    subject.load_teacher()
    for mode in subject.pictures.modes:
        worker.ask(0, Look(mode, view, width, width))
        worker.turn()
        got.clear()
        begin = time.perf_counter()
        while (spent := time.perf_counter() - begin) < seconds:
            turned = _turned(view, subject, up, 2 * math.pi * spent / _TURN_S)
            worker.ask(0, Look(mode, turned, width, width))
            worker.turn()
        rate, sizes = len(got) / spent, [picture.image.shape[1] for picture in got]
        time.sleep(REST_S)
        while not got[-1].is_full and worker.turn():
            pass
        rows.append(f"| {mode} | {rate:.1f} | {int(np.median(sizes))} | {sum(got[-1].parts.values()):.2f} |")
    return f"{first}\n\n" + "\n".join(rows)


def _turned(view: Viewpoint, subject: Subject, up: np.ndarray, angle: float) -> Viewpoint:
    """The viewpoint turned about the scene by an angle in radians."""
    from scipy.spatial.transform import Rotation  # slow to import: after the first picture

    middle = np.array(subject.pictures.box.centre)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec(angle * up).as_matrix()
    turn[:3, 3] = middle - turn[:3, :3] @ middle
    return Viewpoint(torch.from_numpy(turn) @ view.c2w, view.fov)


def _process_age() -> float:
    """Seconds since this process began; NaN where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return math.nan
