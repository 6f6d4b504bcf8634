"""What a run's device means for its steps: the type they compute in, and what still waits for it."""

from __future__ import annotations

import torch

from settings.config import Config
from settings.errors import InputError
from students.base import Student

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def training_precision(config: Config, device: torch.device) -> torch.dtype:
    """The type of the factors in a training step; sums, parameters and Adam's moments are float32 always.

    Raises:
        InputError: half precision on a CPU whose kernels have none.
    """
    name = config.train.precision
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name != "float32" and device.type == "cpu" and config.kernels not in ("torch", "triton"):
        hint = "Half precision is for CUDA; with kernels: torch a CPU can try it out, slowly."
        expected = f"auto or float32, since kernels is {config.kernels} on the CPU"
        raise InputError("config", "train.precision", name, expected, hint)
    return _TYPES[name]


def waiting_parts(config: Config, student: Student) -> list[str]:
    """What has the host wait for a GPU between two rows of the log, though steps are made not to.

    One sentence part each, naming the field; empty where nothing waits.
    """
    why = "teacher.live" if config.live else "data.memory_gib"
    live = [f"{why}, whenever a view is rendered"] if config.renders_in_training else []
    far = ["far_field.kind, for the number of its samples"] if config.far_field.kind != "none" else []
    return student.waits_for(config.features.tap if config.loss.aligns else None) + far + live
