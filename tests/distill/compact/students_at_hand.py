"""Small students as checkpoints, and integers for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.compact.compact_file import compact_bytes, compact_parts
from distill.compact.network_transforms import GradientProducts
from distill.compact.parts import CENTRE_STEP, Integers, steps_of
from distill.model.checkpoint import box_state, student_state
from scene.rays import SceneBox
from students import build_student
from students.hash_grid import HashGridSettings
from students.kilo_uniform import KiloUniformSettings

BOX = SceneBox((-1.0, -2.0, -3.0), (1.5, 2.0, 3.0))
RESOLUTION, SHAPE = 12, (5, 8, 12)
_GRID = {"levels": 3, "features": 2, "table_size": 512, "base_resolution": 4, "finest_resolution": 24}
HASH = HashGridSettings(**_GRID, planes=(16, 30), hidden_width=8, density_degree=1)
KILO = KiloUniformSettings(grid=(2, 2, 3), hidden_width=16, density_layers=1, frequencies=1, density_degree=1)


def state_of(settings=HASH, seed: int = 0) -> dict[str, Any]:
    """A checkpoint of a fresh student, a tenth of whose cells are occupied."""
    torch.manual_seed(seed)
    student = build_student((BOX.lower, BOX.upper), settings)
    occupied = (torch.rand(SHAPE) < 0.1).to(torch.uint8)
    occupied[:3] = 0
    return {
        "step": 7,
        "student": student_state(student),
        "box": box_state(BOX),
        "occupancy": {"resolution": RESOLUTION, "step": 0.1, "state": {"occupied": occupied}},
        "config": "scene: toy",
    }


def save_compact(path: Path, state: dict[str, Any], content: list[Integers]) -> None:
    """Writes the student's compact file."""
    path.write_bytes(compact_bytes(state, content, path))


def integers_of(state: dict[str, Any], exponent: int = -48) -> list[Integers]:
    """The student's weights to the nearest of steps of 2**(exponent / 8)."""
    content = []
    for part in compact_parts(state, "x.lrd"):
        weights = torch.from_numpy(state["student"]["weights"][part.name].detach().numpy().reshape(part.shape))
        centre, maps = None, ()
        if part.matrices:
            centre = (weights[part.stored].mean(0) / CENTRE_STEP).round()
            products = GradientProducts(part.matrices, weights.device)
            slopes = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0))
            products.add(slopes, torch.ones(len(weights), len(part.matrices)))
            found = products.maps(weights[part.stored] - centre * CENTRE_STEP)
            weights = found.coordinates(weights - centre * CENTRE_STEP)
            centre, maps = centre.numpy().astype(np.int32), found.integers
        exponents = np.full(part.exponents_shape, exponent, np.int32)
        values = np.rint(weights.numpy() / part.spread(steps_of(exponents))) * part.stored[:, None]
        content.append(Integers(values.astype(np.int32), exponents, centre, maps))
    return content
