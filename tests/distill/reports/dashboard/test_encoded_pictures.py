"""Triptychs cut in three, and the budget."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from distill.evaluation.comparison_pictures import error_map, triptych, triptych_panels
from distill.reports.dashboard import encoded_pictures
from distill.reports.dashboard.run_files import Problems
from distill.reports.dashboard.run_records import Picture
from scene.images import to_uint8, write_image


@pytest.mark.parametrize("shape", [(40, 30), (100, 100), (300, 280)])
def test_panels_are_what_went_in(shape) -> None:
    generator = np.random.default_rng(0)
    reference, render = generator.random((2, *shape, 3)).astype(np.float32)
    panels = triptych_panels(triptych(reference, render, "title"))
    expected = (to_uint8(reference), to_uint8(render), error_map(render, reference))
    assert all(np.array_equal(panel, picture) for panel, picture in zip(panels, expected, strict=True))


def test_other_sizes_are_no_triptych() -> None:
    with pytest.raises(ValueError, match="40x40"):
        triptych_panels(np.zeros((40, 40, 3), np.uint8))


def test_encoded_within_the_budget(tmp_path, monkeypatch) -> None:
    generator = np.random.default_rng(0)
    image, render = generator.random((2, 300, 300, 3)).astype(np.float32)
    write_image(tmp_path / "good.png", triptych(image, render, "title"))
    (tmp_path / "bad.png").write_bytes(b"junk")
    files = [Picture("worst_1", 0, tmp_path / name) for name in ("good.png", "bad.png")]
    monkeypatch.setattr(encoded_pictures, "BUDGET_BYTES", 60_000)
    problems = Problems(tmp_path)
    good, bad = encoded_pictures.encode_pictures(files, problems)
    assert bad is None and [problem.file for problem in problems.found] == ["bad.png"]
    assert good.width == 300 and all(len(uri) <= 10_000 for uri in good.uris)
    head, _, body = good.uris[0].partition(",")
    assert head == "data:image/webp;base64" and Image.open(io.BytesIO(base64.b64decode(body))).width >= 80
