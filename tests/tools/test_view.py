"""The viewer's command line: what it takes, what it refuses, and its figures without a browser."""

import sys

import pytest

from distill.model.checkpoint import save_checkpoint
from distill.viewer.subjects import gaussians_subject, student_subject
from scene.images import read_image
from settings.loading import load_config, to_yaml
from tests.toy_scene import write_toy_scene
from tests.toy_training import trainer_of
from tools.view import main, parse_arguments


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A run folder of a student that has not learnt a thing."""
    folder = tmp_path_factory.mktemp("toy")
    trainer = trainer_of(write_toy_scene(folder))
    state = trainer._header() | {"config": to_yaml(trainer.config)}
    save_checkpoint(trainer.folder.checkpoint_path(1), state)
    return folder


def test_a_run_folder_is_measured_in_every_mode_of_a_student(toy, capsys):
    assert main([str(toy / "results/toy/first"), "--width", "16", "--measure", "0.02"]) == 0
    out = capsys.readouterr().out
    assert "first picture" in out and "| coarse/s |" in out
    assert [line.split("|")[1].strip() for line in out.splitlines()[4:]] == [
        *("student", "teacher", "side by side", "error", "depth", "alpha", "samples per ray", "occupancy")
    ]


def test_the_teacher_comes_later_and_a_student_without_one_is_shown_alone(toy, caplog):
    file = toy / "results/toy/first/checkpoints/step_000001.pth"
    subject = student_subject(file, None, [], None, toy)
    assert len(subject.cameras) == 17 and subject.start() == subject.cameras[0].viewpoint
    assert subject.keyframes == toy / "results/toy/first/keyframes.json"
    assert student_subject(file, None, [], None, None).keyframes == subject.keyframes, "beside the run, wherever it is"
    subject.load_teacher()
    assert "side by side" in subject.pictures.modes
    gone = ["teacher.ply=gone.ply", "data.transforms=gone.json", "teacher.orbit.up=[0, -1, 0]"]
    alone = student_subject(file, None, gone, toy, toy)
    alone.load_teacher()
    assert "teacher" not in alone.pictures.modes and not alone.cameras
    assert alone.up.tolist() == [0, -1, 0] and alone.start().position[1] < 0, "what is up is said"
    assert "no cameras to jump to" in caplog.text and "shown alone" in caplog.text and "gone.ply" in caplog.text


def test_gaussians_alone(toy, capsys):
    assert main([str(toy / "point_cloud.ply"), "--width", "16", "--measure", "0.02"]) == 0
    assert "| teacher |" in capsys.readouterr().out
    config = load_config(toy / "toy.yaml", ["teacher.kind=gaussians"], toy)
    subject = gaussians_subject(config, None)
    assert subject.pictures.modes == ("teacher", "depth", "alpha")
    assert subject.keyframes == toy / "point_cloud_keyframes.json", "beside their file"
    assert gaussians_subject(config, toy).keyframes == toy / "results/toy/first/keyframes.json", "where it is said"


def test_a_sheet_shows_all_modes(toy, tmp_path, capsys):
    sheet = tmp_path / "modes.png"
    assert main([str(toy / "results/toy/first"), "--width", "16", "--sheet", str(sheet)]) == 0
    assert f"{sheet}: student, teacher, side by side" in capsys.readouterr().out
    height, width, _ = read_image(sheet).shape
    assert width == 4 * (400 + 8) + 8 and 800 < height < 900  # two rows of four, enlarged
    assert main([str(toy / "results/toy/first"), "--width", "16", "--sheet", str(sheet / "no.png")]) == 2


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "PATH"),
        (["gone.pth"], "no such file"),
        (["gone.ply"], "gone.ply"),
        (["."], "no checkpoint"),
        (["city.json"], "tools/render_city.py draws the city"),
        (["--config", "gone.yaml"], "gone.yaml"),
        (["gone.pth", "--up=z"], "no such file"),
        (["x.pth", "--width", "0"], "--width"),
        (["x.pth", "--measure", "0"], "--measure"),
        (["x.pth", "--sheet", "x.jpg"], "--sheet: file: found x.jpg"),
    ],
)
def test_bad_input_is_named(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if arguments == ["city.json"]:
        (tmp_path / "city.json").write_text("{}")
    assert main([*arguments, *([] if {"--measure", "--sheet"} & {*arguments} else ["--measure", "0.01"])]) == 2
    assert words in capsys.readouterr().err


def test_without_viser_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["x.pth"]) == 2
    assert 'pip install "viser>=1.1"' in capsys.readouterr().err


def test_it_listens_on_this_machine_alone():
    assert parse_arguments(["x.pth"]).host == "127.0.0.1"
