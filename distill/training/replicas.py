"""A student that several processes train: each renders a part of a step's rays, and all take the same update.

Every term of the loss is a mean over what counts of the whole batch. So a replica weighs its own means by its share of
the counts, and gradients are summed: the update is one process's, but for rounding. On CPUs of one machine that is done
in memory that all see; elsewhere they are sent, a table's from a CPU where a replica has touched it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.losses.feature_supervision import FeatureSupervision, InternalTerms
from distill.losses.pictures import RayBatch, depth_counts
from distill.rendering.renderer import RenderedRays
from machine import ranks
from settings.losses import PICTURE_TERMS, DepthLossConfig
from settings.training import TrainConfig
from students.base import Student

_SPARSE = 0.75  # share of the stretches of a table above which picking them out takes longer than sending all
_LARGE = 1 << 16  # values of a gradient that goes by itself, without a copy
_LEAST = 1e-6  # of counts: what is nothing may be divided by it


class Share(NamedTuple):
    """A replica's part of what a step counts.

    fractions: () by term, in [0, 1]; samples, rays: () int64 of the whole batch, asked for and rendered.
    """

    fractions: dict[str, Tensor]
    samples: Tensor
    rays: Tensor


@dataclass(frozen=True)
class _Piece:
    """What is exchanged of a gradient: all of it, or some of its rows (``places``)."""

    gradient: Tensor
    places: Tensor | None = None

    @property
    def size(self) -> int:
        """Values."""
        return self.gradient.numel() if self.places is None else len(self.places) * self.gradient.shape[1]

    def copy_to(self, values: Tensor) -> None:
        if self.places is None:
            values.view(self.gradient.shape).copy_(self.gradient)
        else:
            torch.index_select(self.gradient, 0, self.places, out=values.view(len(self.places), -1))

    def copy_from(self, values: Tensor) -> None:
        if self.places is None:
            self.gradient.copy_(values.view(self.gradient.shape))
        else:
            self.gradient[self.places] = values.view(len(self.places), -1)


class Replicas:
    """What the processes exchange in a step. All must make the same calls, in the same order.

    Args:
        fields: what is trained.
        features: supervision by the teacher's internal features, which may train something besides.
        device: where all that lives.
    """

    def __init__(self, fields: Sequence[Student], features: FeatureSupervision | None, device: torch.device) -> None:
        self._fields, self._features, self._device = fields, features, device
        touched = {parameter: rows for field in fields for parameter, rows in field.touched_rows().items()}
        # Of parameters on a GPU nobody keeps account: to find what was touched, the host would have to wait for it.
        self._touched = touched if device.type == "cpu" else {}

    def share(self, batch: RayBatch, rendered: RenderedRays, depth: DepthLossConfig) -> Share:
        """This replica's part of the rays and samples; ``batch`` and ``rendered`` are its own."""
        kept = rendered.kept
        counts = {"rays": len(batch.rays) if kept is None else kept.sum(), "samples": rendered.samples}
        if batch.distance is not None:
            counts["depth"] = depth_counts(batch, depth, kept).sum()
        fractions, totals = self._fractions(counts)
        by_term = dict.fromkeys(PICTURE_TERMS, fractions["rays"]) | fractions
        return Share(by_term, totals["samples"].long(), totals["rays"].long())

    def weighted(self, internal: InternalTerms, share: Share, done: float) -> tuple[InternalTerms, Share]:
        """Terms on the teacher's features, weighted by this replica's share of what they count, which ``share`` gets.

        Args:
            done: how far training is, which says what terms there are: a replica without samples has none of them.
        """
        counts = {name: internal.counts.get(name, 0) for name in self._features.weights(done)}
        fractions, _ = self._fractions(counts)
        weights = {name: internal.weights[name] * fractions[name] for name in internal.terms}
        terms = InternalTerms(internal.terms, weights, internal.valid_fraction)
        return terms, share._replace(fractions=share.fractions | fractions)

    @torch.no_grad()
    def sum(
        self, loss: Tensor, terms: Mapping[str, Tensor], share: Share, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Gives what is trained the whole batch's gradients; returns its loss and its terms.

        Args:
            loss: weighted by ``share`` already; terms: not, this replica's own means.
            done: how far training is.
        """
        parameters = [parameter for field in self._fields for parameter in field.parameters()]
        names = [*terms]
        if self._features is not None:
            parameters += self._features.parameters() if self._features.taps(done) else []
            names += [name for name in self._features.weights(done) if name not in terms]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        none = loss.new_zeros(())
        own = [share.fractions[name] * terms[name].detach() if name in terms else none for name in names]
        figures = torch.stack([loss.detach(), *own])
        gradients = [parameter.grad for parameter in parameters]
        flags = [self._touched[parameter].flags for parameter in parameters if parameter in self._touched]
        if self._device.type != "cpu" or not ranks.combine([*gradients, figures], flags):
            self._send([*self._pieces(parameters), _Piece(figures)])
        loss, *summed = figures.unbind()
        return loss, dict(zip(names, summed, strict=True))

    def _send(self, pieces: Sequence[_Piece]) -> None:
        """Gives pieces the sums of all replicas': large ones by themselves, the others together."""
        small = []
        for piece in pieces:
            if piece.places is None and piece.size >= _LARGE and piece.gradient.is_contiguous():
                ranks.total(piece.gradient)
            else:
                small.append(piece)
        together = torch.empty(sum(piece.size for piece in small), device=self._device)
        parts = together.split([piece.size for piece in small])
        for piece, part in zip(small, parts, strict=True):
            piece.copy_to(part)
        ranks.total(together)
        for piece, part in zip(small, parts, strict=True):
            piece.copy_from(part)

    def _fractions(self, counts: Mapping[str, Tensor | int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Of each count this replica's share, and the sum of all."""
        own = [torch.as_tensor(count, dtype=torch.float64, device=self._device) for count in counts.values()]
        own = torch.stack(own) if own else torch.zeros(0, dtype=torch.float64, device=self._device)
        totals = ranks.total(own.detach().clone())
        fractions = (own / totals.clamp(min=_LEAST)).float()
        return dict(zip(counts, fractions.unbind(), strict=True)), dict(zip(counts, totals.unbind(), strict=True))

    def _pieces(self, parameters: Sequence[nn.Parameter]) -> list[_Piece]:
        """What is exchanged of the gradients; the flags of touched rows become those of all replicas together.

        A stretch of rows that shares a flag takes at least as many bytes as its place would.
        """
        watched = [parameter for parameter in parameters if parameter in self._touched]
        if not watched:
            return [_Piece(parameter.grad) for parameter in parameters]
        own = [self._touched[parameter].flags for parameter in watched]
        united = ranks.largest(torch.cat(own)).split([*map(len, own)])
        touched = {}
        for parameter, flags, all_flags in zip(watched, own, united, strict=True):
            flags.copy_(all_flags)
            span = self._touched[parameter].rows_per_flag * math.prod(parameter.shape[1:])
            stretches = parameter.numel() // span
            places = all_flags[:stretches].nonzero()[:, 0]
            if parameter.numel() == stretches * span and len(places) < _SPARSE * stretches:
                touched[parameter] = _Piece(parameter.grad.view(stretches, span), places)
        return [touched.get(parameter, _Piece(parameter.grad)) for parameter in parameters]


def for_all_ranks(train: TrainConfig) -> TrainConfig:
    """The settings of a step of all processes: with ``scale_batch`` each brings a batch of its own.

    Adam's learning rates grow with the square root of the batch (Malladi et al. 2022).
    """
    count = ranks.size() if train.scale_batch else 1
    rates = {name: getattr(train, name) for name in ("lr", "lr_mlp", "lr_common")}
    scaled = {name: rate * math.sqrt(count) for name, rate in rates.items() if rate is not None}
    sizes = {"rays_per_step": train.rays_per_step * count, "samples_per_step": train.samples_per_step * count}
    return train if count == 1 else train.model_copy(update=scaled | sizes)
