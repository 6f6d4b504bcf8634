"""Times every implementation of kernels, training and rendering side by side, interleaved in one process.

    python tools/benchmark.py                                    # all groups at their reference sizes
    python tools/benchmark.py --only hash_encoding --repeats 9
    python tools/benchmark.py --device cuda --markdown benchmark.md --csv benchmark.csv
    python tools/benchmark.py --only rasterize --threads 1 --ply point_cloud.ply --transforms transforms_test.json

tiny-cuda-nn and nerfstudio's torch encoding take part where they can be imported. Ratios are the figures to quote:
machines drift, and both sides of a ratio drift together. "of roofline" is the time that the least bytes and FLOPs of
the work would take at torch's own copy bandwidth and matrix-product rate, measured between the cases, over the time it
took; more than 100 % means that data stayed in the caches, or that torch's copy was held up by other work.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.benchmarks import kernel_cases, teacher_cases
from distill.benchmarks.benchmark_table import COLUMNS, markdown, rows_of
from distill.benchmarks.case import ON_CPU, ON_CUDA, TINY, Case, Sizes
from distill.benchmarks.measurement import limit_cases, limits_from, measure
from distill.benchmarks.run_cases import run_cases
from distill.runs.command_line import given_path, run_command
from kernels.threads import available_threads
from machine.devices import device_name
from machine.files import write_atomically, write_csv
from settings.errors import InputError

if TYPE_CHECKING:
    import torch

KERNELS = {
    "hash_encoding": kernel_cases.hash_encoding_cases,
    "radiance_mlp": kernel_cases.radiance_mlp_cases,
    "grouped_mlp": kernel_cases.grouped_mlp_cases,
    "marching": kernel_cases.marching_cases,
    "adam": kernel_cases.adam_cases,
}
TEACHERS = {"ssim": teacher_cases.ssim_cases, "voxelize": teacher_cases.voxelize_cases}
RUNS = ("training", "rendering")
GROUPS = (*KERNELS, "rasterize", *TEACHERS, *RUNS)


def cases_of(chosen: argparse.Namespace, device: torch.device, sizes: Sizes) -> list[Case]:
    """The cases of the groups asked for; by default all that the device has.

    Raises:
        InputError: a group has no kernels on the device, or a file is missing or damaged.
    """
    on_device = [group for group in GROUPS if device.type == "cpu" or group in KERNELS or group in RUNS]
    groups = chosen.only or on_device
    for group in groups:
        if group not in on_device:
            raise InputError("--only", group, f"--device {device}", "--device cpu", "Its twins run on the CPU alone.")
    cases: list[Case] = []
    for group in groups:
        if group in KERNELS:
            cases += KERNELS[group](device, sizes)
        elif group == "rasterize":
            cases += teacher_cases.rasterize_cases(sizes, chosen.ply, chosen.transforms)
        elif group in TEACHERS:
            cases += TEACHERS[group](sizes)
    if wanted := frozenset(groups) & frozenset(RUNS):
        cases += run_cases(device, sizes, wanted)
    return cases


def run(chosen: argparse.Namespace, command: str) -> int:
    """Measures and writes what the command line asks for.

    Raises:
        InputError: the device is not there, a file cannot be written or read; nothing has been written then.
    """
    import torch  # after the first of this checkout's packages, which see to Ctrl-C meanwhile

    if chosen.threads:
        os.environ["NUMBA_NUM_THREADS"] = str(chosen.threads)
        torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device", "device", chosen.device, "a CUDA device that torch finds", "Use --device cpu.")
    for path in (chosen.markdown, chosen.csv):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(path, "folder", "none of that name", "a folder that exists", "Make it first.")
    sizes = TINY if chosen.tiny else ON_CUDA if device.type == "cuda" else ON_CPU
    cases = cases_of(chosen, device, sizes)
    timings, refused = measure([*limit_cases(device, sizes), *cases], chosen.repeats, device)
    limits, timings = limits_from(timings)
    circumstances = {
        "device": str(device),
        "device_name": device_name(device),
        "threads": available_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "command": command,
    }
    rows = rows_of(timings, limits, circumstances)
    notes = [f"Not measured: {case.name}, {case.implementation}: {_first_line(error)}" for case, error in refused]
    text = "\n".join([markdown(rows), *(["", *notes] if notes else [])])
    print(text)
    if chosen.csv is not None:
        write_csv(chosen.csv, rows, COLUMNS)
    if chosen.markdown is not None:
        write_atomically(chosen.markdown, text + "\n")
    return 0


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the implementations of kernels and runs against one another.")
    parser.add_argument("--only", choices=GROUPS, action="append", metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to measure (default: cpu)")
    parser.add_argument("--tiny", action="store_true", help="small sizes: whether all runs, not how fast")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="counted rounds (default: %(default)s)")
    parser.add_argument(
        "--ply", type=given_path, help="3D Gaussians (.ply, .npz, .spz) for the rasteriser; with --transforms"
    )
    parser.add_argument("--transforms", type=given_path, help="transforms_*.json whose first frame is rendered")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--markdown", type=given_path, metavar="FILE", help="also write the table there")
    parser.add_argument("--csv", type=given_path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    chosen = parser.parse_args(arguments)
    if (chosen.ply is None) != (chosen.transforms is None):
        parser.error("--ply and --transforms go together")
    for name, count in (("--repeats", chosen.repeats), ("--threads", chosen.threads)):
        if count is not None and count < 1:
            parser.error(f"{name} must be at least 1")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    return run_command(lambda: run(chosen, _command(given)), chosen.debug)


def _command(given: list[str]) -> str:
    """The command line without the names of what it writes, which say nothing of the figures."""
    kept = list(given)
    for option in ("--markdown", "--csv"):
        while option in kept:
            at = kept.index(option)
            del kept[at : at + 2]
    return shlex.join(["python", "tools/benchmark.py", *kept])


if __name__ == "__main__":
    sys.exit(main())
