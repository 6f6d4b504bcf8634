"""A trained run on a command line: its folder, a checkpoint, or its config."""

import argparse
import re
import shutil

import pytest

from distill.model.checkpoint import save_checkpoint
from distill.runs.command_line import add_config_options
from distill.runs.given_run import add_run_options, check_resumes_own_run, run_of
from settings.errors import InputError
from settings.loading import REPO_ROOT, load_config, to_yaml
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


def test_the_config_of_a_run_that_was_renamed_or_moved_begins_none_anew(toy, tmp_path):
    moved = tmp_path / "new root/results/other/mine"
    shutil.copytree(toy / "results/toy/first", moved)
    called = load_config(toy / "toy.yaml", (), toy)
    (moved / "config.yaml").write_text(to_yaml(called))
    root = moved.parents[2]
    said = f"Add --output '{root}' --set scene=other --set run=mine to go on with the run in this folder."
    with pytest.raises(InputError, match=re.escape(said)):
        check_resumes_own_run(moved / "config.yaml", called, REPO_ROOT)
    with pytest.raises(InputError, match="Add --set scene=other --set run=mine to go on"):
        check_resumes_own_run(moved / "config.yaml", called, root)
    flat = shutil.copytree(moved, tmp_path / "flat")
    with pytest.raises(InputError, match=f"--resume {flat} goes on from them, in {REPO_ROOT / 'results/toy/first'}"):
        check_resumes_own_run(flat / "config.yaml", called, REPO_ROOT)
    mine = called.model_copy(update={"scene": "other", "run": "mine"})
    check_resumes_own_run(moved / "config.yaml", mine, root)  # it is what is gone on with
    check_resumes_own_run(moved / "config.yaml", mine, REPO_ROOT)  # another name that is set: another run
    check_resumes_own_run(moved / "config.yaml", called, tmp_path / "third")
    check_resumes_own_run(toy / "toy.yaml", called, REPO_ROOT)  # no run's


def test_the_config_of_a_renamed_run_under_results_that_are_a_link_begins_none_anew(toy, tmp_path):
    shutil.copytree(toy / "results/toy/first", tmp_path / "disk/toy/mine")
    called = load_config(toy / "toy.yaml", (), toy)
    (tmp_path / "disk/toy/mine/config.yaml").write_text(to_yaml(called))
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    with pytest.raises(InputError, match="Add --set run=mine to go on with the run in this folder"):
        check_resumes_own_run(tmp_path / "results/toy/mine/config.yaml", called, tmp_path)


def test_the_config_of_a_run_where_it_was_goes_on_with_it_or_begins_it_where_it_has_no_checkpoint(toy, tmp_path):
    folder, config = tmp_path / "results/toy/first", load_config(toy / "toy.yaml", (), toy)
    shutil.copytree(toy / "results/toy/first", folder)
    (folder / "config.yaml").write_text(to_yaml(config))
    check_resumes_own_run(folder / "config.yaml", config, tmp_path)
    shutil.rmtree(folder / "checkpoints")
    check_resumes_own_run(folder / "config.yaml", config, tmp_path)


def test_a_config_beside_a_runs_own_that_is_built_on_it_begins_its_own_run(toy, tmp_path):
    folder = shutil.copytree(toy / "results/toy/first", tmp_path / "results/toy/first")
    (folder / "config.yaml").write_text(to_yaml(load_config(toy / "toy.yaml", (), toy)))
    longer = folder / "longer.yaml"
    for said in ("run: longer", "scene: toy\nrun: longer"):
        longer.write_text(f"base: config.yaml\n{said}\n")
        check_resumes_own_run(longer, load_config(longer), tmp_path)


def test_where_the_figures_of_a_run_in_another_kind_of_folder_go_is_said(toy, tmp_path, caplog):
    caplog.set_level("INFO")
    flat = shutil.copytree(toy / "results/toy/first", tmp_path / "flat")
    assert run(flat)[1] == REPO_ROOT
    assert f"what is made of it goes to {REPO_ROOT / 'results/toy/first'}" in caplog.text
    caplog.clear()
    assert run(flat, "--output", tmp_path)[1] == tmp_path and not caplog.text
