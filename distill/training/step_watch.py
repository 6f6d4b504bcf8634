"""Whether training is still finite, watched on the device: asked when a row is written, not in every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

GRADIENT = "gradient"
_NEVER = 2**62


def largest_gradient(parameters: Iterable[nn.Parameter]) -> Tensor:
    """() largest magnitude of all gradients; NaN or infinite exactly if one of them is. 0 without gradients."""
    parameters = [*parameters]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return parameters[0].new_zeros(())
    return torch.stack([torch.linalg.vector_norm(grad, float("inf")) for grad in gradients]).amax()


class StepWatch:
    """The first step at which each loss term, or the gradient, was not finite.

    Args:
        terms: names of all terms there can be.
        device: where they are computed.
    """

    def __init__(self, terms: Sequence[str], device: torch.device) -> None:
        self._names = (*terms, GRADIENT)
        self._first = torch.full((len(self._names),), _NEVER, dtype=torch.int64, device=device)
        self._value = torch.zeros(len(self._names), device=device)

    @torch.no_grad()
    def note(self, step: int | Tensor, terms: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
        """() bool, on the device: whether something of this step is not finite.

        Args:
            step: the number of this step; () int64 where it is on the device.
            gradient: see ``largest_gradient``.
        """
        known = {**terms, GRADIENT: gradient}
        values = torch.stack([known[name] if name in known else torch.zeros_like(gradient) for name in self._names])
        broken = ~values.isfinite()
        first = broken & (self._first == _NEVER)
        self._first.masked_fill_(first, step)
        self._value.copy_(torch.where(first, values, self._value))
        return broken.any()

    def first(self) -> tuple[int, str, float] | None:
        """Step, name and value of what was first not finite; None if all was. Waits for the device.

        Of one step's, a term is named rather than the gradient, which it breaks.
        """
        steps, values = self._first.tolist(), self._value.tolist()
        step, index = min((step, index) for index, step in enumerate(steps))
        return None if step == _NEVER else (step, self._names[index], values[index])

    def forget(self) -> None:
        """As if all had been finite so far."""
        self._first.fill_(_NEVER)
