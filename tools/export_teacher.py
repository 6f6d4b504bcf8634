"""Renders the views of a 3DGS teacher to disk in graphdeco's layout, to look at or to distil as teacher.kind: views.

    python tools/export_teacher.py --config configs/lego_response_eighth.yaml [--assets DIR] [--output DIR]

Writes renders/, depth/, gt/ where the dataset has images, transforms.json of the frames, render_stats.json; with
--features also teacher_features.npz. Run again, it goes on where it stopped. Exit status: 0 done, 2 bad input,
4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.runs.command_line import (
    add_config_options,
    add_device_option,
    add_frames_option,
    config_of,
    given_path,
    run_command,
    whole_number,
)
from teacher.depth import DepthKind
from teacher.export.job import ExportOptions, export


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Render a 3DGS teacher's views to disk in graphdeco's layout.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted (run it again to go on).",
    )
    add_config_options(parser, turns=True)
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="DIR",
        help="where to write (default: results/<scene>/<run>/teacher_views)",
    )
    cameras = parser.add_mutually_exclusive_group()
    cameras.add_argument("--split", metavar="NAME", help="transforms_NAME.json beside data.transforms")
    cameras.add_argument("--path", type=given_path, metavar="FILE", help="a transforms JSON of the poses to render")
    cameras.add_argument("--orbit", type=int, metavar="N", help="N frames of one round about the scene")
    add_frames_option(parser)
    parser.add_argument("--resolution", type=int, metavar="N", help="width in pixels (default: the dataset's)")
    kinds = ["none", *(kind.value for kind in DepthKind)]
    parser.add_argument("--depth-kind", choices=kinds, help="what depth/ holds (default: the config's, or inverse_z)")
    parser.add_argument("--rgba", action="store_true", help="straight RGBA pictures instead of RGB on a background")
    parser.add_argument("--prune-opacity", type=float, metavar="X", help="drop Gaussians of less opacity")
    parser.add_argument(
        "--prune-contribution", type=float, metavar="X",
        help="drop Gaussians that fill less than X pixels of the training view that shows most of them",
    )  # fmt: skip
    parser.add_argument(
        "--ply", type=given_path, metavar="FILE", help="also write the Gaussians rendered, as .ply, .npz or .spz"
    )
    parser.add_argument(
        "--features", nargs="?", const="all", metavar="NAMES",
        help="also write teacher features: all, or names or groups with commas (sh, sh_dc, opacity, log_scale)",
    )  # fmt: skip
    parser.add_argument(
        "--features-resolution", type=whole_number, metavar="N",
        help="cells of the feature volume along the longest side of the box (default: occupancy.resolution)",
    )  # fmt: skip
    add_device_option(parser)
    return parser.parse_args(arguments)


def _work(chosen: argparse.Namespace) -> None:
    export(config_of(chosen), ExportOptions(*(getattr(chosen, name) for name in ExportOptions._fields)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: _work(chosen), chosen.debug, "interrupted; run it again to go on")


if __name__ == "__main__":
    sys.exit(main())
