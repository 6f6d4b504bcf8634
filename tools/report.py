"""Makes the report of a finished run again: report.md and its curves, in the run's results folder.

python tools/report.py results/lego/eighth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.reports.run.run_report import write_report
from distill.runs.command_line import add_debug_option, given_path, run_command


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status (see ``ExitCode``)."""
    parser = argparse.ArgumentParser(
        description="Write report.md and its curves of runs that are finished.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted.",
    )
    parser.add_argument("runs", nargs="+", type=given_path, metavar="RUN_FOLDER", help="results/<scene>/<run>")
    add_debug_option(parser)
    arguments = parser.parse_args(argv)

    def work() -> None:
        for folder in arguments.runs:
            print(write_report(folder))

    return run_command(work, arguments.debug)


if __name__ == "__main__":
    sys.exit(main())
