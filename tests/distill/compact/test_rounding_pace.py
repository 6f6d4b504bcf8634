"""How often integers are chosen where that takes long beside steps, and where it does not."""

import pytest

from distill.compact.rounding_pace import RoundingPace
from machine import ranks


def chosen_at(by_clock, step_s, choice_s):
    """The steps, of 100, after which integers are chosen every ten."""
    now, found = 0.0, []
    pace = RoundingPace(10, by_clock, lambda: now)
    for steps in range(1, 101):
        now += step_s
        if pace.is_due(steps):
            found.append(steps)
            with pace.choosing():
                now += choice_s
    return found


@pytest.mark.parametrize(
    ("by_clock", "choice_s", "expected"),
    [
        (True, 5.0, [*range(10, 101, 10)]),  # ten steps take ten seconds
        (True, 10.0, [*range(10, 101, 10)]),
        (True, 25.0, [10, 40, 70, 100]),  # as long as thirty steps, to the next ten
        (False, 25.0, [*range(10, 101, 10)]),
    ],
)
def test_choosing_takes_no_longer_than_the_steps_between_where_the_clock_ends_a_run(by_clock, choice_s, expected):
    assert chosen_at(by_clock, 1.0, choice_s) == expected


def test_all_processes_choose_when_the_first_ones_clock_says_so(monkeypatch):
    monkeypatch.setattr(ranks, "value_of_first", lambda waits: True)
    assert chosen_at(True, 1.0, 0.0) == []
    assert chosen_at(False, 1.0, 0.0) == [*range(10, 101, 10)]
