"""The light network between a student's activation and the teacher's features; never part of rendering."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from settings.errors import InputError


class FeatureProjector(nn.Module):
    """Linear.

    Args:
        tap: the activation it reads, for the checkpoint; inputs: its channels.
        channels: names of the teacher's channels it predicts, normalised.
    """

    def __init__(self, tap: str, inputs: int, channels: Sequence[str]) -> None:
        super().__init__()
        self.tap, self.channels = tap, tuple(channels)
        self.layers = nn.Sequential(nn.Linear(inputs, len(self.channels)))  # checkpoints say layers.0.weight

    def forward(self, activations: Tensor) -> Tensor:
        """(..., inputs) -> (..., C)."""
        return self.layers(activations)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"tap": self.tap, "channels": list(self.channels), "weights": self.state_dict()}

    def restore(self, state: dict[str, Any] | None, path: str | Path) -> None:
        """Takes the weights of a checkpoint's projector.

        Raises:
            InputError: the checkpoint has none, or one for another tap or other channels.
        """
        hint = "Resume with the config it was trained with, or start anew without --resume."
        if state is None:
            raise InputError(path, "projector", "none", "one, since the config aligns features", hint)
        for field, expected in (("tap", self.tap), ("channels", list(self.channels))):
            if (found := state.get(field)) != expected:
                raise InputError(path, f"projector.{field}", found, f"{expected}, as the config says", hint)
        try:
            self.load_state_dict(state["weights"])
        except (RuntimeError, KeyError) as error:
            found = str(error).splitlines()[0]
            raise InputError(path, "projector.weights", found, "weights for this student's tap", hint) from error


def fresh_projector(tap: str, inputs: int, channels: Sequence[str], seed: int) -> FeatureProjector:
    """A projector from its own seed: the student starts the same with and without one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FeatureProjector(tap, inputs, channels)
