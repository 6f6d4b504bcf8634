"""Configs that are in order, to be changed by the tests, and what is said of those that are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings.errors import InputError
from settings.loading import load_config

BRICKS = "scene: toy\nrun: first\ndata: {resolution: 64}\nteacher: {kind: bricks}\n"
VIEWS = "scene: toy\nrun: first\ndata: {transforms: t.json}\nteacher: {kind: views, outputs: out, ply: cloud.ply}\n"


def refusal(path: Path, *overrides: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    return caught.value
