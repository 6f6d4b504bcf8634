"""The CSVs' figures and the evaluation's pictures as TensorBoard events, where ``logging.tensorboard`` asks for them.

The package is optional and slow to import: it is imported only then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.evaluation.results import FIGURES
from machine.files import read_csv
from machine.run_folder import RunFolder
from scene.images import read_image
from settings.config import Config
from settings.errors import InputError

_PICTURE = re.compile(r"_(worst_\d+|median|contact_sheet)(_frame_\d+)?\.png$")


def check_tensorboard(config: Config) -> None:
    """Refuses before a long run what would fail in it.

    Raises:
        InputError: ``logging.tensorboard`` is on and the package is missing or broken.
    """
    if config.logging.tensorboard:
        _summary_writer()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        found = f"true, but the package cannot be imported ({error})"
        hint = "pip install tensorboard, or set it to false."
        raise InputError("config", "logging.tensorboard", found, "the tensorboard package", hint) from error
    return SummaryWriter


class Board:
    """TensorBoard's events of a run; does nothing where it is not on.

    Args:
        folder: the run's; events go to ``folder.tensorboard``.
        on: ``logging.tensorboard``.
        resumed_at: step after which events are written anew; None: a fresh run, whose folder loses earlier events as
            its CSV loses earlier rows.
    """

    def __init__(self, folder: RunFolder, on: bool, resumed_at: int | None = None) -> None:
        self._writer: Any = None
        if not on:
            return
        if resumed_at is None:
            for stale in folder.tensorboard.glob("events.out.tfevents.*"):
                stale.unlink()
        purge = None if resumed_at is None else resumed_at + 1
        self._writer = _summary_writer()(str(folder.tensorboard), purge_step=purge)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add_scalars(self, row: Mapping[str, object]) -> None:
        """A row of training_metrics.csv: each of its figures under its column's name; what is None is left out."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, row["step"])

    def add_evaluation(self, folder: RunFolder, step: int) -> None:
        """The figures of the evaluation's CSV as ``<split>/<reference>/<column>``; its pictures as ``eval/<kind>``."""
        if self._writer is None:
            return
        path = folder.eval_csv(step)
        for row in read_csv(path).rows.values():
            for name in FIGURES:
                if row.get(name):
                    self._writer.add_scalar(f"{row['split']}/{row['reference']}/{name}", float(row[name]), step)
        for picture in sorted(folder.eval.glob(f"{path.stem.removeprefix('eval_')}_*.png")):
            kind = _PICTURE.search(picture.name)
            if kind:
                self._writer.add_image(f"eval/{kind[1]}", _rgb(picture), step, dataformats="HWC")


def _rgb(path: Path) -> Any:
    return read_image(path)[..., :3]
