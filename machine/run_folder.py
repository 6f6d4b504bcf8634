"""Where a run's files go, and how they are written so that a kill at any moment leaves them readable."""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

from machine.devices import processor_name
from machine.files import write_atomically
from settings.config import Config
from settings.errors import InputError
from settings.loading import REPO_ROOT, to_yaml

_PACKAGES = ("lego-response-distill", "torch", "numpy", "numba", "pydantic", "lpips", "scikit-image")


class RunFolder:
    """Paths of one run, in ``results/<scene>/<run>/`` and ``logs/<scene>/<run>/`` under ``root``."""

    def __init__(self, config: Config, root: str | Path = REPO_ROOT) -> None:
        self.config = config
        self.results = Path(root) / "results" / config.scene / config.run
        self.logs = Path(root) / "logs" / config.scene / config.run
        self.checkpoints = self.results / "checkpoints"
        self.eval = self.results / "eval"
        self.training_csv, self.tensorboard = self.logs / "training_metrics.csv", self.logs / "tensorboard"
        self.config_yaml, self.versions_json = self.results / "config.yaml", self.results / "versions.json"

    def checkpoint_path(self, step: int) -> Path:
        """``checkpoints/step_020000.pth``."""
        return self.checkpoints / f"step_{step:06d}.pth"

    def eval_csv(self, step: int, tag: str | None = None) -> Path:
        """``eval_step_020000[_<tag>].csv``, a row per split and reference; ``tag`` is the config's by default."""
        tag = self.config.tag if tag is None else tag
        return self.logs / f"eval_step_{step:06d}{'_' if tag else ''}{tag}.csv"

    def eval_frames_csv(self, step: int, tag: str | None = None) -> Path:
        """``eval_step_020000[_<tag>]_frames.csv``, a row per frame."""
        summary = self.eval_csv(step, tag)
        return summary.with_name(f"{summary.stem}_frames.csv")

    def latest_checkpoint(self) -> Path | None:
        """The run's ``newest_checkpoint``."""
        return newest_checkpoint(self.checkpoints)

    def create(self) -> None:
        """Creates the folders.

        Raises:
            InputError: one cannot be made or written to.
        """
        for folder in (self.checkpoints, self.eval, self.logs):
            _make_writable(folder)

    def prepare(self, device: torch.device | str) -> None:
        """Creates the folders and records ``config.yaml`` and ``versions.json`` for a run on ``device``.

        Raises:
            InputError: a folder cannot be made or written to.
        """
        self.create()
        write_atomically(self.config_yaml, to_yaml(self.config))
        found = versions(self.config, torch.device(device))
        write_atomically(self.versions_json, json.dumps(found, indent=2) + "\n")


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint written last in a folder, or None; not the highest step, which may be an earlier run's."""
    found = [path for path in checkpoints.glob("step_*.pth") if re.fullmatch(r"step_\d{6,}\.pth", path.name)]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)


def versions(config: Config, device: torch.device) -> dict[str, str | int | None]:
    """What a run's figures depend on beside its config; None for what cannot be found out."""
    found: dict[str, str | int | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = None
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    found["torch"] = torch.__version__  # with its build, which the package's metadata leave out
    found["git_commit"] = _git_commit()
    found["platform"] = platform.platform()
    found["device"] = str(device)
    found["device_name"] = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    found["threads"] = torch.get_num_threads()
    found["seed"] = config.seed
    found["command"] = shlex.join([Path(sys.executable).name, *sys.argv])
    return found


def _git_commit() -> str | None:
    """The repository's commit, ``-dirty`` when its files differ from it; None outside git."""
    if not (REPO_ROOT / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(REPO_ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    return None


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        way = next((str(path) for path in [folder, *folder.parents] if path.exists() and not path.is_dir()), None)
        found = f"a file in the way, {way}" if way else (error.strerror or str(error))
        hint = "Move the file or choose another scene or run name." if way else "Check its permissions and the disk."
        raise InputError(folder, "output folder", found, "a folder that can be written to", hint) from error
