"""Times every implementation of kernels, training and rendering side by side, interleaved in one process.

    python tools/benchmark.py                                    # all groups at their reference sizes
    python tools/benchmark.py --only hash_encoding --repeats 9
    python tools/benchmark.py --device cuda --markdown benchmark.md --csv benchmark.csv
    python tools/benchmark.py --only rasterize --threads 1 --ply point_cloud.ply --transforms transforms_test.json

On CUDA kernels and steps compute in float16, as training does, calls queue up for 20 ms or more, and events time them.
tiny-cuda-nn and nerfstudio's torch encoding take part where they can be imported. Ratios are the figures to quote:
machines drift, and both sides of a ratio drift together. "of roofline" is the time that the least bytes and FLOPs of
the work would take at torch's own copy bandwidth and matrix-product rate, measured between the cases, over the time it
took; more than 100 % means that data stayed in the caches, or that torch's copy was held up by other work.

What fails is a row that says why, and the CSV is written as it goes. Where a GPU itself has failed, all that comes
later in the process fails too: run the other groups again with --only.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.benchmarks import kernel_cases, teacher_cases
from distill.benchmarks.benchmark_table import COLUMNS, markdown, rows_of
from distill.benchmarks.case import ON_CPU, ON_CUDA, TINY, Case, Sizes
from distill.benchmarks.exchange_cases import exchange_cases
from distill.benchmarks.measurement import REFUSALS, Timing, limit_cases, limits_from, measure
from distill.benchmarks.run_cases import STUDENTS, run_cases
from distill.runs.command_line import add_debug_option, given_path, run_command, whole_number
from kernels.threads import available_threads, limit_threads
from machine.devices import device_name
from machine.files import check_output_file, write_atomically, write_csv
from settings.errors import ExitCode, InputError

if TYPE_CHECKING:
    import torch

KERNELS = {
    "hash_encoding": kernel_cases.hash_encoding_cases,
    "radiance_mlp": kernel_cases.radiance_mlp_cases,
    "shading": kernel_cases.shading_cases,
    "grouped_mlp": kernel_cases.grouped_mlp_cases,
    "marching": kernel_cases.marching_cases,
    "adam": kernel_cases.adam_cases,
    "muon": kernel_cases.muon_cases,
}
TEACHERS = {"ssim": teacher_cases.ssim_cases, "voxelize": teacher_cases.voxelize_cases}
RUNS = ("training", "rendering")
GROUPS = (*KERNELS, "rasterize", *TEACHERS, *RUNS, "exchange")


def groups_of(
    chosen: argparse.Namespace, device: torch.device, sizes: Sizes
) -> dict[str, Callable[[], Iterable[Case]]]:
    """What makes the cases of each group asked for; by default of all that the device has.

    Raises:
        InputError: a group has no kernels on the device, or a file is missing or damaged.
    """
    on_device = [group for group in GROUPS if device.type == "cpu" or group in KERNELS or group in RUNS]
    groups = chosen.only or on_device
    for group in groups:
        if group not in on_device:
            raise InputError("--only", group, f"--device {device}", "--device cpu", "Its twins run on the CPU alone.")
    scene = teacher_cases.user_scene(chosen.ply, chosen.transforms) if chosen.ply is not None else None
    made: dict[str, Callable[[], Iterable[Case]]] = {}
    for group in groups:
        if group in KERNELS:
            made[group] = partial(KERNELS[group], device, sizes)
        elif group == "rasterize":
            made[group] = partial(teacher_cases.rasterize_cases, sizes, scene)
        elif group in TEACHERS:
            made[group] = partial(TEACHERS[group], sizes)
    students = [chosen.student] if chosen.student else STUDENTS
    if wanted := frozenset(groups) & frozenset(RUNS):
        made |= {
            f"{' and '.join(sorted(wanted))} {kind}": partial(run_cases, kind, device, sizes, wanted)
            for kind in students
        }
    if "exchange" in groups:
        made |= {f"exchange {kind}": partial(exchange_cases, kind, sizes) for kind in students}
    return made


def run(chosen: argparse.Namespace, command: str) -> int:
    """Measures and writes what the command line asks for; returns the exit status.

    The CSV is written anew after each round, so that it holds what was measured, whatever comes then.

    Raises:
        InputError: the device is not there, a file cannot be written or read; nothing has been written then.
    """
    import torch  # after the first of this checkout's packages, which see to Ctrl-C meanwhile

    if chosen.threads:
        limit_threads(chosen.threads)
        torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("--device", "device", chosen.device, "a CUDA device that torch finds", "Use --device cpu.")
    _check_output(chosen)
    sizes = TINY if chosen.tiny else ON_CUDA if device.type == "cuda" else ON_CPU
    groups = groups_of(chosen, device, sizes)
    circumstances = {
        "device": str(device),
        "device_name": device_name(device),
        "threads": available_threads(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "command": command,
    }
    done: list[Timing] = []

    def rows(timings: Sequence[Timing]) -> list[dict[str, object]]:
        limits, others = limits_from(timings)
        return rows_of(others, limits, circumstances)

    def keep(timings: Sequence[Timing]) -> None:
        if chosen.csv is not None:
            write_csv(chosen.csv, rows([*done, *timings]), COLUMNS)

    limits = limit_cases(device, sizes)
    for name, cases in groups.items():
        done += measure(name, chain(limits, cases()), chosen.repeats, device, keep=keep)
    text = markdown(rows(done))
    print(text)
    if chosen.markdown is not None:
        write_atomically(chosen.markdown, text + "\n")
    broken = [timing for timing in done if timing.failure is not None and not isinstance(timing.failure, REFUSALS)]
    return ExitCode.MACHINE_FAILED if broken else ExitCode.DONE


def _check_output(chosen: argparse.Namespace) -> None:
    for option, path, ending in (("--markdown", chosen.markdown, ".md"), ("--csv", chosen.csv, ".csv")):
        if path is not None:
            check_output_file(option, path, (ending,))
            if not path.resolve().parent.is_dir():
                raise InputError(path, "folder", "none of that name", "a folder that exists", "Make it first.")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Time the implementations of kernels and runs against one another.",
        epilog="Exit status: 0 all is measured that can run there, 2 bad input, 4 something failed (its row says why), "
        "130 interrupted.",
    )
    words = f"of {', '.join(GROUPS)}; may be repeated"
    parser.add_argument("--only", choices=GROUPS, action="append", metavar="GROUP", help=words)
    parser.add_argument("--student", choices=STUDENTS, help="time training, rendering and exchange of it alone")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to measure (default: cpu)")
    parser.add_argument("--tiny", action="store_true", help="small sizes: shows whether everything runs, not how fast")
    parser.add_argument(
        "--repeats", type=whole_number, default=5, metavar="N", help="timed rounds (default: %(default)s)"
    )
    parser.add_argument(
        "--ply",
        type=given_path,
        help="3D Gaussians (.ply, .npz, .spz, .splat, .sog) for the rasteriser; with --transforms",
    )
    parser.add_argument("--transforms", type=given_path, help="a transforms_*.json, whose first frame is rendered")
    parser.add_argument("--threads", type=whole_number, metavar="N", help="CPU threads (default: all)")
    parser.add_argument("--markdown", type=given_path, metavar="FILE", help="also write the table there")
    parser.add_argument("--csv", type=given_path, metavar="FILE", help="also write the figures there")
    add_debug_option(parser)
    chosen = parser.parse_args(arguments)
    if (chosen.ply is None) != (chosen.transforms is None):
        parser.error("--ply and --transforms go together")
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
