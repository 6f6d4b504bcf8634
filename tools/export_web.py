"""Makes a page to send of a trained student: one HTML file that renders it, in a browser, without a server.

    python tools/export_web.py results/bricks/quickstart            # a run folder or a checkpoint
    python tools/export_web.py --config configs/lego_response_400.yaml --checkpoint small.lrd --file lego.html

The student is in the file, and under its picture the figures of its evaluation. A compact file (tools/compress.py)
makes a small page. It is written to results/<scene>/<run>/step_020000.html by default. Exit status: 0 done, 2 bad
input, 4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.evaluation.render_files import eval_stem
from distill.model.model import RestoredRun, restore_run
from distill.model.other_config import evaluated_as, named_after
from distill.runs.command_line import add_config_options, given_path, run_command
from distill.runs.given_run import add_run_options, run_of
from distill.web.page import FINE, StartView, rays_of, web_page
from machine.files import check_output_file, output_errors, read_csv, write_atomically
from machine.memory import MIB
from machine.run_folder import RunFolder
from scene.camera_paths import middle_of
from settings.config import Config
from settings.errors import InputError
from teacher.sources import source_of

_LARGE_MIB = 4.0
_log = logging.getLogger(__name__)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Make a page to send of a trained student: one HTML file that renders it in a browser.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted; nothing is left half-written.",
    )
    add_config_options(parser, turns=True)
    add_run_options(parser)
    parser.add_argument(
        "--file", type=given_path, metavar="FILE",
        help="the HTML file to write (default: results/<scene>/<run>/step_<N>[_<tag>].html)",
    )  # fmt: skip
    return parser.parse_args(arguments)


def export(config: Config, root: Path, checkpoint: Path | None, file: Path | None) -> str:
    """Writes the page; returns a line for a person.

    Raises:
        InputError: config, assets or checkpoint are not in order, a page cannot express the student, or the file
            cannot be written.
    """
    if file is not None:
        check_output_file("--file", file, (".html",))
    run = restore_run(config, root, checkpoint)
    frames, source = source_of(config).frames()
    width = config.data.resolution or frames.cameras.width
    shown = config.render.background_rgb, config.teacher.orbit.known_up
    try:
        start = StartView.of(frames.cameras, middle_of(frames.cameras, run.model.grid.box), width, *shown)
    except ValueError as error:
        hint = "Say what is up with --up."
        raise InputError(source, "cameras", error, "cameras around the scene", hint) from error
    evaluation = RunFolder(evaluated_as(config, run.checkpoint, run.own), root).eval_csv(run.step)
    rows = list(read_csv(evaluation).rows.values())
    page = web_page(run.model, run.checkpoint, f"{config.scene} / {config.run}", start, _facts(run, width), rows)
    if not rows:
        _log.warning("the page has no figures: there is no evaluation of this student, %s", evaluation)
    stem = eval_stem(RunFolder(named_after(config, run.checkpoint), root), run.step)
    path = file or run.folder.results / f"{stem}.html"
    with output_errors(path, "page"):
        write_atomically(path, page)
    size = path.stat().st_size / MIB
    if size > _LARGE_MIB and run.model.compact_bytes is None:
        _log.warning("the page has %.1f MiB: one of a compact file is smaller, see tools/compress.py", size)
    return f"{path}: {size:.2f} MiB"


def _facts(run: RestoredRun, width: int) -> dict[str, str]:
    """What the page says the student is, trained on pictures so wide."""
    model = run.model
    shading = "once a ray" if model.student.deferred else "at every sample"
    compact = "" if model.compact_bytes is None else f", a compact file of {model.compact_bytes / MIB:.2f} MiB"
    cells = f"{model.grid.occupied_fraction:.1%} of {' × '.join(map(str, model.grid.shape))} cells"
    return {
        "Student": f"{model.student.kind.replace('_', ' ')}, {model.parameter_count():,} parameters, shaded {shading}",
        "Made from": f"{run.checkpoint.name}{compact}, after {run.step:,} training steps",
        "Sampled": f"every {model.settings.of_pictures().step:.4g} world units in {cells}",
        "Pixels": _pixels(model.settings.supersample, rays_of(model), width),
    }


def _pixels(program: int, page: int, width: int) -> str:
    """What a pixel is, by rays along its side in the program's pictures, which figures are of, and in the page's."""
    if program == 1:
        return "one ray each, as in the program's pictures"
    like = "as" if page == program else f"not of {program} × {program} as"
    means = f"the mean of {page} × {page} rays each, {like} in the program's pictures"
    fine = f"where pixels are {FINE} times as fine as in training, whose pictures are {width} wide"
    one = f"one ray while the camera moves, and {fine}"
    return f"{means}; {one}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: print(export(*run_of(chosen), chosen.file)), chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
