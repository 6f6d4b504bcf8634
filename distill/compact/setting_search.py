"""The search for the setting at which something is just not in excess: a file's size, what is lost by rounding."""

from __future__ import annotations

from collections.abc import Callable

_TRIES = 5  # after an interval is known
_LEAST_PART = 0.03  # of an interval, that a try cuts off


def nearest_without_excess(
    excess: Callable[[float], float], first: float, move: float, within: tuple[float, float]
) -> float:
    """The place nearest to where there is no excess any more; one with some where no other was found.

    False position (the Illinois rule): some six tries where halving takes twenty.

    Args:
        excess: at a place; monotone, at most 0 where all is well.
        first: place to try.
        move: from there if it is in excess, in the other direction if it is not; doubled until there is an interval.
        within: which places are tried.
    """
    place, (lowest, highest) = first, within
    good = bad = None
    while good is None or bad is None:
        found = excess(place)
        good, bad = (good, (place, found)) if found > 0 else ((place, found), bad)
        ahead = min(max(place + (move if found > 0 else -move), lowest), highest)
        if ahead == place:  # the end that it has come to
            break
        place, move = ahead, 2 * move
    stayed = 0  # for how many tries one end has: the good one below 0
    for _ in range(_TRIES if good and bad else 0):
        (here, below), (there, above) = good, bad
        place = here + (there - here) * min(max(below / (below - above), _LEAST_PART), 1 - _LEAST_PART)
        found = excess(place)
        if found > 0:
            good, bad, stayed = (here, below / 2 if stayed < 0 else below), (place, found), min(stayed, 0) - 1
        else:
            good, bad, stayed = (place, found), (there, above / 2 if stayed > 0 else above), max(stayed, 0) + 1
    return (good or bad)[0]
