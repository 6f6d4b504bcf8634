"""The film: its frames are the renderer's within what compression takes, whole or not there at all."""

import errno
import subprocess

import imageio.v3 as iio
import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from distill.evaluation.comparison_pictures import error_map
from distill.evaluation.film import check_video, even_sized, path_frames, write_video
from distill.model.view_renderers import gaussians_renderer
from machine.failures import machine_failure
from scene.images import to_uint8
from settings.errors import InputError
from teacher.rasterizer import Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras

WHITE = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def renderers():
    gaussians = block_of_gaussians()
    return gaussians_renderer(Rasterizer(gaussians)), gaussians_renderer(Rasterizer(gaussians[::2]))


def test_a_film_has_the_frames_that_were_rendered(tmp_path, renderers):
    teacher, student = renderers
    cameras = even_sized(ring_of_cameras(5, 63, 48))
    assert (cameras.width, cameras.height) == (64, 48)
    path = tmp_path / "new" / "film.mp4"
    frames = [*path_frames(cameras, "side_by_side", WHITE, student, teacher)]
    write_video(path, frames, fps=10)
    film = iio.imread(path, plugin="FFMPEG")
    assert film.shape == (5, 48, 3 * 64, 3)
    assert iio.immeta(path, plugin="FFMPEG")["fps"] == 10
    for index in range(5):
        picture = to_uint8(teacher(cameras, index).over(WHITE).numpy())
        error = np.abs(film[index][:, :64].astype(int) - picture)
        assert error.mean() < 4, "yuv420p halves the resolution of colour, no more"
    assert np.abs(film[0].astype(int) - film[2]).mean() > 8, "frames differ from each other by more than that"
    assert [name.name for name in path.parent.iterdir()] == ["film.mp4"]


def test_what_is_shown(renderers):
    teacher, student = renderers
    cameras = ring_of_cameras(2, 24, 24)
    shown = {
        show: next(path_frames(cameras, show, WHITE, student, teacher)) for show in ("student", "teacher", "error")
    }
    panels = np.split(next(path_frames(cameras, "side_by_side", WHITE, student, teacher)), 3, axis=1)
    for show, panel in zip(("teacher", "student", "error"), panels, strict=True):
        assert np.array_equal(shown[show], panel)
    assert np.array_equal(shown["error"], error_map(shown["student"] / 255.0, shown["teacher"] / 255.0))
    assert not np.array_equal(shown["student"], shown["teacher"])
    alone = next(path_frames(cameras, "teacher", (0.0, 0.0, 0.0), None, teacher))
    assert alone[0, 0].tolist() == [0, 0, 0] and shown["teacher"][0, 0].tolist() == [255, 255, 255]


def test_colours_are_those_of_a_player_that_goes_by_what_the_film_says(tmp_path):
    """BT.709, limited range, as the tags of the file say: decoded so, by hand, a colour is what it was."""
    color = np.array([60, 180, 60])
    write_video(tmp_path / "film.mp4", [np.full((64, 64, 3), color, np.uint8)] * 3, fps=10)
    decoder = [get_ffmpeg_exe(), "-i", str(tmp_path / "film.mp4"), "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    done = subprocess.run(decoder, capture_output=True, check=True)
    assert b"bt709" in done.stderr and b"yuv420p(tv" in done.stderr
    y, cb, cr = (done.stdout[place] for place in (0, 64 * 64, 64 * 64 + 32 * 32))
    luma, blue, red = (y - 16) / 219, (cb - 128) / 224, (cr - 128) / 224
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    assert np.abs(255 * np.array([r, g, b]) - color).max() < 3


def test_nothing_is_left_of_a_film_that_was_stopped(tmp_path):
    def frames():
        yield np.zeros((16, 16, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "film.mp4", frames(), fps=10)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("count", [1, 400], ids=["at the end", "under way"])
def test_a_failure_of_ffmpeg_is_one_message(tmp_path, count):
    odd = [np.zeros((15, 15, 3), np.uint8)] * count
    with pytest.raises(InputError, match="ffmpeg: found"):
        write_video(tmp_path / "film.mp4", odd, fps=10)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("line", ["cat > /dev/null; echo", "echo"], ids=["at the end", "at once"])
def test_a_full_disk_is_the_machines_fault(tmp_path, monkeypatch, line):
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text(f"#!/bin/sh\n{line} 'Error writing trailer: No space left on device' >&2\nexit 228\n")
    ffmpeg.chmod(0o755)
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", lambda: str(ffmpeg))
    with pytest.raises(OSError, match="No space left on device.*film.mp4") as caught:
        write_video(tmp_path / "film.mp4", [np.zeros((64, 64, 3), np.uint8)] * 100, fps=10)
    assert machine_failure(caught.value).startswith(f"{tmp_path / 'film.mp4'}: No space left on device. Make room")
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", _no_ffmpeg)
    with pytest.raises(InputError, match="pip install imageio-ffmpeg"):
        check_video(tmp_path / "film.mp4", 30.0)


def _no_ffmpeg():
    raise RuntimeError("No ffmpeg exe could be found. Install ffmpeg.")


@pytest.mark.parametrize(("name", "fps", "words"), [("a.avi", 30.0, ".mp4"), (".", 30.0, "mp4"), ("a.mp4", 0.0, "fps")])
def test_what_cannot_be_written_is_refused(tmp_path, name, fps, words):
    with pytest.raises(InputError, match=words):
        check_video(tmp_path / name, fps)


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.film\.mp4: film: found .*expected a folder that can be written"):
        check_video(tmp_path / "file" / "film.mp4", 30.0)

    def denied(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    with pytest.raises(InputError, match="film: found Permission denied, expected a folder that can be written"):
        check_video(tmp_path / "film.mp4", 30.0)
