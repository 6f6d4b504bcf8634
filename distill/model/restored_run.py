"""A run's checkpoint, ready to be looked at: what every command that renders a trained student begins with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from distill.model.checkpoint import load_checkpoint
from distill.model.model import Model, restore_model
from machine.devices import choose_device
from machine.run_folder import RunFolder
from settings.config import Config
from settings.errors import InputError
from teacher.sources import check_assets


@dataclass(frozen=True)
class RestoredRun:
    """A checkpoint's student; nothing has been written.

    Attributes:
        model: the student with its occupancy, in evaluation mode.
        step: training steps behind it.
        device: where it is.
        folder: the run's, not necessarily there yet.
        checkpoint: the file.
    """

    model: Model
    step: int
    device: torch.device
    folder: RunFolder
    checkpoint: Path


def restore_run(config: Config, root: Path, checkpoint: str | Path | None = None) -> RestoredRun:
    """Restores a checkpoint, the latest of the run under ``root`` by default, whatever student the config names.

    Raises:
        InputError: config, assets or checkpoint are not in order.
    """
    check_assets(config)
    device = choose_device(config)
    folder = RunFolder(config, root)
    path = Path(checkpoint) if checkpoint else folder.latest_checkpoint()
    if path is None:
        raise InputError(
            folder.checkpoints, "checkpoint", "none", "a checkpoint to evaluate", "Train first, or use --checkpoint."
        )
    state = load_checkpoint(path, device)
    model = restore_model(config, state, path, device)
    model.student.eval()
    return RestoredRun(model, state["step"], device, folder, path)
