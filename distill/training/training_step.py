"""One step of training: renders a batch of rays, compares them with the teacher, updates the student."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distill.losses.pictures import DepthStatistics, RayBatch, scheduled_weight, total_loss
from distill.losses.supervision import FeatureSupervision, InsideTerms
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import RenderedRays, RenderSettings, render_rays
from distill.training.step_graph import batch_of
from distill.training.update import Update
from settings.config import Config
from settings.losses import PICTURE_TERMS
from students.base import Student


@dataclass
class Taken:
    """What a step made of its rays.

    Attributes:
        rendered, loss, terms, depth: as from ``render_rays`` and ``total_loss``; ``terms`` are all that were in use.
        inside: the terms on the teacher's internal features.
        ratios: see ``GradientNorms``; empty in most steps.
        measuring: seconds that the ratios took.
    """

    rendered: RenderedRays
    loss: Tensor
    terms: dict[str, Tensor]
    depth: DepthStatistics | None
    inside: InsideTerms = field(default_factory=lambda: InsideTerms({}, {}))
    ratios: dict[str, float] = field(default_factory=dict)
    measuring: float = 0.0


class TrainingStep:
    """Takes the steps of a run.

    Args:
        config: the run.
        student, grid, settings: what is rendered.
        features: supervision by the teacher's internal features; None: rays alone.
        update: from losses to parameters.
        generator: on the host, for the samples that are compared with the teacher's internal features.
        capacity: samples to make room for, so that nothing waits for their number; None: as many as there are.
    """

    def __init__(
        self,
        config: Config,
        student: Student,
        grid: OccupancyGrid,
        settings: RenderSettings,
        features: FeatureSupervision | None,
        update: Update,
        generator: torch.Generator,
        capacity: int | None,
    ) -> None:
        self.config, self.student, self.grid, self.settings = config, student, grid, settings
        self.features, self.update, self.generator, self.capacity = features, update, generator, capacity

    def take(self, batch: RayBatch, seed: int, step: int, weights: Mapping[str, float], done: float) -> Taken:
        """Step number ``step``, counted from 1.

        Args:
            seed: of the samples' places.
            weights: of the terms that compare pictures.
            done: how far training is, 0 to 1.

        Raises:
            TrainingDiverged: see ``Update``.
        """
        taps = self.features.taps(done) if self.features else ()
        rendered = render_rays(self.student, self.grid, batch.rays, self.settings, seed, taps, self.capacity)
        loss, terms, depth = total_loss(rendered.composite, batch, self.config.loss, weights, rendered.kept)
        inside = InsideTerms({}, {})
        if self.features:
            inside = self.features.compare(rendered, batch, done, self.generator)
        loss, terms = loss + inside.total(), terms | inside.terms
        self.update.check(step, terms)
        start = time.perf_counter()
        ratios = self._gradient_ratios(step, terms, inside, done)
        measuring = time.perf_counter() - start
        self.update.apply(step, loss, terms)
        if self.features:
            self.features.forget_gradients()
        return Taken(rendered, loss.detach(), _detached(terms), depth, inside, ratios, measuring)

    def take_recorded(self, inputs: Mapping[str, Tensor]) -> Taken:
        """As ``take``, of ``step_inputs`` alone, no internal features of the teacher's: what CUDA graphs can replay."""
        batch = batch_of(inputs)
        seed, weights = inputs["seed"], {name: inputs[name].float() for name in PICTURE_TERMS}
        rendered = render_rays(self.student, self.grid, batch.rays, self.settings, seed, capacity=self.capacity)
        loss, terms, depth = total_loss(rendered.composite, batch, self.config.loss, weights, rendered.kept)
        self.update.apply(inputs["step"], loss, terms, inputs["factor"])
        return Taken(rendered, loss.detach(), _detached(terms), depth)

    def _gradient_ratios(
        self, step: int, terms: Mapping[str, Tensor], inside: InsideTerms, done: float
    ) -> dict[str, float]:
        """How hard the terms pull, in a step that is logged and has terms on the teacher's internal features."""
        if not inside.terms or step % self.config.train.log_every:
            return {}
        loss = self.config.loss
        weights = {name: scheduled_weight(getattr(loss, name), done) for name in terms} | inside.weights
        ratios = self.features.norms.ratios(self.student, terms, weights, self.update.gradient_scale())
        self.features.forget_gradients()
        return ratios


def _detached(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: term.detach() for name, term in terms.items()}
