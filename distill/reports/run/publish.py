"""What a run tells people at its end, after everything it is measured by is on disk."""

from __future__ import annotations

import logging

from distill.reports.tensorboard import Board
from machine.run_folder import RunFolder
from settings.config import Config

_log = logging.getLogger(__name__)


def publish(config: Config, folder: RunFolder, step: int) -> None:
    """TensorBoard's events of the evaluation at ``step``, and the report, as ``config.logging`` asks for.

    The run is finished and measured: whatever fails here is said in a warning, and does not change its exit status.
    """
    try:
        with Board(folder, config.logging.tensorboard, step) as board:
            board.add_evaluation(folder, step)
        if config.logging.report:
            from distill.reports.run.report import write_report  # it draws: matplotlib is slow to import

            print(f"report  {write_report(folder.results, folder.logs)}")
    except Exception as error:  # a figure of a finished run must not cost its exit status, whatever the cause
        _log.warning(
            "no report: %s: %s. `python tools/report.py %s` tries again.", type(error).__name__, error, folder.results
        )
