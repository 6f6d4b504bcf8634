"""The cameras of a run: those of the dataset that its config names."""

from __future__ import annotations

import shlex
from pathlib import Path

from settings.data import DataConfig
from settings.errors import InputError
from settings.loading import load_config


def run_cameras(folder: Path) -> DataConfig | None:
    """How the cameras of a run are read, ``transforms`` among it; None: the path is no run's folder.

    Raises:
        InputError: its config is damaged, or names no dataset, as that of a built-in scene.
    """
    own = folder / "config.yaml"
    if not own.is_file() or (folder / "cameras.json").is_file():  # graphdeco's folders have the latter
        return None
    data = load_config(own).data
    if data.transforms is None:
        command = f"python tools/export_teacher.py --config {shlex.quote(str(own))} --output DIR"
        hint = f"The run's cameras are in no file: `{command}` writes them, then name DIR in the run's place."
        raise InputError(own, "data.transforms", "null", "a dataset", hint)
    return data
