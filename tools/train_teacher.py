"""Fits 3D Gaussians, a teacher, to images with known cameras: for those who have pictures but no 3DGS checkpoint.

    python tools/train_teacher.py --config configs/lego_teacher.yaml --assets DIR

Starts in the visual hull of the images' silhouettes, minimises L1 and D-SSIM, clones, splits and prunes (Kerbl et al.
2023). The PLY is ``results/<scene>/<run>/point_cloud/iteration_<step>/point_cloud.ply``, in graphdeco's layout: name it
in ``teacher.ply``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

from distill.config import REPO_ROOT, load_config
from distill.fitting.session import fit_teacher
from distill.session import ExitCode
from distill.trainer import TrainingDiverged
from scene.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (see ``ExitCode``)."""
    parser = argparse.ArgumentParser(description="Fit a 3D Gaussian Splatting teacher to images with known cameras.")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML config; see its section fitting")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="override")
    parser.add_argument("--assets", metavar="DIR", help="root of relative asset paths (default: this repository)")
    parser.add_argument("--output", metavar="DIR", type=Path, default=REPO_ROOT, help="where results/ and logs/ are")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last state")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numba").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="The torchvision", module="lpips")
    try:
        config = load_config(arguments.config, arguments.overrides, arguments.assets)
        return fit_teacher(config, arguments.output, arguments.resume)
    except (InputError, TrainingDiverged) as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.BAD_INPUT if isinstance(error, InputError) else ExitCode.DIVERGED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
