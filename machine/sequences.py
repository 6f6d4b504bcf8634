"""Choosing from sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of the items, evenly spread, the first among them."""
    count = min(count, len(items))
    return [items[n * len(items) // count] for n in range(count)]
