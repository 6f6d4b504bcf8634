"""Choosing from frames."""

from scene.frames import spread


def test_spread():
    assert spread(range(200), 4) == [0, 50, 100, 150]
    assert spread([3, 5], 24) == [3, 5]
    assert spread([5, 6, 7], 1) == [5]
    assert spread([], 3) == []
