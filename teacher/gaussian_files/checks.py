"""What every file of Gaussians is held to."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from settings.errors import InputError
from teacher.gaussians import Gaussians

FIELDS = tuple(field.name for field in fields(Gaussians))
DAMAGED = "The file is truncated or was altered: copy it again."


def check_present(path: str | Path) -> None:
    """InputError where there is no such file."""
    if not Path(path).is_file():
        raise InputError(path, "Gaussians", "no such file", "a file of 3D Gaussians", "Check the path.")


def checked_gaussians(path: str | Path, arrays: dict[str, np.ndarray]) -> Gaussians:
    """The arrays as Gaussians, held to what ``read_ply`` holds a PLY to."""
    if arrays["means"].ndim == 0 or len(arrays["means"]) == 0:
        raise InputError(path, "means", "0 Gaussians", "at least 1", "Did the teacher's training finish?")
    for name, values in arrays.items():
        if bad := int((~np.isfinite(values)).sum()):
            found = f"{bad} of {values.size} values NaN or infinite"
            raise InputError(path, f"array {name}", found, "finite values", "Use an earlier checkpoint.")
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)) for name, values in arrays.items()
    }
    try:
        gaussians = Gaussians(**tensors)
    except (ValueError, IndexError) as error:
        raise InputError(path, "arrays", error, "arrays of one number of Gaussians") from None
    if zero := int((gaussians.rotations.norm(dim=1) < 1e-12).sum()):
        raise InputError(path, "rotations", f"{zero} of length zero", "non-zero quaternions")
    return gaussians
