"""When integers are chosen anew in training with rounded weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from machine import ranks


class RoundingPace:
    """Every so many steps; in a run that ends by the clock, no sooner than steps have taken as long as choosing did.

    Choosing takes the CPU, and as long wherever steps are taken. Those of a GPU take a millisecond or two: by their
    number alone nearly all of such a run's time would go into choosing. Of several processes the first one's clock
    counts, so that all choose after the same steps.

    Args:
        every: steps.
        by_clock: whether the run ends by the clock; else it does not depend on how fast the machine is.
        clock: seconds.
    """

    def __init__(self, every: int, by_clock: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self._every, self._by_clock, self._clock = every, by_clock, clock
        self._since, self._took = clock(), 0.0

    def is_due(self, steps: int) -> bool:
        """Whether integers are chosen now, after so many steps."""
        if steps % self._every:
            return False
        return not (self._by_clock and ranks.value_of_first(self._clock() - self._since < self._took))

    @contextmanager
    def choosing(self) -> Iterator[None]:
        """Within it they are."""
        start = self._clock()
        yield
        self._since = self._clock()
        self._took = self._since - start
