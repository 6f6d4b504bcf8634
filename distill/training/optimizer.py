"""Adam for a student: lazy on the rows a step touched where the student keeps such flags.

Networks that stand side by side as the rows of a parameter, one for each cell, may take a common step besides their
own: that of Adam on the sum of their gradients. It is the step of a network that all of them contain, row k being
``common + own[k]``, without storing the two apart. What is alike all over the scene, how colour turns with the view
above all, is then learnt from every ray, and the rows' own part is left with what differs. (Split this way because a
cell sees few views: on its own it fits them and errs between.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kernels.adam import adam_step, controlled_adam_step, corrected
from kernels.device_constants import constant
from settings.training import TrainConfig
from students.base import Student

_BETAS = (0.9, 0.99)  # Mueller et al. 2022


class StudentAdam:
    """Adam over a student's parameter groups; ``step`` also zeroes the gradients.

    No ``torch.optim.Optimizer``, which imports torch's compiler: seconds of every start.
    Groups, states and their form in checkpoints are as there.

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
        rows = student.networks_with_a_common_part() if train.lr_common else ()
        # Each is zero between steps: what a step makes of it is added to every row.
        self._common = {networks: nn.Parameter(torch.zeros_like(networks[:1])) for networks in rows}
        chosen = [(groups["table"], train.lr, 0.0), (groups["mlp"], lr_mlp, train.mlp_weight_decay)]
        chosen += [(companions, lr_mlp, 0.0)] if companions else []
        chosen += [(self._common.values(), train.lr_common, 0.0)] if rows else []
        self.param_groups = [
            {"params": [*parameters], "base_lr": base_lr, "weight_decay": weight_decay, "lr": 0.0}
            for parameters, base_lr, weight_decay in chosen
        ]
        self.state: dict[nn.Parameter, dict] = {}
        self._touched, self._eps = student.touched_rows(), student.adam_eps
        self._implementation = implementation
        self._factor = 0.0

    def set_rate(self, factor: float) -> None:
        """Sets every group's learning rate to ``factor`` times its base."""
        self._factor = factor
        for group in self.param_groups:
            group["lr"] = group["base_lr"] * factor

    def load_state_dict(self, state_dict: dict) -> None:
        """Takes the moments and counts; learning rates are the config's, which may have changed.

        Raises:
            ValueError: the state is of other parameters.
        """
        sizes, expected = (
            [len(group["params"]) for group in groups] for groups in (state_dict["param_groups"], self.param_groups)
        )
        if sizes != expected:
            raise ValueError(f"found groups of {sizes} parameters, expected {expected}")
        parameters = self._parameters()
        for place, values in state_dict["state"].items():
            if not isinstance(values["step"], int | float):
                raise ValueError(f"found {values['step']!r} for a count of steps")
            for name in ("first_moment", "second_moment"):
                if values[name].shape != parameters[place].shape:
                    found, wanted = (list(tensor.shape) for tensor in (values[name], parameters[place]))
                    raise ValueError(f"found a moment of shape {found}, expected {wanted}")
        self.state = {
            parameters[place]: {
                name: value.to(parameters[place].device) if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
            for place, values in state_dict["state"].items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        self._sum_gradients()
        for parameter, group in self._moving():
            state = self._state_of(parameter)
            state["step"] += 1
            moments = state["first_moment"], state["second_moment"]
            adam_step(
                parameter, parameter.grad, *moments,
                step=state["step"], lr=group["lr"], eps=self._eps, **self._settings(parameter, group),
            )  # fmt: skip
        self._move_all_rows()

    @torch.no_grad()
    def step_unless(self, skip: Tensor, scale: Tensor, factor: Tensor | None = None) -> None:
        """``step`` decided on the parameters' device: nothing waits for it.

        A skipped step only zeroes the gradients, whatever they hold; Adam does not count it. The counts are on the
        device from then on, but for ``state_dict``, which waits for them.

        Args:
            skip: () bool, whether to leave the parameters alone.
            scale: () float32, what the loss was multiplied by.
            factor: () float64 on the device, in the place of that of ``set_rate``.
        """
        factor = self._factor if factor is None else factor
        self._sum_gradients()
        moving = self._moving()
        states, taken = [self._state_of(parameter) for parameter, _ in moving], ~skip
        for state in states:
            if not isinstance(state["step"], Tensor):
                state["step"] = torch.full((), state["step"], dtype=torch.float64, device=skip.device)
            state["step"] += taken
        if not moving:
            return
        rates = constant(tuple(group["base_lr"] for _, group in moving), skip.device, torch.float64)
        steps = torch.stack([state["step"] for state in states])
        rate, eps = corrected(steps, rates * factor, _BETAS, self._eps)
        unscale, skips = (1 / scale).expand(len(moving)), skip.expand(len(moving))
        controls = torch.stack([rate.float(), eps.float(), unscale, skips.float()], dim=1)
        for (parameter, group), state, control in zip(moving, states, controls.unbind(), strict=True):
            moments = state["first_moment"], state["second_moment"]
            controlled_adam_step(parameter, parameter.grad, *moments, control, **self._settings(parameter, group))
        self._move_all_rows()

    def state_dict(self) -> dict:
        """Parameters are numbers in their order; counts of updates are plain numbers."""
        places = {parameter: place for place, parameter in enumerate(self._parameters())}
        return {
            "state": {
                places[parameter]: {name: int(value) if name == "step" else value for name, value in values.items()}
                for parameter, values in self.state.items()
            },
            "param_groups": [
                {**group, "params": [places[parameter] for parameter in group["params"]]} for group in self.param_groups
            ],
        }

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _sum_gradients(self) -> None:
        for networks, common in self._common.items():
            if networks.grad is not None:
                common.grad = networks.grad.sum(0, keepdim=True)

    def _move_all_rows(self) -> None:
        for networks, common in self._common.items():
            networks += common
            common.zero_()

    def _moving(self) -> list[tuple[nn.Parameter, dict]]:
        """Parameters that have a gradient, with their groups."""
        pairs = ((parameter, group) for group in self.param_groups for parameter in group["params"])
        return [(parameter, group) for parameter, group in pairs if parameter.grad is not None]

    def _state_of(self, parameter: nn.Parameter) -> dict:
        state = self.state.setdefault(parameter, {})
        if not state:
            state["step"] = 0
            state["first_moment"] = torch.zeros_like(parameter)
            state["second_moment"] = torch.zeros_like(parameter)
        return state

    def _settings(self, parameter: nn.Parameter, group: dict) -> dict:
        return {
            "betas": _BETAS,
            "weight_decay": group["weight_decay"],
            "touched": self._touched.get(parameter),
            "implementation": self._implementation,
        }


def rate_factor(step: int, progress: float, train: TrainConfig) -> float:
    """Learning rate as a fraction of its base: linear warm-up in steps, exponential decay over the run."""
    warmup = min(1.0, (step + 1) / max(1, train.lr_warmup_steps))
    return warmup * train.lr_final_ratio ** min(1.0, progress)
