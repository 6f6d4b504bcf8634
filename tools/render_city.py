"""Renders a city of blocks along cameras, in a fixed memory.

    python tools/render_city.py results/city/city.json --cameras flight.json --budget-mib 256 --output flight

Blocks are read when the first ray meets them, and dropped again, the least recently used first, so that the whole stays
under the budget. Far blocks are shown by their coarser students. Writes renders/00000.png, flight.csv with what each
frame took, and with --video an mp4. Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.city.manifest import read_manifest
from distill.city_rendering.streaming import StreamedCity
from distill.evaluation.film import check_video, even_sized, write_video
from distill.runs.command_line import (
    add_assets_option,
    add_debug_option,
    add_device_option,
    add_frames_option,
    add_set_option,
    given_path,
    overrides_of,
    run_command,
)
from machine.files import write_csv
from machine.memory import MIB
from machine.terminal import progress_bar
from scene.cameras import Cameras
from scene.images import to_uint8, write_image
from settings.errors import InputError
from settings.loading import run_config
from settings.words import counted
from teacher.export.export_cameras import views_to_export

if TYPE_CHECKING:
    import numpy as np

_SETTINGS = ("render", "data.near", "data.far", "device", "kernels")
COLUMNS = ("frame", "seconds", "blocks", "coarse", "loads", "held_mib", "peak_mib")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Render a city of blocks along cameras, in a fixed memory.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted; no file is half-written.",
    )
    parser.add_argument(
        "manifest", type=given_path, metavar="city.json", help="the city, as tools/distill_city.py writes it"
    )
    parser.add_argument(
        "--cameras", "--path", type=given_path, required=True, dest="cameras", metavar="FILE",
        help="a transforms JSON of the poses (a flight, as tools/render_path.py and the viewer use them), a dataset, "
        "or the folder of a run",
    )  # fmt: skip
    add_frames_option(parser, "cameras")
    parser.add_argument("--width", type=int, metavar="N", help="pixels (default: the cameras')")
    parser.add_argument(
        "--budget-mib", type=float, metavar="N", help="memory above the program's own, MiB (default: no limit)"
    )
    parser.add_argument("--finest", action="store_true", help="show every block by its finest student, however far")
    parser.add_argument("--output", type=given_path, required=True, metavar="DIR", help="where to write")
    parser.add_argument("--video", type=given_path, metavar="FILE", help="write an mp4 too")
    parser.add_argument(
        "--fps", type=float, default=30.0, metavar="N", help="frames a second of the mp4 (default: %(default)g)"
    )
    add_set_option(parser, "render.background=white", "a setting of the city's config")
    add_assets_option(parser)
    add_debug_option(parser)
    add_device_option(parser)
    return parser.parse_args(arguments)


def render(chosen: argparse.Namespace) -> str:
    """Does what the command line asks for; returns what to say of it.

    Raises:
        InputError: manifest, cameras, students or options are not in order.
    """
    if chosen.budget_mib is not None and not 0 < chosen.budget_mib < math.inf:
        raise InputError("--budget-mib", "budget", chosen.budget_mib, "more than 0 MiB")
    if chosen.video is not None:
        check_video(chosen.video, chosen.fps)
    for key in (text.partition("=")[0].strip() for text in chosen.overrides):
        if not any(f"{key}.".startswith(f"{setting}.") for setting in _SETTINGS):
            expected = f"one of {', '.join(_SETTINGS)}: nothing else changes the pictures of trained blocks"
            raise InputError("--set", "setting", key, expected)
    manifest = read_manifest(chosen.manifest)
    overrides = chosen.overrides + overrides_of({"--device": ("device", chosen.device)})
    config = run_config(manifest.path(manifest.config), overrides, chosen.assets)
    # A path's cameras may all be in one place: how large the world about them is tells whether float32 is fine enough.
    about = config.model_copy(update={"data": config.data.model_copy(update={"box": manifest.box})})
    wanted = {"path": chosen.cameras, "frames": chosen.frames, "resolution": chosen.width}
    views = views_to_export(about, None, **wanted, width_option="--width")
    cameras = views.cameras if chosen.video is None else even_sized(views.cameras)
    budget = None if chosen.budget_mib is None else int(chosen.budget_mib * MIB)
    city = StreamedCity(manifest, config, budget, not chosen.finest)
    frames = _written(city, cameras, chosen.output)
    if chosen.video is not None:
        write_video(chosen.video, frames, chosen.fps)
    else:
        for _ in frames:
            pass
    peak = "not measured" if city.peak is None else f"{city.peak / MIB:.1f} MiB above the program's own"
    limit = "no limit" if budget is None else f"{chosen.budget_mib:g} MiB"
    done = f"{counted(len(cameras), 'frame')}, {counted(city.store.loads, 'load')}"
    return f"{chosen.output}: {done}; peak memory {peak}, budget {limit}"


def _written(city: StreamedCity, cameras: Cameras, output: Path) -> Iterator[np.ndarray]:
    """Every frame, (H, W, 3) uint8, once it is written."""
    rows, began = [], time.perf_counter()
    bar = progress_bar(
        city.frames(cameras), desc=f"{cameras.width}x{cameras.height}", total=len(cameras), unit=" frame"
    )
    for index, (frame, cost) in enumerate(bar):
        image = to_uint8(frame.rgb.cpu().numpy())
        write_image(output / "renders" / f"{index:05d}.png", image)
        bar.set_postfix(blocks=cost.blocks, held_mib=f"{cost.held_mib:.1f}")
        rows.append({"frame": index, "seconds": time.perf_counter() - began, **asdict(cost)})
        write_csv(output / "flight.csv", rows, COLUMNS)
        yield image
        began = time.perf_counter()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: print(render(chosen)), chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
