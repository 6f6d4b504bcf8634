"""Shows a student in a browser, its teacher beside it: fly through it, compare, record a camera path.

    python tools/view.py results/lego/eighth            # a run folder, a checkpoint or a compact file
    python tools/view.py point_cloud.ply --up=-y        # Gaussians alone, or the folder of a graphdeco model
    python tools/view.py --config configs/quickstart.yaml
    python tools/view.py results/bricks/quickstart --sheet modes.png       # no browser: all it can show

Prints the address of the page. It listens on this machine alone, unless --host says otherwise, until Ctrl-C. What moves
is drawn coarsely, at once; what rests is drawn in full. Exit status: 0 done (--measure, --sheet), 2 bad input,
4 the machine failed, 130 ended by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.runs.command_line import (
    add_config_options,
    add_device_option,
    add_root_option,
    config_of,
    given_path,
    overrides_of,
    run_command,
)
from distill.viewer.browser_view import BrowserView, import_viser
from distill.viewer.measurement import DEFAULT_WIDTH, measure
from distill.viewer.subjects import Subject, gaussians_subject, student_subject
from machine.files import check_output_file, output_errors
from machine.memory import check_pictures_fit
from machine.run_folder import CITY_MANIFEST, RunFolder, checkpoint_at
from scene.images import write_image
from settings.errors import ExitCode, InputError
from settings.loading import REPO_ROOT, load_config
from teacher.gaussian_files import FORMATS
from teacher.views.rasterized import DRAWN_BYTES


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Show a student in a browser, its teacher beside it.",
        epilog="Exit status: 0 done (--measure, --sheet), 2 bad input, 4 the machine failed, 130 ended by Ctrl-C.",
    )
    parser.add_argument(
        "path", nargs="?", type=given_path, metavar="PATH",
        help="a run folder, a checkpoint, a compact file, Gaussians "
        f"({', '.join(f'.{name}' for name in FORMATS)}), or a graphdeco model's folder (default: the config's run)",
    )  # fmt: skip
    add_config_options(parser, default_config="the checkpoint's own", turns=True)
    add_root_option(parser, "the run's results/ are", "beside the run that PATH names, else this repository")
    add_device_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=8080,
        metavar="N",
        help="port of the page, or the next that is free (default: %(default)s)",
    )
    parser.add_argument(
        "--width", type=int, metavar="N", help="longest side of pictures, pixels (default: that of training)"
    )
    parser.add_argument(
        "--keyframes", type=given_path, metavar="FILE",
        help="JSON of the camera path (default: keyframes.json in the run's results; of Gaussians, beside their file)",
    )  # fmt: skip
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--measure", type=float, metavar="S",
        help="no browser: move the camera for S seconds in each mode, and print how many pictures that gave",
    )  # fmt: skip
    instead.add_argument(
        "--sheet", type=given_path, metavar="FILE", help="no browser: write one PNG of all that can be shown"
    )
    return parser.parse_args(arguments)


def view(chosen: argparse.Namespace) -> int:
    """Does what the command line asks for; returns only where that needs no browser.

    Raises:
        InputError: what is to be seen is missing or damaged, the options do not fit, or viser is missing.
        KeyboardInterrupt: Ctrl-C.
    """
    ready = time.perf_counter()
    if chosen.width is not None and chosen.width < 1:
        raise InputError("--width", "pixels", chosen.width, "at least 1")
    if chosen.measure is not None and not chosen.measure > 0:
        raise InputError("--measure", "seconds", chosen.measure, "more than 0")
    if chosen.sheet is not None:
        check_output_file("--sheet", chosen.sheet, (".png",))
    if chosen.measure is None and chosen.sheet is None:
        import_viser("tools/view.py")  # before what takes longer
    subject = _subject(chosen)
    width = chosen.width or subject.config.data.resolution or DEFAULT_WIDTH
    if chosen.measure is not None:
        print(measure(subject, width, chosen.measure, ready))
        return ExitCode.DONE
    if chosen.sheet is not None:
        subject.load_teacher()
        check_pictures_fit((width, width), len(subject.pictures.modes), DRAWN_BYTES, "width", "--width")
        with output_errors(chosen.sheet):
            write_image(chosen.sheet, subject.pictures.sheet(subject.start().cameras(width, width)))
        print(f"{chosen.sheet}: {', '.join(subject.pictures.modes)}")
        return ExitCode.DONE
    browser = BrowserView(subject, chosen.host, chosen.port, width)
    print(browser.url, flush=True)  # a browser loads the page meanwhile
    subject.pictures(subject.pictures.modes[0], subject.start().cameras(64, 64))  # loads the kernels
    if subject.pictures.teacher is None:
        threading.Thread(target=_add_teacher, args=(subject, browser), daemon=True).start()
    try:
        browser.worker.run(threading.Event())
    finally:
        browser.close()
    return ExitCode.DONE


def _subject(chosen: argparse.Namespace) -> Subject:
    options = {"--device": ("device", chosen.device), "--up": ("teacher.orbit.up", chosen.up)}
    overrides = chosen.overrides + overrides_of(options)
    path = chosen.path
    if path is None:
        if chosen.config is None:
            raise InputError("command line", "PATH", "nothing", "a run folder, a checkpoint or Gaussians, or --config")
        folder = RunFolder(load_config(chosen.config, overrides, chosen.assets), chosen.output or REPO_ROOT)
        path = folder.results
    option = _gaussians_option(path)
    if option is None:
        subject = student_subject(checkpoint_at(path), chosen.config, overrides, chosen.assets, chosen.output)
    else:
        config = config_of(argparse.Namespace(**vars(chosen), **{option: path}))
        subject = gaussians_subject(config, chosen.output)
    if chosen.keyframes is not None:
        subject.keyframes = chosen.keyframes
    return subject


def _gaussians_option(path: Path) -> str | None:
    """Which option of the other commands names such a path; None of a student's."""
    if path.is_dir():
        return "model" if (path / "point_cloud").is_dir() else None
    if path.name == CITY_MANIFEST:
        return None
    return "splat" if path.suffix.lower().removeprefix(".") in (*FORMATS, "json") else None


def _add_teacher(subject: Subject, browser: BrowserView) -> None:
    """Behind the first picture: reading Gaussians, and finding out how they were drawn, takes seconds."""
    browser.has_shown.wait()
    subject.load_teacher()
    browser.offer_modes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: view(chosen), chosen.debug, "the viewer has ended")


if __name__ == "__main__":
    sys.exit(main())
