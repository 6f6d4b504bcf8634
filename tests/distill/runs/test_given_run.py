"""A trained run on a command line: its folder, a checkpoint, or its config."""

import argparse
import shutil

import pytest

from distill.model.checkpoint import save_checkpoint
from distill.runs.command_line import add_config_options
from distill.runs.given_run import add_run_options, run_of
from settings.errors import InputError
from settings.loading import REPO_ROOT, to_yaml
from tests.toy_scene import write_toy_scene
from tests.toy_training import trainer_of


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A root with a run of two checkpoints."""
    root = tmp_path_factory.mktemp("toy")
    trainer = trainer_of(write_toy_scene(root))
    for step in (1, 2):
        state = trainer._header() | {"step": step, "config": to_yaml(trainer.config)}
        save_checkpoint(trainer.folder.checkpoint_path(step), state)
    return root


def run(*arguments, turns=False):
    parser = argparse.ArgumentParser()
    add_config_options(parser, turns=turns)
    add_run_options(parser)
    return run_of(parser.parse_args([str(argument) for argument in arguments]))


def test_a_folder_stands_for_its_newest_checkpoint_and_what_is_made_of_it_lies_beside_it(toy):
    folder = toy / "results/toy/first"
    config, root, checkpoint = run(folder, "--set", "render.background=black", "--device", "cpu")
    assert (config.scene, config.run, config.render.background, config.device) == ("toy", "first", "black", "cpu")
    assert root == toy and checkpoint == folder / "checkpoints/step_000002.pth"
    earlier = folder / "checkpoints/step_000001.pth"
    for named in ((earlier,), (folder, "--checkpoint", earlier)):
        assert run(*named)[1:] == (toy, earlier)
    assert run(folder, "--output", toy / "elsewhere")[1] == toy / "elsewhere"


def test_a_run_that_was_renamed_is_the_one_it_is_called_now(toy, tmp_path):
    folder = tmp_path / "results/other/mine"
    shutil.copytree(toy / "results/toy/first", folder)
    config, root, _ = run(folder)
    assert (config.scene, config.run, root) == ("other", "mine", tmp_path)


def test_a_checkpoint_elsewhere_keeps_the_name_in_its_config_and_what_is_given_goes_before_it(toy, tmp_path):
    alone = tmp_path / "student.pth"
    shutil.copy(toy / "results/toy/first/checkpoints/step_000001.pth", alone)
    config, root, checkpoint = run(alone)
    assert (config.run, root, checkpoint) == ("first", REPO_ROOT, alone)
    given = ("--config", toy / "toy.yaml", "--set", "run=second", "--assets", toy)
    assert run(alone, *given)[0].run == "second"
    config, root, checkpoint = run(*given)
    assert (config.run, root, checkpoint) == ("second", REPO_ROOT, None), "without a path it is the config's run"


def test_what_is_up_is_taken_where_a_command_turns_about_the_scene(toy):
    folder = toy / "results/toy/first"
    assert run(folder, "--up=-y", turns=True)[0].teacher.orbit.up == (0, -1, 0)
    with pytest.raises(InputError, match="--up: found no --splat"):
        run(folder, "--up=-y")


def test_two_runs_at_once_are_refused(toy):
    folder = toy / "results/toy/first"
    with pytest.raises(InputError, match=r"--splat: found the run .*first too, expected one of them"):
        run(folder, "--splat", "x.ply")
    with pytest.raises(InputError, match=r"--checkpoint: found .*step_000001.pth too, expected one of them"):
        run(folder / "checkpoints/step_000001.pth", "--checkpoint", "x.pth")
    with pytest.raises(InputError, match="found no checkpoint"):
        run(toy)
