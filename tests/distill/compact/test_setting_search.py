"""False position: what it finds, and in how many tries."""

import math

import pytest

from distill.compact.setting_search import nearest_without_excess


@pytest.mark.parametrize("excess", [lambda at: 2 - at, lambda at: math.exp(-at) - math.exp(-2), lambda at: 8 - at**3])
@pytest.mark.parametrize("first", [-6.0, 1.9, 9.0])
def test_the_place_is_just_beyond_the_last_with_excess(excess, first):
    tried = []
    found = nearest_without_excess(lambda at: tried.append(at) or excess(at), first, 1.0, (-10, 10))
    assert excess(found) <= 0 and 2 <= found < 2.2 and len(tried) <= 10


@pytest.mark.parametrize(("first", "excess"), [(-10.0, lambda at: 2 - at), (10.0, lambda at: 2 - at)])
def test_a_search_that_begins_at_an_end_goes_the_other_way(first, excess):
    found = nearest_without_excess(excess, first, 1.0, (-10, 10))
    assert excess(found) <= 0 and 2 <= found < 2.2


def test_no_excess_at_all_is_none():
    found = nearest_without_excess(lambda at: max(0.0, 2 - at), 9.0, 1.0, (-10, 10))
    assert 2 <= found < 3


def test_where_less_is_better_the_search_goes_down():
    found = nearest_without_excess(lambda at: at + 3, 0.0, -1.0, (-10, 10))
    assert -3.1 < found <= -3


@pytest.mark.parametrize(("excess", "end"), [(lambda at: 20 - at, 10.0), (lambda at: -20 - at, -10.0)])
def test_where_all_or_nothing_is_in_excess_it_ends_at_an_end(excess, end):
    assert nearest_without_excess(excess, 1.0, 1.0, (-10, 10)) == end
