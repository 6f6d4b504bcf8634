"""Fits 3D Gaussians, a teacher, to images with known cameras: for those who have pictures but no 3DGS checkpoint.

    python tools/train_teacher.py --source DIR
    python tools/train_teacher.py --config configs/lego_teacher.yaml --assets DIR

Starts in the visual hull of the images' silhouettes, or for photographs at the dataset's sparse points; minimises L1
and D-SSIM, clones, splits and prunes (Kerbl et al. 2023). The PLY is
``results/<scene>/<run>/point_cloud/iteration_<step>/point_cloud.ply``, in graphdeco's layout: ``--model
results/<scene>/<run>`` distils it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.runs.command_line import (
    add_config_options,
    add_device_option,
    add_root_option,
    add_short_options,
    config_of,
    run_command,
)
from distill.runs.fit_teacher import describe_fit, fit_teacher
from distill.runs.given_scene import CAPTURE_TEACHER
from settings.errors import ExitCode


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (see ``ExitCode``)."""
    parser = argparse.ArgumentParser(
        description="Fit a 3D Gaussian Splatting teacher to images with known cameras.",
        epilog="Exit status: 0 done, 1 the fit diverged, 2 bad input, 3 COLLAPSED (no better than a blank picture), "
        "4 the machine failed, 130 interrupted (--resume goes on).",
    )
    add_config_options(parser, source_config=CAPTURE_TEACHER)
    add_root_option(parser)
    add_device_option(parser)
    add_short_options(parser, "fitting.max_steps")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, write nothing")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last state")
    arguments = parser.parse_args(argv)

    def work() -> int:
        asked = config_of(arguments), arguments.output, arguments.resume
        if not arguments.dry_run:
            return fit_teacher(*asked)
        print(describe_fit(*asked))
        return ExitCode.DONE

    going_on = "" if arguments.dry_run else "--resume goes on from the run's last state, if there is one."
    return run_command(work, arguments.debug, going_on=going_on)


if __name__ == "__main__":
    sys.exit(main())
