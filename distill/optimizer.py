"""Adam for a student: lazy on the rows a step touched where the student keeps such flags."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from distill.schema import TrainConfig
from kernels.adam import adam_step
from students.base import Student

_BETAS = (0.9, 0.99)  # Mueller et al. 2022


class StudentAdam(torch.optim.Optimizer):
    """Adam over a student's parameter groups; ``step`` also zeroes the gradients.

    Args:
        student: gives the parameters, and the flags of touched rows.
        train: learning rates and weight decay.
        implementation: of the kernel ``adam``.
        companions: parameters that are trained beside the student, at the rate of its MLPs.
    """

    def __init__(
        self,
        student: Student,
        train: TrainConfig,
        implementation: str = "auto",
        companions: Sequence[nn.Parameter] = (),
    ) -> None:
        groups = student.parameter_groups()
        lr_mlp = train.lr if train.lr_mlp is None else train.lr_mlp
        super().__init__(
            [
                {"params": groups["table"], "base_lr": train.lr, "weight_decay": 0.0},
                {"params": groups["mlp"], "base_lr": lr_mlp, "weight_decay": train.mlp_weight_decay},
                *([{"params": [*companions], "base_lr": lr_mlp, "weight_decay": 0.0}] if companions else []),
            ],
            {"lr": 0.0},
        )
        self._touched, self._eps = student.touched_rows(), student.adam_eps
        self._implementation = implementation

    def set_rate(self, factor: float) -> None:
        """Sets every group's learning rate to ``factor`` times its base."""
        for group in self.param_groups:
            group["lr"] = group["base_lr"] * factor

    def load_state_dict(self, state_dict: dict) -> None:
        """Takes the moments and counts; learning rates stay those of the config, which may have changed."""
        settings = [{key: group[key] for key in ("base_lr", "weight_decay")} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, kept in zip(self.param_groups, settings, strict=True):
            group.update(kept)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: nn.Parameter, group: dict) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["first_moment"] = torch.zeros_like(parameter)
            state["second_moment"] = torch.zeros_like(parameter)
        state["step"] += 1
        adam_step(
            parameter,
            parameter.grad,
            state["first_moment"],
            state["second_moment"],
            step=state["step"],
            lr=group["lr"],
            betas=_BETAS,
            eps=self._eps,
            weight_decay=group["weight_decay"],
            touched=self._touched.get(parameter),
            implementation=self._implementation,
        )


def rate_factor(step: int, progress: float, train: TrainConfig) -> float:
    """Learning rate as a fraction of its base: linear warm-up in steps, exponential decay over the run."""
    warmup = min(1.0, (step + 1) / max(1, train.lr_warmup_steps))
    return warmup * train.lr_final_ratio ** min(1.0, progress)
