"""Draws rate against quality: students as compact files beside their teacher's own forms, pruned and fitted.

    python tools/rate_quality.py --config configs/lego_response_eighth.yaml --assets DIR
    python tools/rate_quality.py --config configs/quickstart.yaml --also configs/quickstart_kilo.yaml

The runs must have been trained. Writes results/<scene>/<run>_rates/: table.md, table.csv, plot.png, files/, what was
made. Run again it goes on where it stopped. Exit status: 0 done, 1 diverged, 2 bad input, 4 the machine failed, 130
interrupted (the tables are of what was done).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.rate_quality.rate_study import RatePlan, RateStudy
from distill.runs.command_line import (
    add_config_options,
    add_device_option,
    add_root_option,
    config_of,
    given_path,
    positive_number,
    run_command,
    whole_number,
)
from settings.loading import load_config


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Draw rate against quality of students and of their teacher's own forms.",
        epilog="Exit status: 0 done, 1 diverged, 2 bad input, 4 the machine failed, "
        "130 interrupted (run it again to go on).",
    )
    add_config_options(parser)
    add_device_option(parser)
    add_root_option(parser)
    parser.add_argument(
        "--also", type=given_path, action="append", default=[], metavar="FILE",
        help="config of another trained student of the same teacher; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=_numbers(0.001, 1000.0), default=(0.05, 0.1, 0.2, 0.4, 0.8), metavar="MIB,...",
        help="sizes of the students' files (default: 0.05,0.1,0.2,0.4,0.8)",
    )  # fmt: skip
    parser.add_argument(
        "--anew", action="store_true",
        help="train a student for each size, for as long as training and compressing one takes, and compress none",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=_numbers(0.001, 1.0), default=(0.5, 0.2, 0.1, 0.05), metavar="SHARE,...",
        help="shares of the Gaussians that pruned teachers keep (default: 0.5,0.2,0.1,0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--sh", type=_numbers(0, 3, int), default=(3, 1), metavar="DEGREE,...",
        help="SH degrees with which pruned teachers are fitted further (default: 3,1)",
    )  # fmt: skip
    parser.add_argument(
        "--file", type=given_path, action="append", default=[], metavar="FILE",
        help="the teacher in a form made elsewhere; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--sog", type=shlex.split, default=[], metavar="COMMAND",
        help="also write teachers as SOG, by a command that takes a PLY's path and a SOG's: splat-transform -q -w",
    )  # fmt: skip
    parser.add_argument(
        "--fit-seconds", type=positive_number, metavar="S",
        help="time of that fit (default: train.max_seconds + compact.seconds, what a student gets)",
    )  # fmt: skip
    parser.add_argument("--fit-steps", type=whole_number, metavar="N", help="steps of that fit at most")
    return parser.parse_args(arguments)


def _numbers(least: float, most: float, kind: type = float) -> Callable[[str], tuple[float, ...]]:
    """Reads numbers with commas between them, each from ``least`` to ``most``."""

    def parse(text: str) -> tuple[float, ...]:
        with suppress(ValueError):
            values = tuple(kind(part) for part in text.split(","))
            if all(least <= value <= most for value in values):
                return values
        name = "whole numbers" if kind is int else "numbers"
        expected = f"{name} from {least:g} to {most:g}, with commas between"
        raise argparse.ArgumentTypeError(f"found '{text}', expected {expected}")

    return parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    chosen = parse_arguments(given)

    def work() -> None:
        also = [load_config(path, chosen.overrides, chosen.assets) for path in chosen.also]
        configs, limits = [config_of(chosen), *also], (chosen.fit_seconds, chosen.fit_steps)
        plan = RatePlan(configs, chosen.sizes, chosen.anew, chosen.keep, chosen.sh, *limits, chosen.file, chosen.sog)
        study = RateStudy(plan, chosen.output)
        study.run(shlex.join(["python", "tools/rate_quality.py", *given]))
        print((study.folder.results / "table.md").read_text(encoding="utf-8"))

    return run_command(work, chosen.debug, "interrupted; run it again to go on")


if __name__ == "__main__":
    sys.exit(main())
