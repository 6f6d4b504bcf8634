"""Makes a compact file of a trained student: as small as its quality allows, or as good as its size allows.

    python tools/compress.py results/lego/eighth --max-loss-db 0.1                      # a run folder or a checkpoint
    python tools/compress.py --config configs/lego_response_eighth.yaml --target-mib 0.1 --file small.lrd

Trains the checkpoint's student on for compact.seconds with its weights rounded as the file will hold them, finds how
coarse the rounding may be, writes results/<scene>/<run>/checkpoints/step_020000.lrd and says what it cost. The file is
read wherever a checkpoint is rendered: --eval-only --checkpoint, tools/evaluate.py, tools/render_path.py. Exit status:
0 done, 1 training diverged, 2 bad input, 4 the machine failed, 130 interrupted (nothing is written).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.compression.compress import Wanted, compress
from distill.runs.command_line import add_config_options, given_path, positive_number, run_command
from distill.runs.given_run import add_run_options, run_of

_LOSS_DB = 0.1


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Make a compact file of a trained student.",
        epilog="Exit status: 0 done, 1 training diverged, 2 bad input, 4 the machine failed, 130 interrupted.",
    )
    add_config_options(parser)
    add_run_options(parser)
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument("--target-mib", type=positive_number, metavar="MIB", help="size of the file at most")
    wanted.add_argument(
        "--max-loss-db", type=positive_number, default=_LOSS_DB, metavar="DB",
        help="PSNR against the teacher that may be lost (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--file", type=given_path, metavar="FILE", help="the file to write (default: beside the checkpoints)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)

    def work() -> None:
        by_size = chosen.target_mib is not None
        wanted = Wanted(chosen.target_mib) if by_size else Wanted(None, chosen.max_loss_db)
        config, root, checkpoint = run_of(chosen)
        made = compress(config, root, wanted, checkpoint, chosen.file)
        print(made.text())

    return run_command(work, chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
