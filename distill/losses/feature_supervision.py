"""What the teacher's internal features ask of a training step: which samples, which terms, how heavy each may be."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.losses import internal_features as losses
from distill.losses.gradient_norms import GradientNorms
from distill.losses.pictures import RayBatch, scheduled_weight
from distill.losses.projector import FeatureProjector, fresh_projector
from distill.rendering.renderer import RenderedRays
from kernels.device_constants import constant
from machine.devices import host_integer
from scene.rays import SceneBox
from settings.config import Config
from settings.losses import ALIGNING_TERMS
from students.base import Student, density_unit_of
from teacher.features.channels import select_channels
from teacher.features.volume import FeatureVolume, build_volume
from teacher.features.volume_files import read_features
from teacher.gaussians import Gaussians
from teacher.sources import Teacher

_COLOR_CHANNELS = ("sh", "opacity")


@dataclass
class InternalTerms:
    """A step's terms on the teacher's internal features.

    Attributes:
        terms: unweighted, by name; those whose weight is not 0 now.
        weights: of each, now.
        valid_fraction: share of the drawn samples that count.
        counts: () of each, the sum of its samples' weights, of which it is the mean.
    """

    terms: dict[str, Tensor]
    weights: dict[str, float | Tensor]
    valid_fraction: Tensor | None = None
    counts: dict[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor | float:
        """The weighted sum."""
        return sum(self.weights[name] * term for name, term in self.terms.items())


class FeatureSupervision:
    """The losses ``density``, ``color``, ``feature_l2`` and ``feature_cos`` of a run.

    Args:
        config: the run.
        volume: of the teacher, with the channels that ``channels_of`` names.
        projector: between ``features.tap`` and the features; None where no activation is aligned.
    """

    def __init__(
        self,
        config: Config,
        volume: FeatureVolume,
        projector: FeatureProjector | None,
    ) -> None:
        self.config, self.settings, self.volume, self.projector = config, config.features, volume, projector
        self.norms = GradientNorms()
        self._density_unit = density_unit_of((volume.box.lower, volume.box.upper))
        wanted = select_channels(config.features.channels)
        self._aligned = _columns(volume, wanted)
        self._colored = _columns(volume, select_channels(_COLOR_CHANNELS)) if config.loss.color.weight > 0 else None
        self._statistics = volume.selected(wanted).statistics if projector else None

    def parameters(self) -> list[nn.Parameter]:
        """What is trained beside the student."""
        return [] if self.projector is None else list(self.projector.parameters())

    def forget_gradients(self) -> None:
        """Leaves no gradients behind: Adam moves what has one, be it 0, and an idle projector must rest."""
        for parameter in self.parameters():
            parameter.grad = None

    def copy(self) -> FeatureSupervision:
        """Another with a projector of its own, and the same volume."""
        twin = FeatureSupervision(self.config, self.volume, copy.deepcopy(self.projector))
        twin.norms.means = dict(self.norms.means)
        return twin

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each term that is on at ``progress`` in [0, 1]."""
        loss = self.config.loss
        now = {name: scheduled_weight(getattr(loss, name), progress) for name in loss.internal_terms}
        return {name: weight for name, weight in now.items() if weight > 0}

    def taps(self, progress: float) -> tuple[str, ...]:
        """Activations that a step needs of its student."""
        return () if ALIGNING_TERMS.isdisjoint(self.weights(progress)) else (self.settings.tap,)

    def compare(
        self, rendered: RenderedRays, batch: RayBatch, progress: float, generator: torch.Generator
    ) -> InternalTerms:
        """The terms of a step, on some of the samples that its rays were rendered with."""
        weights = self.weights(progress)
        field = rendered.field
        if not weights or not len(field.density):
            return InternalTerms({}, {})
        # Every k-th sample from a random first one: spread over the rays, and a view, whose gradient costs little.
        stride = -(-len(field.density) // self.settings.points_per_step)
        drawn = slice(host_integer(stride, generator), None, stride)
        teacher = self.volume.query(field.positions[drawn], self.config.kernels)
        known, share = torch.ones_like(teacher.density), 1.0
        if field.real is not None:
            known = field.real[drawn].float()
            share = known.mean().clamp(min=1e-6)
        opaque = known * -torch.expm1(-teacher.density * self.volume.cell_size)
        terms, counts, valid = {}, {}, (known * (teacher.density > 0)).mean() / share
        if "density" in weights:
            pair = (density / self._density_unit for density in (field.density[drawn], teacher.density))
            terms["density"] = losses.density_loss(*pair, known, self.config.loss.density)
            counts["density"] = known.sum()
        if "color" in weights:
            directions = batch.rays.directions[field.ray_index[drawn]]
            colors = losses.sh_colors(_selected(teacher.features, self._colored), directions)
            terms["color"] = losses.color_loss(field.rgb(drawn, directions), colors, opaque)
            counts["color"] = opaque.sum()
        if not ALIGNING_TERMS.isdisjoint(weights):
            # What the ray sees, and where the teacher knows what it says.
            weight = teacher.confidence * known * rendered.composite.weights[drawn]
            predicted = self.projector(field.taps[self.settings.tap][drawn])
            target = self._statistics.normalize(_selected(teacher.features, self._aligned))
            counts |= dict.fromkeys(ALIGNING_TERMS, weight.sum())
            if "feature_l2" in weights:
                terms["feature_l2"] = losses.feature_l2(predicted, target, weight)
            if "feature_cos" in weights:
                terms["feature_cos"] = losses.feature_cosine(predicted, target, weight)
        return InternalTerms(terms, weights, valid, counts)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        projector = None if self.projector is None else self.projector.state()
        return {"projector": projector, "norms": dict(self.norms.means)}

    def restore(self, state: dict[str, Any], path: str | Path) -> None:
        """Restores what ``state`` gave to a checkpoint.

        Raises:
            InputError: its projector is not the config's.
        """
        if self.projector is not None:
            self.projector.restore(state.get("projector"), path)
        self.norms.means = dict(state.get("norms", {}))


def channels_of(config: Config) -> tuple[str, ...]:
    """The teacher's channels that a run's losses need; at least one, since a volume has at least one."""
    needed: list[str] = []
    if config.loss.aligns:
        needed += config.features.channels
    if config.loss.color.weight > 0:
        needed += _COLOR_CHANNELS
    return select_channels(needed or ("opacity",), "config, features")


def load_volume(config: Config, gaussians: Gaussians, box: SceneBox) -> FeatureVolume:
    """The teacher's volume: of ``features.file``, or made from its Gaussians.

    Raises:
        InputError: the file is of another scene or box, or lacks a channel; an unknown channel; too large.
    """
    if config.features.file is None:
        # Losses on density and colour alone count each sample alike.
        wanted = config.features.resolution, channels_of(config)
        return build_volume(gaussians, box, *wanted, confidence=config.loss.aligns)
    return read_features(config.features.file, gaussians=gaussians, box=box, channels=channels_of(config))


def supervise(config: Config, teacher: Teacher, student: Student, device: torch.device) -> FeatureSupervision | None:
    """Feature supervision as the config asks for it; None where no such loss is in use.

    Raises:
        InputError: see ``load_volume``.
    """
    if not config.loss.internal_terms:
        return None
    lower, upper = student.box.tolist()
    volume = load_volume(config, teacher.gaussians, SceneBox(tuple(lower), tuple(upper))).to(device)
    if not config.loss.aligns:
        return FeatureSupervision(config, volume, None)
    features = config.features
    channels, inputs = select_channels(features.channels), student.tap_width(features.tap)
    projector = fresh_projector(features.tap, inputs, channels, config.seed).to(device)
    return FeatureSupervision(config, volume, projector)


def _columns(volume: FeatureVolume, names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Where ``names`` are among the volume's channels; None where some are not, for they are not needed then."""
    return tuple(volume.channels.index(name) for name in names) if set(names) <= set(volume.channels) else None


def _selected(features: Tensor, columns: tuple[int, ...]) -> Tensor:
    return features[:, constant(columns, features.device, torch.int64)]
