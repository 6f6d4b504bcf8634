"""Distils a city: a scene of Gaussians too large for one student, in blocks, each by a run of its own.

    python tools/distill_city.py --config configs/city_quickstart.yaml
    python tools/distill_city.py --splat city.ply --set city.blocks=16 --executor local --workers 4
    python tools/distill_city.py --config configs/city_quickstart.yaml --resume

Writes results/<scene>/<run>/city.json, which says what the blocks are and how far each is, trains those that are not
done yet, then all together for a while (city.joint_steps), and measures them. Ctrl-C saves all; --resume goes on. See
docs/scaling.md. Exit status, the highest of the blocks': 0 done, 1 training diverged, 2 bad input, 3 a block COLLAPSED,
4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.city.block_runs import blocks_table, open_city, run_blocks
from distill.city.manifest import Manifest, write_manifest
from distill.city_rendering.cutting_cost import taught_psnr
from distill.city_rendering.evaluation import evaluate
from distill.city_training.coarser_students import add_coarser
from distill.city_training.joint_training import JointOptions, fine_tune
from distill.executors import EXECUTORS, check_executor
from distill.runs.command_line import (
    add_config_options,
    add_device_option,
    add_root_option,
    config_of,
    overrides_of,
    run_command,
)
from machine.folder_lock import locked
from machine.memory import MIB, children_cost
from machine.run_folder import CITY_MANIFEST, RunFolder
from settings.errors import ExitCode
from teacher.sources import load_teacher


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Distil a city: a scene of Gaussians too large for one student, in blocks.",
        epilog="Exit status: 0 done, 1 training diverged, 2 bad input, 3 a block COLLAPSED, 4 the machine failed, "
        "130 interrupted (--resume goes on).",
    )
    add_config_options(parser)
    add_root_option(parser, "results/<scene>/<run>/ of the city is")
    add_device_option(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the city in its folder, if there is one")
    parser.add_argument(
        "--executor", choices=EXECUTORS, help="what runs the blocks; same as --set city.executor.kind=..."
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="blocks at a time; same as --set city.executor.workers=N"
    )
    parser.add_argument("--manifest-only", action="store_true", help="cut the city, and train nothing")
    parser.add_argument(
        "--taught", action="store_true",
        help="cut the city, train nothing, and measure what its blocks are taught, composited, against the whole "
        "teacher on held-out views",
    )  # fmt: skip
    chosen = parser.parse_args(arguments)
    chosen.overrides += overrides_of(
        {
            "--executor": ("city.executor.kind", chosen.executor),
            "--workers": ("city.executor.workers", chosen.workers),
        }
    )
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    going_on = "--resume goes on with the city in its folder, if there is one."
    return run_command(lambda: _work(chosen), chosen.debug, going_on=going_on)


def _work(chosen: argparse.Namespace) -> int:
    config = config_of(chosen)
    folder = RunFolder(config, chosen.output).results
    if not (chosen.manifest_only or chosen.taught or (folder / CITY_MANIFEST).is_file()):
        check_executor(config.city.executor)  # before a city is cut
    with locked(folder):
        manifest = open_city(config, folder, chosen.resume)
        if chosen.manifest_only or chosen.taught:
            print(blocks_table(manifest))
            if chosen.taught:
                clipped, whole = taught_psnr(manifest, config)
                print(
                    f"what the blocks are taught is {clipped:.1f} dB from the whole teacher (not clipped: {whole:.1f})"
                )
            return ExitCode.DONE
        trains = any(block.status != "done" for block in manifest.blocks)
        manifest, status = run_blocks(config, manifest)
        print(blocks_table(manifest))
        if trains and config.city.executor.kind == "local" and (cost := children_cost()):
            seconds, most = cost
            print(f"the runs took {seconds:,.0f} s of processor time, and at most {most / MIB:,.0f} MiB of memory each")
        if any(block.status != "done" and not block.students for block in manifest.blocks):
            return status
        whole = cache(lambda: load_teacher(config))  # drawing all of its views may take hours
        if config.city.joint_steps:
            tuned = fine_tune(manifest, config, JointOptions(config.city.joint_steps), whole)
            manifest = write_manifest(folder, tuned)
        if config.city.coarser:
            manifest = write_manifest(folder, add_coarser(manifest, config, config.city.coarser))
        if any(block.holdout_cameras for block in manifest.blocks):
            print(evaluate(manifest, config, whole=whole).text())
        print(f"look     python tools/render_city.py {drawing_options(manifest)}")
    return status


def drawing_options(manifest: Manifest) -> str:
    """Options of ``tools/render_city.py``, for a shell, that draw what some cameras see of the block that most see."""
    block = max(manifest.blocks, key=lambda block: block.train_cameras + block.holdout_cameras)
    cameras = manifest.path(block.config).with_name("transforms.json")
    paths = manifest.folder / CITY_MANIFEST, cameras, manifest.folder / "pictures"
    city, given, pictures = (shlex.quote(str(path)) for path in paths)
    return f"{city} --cameras {given} --frames ::16 --output {pictures}"


if __name__ == "__main__":
    sys.exit(main())
