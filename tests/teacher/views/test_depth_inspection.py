"""Depth files looked at one after another, so that it does not matter how many there are."""

import numpy as np
import pytest
import torch

from settings.loading import load_config
from teacher.sources import source_of
from teacher.views import depth_inspection
from teacher.views.depth_inspection import describe, inspect
from tests.toy_scene import FRAMES, SIZE, write_toy_scene


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The toy scene's depth files and box, and what is in all of the files."""
    path = write_toy_scene(tmp_path_factory.mktemp("toy"))
    source = source_of(load_config(path, assets=path.parent))
    stored = np.stack([np.load(file) for file in sorted((path.parent / "outputs" / "depth").iterdir())])
    return source.depth_files(), source.box(source.gaussians(), None)[0], stored


def test_a_few_frames_are_kept_however_many_are_read(given, monkeypatch):
    files, box, stored = given
    for name, most in {"_PIXELS": 600, "_POINTS": 300, "_PAIRS": 1, "_SHOWN_FRAMES": 1}.items():
        monkeypatch.setattr(depth_inspection, name, most)
    found = inspect(files, box, "given", None)
    shown = [plane for planes in found.shown.values() for plane in planes]
    samples = found.stored.values, found.distance.values, found.points
    held = sum(kept.nbytes for kept in (*shown, *samples, *found.differences.values()))
    assert len(files) == FRAMES and held < 5 * 4 * SIZE * SIZE
    # What is said of all frames is of all frames.
    present = stored > 0
    assert (found.stored.count, found.stored.least, found.stored.most) == (
        present.sum(),
        stored[present].min(),
        stored.max(),
    )
    assert torch.equal(found.covered, torch.from_numpy(present.mean((1, 2), dtype=np.float32)))
    for part in (found.stored, found.distance):
        assert part.every == FRAMES * SIZE * SIZE // 600 and len(part.values) == -(-part.count // part.every)


def test_what_a_sample_says_is_near_what_all_pixels_say(given, monkeypatch):
    files, box, stored = given
    whole = inspect(files, box, "given", None)
    assert whole.stored.every == 1 and np.array_equal(whole.stored.values, stored[stored > 0])
    monkeypatch.setattr(depth_inspection, "_PIXELS", 1500)
    some = inspect(files, box, "given", None)
    for part, of in ((some.stored, whole.stored), (some.distance, whole.distance)):
        for share in (0.05, 0.5, 0.95):
            below = (of.values < part.values.quantile(share)).float().mean().item()
            assert below == pytest.approx(share, abs=0.03)
    without = [[line for line in describe(one).splitlines() if "percentiles" not in line] for one in (some, whole)]
    assert without[0] == without[1]
