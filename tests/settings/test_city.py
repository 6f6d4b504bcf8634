"""The settings of a city's blocks, and of a teacher that draws one: what contradicts is refused."""

from __future__ import annotations

import pytest

from tests.toy_configs import BRICKS, refusal

BOX = "data.box={lower: [0, 0, 0], upper: [1, 1, 1]}"
PLY = ("teacher.kind=gaussians", "teacher.ply=cloud.ply", "teacher.clip=true")


@pytest.mark.parametrize(
    ("overrides", "field", "found"),
    [
        (["city.blocks=[2, 2]"], "city.blocks", "[2, 2]"),
        (["teacher.clip=true", BOX], "teacher.clip", "true"),
        ([*PLY], "data.box", "auto"),
        ([*PLY, BOX, "teacher.rasterizer=gsplat"], "teacher.rasterizer", "gsplat"),
    ],
)
def test_contradicting_settings_are_refused(tmp_path, overrides, field, found):
    (tmp_path / "toy.yaml").write_text(BRICKS)
    error = refusal(tmp_path / "toy.yaml", *overrides)
    assert (error.field, error.found) == (field, found)
