"""The gate of the alignment prototype: do a student's renders show what its teacher's pictures show, and if not, why?

    python tools/check_alignment.py --config configs/lego_response_eighth.yaml [--checkpoint PATH] [--assets DIR]
    python tools/check_alignment.py results/lego/eighth         # a run folder or a checkpoint

Renders 10 held-out views, compares them with the teacher, and tries what could be wrong: axes, focal length,
principal point, background, alpha, depth kind, frame order. Where there is no checkpoint yet, the teacher's own
Gaussians are rendered in the student's place, if another program drew the teacher's pictures. With --planted it makes
each mistake on purpose, on a good checkpoint, and prints what it scores and what is said of it. Prints, writes nothing.
Exit status: 0 pass, 1 fail (--planted: fewer than 9 of 10 named right), 2 bad input, 4 the machine failed,
130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.alignment.before_training import explained_errors
from distill.alignment.comparison import Loaded, load_comparison
from distill.alignment.diagnosis import GAUSSIANS, STUDENT, THRESHOLD_DB, check
from distill.alignment.hypothesis_search import SEARCH_WIDTH
from distill.alignment.planted_mistakes import FAULTS
from distill.alignment.verdict_text import Planted, depth_table, planted_table, trials_table, verdict_text
from distill.model.model import RestoredRun, restore_run
from distill.runs.command_line import add_config_options, run_command
from distill.runs.given_run import add_run_options, run_of
from machine.run_folder import RunFolder
from machine.terminal import progress_bar
from settings.config import Config
from settings.errors import InputError
from teacher.sources import check_assets

_NAMED_RIGHT = 0.9
_TRIALS = 'The PSNR with each possible mistake undone; "nothing is wrong" is the PSNR as it is:'
_READINGS = "How far the depth files, read as each kind, are from rendered distances:"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Say whether a student's renders show what its teacher's pictures show, and if not, why.",
        epilog="Exit status: 0 pass, 1 fail (--planted: fewer than 9 of 10 named right), 2 bad input, "
        "4 the machine failed, 130 interrupted.",
    )
    add_config_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD_DB,
        metavar="DB",
        help="PSNR from which it passes (default: %(default)g)",
    )
    parser.add_argument("--views", type=int, default=10, metavar="N", help="views to render (default: %(default)d)")
    names = ", ".join(fault.name for fault in FAULTS)
    parser.add_argument(
        "--planted", nargs="*", metavar="FAULT",
        help=f"make these mistakes on purpose and say what comes of them (default: all): {names}",
    )  # fmt: skip
    chosen = parser.parse_args(arguments)
    if not math.isfinite(chosen.threshold):
        parser.error(f"--threshold must be a number of dB, found {chosen.threshold}")
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: _work(chosen), chosen.debug)


def _work(chosen: argparse.Namespace) -> int:
    _check_names(chosen.planted or [])
    config, root, checkpoint = run_of(chosen)
    run = _run_if_any(config, root, checkpoint)
    with explained_errors(config):
        loaded = load_comparison(config, run, chosen.views)
    cameras, frames = loaded.comparison.cameras, loaded.comparison.frames
    taken = len(loaded.comparison)
    of = f"{len(frames)}{f' of {taken}' * (taken > len(frames))} views at {cameras.width}x{cameras.height}"
    what = f"no checkpoint yet: {config.teacher.ply}" if run is None else f"{run.checkpoint}, step {run.step}"
    print(f"{what}, {of}\n", flush=True)
    if chosen.planted is not None:
        return _plant(loaded, chosen.planted, chosen.threshold)
    return _check(loaded, chosen.threshold, GAUSSIANS if run is None else STUDENT)


def _run_if_any(config: Config, root: Path, checkpoint: Path | None) -> RestoredRun | None:
    """The checkpoint's student; None where the run has no checkpoint and none was named."""
    if checkpoint is None and RunFolder(config, root).latest_checkpoint() is None:
        check_assets(config)
        return None
    return restore_run(config, root, checkpoint)


def _check(loaded: Loaded, threshold: float, subject: str) -> int:
    with progress_bar(desc="trying", unit=" hypotheses", leave=False) as bar:
        verdict = check(loaded, threshold, subject, bar.update)
    small = loaded.comparison.shrunk(SEARCH_WIDTH).cameras
    print(verdict_text(verdict), _TRIALS, trials_table(verdict, (small.width, small.height)), sep="\n\n")
    if verdict.readings:
        print("\n" + _READINGS, depth_table(verdict.readings, verdict.depth_kind), sep="\n\n")
    return 0 if verdict.passed else 1


def _plant(loaded: Loaded, names: Sequence[str], threshold: float) -> int:
    faults, planted = [fault for fault in FAULTS if not names or fault.name in names], []
    for fault in progress_bar(faults, desc="planting", leave=False):
        comparison = fault.plant(loaded.comparison)
        if comparison is not None:
            planted.append(Planted(fault, check(Loaded(comparison, loaded.witness), threshold)))
    if not planted:
        raise InputError("--planted", "faults", " ".join(names), "one that these views have what it takes for")
    print(planted_table(planted))
    return 0 if sum(one.is_named for one in planted) >= _NAMED_RIGHT * len(planted) else 1


def _check_names(names: Sequence[str]) -> None:
    known = [fault.name for fault in FAULTS]
    for name in names:
        if name not in known:
            raise InputError("--planted", "fault", name, f"one of {', '.join(known)}")


if __name__ == "__main__":
    sys.exit(main())
