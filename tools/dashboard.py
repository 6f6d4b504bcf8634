"""Shows all runs under a root: docs/dashboard.md, and dashboard.html, one file that needs no server and no network.

    python tools/dashboard.py [--root DIR] [--output DIR]

Files that cannot be read in full are named in the log and in both. Exit status: 0 done, 2 bad input,
4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.reports.dashboard.older_runs import SUMMARY, read_older_runs
from distill.reports.dashboard.page import dashboard_page
from distill.reports.dashboard.run_files import Problems
from distill.reports.dashboard.run_records import read_runs
from distill.reports.dashboard.stage_tables import dashboard_markdown, stage_tables
from distill.runs.command_line import add_debug_option, given_path, run_command
from machine.files import output_errors, write_atomically
from machine.memory import size_in_words
from settings.errors import InputError
from settings.loading import REPO_ROOT
from settings.words import counted

_log = logging.getLogger(__name__)


def build(root: Path, output: Path) -> None:
    """Writes ``docs/dashboard.md`` and ``dashboard.html`` under ``output`` from the runs under ``root``.

    Raises:
        InputError: there are no runs, and a page of none would replace what an earlier one shows, or ``output`` cannot
            be written to.
    """
    start = time.perf_counter()
    if not any((root / name).exists() for name in ("logs", "results", SUMMARY)):
        hint = "Name the folder that logs/ and results/ are in."
        raise InputError("--root", "folder", f"neither logs/ nor results/ in {root}", "the folder of runs", hint)
    problems = Problems(root)
    runs = read_runs(root, problems) + read_older_runs(root, problems)
    if not runs and not problems.found:
        hint = "Train first, or name the folder that logs/ and results/ are in."
        raise InputError("--root", "runs", f"none in {root}", "a run in logs/ or results/", hint)
    tables = stage_tables(runs)
    page = dashboard_page(runs, tables, problems, root.resolve().name, f"{datetime.now():%Y-%m-%d %H:%M}")
    markdown = dashboard_markdown(tables, problems.found)
    files = {output / "docs" / "dashboard.md": markdown.encode(), output / "dashboard.html": page.encode()}
    for path, content in files.items():
        with output_errors(path):
            write_atomically(path, content)
        _log.info("%s: %s", path, size_in_words(len(content)))
    _log.info("%s in %.1f s", counted(len(runs), "run"), time.perf_counter() - start)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Show all runs in one Markdown file and one HTML page.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted.",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=given_path,
        default=REPO_ROOT,
        help="where logs/ and results/ are (default: this repository)",
    )
    parser.add_argument("--output", metavar="DIR", type=given_path, help="where to write (default: the root)")
    add_debug_option(parser)
    chosen = parser.parse_args(arguments)
    return run_command(lambda: build(chosen.root, chosen.output or chosen.root), chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
