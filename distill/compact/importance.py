"""How much the loss depends on a weight: what an error of it costs, squared, but for one factor common to all.

That is the mean square of the weight's gradient over all steps, and Adam's second moment nearly tells it. Adam passes
over those entries of a table that no ray of a step has come near, so that theirs is the mean over the other steps
alone: of LEGO's entries the finest level's are passed over in a third of the steps, some in nearly all. Moments are
therefore averaged once more, over the steps in which the weight moved and, as 0, over those in which it did not. This
also makes them less noisy: what hardly matters can be told from what matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from distill.compact.parts import Part
from distill.compact.rounding import means_of

# Of the mean importance of its kind, what each weight is taken to have at least: of moments, which are noisy, and of
# averages of many of them.
_SHARED, _SHARED_IN_THE_END = 0.5, 0.002
_EVERY = 4  # steps, of which one is looked at: looking takes time
_LONGEST = 256  # looks that an average is of


class Importance:
    """Of a parameter's weights.

    Args:
        part: the parameter's.
        moment: gives (rows, columns) Adam's second moment of it, which changes from step to step.
        averaged: whether it is to be averaged over steps.
    """

    def __init__(self, part: Part, moment: Callable[[], Tensor], averaged: bool) -> None:
        self._part, self._moment = part, moment
        self._average = moment().clone() if averaged else None
        self._steps = 0

    def note(self, average_moved: Callable[[Tensor, Tensor, float], None]) -> None:
        """Takes notice of a step.

        Args:
            average_moved: moves an average towards a moment, see ``kernels.optimization.straight_through``.
        """
        self._steps += 1
        if self._average is not None and self._steps % _EVERY == 0:
            average_moved(self._moment(), self._average, 1 / min(1 + self._looks, _LONGEST))

    def values(self) -> np.ndarray:
        """(rows, columns) float32."""
        if self._average is None:
            return self.of_moments()
        return self._at_least(self._average, max(_SHARED / (1 + self._looks), _SHARED_IN_THE_END))

    def of_moments(self) -> np.ndarray:
        """(rows, columns) float32 the second moments as Adam's steps have them, where they are not next to nothing."""
        return self._at_least(self._moment(), _SHARED)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"average": self._average, "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state`` gave."""
        self._steps = state["steps"]
        if self._average is not None:
            self._average = state["average"].to(self._average.device).view_as(self._average)

    @property
    def _looks(self) -> int:
        return self._steps // _EVERY

    def _at_least(self, moments: Tensor, shared: float) -> np.ndarray:
        moments = moments.cpu().numpy()
        means = means_of(self._part, moments).astype(np.float32)
        return moments + np.float32(shared) * self._part.spread(means)
