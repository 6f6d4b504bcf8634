"""Films a student, its teacher, or both, along a camera path.

    python tools/render_path.py results/bricks/quickstart --spiral --show side_by_side   # a run folder or a checkpoint

Renders an orbit (the default), a spiral or the poses of a JSON and writes an mp4, by default beside the evaluation's
pictures: results/<scene>/<run>/eval/step_020000_orbit_student.mp4. Exit status: 0 done, 2 bad input,
4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.evaluation.film import SHOWS, check_video, even_sized, path_frames, write_video
from distill.evaluation.render_files import eval_stem
from distill.model.model import restore_run
from distill.model.other_config import named_after
from distill.model.view_renderers import RenderView, student_renderer
from distill.runs.command_line import add_config_options, given_path, run_command
from distill.runs.given_run import add_run_options, run_of
from distill.viewer.subjects import teacher_renderer
from machine.run_folder import RunFolder
from machine.terminal import progress_bar
from scene.cameras import Cameras
from scene.frames import spread
from settings.config import Config
from settings.errors import InputError
from teacher.export.export_cameras import views_to_export
from teacher.gaussians import Gaussians
from teacher.sources import check_assets, source_of

_FRAMES = 120


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Film a student, its teacher, or both, along a camera path.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted; nothing is left half-written.",
    )
    add_config_options(parser, turns=True)
    add_run_options(parser)
    paths = parser.add_mutually_exclusive_group()
    paths.add_argument("--orbit", action="store_true", help="one level round about the scene (the default)")
    paths.add_argument("--spiral", action="store_true", help="two rounds that rise and sink again")
    paths.add_argument("--path", type=given_path, metavar="FILE", help="a transforms JSON of the poses")
    parser.add_argument("--show", choices=SHOWS, default="student", help="what the film shows (default: %(default)s)")
    parser.add_argument(
        "--frames", type=int, metavar="N", help=f"frames (default: {_FRAMES}; of --path all, N of them evenly spread)"
    )
    parser.add_argument("--fps", type=float, default=30.0, metavar="N", help="frames a second (default: %(default)g)")
    parser.add_argument(
        "--width",
        type=int,
        metavar="N",
        help="pixels, of each panel (default: data.resolution, or the dataset's; of --path the file's)",
    )
    parser.add_argument("--video", type=given_path, metavar="FILE", help="the mp4 to write")
    return parser.parse_args(arguments)


def film(chosen: argparse.Namespace) -> Path:
    """Does what the command line asks for; returns the film's path.

    Raises:
        InputError: config, assets, checkpoint or options do not fit, or ffmpeg is missing or fails.
    """
    config, root, checkpoint = run_of(chosen)
    check_assets(config)
    if chosen.frames is not None and chosen.frames < 1:
        raise InputError("--frames", "frames", chosen.frames, "at least 1")
    student, stem = None, "teacher"
    if chosen.show != "teacher":
        run = restore_run(config, root, checkpoint)
        student = student_renderer(run.model, run.device)
        stem = eval_stem(RunFolder(named_after(config, run.checkpoint), root), run.step)
    gaussians = source_of(config).gaussians()
    teacher = None if chosen.show == "student" else _teacher(config, gaussians, chosen.show)
    name, cameras = _path(config, gaussians, chosen)
    default = RunFolder(config, root).eval / f"{stem}_{name}_{chosen.show}.mp4"
    video = chosen.video or default
    check_video(video, chosen.fps)
    frames = path_frames(cameras, chosen.show, config.render.background_rgb, student, teacher)
    bar = progress_bar(frames, desc=f"{name} at {cameras.width}x{cameras.height}", total=len(cameras), unit=" frame")
    write_video(video, bar, chosen.fps)
    return video


def _teacher(config: Config, gaussians: Gaussians | None, show: str) -> RenderView:
    if gaussians is None:
        hint = "Set teacher.ply, name them with --splat or --model, or use --show student."
        raise InputError("config", "teacher.ply", "nothing", "the teacher's Gaussians", hint)
    return teacher_renderer(config, gaussians, as_in_views=show != "teacher")


def _path(config: Config, gaussians: Gaussians | None, chosen: argparse.Namespace) -> tuple[str, Cameras]:
    """A word for the path, and its cameras."""
    count = chosen.frames or _FRAMES
    if chosen.path is not None:
        views = views_to_export(config, gaussians, path=chosen.path, resolution=chosen.width, width_option="--width")
        indices = spread(range(len(views.names)), chosen.frames or len(views.names))
        return chosen.path.stem, even_sized(views.cameras[indices])
    name = "spiral" if chosen.spiral else "orbit"
    width = config.data.resolution if chosen.width is None else chosen.width
    views = views_to_export(config, gaussians, **{name: count}, resolution=width, width_option="--width")
    return name, even_sized(views.cameras)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: print(film(chosen)), chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
