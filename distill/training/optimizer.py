"""Adam for a student: lazy on the rows a step touched where the student keeps such flags, and Muon in its place for the
networks whose matrices the student names, see ``kernels.optimization.muon``.

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

from kernels.device_constants import constant
from kernels.optimization.adam import BETAS, adam_step, controlled_adam_steps, corrected
from kernels.optimization.muon import muon_step
from kernels.optimization.updates import Update
from settings.training import TrainConfig
from students.base import Student


class StudentOptimizer:
    """Adam and Muon over a student's parameter groups; ``step`` also zeroes the gradients.

    No ``torch.optim.Optimizer``, which imports torch's compiler: seconds of every start.
    Groups, states and their form in checkpoints are as there.

    Args:
        student: gives the parameters, and the flags of touched rows.
        train: learning rates and weight decay.
        implementation: of the kernel ``adam``.
        companions: parameters that are trained beside the student, at the rate of its MLPs.
        far_field: a second field that is trained at the student's rates; None: there is none.
    """

    def __init__(
        self,
        student: Student,
        train: TrainConfig,
        implementation: str = "auto",
        companions: Sequence[nn.Parameter] = (),
        far_field: Student | None = None,
    ) -> None:
        groups = student.parameter_groups()
        lr_mlp = train.lr if train.lr_mlp is None else train.lr_mlp
        rows = student.networks_with_a_common_part() if train.lr_common else ()
        # Each is zero between steps: what a step makes of it is added to every row.
        self._common = {networks: nn.Parameter(torch.zeros_like(networks[:1])) for networks in rows}
        chosen = [(groups["table"], train.lr, 0.0), (groups["mlp"], lr_mlp, train.mlp_weight_decay)]
        chosen += [(companions, lr_mlp, 0.0)] if companions else []
        chosen += [(self._common.values(), train.lr_common, 0.0)] if rows else []
        if far_field is not None:
            far = far_field.parameter_groups()
            chosen += [(far["table"], train.lr, 0.0), (far["mlp"], lr_mlp, train.mlp_weight_decay)]
        self.param_groups = [
            {"params": [*parameters], "base_lr": base_lr, "weight_decay": weight_decay, "lr": 0.0}
            for parameters, base_lr, weight_decay in chosen
        ]
        self.state: dict[nn.Parameter, dict] = {}
        self._touched, self.eps = student.touched_rows(), student.adam_eps
        self._touched |= {} if far_field is None else far_field.touched_rows()
        fields = [] if train.mlp_optimizer == "adam" else [student] if far_field is None else [student, far_field]
        self._matrices = {matrix: shapes for field in fields for matrix, shapes in field.matrices().items()}
        self.implementation = implementation
        self.factor = 0.0
        """The learning rates', of ``set_rate``."""
        self._counted: list[nn.Parameter] = []
        self._updates: Tensor | None = None

    def set_rate(self, factor: float) -> None:
        """Sets every group's learning rate to ``factor`` times its base."""
        self.factor = factor
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
        parameters = self.parameters()
        for place, values in state_dict["state"].items():
            if not isinstance(values["step"], int | float):
                raise ValueError(f"found {values['step']!r} for a count of steps")
            for name in ("first_moment", "second_moment"):
                if values[name].shape != parameters[place].shape:
                    found, wanted = (list(tensor.shape) for tensor in (values[name], parameters[place]))
                    raise ValueError(f"found a moment of shape {found}, expected {wanted}")
        self._counted = []
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
        self.sum_gradients()
        for parameter, group in self._with_gradients():
            state = self._state_of(parameter)
            state["step"] += 1
            moments = state["first_moment"], state["second_moment"]
            given = {"step": state["step"], "betas": BETAS, "eps": self.eps, "weight_decay": group["weight_decay"]}
            given |= {"touched": self._touched.get(parameter), "implementation": self.implementation}
            if parameter in self._matrices:
                muon_step((parameter, parameter.grad, *moments), self._matrices[parameter], group["lr"], **given)
            else:
                adam_step(parameter, parameter.grad, *moments, lr=group["lr"], **given)
        self._add_common_steps()

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
        self.sum_gradients()
        if not self._with_gradients():
            return
        updates, rates = self.updates(skip.device), self.rates(skip.device)
        updates += ~skip
        rates = rates * (self.factor if factor is None else factor)
        rate, eps = corrected(updates, rates, BETAS, self.eps)
        rate = torch.where(self.uncorrected(skip.device) != 0, rates, rate)
        unscale, skips = (1 / scale).expand(len(rates)), skip.expand(len(rates))
        self.update(torch.stack([rate.float(), eps.float(), unscale, skips.float()], dim=1))

    @torch.no_grad()
    def update(self, controls: Tensor) -> None:
        """Updates every parameter that has a gradient by its row of ``controls``, see ``controlled_adam_step``."""
        updates = []
        for parameter, group in self._with_gradients():
            state, decay = self._state_of(parameter), group["weight_decay"]
            moments = state["first_moment"], state["second_moment"]
            touched, matrices = self._touched.get(parameter), self._matrices.get(parameter, ())
            updates.append(Update(parameter, parameter.grad, *moments, decay, touched, matrices, state["step"]))
        controlled_adam_steps(updates, controls, betas=BETAS, implementation=self.implementation)
        self._add_common_steps()

    def updates(self, device: torch.device) -> Tensor:
        """(P,) float64 how often each parameter with a gradient has been updated; optimizer states hold views of it."""
        parameters = [parameter for parameter, _ in self._with_gradients()]
        if [*map(id, parameters)] != [*map(id, self._counted)]:
            states = [self._state_of(parameter) for parameter in parameters]
            counts = [state["step"] for state in states]
            counts = [torch.full((), n, device=device) if isinstance(n, int) else n for n in counts]
            self._counted, self._updates = parameters, torch.stack([count.double() for count in counts])
            for state, count in zip(states, self._updates.unbind(), strict=True):
                state["step"] = count
        return self._updates

    def rates(self, device: torch.device) -> Tensor:
        """(P,) float64 learning rates of the parameters that have a gradient, but for the factor; not to be changed."""
        return constant(tuple(group["base_lr"] for _, group in self._with_gradients()), device, torch.float64)

    def uncorrected(self, device: torch.device) -> Tensor:
        """(P,) uint8: 1 for the parameters that have a gradient and are Muon's, whose steps have no bias."""
        return constant(
            tuple(int(parameter in self._matrices) for parameter, _ in self._with_gradients()), device, torch.uint8
        )

    def state_dict(self) -> dict:
        """Parameters are numbers in their order; counts of updates are plain numbers."""
        places = {parameter: place for place, parameter in enumerate(self.parameters())}
        return {
            "state": {
                places[parameter]: {name: int(value) if name == "step" else value for name, value in values.items()}
                for parameter, values in self.state.items()
            },
            "param_groups": [
                {**group, "params": [places[parameter] for parameter in group["params"]]} for group in self.param_groups
            ],
        }

    def parameters(self) -> list[nn.Parameter]:
        """All of them, group by group."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def drop_gradients(self) -> None:
        """Leaves none behind, whatever they hold."""
        for parameter in self.parameters():
            parameter.grad = None

    def sum_gradients(self) -> None:
        """Gives the common parts of networks their gradients; ``step`` and ``step_unless`` begin with it."""
        for networks, common in self._common.items():
            if networks.grad is not None:
                common.grad = networks.grad.sum(0, keepdim=True)

    def _add_common_steps(self) -> None:
        for networks, common in self._common.items():
            networks += common
            common.zero_()

    def _with_gradients(self) -> list[tuple[nn.Parameter, dict]]:
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


def without_companions(state_dict: dict) -> dict:
    """An optimizer's state less its companions' group, as an optimizer without companions has it.

    Raises:
        ValueError: it has no third group, which companions are.
    """
    first, second, companions, *rest = state_dict["param_groups"]
    gone = {*companions["params"]}
    groups, kept = [first, second, *rest], sorted({*state_dict["state"]} - gone)
    places = {place: place - sum(other < place for other in gone) for group in groups for place in group["params"]}
    return {
        "state": {places[place]: state_dict["state"][place] for place in kept},
        "param_groups": [{**group, "params": [places[place] for place in group["params"]]} for group in groups],
    }


def rate_factor(step: int, progress: float, train: TrainConfig) -> float:
    """Learning rate as a fraction of its base: linear warm-up in steps, linear decay over the run."""
    warmup = min(1.0, (step + 1) / max(1, train.lr_warmup_steps))
    return warmup * (1 - (1 - train.lr_final_ratio) * min(1.0, progress))
