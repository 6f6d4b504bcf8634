"""From a run on disk to a comparison: which views, which depth, and who can bear witness."""

import pytest
import torch

from distill.alignment.loading import load_comparison
from distill.model.restored_run import restore_run
from lego_response_distill import main as train
from settings.errors import InputError
from settings.loading import load_config
from teacher.depth import DepthKind
from tests.toy_scene import write_toy_scene


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("toy")
    config = write_toy_scene(folder)
    more = ["--output", str(folder), "--max-steps", "5", "--set", "eval.splits=[holdout]"]
    assert train(["--config", str(config), "--assets", str(folder), *more]) in (0, 3)
    return folder


def test_a_run_is_restored_from_its_latest_checkpoint_or_a_named_one(toy):
    config = load_config(toy / "toy.yaml", [], toy)
    run = restore_run(config, toy)
    assert run.step == 5 and run.checkpoint.name == "step_000005.pth" and not run.model.student.training
    named = restore_run(load_config(toy / "toy.yaml", ["run=other"], toy), toy, str(run.checkpoint))
    assert named.checkpoint == run.checkpoint and not named.folder.results.exists()
    for name, value in run.model.student.state_dict().items():
        assert torch.equal(value, named.model.student.state_dict()[name])
    with pytest.raises(InputError, match="Train first"):
        restore_run(load_config(toy / "toy.yaml", ["run=other"], toy), toy)


def test_renders_on_disk_come_with_depth_and_a_witness(toy):
    config = load_config(toy / "toy.yaml", ["data.resolution=12"], toy)
    comparison, witness = load_comparison(config, restore_run(config, toy), 3)
    assert comparison.frames == (0, 4, 12) and len(comparison) == 17 and comparison.cameras.width == 12
    assert comparison.depth.kind == DepthKind.INVERSE_Z and comparison.depth.values.shape == (3, 24, 24)
    torch.testing.assert_close(comparison.depth.cameras.c2w, comparison.cameras[[0, 4, 12]].c2w)
    own = torch.stack([witness(comparison.cameras, index).over((1.0, 1.0, 1.0)) for index in comparison.frames])
    # Drawn at 24 pixels and reduced, as the pictures were: equal up to their 8 bits.
    torch.testing.assert_close(own, comparison.pictures[list(comparison.frames)], atol=0.01, rtol=0)


@pytest.mark.parametrize("kind", ["images", "gaussians"])
def test_other_teachers_have_neither(toy, kind):
    config = load_config(toy / "toy.yaml", [f"teacher.kind={kind}"], toy)
    comparison, witness = load_comparison(config, restore_run(config, toy), 2)
    assert comparison.depth is None and witness is None and comparison.has_alpha


def test_depth_that_is_not_wanted_is_not_read(toy):
    config = load_config(toy / "toy.yaml", ["teacher.depth_kind=none"], toy)
    assert load_comparison(config, restore_run(config, toy), 2).comparison.depth is None
    with pytest.raises(InputError, match="--views"):
        load_comparison(config, restore_run(config, toy), 0)
