"""Shows what a teacher's depth files hold, and says what to put in the config.

    python tools/inspect_teacher_depth.py --config configs/lego_response_eighth.yaml [--assets DIR]

Writes report.txt, histogram.png and depth_maps.png to results/<scene>/<run>/teacher_depth/. Exit status: 0 the depth
kind is clear, 1 it is not or the config says another, 2 bad input, 4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.runs.command_line import add_config_options, add_root_option, config_of, run_command
from machine.files import output_errors, write_atomically
from machine.run_folder import RunFolder
from settings.config import Config
from teacher.depth import DepthKind
from teacher.sources import source_of
from teacher.views.depth_inspection import depth_maps, describe, histogram, inspect, png


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Show what a teacher's depth files hold, and what to put in the config.",
        epilog="Exit status: 0 the depth kind is clear, 1 it is not or the config says another, 2 bad input, "
        "4 the machine failed, 130 interrupted.",
    )
    add_config_options(parser)
    add_root_option(parser, "results/ is")
    chosen = parser.parse_args(arguments)
    return run_command(lambda: _report(config_of(chosen), chosen.output), chosen.debug)


def _report(config: Config, root: Path) -> int:
    """Prints and writes the report; 0: the depth kind is clear, 1: it is not, or the config says another."""
    source, named = source_of(config), config.teacher.depth_kind
    files = source.depth_files()
    box, box_source = source.box(source.gaussians(), files.cameras)
    inspection = inspect(files, box, box_source, None if named == "none" else DepthKind.parse(named))
    text = describe(inspection)
    folder = RunFolder(config, root).results / "teacher_depth"
    with output_errors(folder, "output folder"):
        write_atomically(folder / "histogram.png", png(histogram(inspection)))
        write_atomically(folder / "depth_maps.png", png(depth_maps(inspection)))
        write_atomically(folder / "report.txt", text)
    print(text)
    print(f"Pictures are in {folder}.")
    return 0 if inspection.is_clear else 1


if __name__ == "__main__":
    sys.exit(main())
