"""One step of training, top to bottom: draw rays, render them, compare with the teacher, update the student.

After Müller et al. 2022 ("Instant NGP"): rays are sampled where the occupancy grid says that something is, and their
number follows from a budget of samples. Everything else about a run is in ``trainer``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from distill.losses.feature_supervision import FeatureSupervision, InternalTerms
from distill.losses.pictures import (
    DepthStatistics,
    RayBatch,
    scheduled_weight,
    term_weights,
    total_loss,
)
from distill.model.model import Model
from distill.rendering.renderer import RenderedRays, render_rays, with_surroundings
from distill.training.lagged_counts import LaggedCounts, RayCount
from distill.training.optimizer import StudentOptimizer, rate_factor
from distill.training.precision import training_precision
from distill.training.ray_source import RaySource
from distill.training.replicas import Replicas, Share, for_all_ranks
from distill.training.step_graph import StepGraphs, batch_of, bucket_of, graph_refusal, step_inputs
from distill.training.watched_update import WatchedUpdate, make_watched, not_finite
from kernels.dispatch import resolve
from kernels.marching.ray_marching import seed_from_ray
from machine import ranks
from machine.devices import generator_on, host_integer
from settings.config import Config
from settings.losses import PICTURE_TERMS

_log = logging.getLogger(__name__)
# Room for the samples of a step beyond those aimed at: rays differ, and their number follows with a delay.
_HEADROOM = 1.125
_ROOM_FOR = 256  # samples: a multiple of what kernels take at a time
_FIRST_RAYS = 1024
_ALIGNED_RAYS = 4  # as many float32 have 16 bytes: Triton would compile kernels again for a part that begins elsewhere


@dataclass(frozen=True)
class StepResult:
    """What one step did; tensors stay on the device until somebody asks.

    Of several processes loss and terms are those of all, ``batch`` and ``rendered`` this one's.

    Attributes:
        batch: the rays, and what the teacher shows along them.
        rendered: what the student shows along them.
        loss, terms, depth: as from ``total_loss``; ``terms`` are all that were in use, unweighted.
        feature_valid_fraction: share of the samples compared with the teacher's internal features that count.
        gradient_ratios: see ``GradientNorms``; empty in most steps.
        measuring: seconds that the ratios took.
        seconds: that the step took, without those.
        lr: Adam's learning rate of the tables.
        share: this process's part; None: it is the only one.
        rays: that were drawn, of all processes.
    """

    batch: RayBatch
    rendered: RenderedRays
    loss: Tensor
    terms: dict[str, Tensor]
    depth: DepthStatistics | None
    feature_valid_fraction: Tensor | None = None
    gradient_ratios: dict[str, float] = field(default_factory=dict)
    measuring: float = 0.0
    seconds: float = 0.0
    lr: float = 0.0
    share: Share | None = None
    rays: int = 0


class TrainingStep:
    """Takes the steps of a run.

    Args:
        config: the run.
        model: what is trained, and how it is rendered.
        sampler: gives the training rays.
        device: where the student lives.
        features: supervision by the teacher's internal features; None: rays alone.
        asynchronous: a step never waits for the device, at the price of room for a fixed number of samples: what is not
            finite, and how many samples there were, is found out later.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        sampler: RaySource,
        device: torch.device,
        features: FeatureSupervision | None,
        asynchronous: bool,
    ) -> None:
        config = config.model_copy(update={"train": for_all_ranks(config.train)})
        self.config, self.sampler, self.device = config, sampler, device
        self.student, self.grid, self.settings, self.features = model.student, model.grid, model.settings, features
        self.far_field, self._fields = model.far_field, model.fields
        self.asynchronous = asynchronous
        self.precision = training_precision(config, device)
        self.optimizer = StudentOptimizer(
            model.student, config.train, config.kernels, features.parameters() if features else (),
            None if model.far_field is None else model.far_field.field,
        )  # fmt: skip
        self.replicas: Replicas | None = None
        if ranks.size() > 1:
            self.replicas = Replicas(model.fields, features, device)
        self.watched: WatchedUpdate | None = make_watched(self.optimizer, device, self.precision, asynchronous)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.rays_per_step = min(config.train.rays_per_step, _FIRST_RAYS)
        self.counts = LaggedCounts(device)
        self._drawn_rays, self._kept_rays = 0, torch.zeros((), dtype=torch.int64, device=device)
        # Triton's is for rays of which some may not have been rendered.
        twins = ("torch", "numba", "triton") if asynchronous else ("torch", "numba")
        self._losses_by = resolve("picture_terms", config.kernels, device, twins)
        self.unrecorded = graph_refusal(config, asynchronous) if config.train.cuda_graphs else None
        """Why steps are not recorded as CUDA graphs, where the run asks for it; None: they are, or it does not."""
        records = config.train.cuda_graphs and self.unrecorded is None
        self.graphs = StepGraphs[StepResult](self._take_recorded, device) if records else None
        self._told_of_refusal = False
        self.cells_stay = False
        """Whether the occupied cells are looked into no more."""

    def __call__(self, step: int, done: float) -> StepResult:
        """Takes step number ``step``, counted from 0.

        Args:
            done: how far training is, 0 to 1.

        Raises:
            TrainingDiverged: a loss term is not finite, where that is found out at once.
        """
        with self.computing():
            self._refresh_occupancy(step)
            began = time.perf_counter()
            batch = self.sampler.draw(self._rays_to_draw(), self._drawing())
            drawn, seed = len(batch.rays), host_integer(1 << 31, self.generator)
            if self.replicas is not None:
                own = ranks.part(drawn, _ALIGNED_RAYS)
                batch, seed = batch[own], seed_from_ray(seed, own.start)
            factor, weights = rate_factor(step, done, self.config.train), term_weights(self.config.loss, done)
            self.optimizer.set_rate(factor)
            if self.graphs is None:
                result = self.take(batch, seed, step + 1, weights, done)
            else:
                numbers = seed, step + 1, factor, *(weights[name] for name in PICTURE_TERMS)
                result = self.graphs(step_inputs(batch, numbers, self.device))
            self._adapt_rays(drawn, result)
        seconds = time.perf_counter() - began - result.measuring
        lr = self.optimizer.param_groups[0]["lr"]
        return replace(result, batch=batch, seconds=seconds, lr=lr, rays=drawn)

    def take(
        self,
        batch: RayBatch,
        seed: int | Tensor,
        step: int | Tensor,
        weights: Mapping[str, float | Tensor],
        done: float = 0.0,
        factor: Tensor | None = None,
    ) -> StepResult:
        """Renders a batch, compares, updates.

        Args:
            seed: of the samples' places.
            step: the step's number, counted from 1.
            weights: of ``PICTURE_TERMS``.
            factor: the learning rate's, in the place of that of ``set_rate``, where a recorded step finds it.
        """
        features = self.features
        taps = features.taps(done) if features else ()
        rendered = render_rays(self.student, self.grid, batch.sampled, self.settings, seed, taps, self.capacity)
        if self.far_field is not None:
            rendered = with_surroundings(rendered, self.far_field, batch.rays, batch.reach, self.settings, seed)
            batch = batch.with_depth_inside()
        share = None
        if self.replicas is not None:
            share = self.replicas.share(batch, rendered, self.config.loss.depth)
            weights = {name: weight * share.fractions[name] for name, weight in weights.items()}
        loss, terms, depth = total_loss(
            rendered.composite, batch, self.config.loss, weights, rendered.kept, self._losses_by
        )
        internal = InternalTerms({}, {})
        if features:
            # A process without samples draws none of them: what all draw must not depend on it.
            drawing = self.generator if share is None else generator_on(torch.device("cpu"), self.generator)
            internal = features.compare(rendered, batch, done, drawing)
            if share is not None:
                internal, share = self.replicas.weighted(internal, share, done)
            loss, terms = loss + internal.total(), terms | internal.terms
        start = time.perf_counter()
        ratios = self._gradient_ratios(step, terms, internal, done)
        measuring = time.perf_counter() - start
        self._backward(loss)
        if share is not None:
            loss, terms = self.replicas.sum(loss, terms, share, done)
        self._update(step, terms, factor)
        if features:
            features.forget_gradients()
        terms = {name: term.detach() for name, term in terms.items()}
        parts = batch, rendered, loss.detach(), terms, depth, internal.valid_fraction, ratios, measuring
        return StepResult(*parts, share=share)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Within it the fields are computed with factors of the run's type."""
        with ExitStack() as stack:
            for field in self._fields:
                stack.enter_context(field.computing_in(self.precision))
            yield

    @property
    def capacity(self) -> int | None:
        """Samples there is room for in an asynchronous step; None: as many as there are."""
        if not self.asynchronous:
            return None
        wanted = self.config.train.samples_per_step / ranks.size()
        longest = min(self.settings.max_samples_per_ray, self.grid.cells.most_bins(self.settings.step))
        needed = max(int(wanted * _HEADROOM), longest)
        return -(-needed // _ROOM_FOR) * _ROOM_FOR

    def take_dropped_rays(self) -> int:
        """Rays that there was no room for since the last call; waits for the device."""
        dropped = self._drawn_rays - int(self._kept_rays)
        self._drawn_rays = 0
        self._kept_rays.zero_()
        return dropped

    def settle(self, steps: int) -> None:
        """Makes sure that all ``steps`` so far were sound; waits for the device.

        Raises:
            TrainingDiverged: they were not.
        """
        if self.watched is not None:
            self.watched.settle(steps)
        self._tell_of_refusal(steps)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it; waits for the device."""
        return {
            "rays_per_step": self.rays_per_step,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "loss_scale": self.watched.state() if self.watched else None,
            "counts": self.counts.pending(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what ``state`` gave."""
        self.rays_per_step = state["rays_per_step"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"].cpu())
        if self.watched is not None:
            self.watched.restore(state.get("loss_scale"))
        self.counts.restore(state.get("counts", []))

    def _take_recorded(self, inputs: Mapping[str, Tensor]) -> StepResult:
        """As ``take``, of ``step_inputs`` alone: what a CUDA graph can replay."""
        seed, step, factor, *weights = inputs["numbers"].unbind()
        weights = dict(zip(PICTURE_TERMS, inputs["numbers"][-len(weights) :].float().unbind(), strict=True))
        try:
            return self.take(batch_of(inputs), seed.long(), step.long(), weights, factor=factor)
        except RuntimeError:
            self.optimizer.drop_gradients()  # a recording that fails has made room for some, and computed none
            raise

    def _backward(self, loss: Tensor) -> None:
        if self.watched is None:
            loss.backward()
        else:
            self.watched.backward(loss)

    def _update(self, step: int | Tensor, terms: Mapping[str, Tensor], factor: Tensor | None) -> None:
        """Adam's step.

        Raises:
            TrainingDiverged: a term is not finite, where that is found out at once.
        """
        if self.watched is not None:
            self.watched.apply(step, terms, factor)
            return
        for name, term in terms.items():
            if not math.isfinite(value := term.item()):
                raise not_finite(step, name, value)
        self.optimizer.step()

    def _refresh_occupancy(self, step: int) -> None:
        occupancy = self.config.occupancy
        if step % occupancy.update_every == 0 and step >= occupancy.warmup_steps and not self.cells_stay:
            self.grid.refresh(self.student, self._drawing())
            if self.far_field is not None:
                self.far_field.grid.refresh(self.far_field.field, self._drawing())
            if not self.asynchronous:
                self._tell_of_refusal(step)

    def _tell_of_refusal(self, step: int) -> None:
        if not self._told_of_refusal and self.grid.refusals > 0:
            self._told_of_refusal = True
            _log.warning("step %d: the student is empty almost everywhere; keeping the teacher's occupied space.", step)

    def _rays_to_draw(self) -> int:
        rays = self.rays_per_step
        return min(bucket_of(rays), self.config.train.rays_per_step) if self.graphs is not None else rays

    def _drawing(self) -> torch.Generator:
        """For what a step draws: the run's own, or one on the device that follows from it."""
        return generator_on(self.device, self.generator) if self.asynchronous else self.generator

    def _adapt_rays(self, drawn: int, result: StepResult) -> None:
        """Follows the number of rays that fills the sample budget; depends on counts alone, so it can be resumed."""
        train, rays, share = self.config.train, self.rays_per_step, result.share
        samples = result.rendered.samples if share is None else share.samples
        count = RayCount(drawn, samples if self.asynchronous else int(samples))
        if self.asynchronous:
            self._drawn_rays += drawn
            self._kept_rays += result.rendered.kept.sum() if share is None else share.rays
            self.counts.put(*count)
            count = self.counts.take()
        if count is None:
            return
        wanted = count.rays * train.samples_per_step / max(1, count.samples)
        blended = 0.8 * rays + 0.2 * min(wanted, 2.0 * rays)
        self.rays_per_step = int(min(train.rays_per_step, max(64, round(blended))))

    def _gradient_ratios(
        self, step: int | Tensor, terms: Mapping[str, Tensor], internal: InternalTerms, done: float
    ) -> dict[str, float]:
        """How hard the terms pull, in a step that is logged and has terms on the teacher's internal features."""
        if not internal.terms or step % self.config.train.log_every:
            return {}
        loss = self.config.loss
        weights = {name: scheduled_weight(getattr(loss, name), done) for name in terms}
        scale = self.watched.gradient_scale() if self.watched else 1.0
        ratios = self.features.norms.ratios(self.student, terms, weights, scale)
        self.features.forget_gradients()
        return ratios
