"""Distils a 3D Gaussian Splatting teacher into a small radiance-field student, and measures it.

python lego_response_distill.py --config configs/quickstart.yaml
"""

from __future__ import annotations

import argparse
import sys

from distill.runs.command_line import (
    add_config_options,
    add_device_option,
    add_root_option,
    add_short_options,
    config_of,
    given_path,
    run_command,
)
from distill.runs.dry_run import describe_run
from distill.runs.given_run import check_resumes_own_run
from distill.runs.session import evaluate_checkpoint, train_and_evaluate
from settings.errors import ExitCode


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Distil a 3D Gaussian Splatting teacher into a small radiance-field student, and measure it.",
        epilog="Exit status: 0 done, 1 training diverged, 2 bad input, 3 COLLAPSED (no better than a blank picture), "
        "4 the machine failed (disk, memory, permissions); ended by a signal, the state being saved: 130 Ctrl-C, "
        "143 SIGTERM, 129 SIGHUP, 138 SIGUSR1.",
    )
    add_config_options(parser)
    add_root_option(parser, "results/ and logs/ are written")
    add_device_option(parser)
    add_short_options(parser, "train.max_steps")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="check everything, print the plan, write nothing")
    mode.add_argument("--eval-only", action="store_true", help="evaluate a checkpoint without training")
    parser.add_argument("--resume", metavar="auto|PATH", help="go on from the run's latest checkpoint, or from PATH")
    parser.add_argument(
        "--checkpoint", type=given_path, metavar="PATH", help="with --eval-only: the checkpoint (default: the latest)"
    )
    arguments = parser.parse_args(argv)
    if arguments.resume is not None and arguments.eval_only:
        parser.error("--resume goes on training; --eval-only evaluates the checkpoint that --checkpoint PATH names")
    if arguments.checkpoint and not arguments.eval_only:
        parser.error("--checkpoint goes with --eval-only; to go on training from it use --resume PATH")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (see ``ExitCode``)."""
    arguments = parse_arguments(argv)
    trains = not (arguments.dry_run or arguments.eval_only)
    going_on = "--resume auto goes on from the run's latest checkpoint, if there is one." if trains else ""
    return run_command(lambda: _work(arguments), arguments.debug, together=True, going_on=going_on)


def _work(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    if arguments.resume == "auto":
        check_resumes_own_run(arguments.config, config, arguments.output)
    if arguments.dry_run:
        print(describe_run(config, arguments.output, arguments.resume))
        return ExitCode.DONE
    if arguments.eval_only:
        return evaluate_checkpoint(config, arguments.output, arguments.checkpoint)
    return train_and_evaluate(config, arguments.output, arguments.resume)


if __name__ == "__main__":
    sys.exit(main())
