"""Renders 3D Gaussians from the cameras of a dataset: colour, alpha and depth. On a CPU it needs no compiler.

    python tools/render_splat.py scene.ply --cameras transforms.json --resolution 800 --output renders_of_scene

Takes any file of Gaussians that the program reads (.ply, .npz, .spz, .splat, SOG). Writes renders/00000.png, straight
RGBA unless --background is given, depth/00000.npy, transforms.json of the cameras and render_stats.json. Run again, it
goes on where it stopped. Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.library.scenes import splat_config
from distill.runs.command_line import (
    add_debug_option,
    add_device_option,
    add_frames_option,
    add_set_option,
    given_path,
    overrides_of,
    run_command,
)
from teacher.depth import DepthKind
from teacher.export.job import ExportOptions, export


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Render 3D Gaussians from the cameras of a dataset: colour, alpha and depth.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted (run it again to go on).",
    )
    parser.add_argument("splat", type=given_path, metavar="FILE", help="the Gaussians: .ply, .npz, .spz, .splat or SOG")
    parser.add_argument(
        "--cameras", type=given_path, required=True, metavar="PATH",
        help="a transforms JSON, a COLMAP model, or the folder of a trained model or of a run",
    )  # fmt: skip
    add_frames_option(parser)
    parser.add_argument("--resolution", type=int, metavar="N", help="width in pixels (default: the dataset's)")
    parser.add_argument("--background", metavar="COLOR", help="white, black or [r, g, b]: RGB on it (default: RGBA)")
    kinds = ["none", *(kind.value for kind in DepthKind)]
    parser.add_argument(
        "--depth-kind", choices=kinds, default=DepthKind.DISTANCE_NORMALIZED.value,
        help="what depth/ holds, world units (default: %(default)s, along the ray)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=given_path, metavar="DIR", help="where to write (default: results/<scene>/splat/teacher_views)"
    )
    add_set_option(parser, "teacher.rasterizer=cpu")
    add_debug_option(parser)
    add_device_option(parser)
    return parser.parse_args(arguments)


def render(chosen: argparse.Namespace) -> None:
    """Does what the command line asks for.

    Raises:
        InputError: Gaussians, cameras or options are not in order, or the output folder holds other views.
    """
    overrides = chosen.overrides + overrides_of({"--background": ("teacher.background", chosen.background)})
    config = splat_config(chosen.splat, overrides, chosen.device)
    given = {"output": chosen.output, "path": chosen.cameras, "frames": chosen.frames, "resolution": chosen.resolution}
    given |= {"depth_kind": chosen.depth_kind, "rgba": chosen.background is None}
    export(config, ExportOptions(**{**dict.fromkeys(ExportOptions._fields), **given}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: render(chosen), chosen.debug, "interrupted; run it again to go on")


if __name__ == "__main__":
    sys.exit(main())
