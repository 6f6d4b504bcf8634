"""A film along a camera path: student, teacher, their difference, or all three side by side."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np

from distill.evaluation.comparison_pictures import error_map
from distill.model.view_renderers import RenderView
from machine.files import atomic_path, check_output_file, output_errors
from scene.cameras import Cameras
from scene.images import to_uint8
from settings.errors import InputError
from settings.sections import Color

Show = Literal["student", "teacher", "error", "side_by_side"]
SHOWS: tuple[Show, ...] = ("student", "teacher", "error", "side_by_side")

# libx264's constant rate factor: 18 is about where a difference is no longer seen.
_CRF = "18"
# Of a film that does not say how its colours were made players go by its height, and ffmpeg converts by BT.601.
_COLOURS = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_range", "tv"]
_COLOURS += [word for name in ("colorspace", "color_primaries", "color_trc") for word in (f"-{name}", "bt709")]


def even_sized(cameras: Cameras) -> Cameras:
    """The same views at the next even size, which h264 in yuv420p needs."""
    return cameras.resized(cameras.width + cameras.width % 2, cameras.height + cameras.height % 2)


def path_frames(
    cameras: Cameras, show: Show, background: Color, student: RenderView | None, teacher: RenderView | None
) -> Iterator[np.ndarray]:
    """The film's frames, (H, W, 3) uint8, one a camera; ``side_by_side``: teacher, student, error, (H, 3 W, 3).

    Args:
        student, teacher: only those that ``show`` needs must be there.
    """
    for index in range(len(cameras)):

        def image(render: RenderView, index: int = index) -> np.ndarray:
            return to_uint8(render(cameras, index).over(background).numpy())

        if show == "student":
            yield image(student)
        elif show == "teacher":
            yield image(teacher)
        else:
            reference, own = image(teacher), image(student)
            error = error_map(own / 255.0, reference / 255.0)
            yield error if show == "error" else np.concatenate([reference, own, error], axis=1)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Writes an mp4, h264 in yuv420p, under a temporary name, and renames it when it is whole.

    Args:
        path: ends in ``.mp4``; its folder is made.
        frames: (H, W, 3) uint8 of one size, H and W even; at least one.
        fps: frames per second.

    Raises:
        InputError: ffmpeg fails.
        OSError: the file cannot be written, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        frames = iter(frames)
        first = next(frames)
        _encode(temporary, itertools.chain([first], frames), (first.shape[1], first.shape[0]), fps, path)


def check_video(path: Path, fps: float) -> None:
    """Refuses before anything is rendered what ``write_video`` would refuse after it.

    Raises:
        InputError: another ending than ``.mp4``, a path that is a folder, no frame rate, no ffmpeg, or a folder that
            cannot be made or written to.
    """
    check_output_file("--video", path, (".mp4",))
    if not 0 < fps <= 1000:
        raise InputError("--fps", "frames per second", fps, "more than 0, at most 1000")
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise InputError(
            "--video",
            "ffmpeg",
            str(error).strip().splitlines()[0],
            "an ffmpeg to write mp4 with",
            "pip install imageio-ffmpeg, which brings one, or name yours in IMAGEIO_FFMPEG_EXE.",
        ) from error
    with output_errors(path, "film"):  # ffmpeg's own words for it are after the first frames, and none of ours
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def _encode(file: Path, frames: Iterable[np.ndarray], size: tuple[int, int], fps: float, path: Path) -> None:
    """Has ffmpeg write the frames to ``file``; ``path`` is the film's name in messages."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(fps), "-i", "-"]
    command += ["-an", "-vcodec", "libx264", "-pix_fmt", "yuv420p", "-crf", _CRF, *_COLOURS]
    command += ["-movflags", "+faststart", str(file)]
    with tempfile.TemporaryFile() as log:
        # In a session of its own, so that it does not take a Ctrl-C that is meant for this program.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, start_new_session=True)
        try:
            with suppress(BrokenPipeError):  # it has ended before: its status and its words say why
                for frame in frames:
                    process.stdin.write(frame.tobytes())
                process.stdin.close()
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            with suppress(OSError):  # of frames that it did not take
                process.stdin.close()
        log.seek(0)
        words = " ".join(log.read().decode(errors="replace").split())
    if status == 0:
        return
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(number) in words:
            raise OSError(number, os.strerror(number), str(path))
    found = f"a failure ({words[-300:] or f'exit status {status}'})"
    raise InputError(path, "ffmpeg", found, "a video written to the end", "Is the size even?")
