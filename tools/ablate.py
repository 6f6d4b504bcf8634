"""Trains and evaluates the arms of a study with several seeds, and puts them into one table with mean and spread.

    python tools/ablate.py --study configs/studies/students_at_budget.yaml --assets DIR

The table is ``results/<scene>/studies/<name>/table.md`` and ``table.csv``, written anew after each run; the runs are
``results/<scene>/<study>_<arm>_<budget>_s<seed>/`` and ``logs/...``. Started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.runs.command_line import add_assets_option, add_debug_option, add_root_option, given_path, run_command
from distill.runs.dry_run import estimate_seconds
from distill.studies.runner import RunState, StudyRunner
from distill.studies.study_plan import PlannedRun, StudyPlan, load_study
from settings.errors import ExitCode, InputError
from settings.loading import REPO_ROOT
from settings.words import counted

_OF_RUNS = re.compile(r"--(?:set|device)\b")  # options that advice may name which is meant for a single run


def describe(plan: StudyPlan, runner: StudyRunner, root: Path) -> str:
    """The runs with their state, and about how long those to come will train.

    Raises:
        InputError: an arm's assets are not in order.
    """
    width = max(len(run.config.run) for run in plan.runs)
    estimates: dict[tuple[str, str], float] = {}
    lines, total = [], 0.0
    for run in plan.runs:
        state = runner.state(run)
        text = f"{run.config.run:<{width}}  {state.value}"
        if state is not RunState.FINISHED:
            seconds = _estimate(run, root, estimates)
            total += seconds
            text += f", about {seconds:.0f} s of training"
        lines.append(text)
    runs = counted(len(plan.runs), "run")
    lines.append(f"{runs}, about {total / 60:.0f} min of training to come, start-up and evaluation besides")
    lines.append(f"table {runner.folder / 'table.md'}")
    return "\n".join(lines)


def _estimate(run: PlannedRun, root: Path, known: dict[tuple[str, str], float]) -> float:
    """By a probe of the arm's first run with that budget: seeds take equally long."""
    place = (run.arm, run.budget)
    if place not in known:
        known[place] = estimate_seconds(run.config, root)
    return known[place]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (see ``ExitCode``)."""
    parser = argparse.ArgumentParser(
        description="Train and evaluate a study's arms with several seeds, and write one table.",
        epilog="Exit status: 0 all runs are finished (those that diverged or collapsed are named in the table), "
        "2 bad input, 4 the machine failed, 130 interrupted; else that of the run that stopped the study.",
    )
    parser.add_argument(
        "--study", required=True, type=given_path, metavar="FILE", help="YAML study, see configs/studies/"
    )
    add_assets_option(parser)
    add_root_option(parser)
    parser.add_argument("--dry-run", action="store_true", help="check everything, list the runs, write nothing")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="delete the runs of the study whose settings have changed since, and run them again",
    )
    add_debug_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.dry_run and arguments.replace:
        parser.error("--dry-run deletes nothing: leave out --replace")
    return run_command(lambda: _work(arguments), arguments.debug)


def _work(arguments: argparse.Namespace) -> int:
    try:
        return _study(arguments)
    except InputError as error:
        if not (named := _OF_RUNS.findall(error.hint)):
            raise
        lacks = f"this command has no {' or '.join(dict.fromkeys(named))}"
        hint = f"{error.hint} (A setting goes under common in {arguments.study}: {lacks}.)"
        raise InputError(error.source, error.field, error.found, error.expected, hint) from error


def _study(arguments: argparse.Namespace) -> int:
    plan = load_study(arguments.study, arguments.assets)
    runner = StudyRunner(plan, arguments.output, _command(arguments))
    runner.check(arguments.replace)
    if arguments.dry_run:
        print(describe(plan, runner, arguments.output))
        return ExitCode.DONE
    status = runner.run()
    print(runner.table())
    print(f"tables {runner.folder}")
    return status


def _command(arguments: argparse.Namespace) -> str:
    """How a reader of the table makes it again: paths in the repository relative to it, others as they were given."""
    words = ["python", "tools/ablate.py", "--study", _from_repository(arguments.study)]
    if arguments.assets is not None:
        words += ["--assets", _from_repository(arguments.assets)]
    if arguments.output != REPO_ROOT:
        words += ["--output", _from_repository(arguments.output)]
    return shlex.join(words)


def _from_repository(path: Path) -> str:
    whole = path.resolve()
    return str(whole.relative_to(REPO_ROOT) if whole.is_relative_to(REPO_ROOT) else path)


if __name__ == "__main__":
    sys.exit(main())
