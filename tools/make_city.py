"""Makes a city of 3D Gaussians, of any extent, with cameras over it and in its streets.

    python tools/make_city.py --lots 4x4 --seed 0 --output DIR

Writes city.ply (graphdeco's layout, SH degree 1) lot by lot, and transforms.json, whose lists say which frames are
held out. Metres, z up, the lower corner at the origin; a larger city holds the smaller one of the same seed. Its
pictures are rendered by tools/render_splat.py. Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.runs.command_line import add_debug_option, given_path, run_command
from machine.files import output_errors
from machine.terminal import progress_bar
from scene.formats.transforms_json import write_transforms
from settings.errors import InputError
from settings.loading import validate
from settings.teacher import CityConfig
from settings.words import counted
from teacher.bricks.city import City
from teacher.bricks.city_cameras import city_cameras
from teacher.gaussian_files.ply import write_ply_parts

_FRAMES_PER_LOT = 16
_HELD_OUT = 8  # every so many-th of each kind of cameras


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Make a city of 3D Gaussians, of any extent, with cameras over it and in its streets.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted.",
    )
    default = CityConfig()
    parser.add_argument("--lots", type=_pair, default=default.lots, metavar="NxM", help="lots of 48 m (default: 2x2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which city (default: %(default)s)")
    parser.add_argument(
        "--spacing", type=float, default=default.spacing, metavar="METRES",
        help="distance between neighbouring Gaussians (default: %(default)s, about 3,000 a lot)",
    )  # fmt: skip
    parser.add_argument(
        "--frames", type=int, metavar="N",
        help=f"cameras, a quarter of them in the streets, every 8th held out (default: {_FRAMES_PER_LOT} a lot)",
    )  # fmt: skip
    parser.add_argument("--size", type=_pair, default=(192, 144), metavar="WxH", help="pixels (default: 192x144)")
    parser.add_argument("--output", type=given_path, required=True, metavar="DIR", help="where to write")
    add_debug_option(parser)
    return parser.parse_args(arguments)


def _pair(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or "0" in (match[1].lstrip("0") or "0", match[2].lstrip("0") or "0"):
        raise argparse.ArgumentTypeError(f"found '{text}', expected two whole numbers above 0, e.g. 4x3")
    return int(match[1]), int(match[2])


def make_city(chosen: argparse.Namespace) -> str:
    """Writes what the command line asks for; returns what it is, in words.

    Raises:
        InputError: a number is out of range, or the folder cannot be written.
    """
    options = {"lots": chosen.lots, "spacing": chosen.spacing}
    checked = validate(CityConfig, options, {name: f"--{name}" for name in options}, "command line")
    frames = _FRAMES_PER_LOT * checked.lots[0] * checked.lots[1] if chosen.frames is None else chosen.frames
    for name, value, least, most in (("--seed", chosen.seed, 0, 2**32 - 1), ("--frames", frames, 2, 10**8)):
        if not least <= value <= most:
            raise InputError(name, "number", value, f"{least} to {most}")
    city = City(checked.lots, chosen.seed, checked.spacing)
    with output_errors(chosen.output, "output folder"):
        chosen.output.mkdir(parents=True, exist_ok=True)
    cameras, names = city_cameras(city, frames, *chosen.size)
    tests = [int(name.rpartition("_")[2]) % _HELD_OUT == 0 for name in names]
    parts = progress_bar(city.parts(), desc="city", total=city.lots[0] * city.lots[1], unit=" lot")
    ply, json = chosen.output / "city.ply", chosen.output / "transforms.json"
    count = write_ply_parts(ply, parts)
    write_transforms(json, cameras, names, tests)
    box = city.box
    lower, upper = ([round(value, 2) for value in corner] for corner in (box.lower, box.upper))
    gaussians, frames = counted(count, "Gaussian"), counted(len(names), "frame")
    return f"{ply}: {gaussians}, box {lower} to {upper}\n{json}: {frames}, {sum(tests)} held out"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: print(make_city(chosen)), chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
