"""Adaptive density control of 3DGS (Kerbl et al. 2023, section 5.2): clone, split, prune."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor

from kernels.gaussians.covariances import rotation_matrices
from kernels.gaussians.rasterize import ScreenSpace
from settings.fitting import FittingConfig
from teacher.fitting.gaussian_model import GaussianModel

_SPLIT_SHRINK = 1.6  # standard deviations of the two halves of a Gaussian that is split
_SMALL = 0.01  # of the scene's extent: Gaussians up to this size are cloned, larger ones split
_LARGE = 0.1  # of the scene's extent: Gaussians over this size are pruned


class DensityControl:
    """Grows Gaussians where the screen pulls at them and prunes what is transparent.

    Args:
        settings: thresholds and intervals.
        extent: size of the scene in world units (``scene_extent``).
        count: Gaussians at the start.
    """

    def __init__(self, settings: FittingConfig, extent: float, count: int) -> None:
        self.settings, self.extent = settings, extent
        self.pull, self.views = torch.zeros(count), torch.zeros(count)

    def observe(self, screen: ScreenSpace, width: int, height: int) -> None:
        """Takes a view's screen-space gradients into the mean, in units of half the image's side (NDC)."""
        half = screen.gradient.new_tensor([width / 2, height / 2])
        seen = screen.radius > 0
        self.pull += (screen.gradient * half).norm(dim=1) * seen
        self.views += seen

    @torch.no_grad()
    def refine(self, model: GaussianModel, most: int, generator: torch.Generator) -> None:
        """Clones and splits what is pulled hardest, up to ``most`` Gaussians, then prunes; forgets what it has seen."""
        chosen = self._chosen(model, most)
        small = model.params["scales"].amax(dim=1) <= log(_SMALL * self.extent)
        clones, splits = chosen & small, chosen & ~small
        rows = {name: table.detach()[clones] for name, table in model.params.items()}
        halves = _halves(model, splits, generator)
        model.append({name: torch.cat([rows[name], halves[name]]) for name in rows})
        self._prune(model, torch.cat([splits, splits.new_zeros(len(model) - len(splits))]))
        self.pull, self.views = torch.zeros(len(model)), torch.zeros(len(model))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"pull": self.pull, "views": self.views}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores what ``state`` gave."""
        self.pull, self.views = state["pull"], state["views"]

    def _chosen(self, model: GaussianModel, most: int) -> Tensor:
        """(N,) bool: over the threshold, and among the strongest that there is still room for."""
        pull = self.pull / self.views.clamp(min=1)
        chosen = pull > self.settings.grow_gradient
        room = max(0, most - len(model))
        if int(chosen.sum()) > room:
            strongest = torch.topk(pull, room).indices
            chosen = torch.zeros_like(chosen)
            chosen[strongest] = True
        return chosen

    def _prune(self, model: GaussianModel, gone: Tensor) -> None:
        gone = gone | (model.opacities < self.settings.prune_opacity)
        gone |= model.params["scales"].amax(dim=1) > log(_LARGE * self.extent)
        if gone.any() and not gone.all():
            model.select(~gone)


def _halves(model: GaussianModel, splits: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Two smaller Gaussians for each one that is split, at random places drawn from it."""
    rows = {name: table.detach()[splits].repeat(2, *[1] * (table.ndim - 1)) for name, table in model.params.items()}
    offset = torch.randn(rows["means"].shape, generator=generator) * rows["scales"].exp()
    rows["means"] = rows["means"] + (rotation_matrices(rows["quats"]) @ offset[..., None])[..., 0]
    rows["scales"] = rows["scales"] - log(_SPLIT_SHRINK)
    return rows
