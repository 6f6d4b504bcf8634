"""Gaussians under optimisation: their parameters, an Adam for each, and how their number changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from teacher.gaussians import Gaussians

# gsplat's names, so that its strategies can work on the same tables.
FIELDS = {"means": "means", "scales": "log_scales", "quats": "rotations", "opacities": "opacity_logits"}
_EPSILON = 1e-15  # Kerbl et al. 2023: gradients per Gaussian are tiny


class GaussianModel:
    """Trainable Gaussians of SH degree 3 at most.

    Attributes:
        params: means (N, 3), scales (N, 3) as logarithms, quats (N, 4), opacities (N,) as logits, sh0 (N, 1, 3), shN
            (N, K - 1, 3).
        optimizers: one Adam for each of them.

    Args:
        gaussians: where the optimisation starts; its ``sh`` gets zeros up to ``sh_degree``.
        sh_degree: highest degree that is trained, 0 to 3.
        rates: learning rate of each of ``params``.
        device: where it is trained.
    """

    def __init__(
        self, gaussians: Gaussians, sh_degree: int, rates: dict[str, float], device: torch.device | str = "cpu"
    ) -> None:
        count, coefficients = len(gaussians), (sh_degree + 1) ** 2
        sh = torch.zeros(count, coefficients, 3)
        shared = min(coefficients, gaussians.sh.shape[1])
        sh[:, :shared] = gaussians.sh[:, :shared]
        values = {name: getattr(gaussians, field) for name, field in FIELDS.items()}
        values |= {"sh0": sh[:, :1], "shN": sh[:, 1:]}
        self.params = {name: nn.Parameter(value.to(device).contiguous().clone()) for name, value in values.items()}
        self.optimizers = {
            name: torch.optim.Adam([parameter], lr=rates[name], eps=_EPSILON, fused=True)
            for name, parameter in self.params.items()
        }

    def __len__(self) -> int:
        return len(self.params["means"])

    @property
    def opacities(self) -> Tensor:
        """(N,) in (0, 1)."""
        return torch.sigmoid(self.params["opacities"])

    def sh(self, degree: int) -> Tensor:
        """(N, (degree + 1)^2, 3): the coefficients up to that degree."""
        if degree == 0:
            return self.params["sh0"]
        return torch.cat([self.params["sh0"], self.params["shN"][:, : (degree + 1) ** 2 - 1]], dim=1)

    def step(self) -> None:
        """One Adam step of every table that has a gradient; gradients are cleared."""
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.clear_gradients()

    def clear_gradients(self) -> None:
        """Forgets the gradients of every table."""
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def edit(self, change: Callable[[str, Tensor], Tensor], moments: Callable[[Tensor], Tensor]) -> None:
        """Replaces every table by ``change(name, table)``, and both of Adam's moments by ``moments(moment)``."""
        for name, old in self.params.items():
            optimizer = self.optimizers[name]
            new = nn.Parameter(change(name, old.detach()).contiguous())
            state = optimizer.state.pop(old, {})
            optimizer.state[new] = {
                key: value if key == "step" else moments(value).contiguous() for key, value in state.items()
            }
            optimizer.param_groups[0]["params"] = [new]
            self.params[name] = new

    def select(self, index: Tensor) -> None:
        """Keeps the Gaussians of ``index``: (N,) bool or (M,) int64."""
        self.edit(lambda _, table: table[index], lambda moment: moment[index])

    def append(self, rows: dict[str, Tensor]) -> None:
        """Adds Gaussians, ``rows`` being further rows of every table; they start without momentum."""
        count = len(rows["means"])
        self.edit(
            lambda name, table: torch.cat([table, rows[name]]),
            lambda moment: torch.cat([moment, moment.new_zeros(count, *moment.shape[1:])]),
        )

    def snapshot(self) -> Gaussians:
        """The Gaussians as they are now, on the CPU."""
        tables = {name: table.detach().cpu().clone() for name, table in self.params.items()}
        sh = torch.cat([tables.pop("sh0"), tables.pop("shN")], dim=1)
        return Gaussians(**{FIELDS[name]: table for name, table in tables.items()}, sh=sh)

    def state(self) -> dict[str, Any]:
        """Tables and moments, for a checkpoint."""
        moments = {name: optimizer.state.get(self.params[name], {}) for name, optimizer in self.optimizers.items()}
        return {"params": {name: table.detach() for name, table in self.params.items()}, "moments": moments}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores tables and moments of a checkpoint; learning rates stay."""
        device = self.params["means"].device
        for name, table in state["params"].items():
            parameter = nn.Parameter(table.to(device))
            optimizer, moments = self.optimizers[name], state["moments"][name]
            optimizer.state.clear()
            if moments:
                optimizer.state[parameter] = {key: value.to(device) for key, value in moments.items()}
            optimizer.param_groups[0]["params"] = [parameter]
            self.params[name] = parameter
