"""Where what a command prints goes to: a terminal, or a file that keeps all of it."""

from __future__ import annotations

import sys

_LIVE, _KEPT = 0.5, 30.0


def redraw_seconds() -> float:
    """How often the bar of long work is drawn anew: in a batch job's log every drawing stays, a line each."""
    return _LIVE if sys.stderr is not None and sys.stderr.isatty() else _KEPT
