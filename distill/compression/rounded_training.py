"""Training in which a student's weights are those that its compact file will hold.

A step is taken at the rounded weights; what it changes is added to weights that are not rounded, which the next step's
are rounded from (a straight-through estimate). After each step these shrink towards zero, or their part's centre, by a
share of their step: what no ray needs is zero in the end, and takes next to no bits. How fine steps are follows from
Adam's second moments, which say how much the loss depends on a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.compact.compact_file import compact_parts
from distill.compact.parts import Integers, Part, steps_of
from distill.compact.rounding import exponents_of, means_of, round_part
from distill.model.model import Model
from distill.training.ray_sampler import RaySource
from distill.training.step import TrainingStep
from settings.config import Config

_COARSENESS = 1e-7  # to begin with
# Of the mean importance of its kind, what each weight is taken to have at least: single moments are noisy.
_SHARED = np.float32(0.5)


@dataclass
class _Rounded:
    """A parameter on its way: its part, its weights less the centre at first and now, these in steps of the rounding
    (rows, columns), and what they are rounded with.
    """

    parameter: nn.Parameter
    part: Part
    initial: Tensor
    scaled: Tensor
    centre: Tensor | None
    exponents: np.ndarray
    steps: Tensor
    zero: Tensor
    values: np.ndarray

    def put(self, integers: Tensor) -> Tensor:
        """Gives the parameter the weights of some integers; returns them."""
        weights = integers * self.steps
        weights = weights if self.centre is None else weights + self.centre
        self.parameter.data.copy_(weights.view(self.parameter.shape))
        return weights


class RoundedTraining:
    """A student, as it was restored from a checkpoint, that is trained on with rounded weights.

    Args:
        config: the run.
        model, state: the checkpoint's.
        sampler: gives the training rays.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        state: Mapping[str, Any],
        path: Path,
        sampler: RaySource,
        device: torch.device,
    ) -> None:
        self.compact = config.compact
        self.step = TrainingStep(config, model, sampler, device, None, device.type == "cuda")
        self.step.restore(state)
        self.sampler, self._taken = sampler, state["step"]
        self._device = device
        self.coarseness = _COARSENESS
        """See ``exponents_of``."""
        self.bits = 0.0
        """What the integers of the last ``round`` take."""
        self.parts = compact_parts(state, path)
        parameters = dict(model.student.named_parameters())
        self._rounded = [self._begin(parameters[part.name], part) for part in self.parts]
        self.round()

    @torch.no_grad()
    def _begin(self, parameter: nn.Parameter, part: Part) -> _Rounded:
        weights = parameter.detach().reshape(part.shape)
        stored = torch.from_numpy(part.stored).to(self._device)
        centre = weights[stored].mean(0).half().float() if part.centred else None
        initial = torch.where(stored[:, None], weights - (0 if centre is None else centre), 0.0)
        none = np.zeros(part.exponents_shape, dtype=np.int32)
        ones, values = torch.ones_like(initial), np.zeros(part.shape, dtype=np.int32)
        return _Rounded(parameter, part, initial, initial.clone(), centre, none, ones, ones == 0, values)

    @torch.no_grad()
    def restart(self) -> None:
        """Goes back to the checkpoint's weights."""
        for each in self._rounded:
            each.scaled = each.initial / each.steps

    @torch.no_grad()
    def round(self) -> None:
        """Chooses steps and integers anew."""
        self.bits = 0.0
        price = self.compact.price * self.coarseness**2
        for each in self._rounded:
            importance = self._importance(each)
            largest = float((each.scaled * each.steps).abs().max())
            exponents = exponents_of(each.part, importance, self.coarseness, largest)
            steps = torch.from_numpy(each.part.spread(steps_of(exponents))).to(self._device)
            each.scaled *= each.steps / steps
            each.exponents, each.steps = exponents, steps
            scaled = each.scaled.cpu().numpy()
            each.values, bits = round_part(each.part, scaled, importance, exponents, price)
            self.bits += bits
            each.zero = torch.from_numpy(each.values == 0).to(self._device)

    @torch.no_grad()
    def take_step(self, done: float) -> None:
        """Takes a training step at rounded weights.

        Args:
            done: how far the fine-tuning is, 0 to 1.
        """
        before = [each.put(each.scaled.round().masked_fill_(each.zero, 0)) for each in self._rounded]
        with torch.enable_grad():
            result = self.step(self._taken, 1 - self.compact.rewind * (1 - done))
        self._taken += 1
        self.sampler.advance(len(result.batch.rays))
        for each, weights in zip(self._rounded, before, strict=True):
            each.scaled += (each.parameter.view(each.part.shape) - weights) / each.steps
            each.scaled.copy_(nn.functional.softshrink(each.scaled, self.compact.shrink * result.lr))

    @torch.no_grad()
    def content(self) -> list[Integers]:
        """What the compact file will hold; the student is given these weights."""
        content = []
        for each in self._rounded:
            each.put(torch.from_numpy(each.values).to(self._device))
            centre = None if each.centre is None else each.centre.cpu().numpy().astype(np.float16)
            content.append(Integers(each.values, each.exponents, centre))
        return content

    def _importance(self, each: _Rounded) -> np.ndarray:
        moment = self.step.optimizer.state[each.parameter]["second_moment"]
        importance = moment.reshape(each.part.shape).cpu().numpy()
        means = means_of(each.part, importance).astype(np.float32)
        return importance + _SHARED * each.part.spread(means)
