"""A model's parts as its config and device want them."""

from __future__ import annotations

import pytest
import torch

from distill.model.model import _render_settings
from settings.loading import REPO_ROOT, load_config


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cpu", "auto", "float16"),
        ("cuda", "auto", "float16"),
        ("cuda", "float32", "float32"),
        ("cpu", "float32", "float32"),
    ],
)
def test_pictures_are_rendered_in_half_precision_unless_the_config_says_otherwise(
    device, asked, expected, field
) -> None:
    config = load_config(REPO_ROOT / "configs/quickstart.yaml", [f"render.precision={asked}"])
    student = field(lambda positions: positions[:, 0])
    assert _render_settings(config, 0.1, student, torch.device(device)).precision == expected
