"""The options that name a run: a config, or Gaussians alone."""

import argparse

import pytest

from distill.runs.command_line import add_config_options, add_device_option, config_of
from lego_response_distill import parse_arguments
from settings.errors import InputError
from tests.toy_configs import BRICKS


def config(*arguments, turns=False):
    parser = argparse.ArgumentParser()
    add_config_options(parser, turns=turns)
    add_device_option(parser)
    return config_of(parser.parse_args([str(argument) for argument in arguments]))


@pytest.mark.parametrize(
    ("file", "scene"),
    [
        ("my truck.ply", "my_truck"),
        ("guitar.compressed.ply", "guitar"),
        ("garden/point_cloud/iteration_30000/point_cloud.ply", "garden"),
        ("Stadt ü.splat", "Stadt_"),
    ],
)
def test_gaussians_alone_need_no_config_and_name_the_scene(tmp_path, file, scene):
    found = config("--splat", tmp_path / file, "--up=-y", "--set", "teacher.frames=9")
    assert found.teacher.ply == tmp_path / file and found.finds_cameras and found.scene == scene
    assert found.teacher.orbit.up == (0, -1, 0) and found.teacher.frames == 9


def test_gaussians_alone_with_a_config_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text(
        "scene: a\nrun: b\ndata: {transforms: t.json, resolution: 50}\nteacher: {kind: views, outputs: out}\n"
    )
    monkeypatch.chdir(tmp_path)
    found = config("--config", tmp_path / "own.yaml", "--splat", "x.splat", "--assets", "/assets")
    assert found.teacher.ply == tmp_path / "x.splat" and found.data.resolution == 50 and found.run == "b"
    assert found.finds_cameras and found.teacher.outputs is None and found.teacher.orbit.up == "auto"
    assert config("--splat", "x.splat", "--up", "0,-1,0.5").teacher.orbit.up == (0, -1, 0.5)


def test_what_is_up_may_be_said_of_any_scene_where_a_command_turns_about_it(tmp_path):
    (tmp_path / "own.yaml").write_text(BRICKS)
    given = "--config", tmp_path / "own.yaml", "--up=-y"
    assert config(*given, turns=True).teacher.orbit.up == (0, -1, 0)
    assert config("--splat", "x.ply", "--up", "0,-2,0", turns=True).teacher.orbit.known_up == (0, -1, 0)
    with pytest.raises(InputError, match="--up: found no --splat"):
        config(*given)


def test_an_option_that_stands_for_a_setting_is_named_in_its_error(tmp_path):
    (tmp_path / "own.yaml").write_text(BRICKS)
    with pytest.raises(InputError, match='^--device: device: found "purple"'):
        config("--config", tmp_path / "own.yaml", "--device", "purple")
    with pytest.raises(InputError, match="^--device device: line 1: "):
        config("--config", tmp_path / "own.yaml", "--device", "[cpu")
    with pytest.raises(InputError, match='^--set: device: found "purple"'):
        config("--config", tmp_path / "own.yaml", "--set", "device=purple")


def test_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="--config: found nothing, expected a YAML config, .* or --splat FILE"):
        config()
    with pytest.raises(InputError, match="--up: found no --splat"):
        config("--config", tmp_path / "own.yaml", "--up", "z")
    for up in ("w", "1,2", "0,0,0", "nan,0"):
        with pytest.raises(SystemExit):
            config("--splat", "x.ply", "--up", up)
    assert "expected x, y, z, -x, -y, -z or three numbers" in capsys.readouterr().err


def test_evaluating_and_going_on_do_not_go_together(capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_arguments(["--config", "a.yaml", "--eval-only", "--resume", "auto"])
    assert "--eval-only evaluates the checkpoint that --checkpoint PATH names" in capsys.readouterr().err
