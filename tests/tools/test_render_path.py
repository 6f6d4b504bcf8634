"""The film as a program: paths, panels, sizes, and nothing written when it cannot be done."""

import shutil

import imageio.v3 as iio
import numpy as np
import pytest

from distill.model.view_renderers import gaussians_renderer
from lego_response_distill import main as train
from scene.images import to_uint8
from settings.loading import load_config
from teacher.export.export_cameras import views_to_export
from teacher.rasterizer import Rasterizer
from teacher.sources import source_of
from tests.program import arguments
from tests.toy_scene import write_toy_scene
from tools.compress import main as compress
from tools.render_path import main


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A trained run of the toy scene, trained no longer than it takes to have a shape."""
    folder = tmp_path_factory.mktemp("toy")
    write_toy_scene(folder)
    assert train(arguments(folder, "--max-steps", "60")) in (0, 3)
    return folder


def test_an_orbit_of_the_student_is_the_default(toy, capsys):
    assert main([str(toy / "results/toy/first"), "--frames", "3", "--fps", "5"]) == 0
    path = toy / "results/toy/first/eval/step_000060_orbit_student.mp4"
    captured = capsys.readouterr()
    assert captured.out.strip() == str(path) and "3/3" in captured.err
    assert iio.imread(path, plugin="FFMPEG").shape == (3, 24, 24, 3)
    assert iio.immeta(path, plugin="FFMPEG")["codec"] == "h264"
    assert iio.immeta(path, plugin="FFMPEG")["pix_fmt"].startswith("yuv420p")


def test_a_compact_file_s_film_stands_beside_the_checkpoint_s(toy, tmp_path):
    assert compress(arguments(toy, "--target-mib", "0.01", "--set", "compact.seconds=0.1")) == 0
    file = toy / "results/toy/first/checkpoints/step_000060.lrd"
    assert main([str(file), "--frames", "2"]) == 0
    assert (toy / "results/toy/first/eval/step_000060_compact_orbit_student.mp4").is_file()


def test_side_by_side_holds_the_teachers_own_picture(toy, tmp_path):
    film = tmp_path / "film.mp4"
    more = ("--spiral", "--show", "side_by_side", "--frames", "4", "--width", "47", "--video", str(film))
    assert main(arguments(toy, *more)) == 0
    frames = iio.imread(film, plugin="FFMPEG")
    assert frames.shape == (4, 48, 144, 3)
    config = load_config(toy / "toy.yaml", [], toy)
    gaussians = source_of(config).gaussians()
    teacher = gaussians_renderer(Rasterizer(gaussians, drawing=source_of(config).drawing(gaussians)))
    cameras = views_to_export(config, gaussians, spiral=4, resolution=48).cameras
    for index in range(4):
        picture = to_uint8(teacher(cameras, index).over((1.0, 1.0, 1.0)).numpy())
        assert np.abs(frames[index][:, :48].astype(int) - picture).mean() < 5


def test_an_orbit_is_as_wide_as_the_runs_pictures_a_file_of_poses_as_it_says(toy, tmp_path):
    film, poses = tmp_path / "film.mp4", str(toy / "data" / "transforms.json")
    more = ("--show", "teacher", "--set", "data.resolution=16", "--frames", "2", "--video", str(film))
    for path, side in (("--orbit",), 16), (("--spiral",), 16), (("--path", poses), 24):
        assert main(arguments(toy, *more, *path)) == 0
        assert iio.imread(film, plugin="FFMPEG").shape == (2, side, side, 3)


def test_a_path_from_a_file_and_a_teacher_without_a_student(toy, tmp_path):
    shutil.copy(toy / "data" / "transforms.json", tmp_path / "path.json")
    film = tmp_path / "film.mp4"
    more = ("--show", "teacher", "--set", "run=untrained", "--path", str(tmp_path / "path.json"))
    assert main(arguments(toy, *more, "--video", str(film))) == 0
    assert len(iio.imread(film, plugin="FFMPEG")) == 17
    assert main(arguments(toy, *more, "--frames", "5")) == 0
    found = toy / "results/toy/untrained/eval/teacher_path_teacher.mp4"
    assert len(iio.imread(found, plugin="FFMPEG")) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--video", "film.avi"), "--video: file: found film.avi"),
        (("--frames", "0"), "--frames: frames: found 0"),
        (("--fps", "0"), "--fps: frames per second: found 0.0"),
        (("--width", "0"), "width: found 0"),
        (("--show", "error", "--set", "teacher.ply=null"), "teacher.ply: found nothing"),
        (("--path", "nowhere.json"), "nowhere.json: file: found"),
        (("--set", "run=other"), "expected a checkpoint"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(toy, capsys, more, message):
    before = sorted(toy.rglob("*"))
    assert main(arguments(toy, *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert sorted(toy.rglob("*")) == before


def test_without_ffmpeg_it_says_how_to_get_it(toy, capsys, monkeypatch):
    def missing():
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", missing)
    assert main(arguments(toy)) == 2
    assert "pip install imageio-ffmpeg" in capsys.readouterr().err
