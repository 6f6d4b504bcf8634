"""What a run is made with: the program's commit, the libraries, the machine."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import torch

from machine import ranks
from machine.devices import processor_name
from settings.config import Config
from settings.loading import REPO_ROOT

_PACKAGES = ("lego-response-distill", "torch", "numpy", "numba", "pydantic", "lpips", "scikit-image")


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
    found |= {"processes": ranks.size()} if ranks.size() > 1 else {}
    found["command"] = shlex.join([Path(sys.executable).name, *sys.argv])
    return found


def _git_commit() -> str | None:
    """The repository's commit, ``-dirty`` when its files differ from it; None outside git."""
    if not (REPO_ROOT / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        # Without its lock, which a kill would leave behind.
        command = ["git", "--no-optional-locks", "-C", str(REPO_ROOT), "describe"]
        command += ["--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    return None
