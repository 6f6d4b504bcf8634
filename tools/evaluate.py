"""From checkpoints to renders, frames, metrics and CSVs, in one command.

    python tools/evaluate.py results/lego/stage1a_20k [more runs or checkpoints] [--split holdout] [--lpips vgg,alex]

A run folder stands for its newest checkpoint. A checkpoint carries its config; --config FILE names another. Renders go
to results/<scene>/<run>/eval/step_020000[_<tag>]/renders/00000.png, the CSVs to logs/<scene>/<run>/. An evaluation at
another resolution or on another background than the run's is named in the tag. At another resolution a picture has
about as many rays across it as in training, unless render.supersample is a number; larger than the dataset's pictures
it is measured against a teacher that is drawn here, and not against ground truth. Run again it goes on where it
stopped, and where nothing has changed it gives the same CSVs. Exit status: 0 done, 2 bad input, 3 one has COLLAPSED,
4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.evaluation.metrics import NETS
from distill.evaluation.student_evaluation import EvaluationOptions
from distill.model.other_config import evaluated_as
from distill.runs.command_line import add_config_options, add_device_option, given_path, overrides_of, run_command
from distill.runs.given_run import run_at
from distill.runs.session import evaluate_checkpoint
from machine.devices import choose_device
from machine.run_folder import RunFolder
from settings.config import Config
from settings.errors import ExitCode, InputError
from teacher.sources import check_assets

SPLITS = {"holdout": "[holdout]", "train": "[train]", "all": "[holdout, train]"}
BACKGROUNDS = {None: (), "white": ("white",), "black": ("black",), "both": ("white", "black")}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One checkpoint to evaluate, with its config, and the root of the ``results/`` and ``logs/`` it writes."""

    checkpoint: Path
    config: Config
    root: Path
    step: int


def plan(chosen: argparse.Namespace) -> list[Job]:
    """What the command line asks for, checked as far as it can be without loading teachers.

    Raises:
        InputError: a checkpoint, a config or an asset is missing or damaged; two would write the same CSV.
    """
    jobs = [_job(path, chosen) for path in chosen.paths]
    taken: dict[Path, Path] = {}
    for job in jobs:
        csv = RunFolder(job.config, job.root).eval_csv(job.step)
        if csv in taken:
            found = f"{csv}, which {taken[csv]} gives too"
            hint = "Evaluate them one by one, with --set tag=NAME or --output DIR."
            raise InputError(job.checkpoint, "evaluation", found, "a CSV of its own", hint)
        taken[csv] = job.checkpoint
    return jobs


def _job(path: Path, chosen: argparse.Namespace) -> Job:
    overrides = [*chosen.overrides, *_overrides(chosen)]
    run = run_at(path, None, chosen.config, overrides, chosen.assets, chosen.output)
    config = evaluated_as(run.config, run.checkpoint, run.own)
    check_assets(config)
    choose_device(config)
    return Job(run.checkpoint, config, run.root, run.step)


def _overrides(chosen: argparse.Namespace) -> list[str]:
    """The options that stand for config keys."""
    options = {
        "--split": ("eval.splits", SPLITS.get(chosen.split)),
        "--reference": ("eval.reference", chosen.reference),
        "--lpips": ("eval.lpips", None if chosen.lpips is None else _nets(chosen.lpips)),
        "--resolution": ("data.resolution", chosen.resolution),
        "--device": ("device", chosen.device),
    }
    return overrides_of(options)


def _nets(text: str) -> str:
    names = [] if text == "none" else text.split(",")
    if len(set(names)) < len(names) or not set(names) <= set(NETS):
        raise InputError("--lpips", "networks", f"'{text}'", f"{', '.join(NETS)}, both with a comma between, or none")
    return f"[{', '.join(names)}]"


def run(chosen: argparse.Namespace) -> int:
    """Evaluates what the command line names; the worst of the exit statuses.

    Raises:
        InputError: as ``plan``; or assets or options of a run do not fit, before it writes anything.
    """
    if chosen.burn_in < 0:
        raise InputError("--burn-in", "frames", chosen.burn_in, "0 or more")
    options = EvaluationOptions(
        backgrounds=BACKGROUNDS[chosen.background],
        like_a_teacher=True,
        rgba=chosen.rgba,
        depth=chosen.depth,
        burn_in=chosen.burn_in,
        fresh=chosen.fresh,
    )
    status = ExitCode.DONE
    for job in plan(chosen):
        _log.info("%s", job.checkpoint)
        try:
            status = max(status, evaluate_checkpoint(job.config, job.root, job.checkpoint, options))
        except InputError as error:
            if chosen.resolution is None:
                raise
            raise _of_option(error) from error
    return status


def _of_option(error: InputError) -> InputError:
    """The same of the option, where ``--resolution`` is what gave ``data.resolution``."""
    texts = (str(text).replace("data.resolution", "--resolution") for text in (error.expected, error.hint))
    return InputError(error.source, error.field, error.found, *texts)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Evaluate checkpoints: renders, metrics per frame and in summary, parity with the teacher.",
        epilog="Exit status: 0 done, 2 bad input, 3 one is COLLAPSED, 4 the machine failed, "
        "130 interrupted (run it again to go on).",
    )
    parser.add_argument("paths", nargs="+", type=given_path, metavar="PATH", help="a run folder or a checkpoint")
    add_config_options(parser, default_config="the checkpoint's own")
    parser.add_argument(
        "--output",
        type=given_path,
        metavar="DIR",
        help="where results/ and logs/ are written (default: beside the run)",
    )
    add_device_option(parser)
    parser.add_argument("--split", choices=list(SPLITS), help="frames to measure on")
    parser.add_argument("--resolution", type=int, metavar="N", help="width in pixels, instead of the run's")
    parser.add_argument(
        "--background",
        choices=[name for name in BACKGROUNDS if name],
        help="instead of the run's; both: two evaluations",
    )
    parser.add_argument("--reference", choices=["teacher", "ground_truth", "both"], help="what to compare with")
    parser.add_argument("--lpips", metavar="NETS", help="vgg, alex, vgg,alex or none")
    parser.add_argument("--rgba", action="store_true", help="also write straight RGBA renders, rgba/00000.png")
    parser.add_argument(
        "--depth", action="store_true", help="also write depth/00000.npy: distance along the ray, world units"
    )
    parser.add_argument(
        "--burn-in", type=int, default=EvaluationOptions.burn_in, metavar="N",
        help="untimed renders before speed is measured (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: run(chosen), chosen.debug, "interrupted; run it again to go on")


if __name__ == "__main__":
    sys.exit(main())
