"""Trains and evaluates several configs one after another and prints one Markdown table of what came out.

    python tools/compare_students.py --config configs/quickstart.yaml --config configs/quickstart_kilo.yaml

With --eval-only the latest checkpoint of each run is evaluated again instead.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

import torch

from distill.command_line import run_command
from distill.config import REPO_ROOT, load_config
from distill.run_folder import RunFolder
from distill.schema import Config
from distill.session import ExitCode, evaluate_checkpoint, train_and_evaluate

COLUMNS = (
    *("run", "student", "parameters", "fp32 MiB", "fp16 MiB", "training s", "steps"),
    *("frames/s", "holdout PSNR", "SSIM", "LPIPS-vgg", "blank PSNR"),
)


def compare(configs: list[Config], root: Path, eval_only: bool = False) -> str:
    """The table; runs that collapsed are marked.

    Raises:
        InputError, TrainingDiverged: of the first run that fails.
        KeyboardInterrupt: one was interrupted.
    """
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for config in configs:
        status = evaluate_checkpoint(config, root) if eval_only else train_and_evaluate(config, root)
        if status == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        lines.append("| " + " | ".join(_row(config, root)) + " |")
    return "\n".join(lines)


def _row(config: Config, root: Path) -> list[str]:
    folder = RunFolder(config, root)
    state = torch.load(folder.latest_checkpoint(), map_location="cpu", weights_only=True)
    weights = {name: value for name, value in state["student"]["weights"].items() if name != "box"}
    parameters = sum(value.numel() for value in weights.values())
    with open(folder.eval_csv(state["step"]), encoding="utf-8", newline="") as file:
        figures = next(csv.DictReader(file))  # the first row: holdout against the teacher
    mark = " COLLAPSED" if figures["collapsed"] else ""
    return [
        f"{config.run}{mark}",
        state["student"]["kind"],
        f"{parameters:,}",
        *(f"{_size_on_disk(weights, dtype) / 2**20:.2f}" for dtype in (torch.float32, torch.float16)),
        f"{state['seconds']:.0f}",
        f"{state['step']:,}",
        f"{float(figures['avg_fps']):.1f}",
        *(_figure(figures[name], digits) for name, digits in (("psnr", 2), ("ssim", 4), ("lpips_vgg", 4))),
        _figure(figures["psnr_blank"], 2),
    ]


def _size_on_disk(weights: dict[str, torch.Tensor], dtype: torch.dtype) -> int:
    """Bytes of the weights as ``torch.save`` writes them."""
    buffer = io.BytesIO()
    torch.save({name: value.to(dtype) for name, value in weights.items()}, buffer)
    return buffer.tell()


def _figure(cell: str, digits: int) -> str:
    return f"{float(cell):.{digits}f}" if cell else ""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Train and evaluate several configs, and print one table.")
    parser.add_argument("--config", required=True, action="append", metavar="FILE", help="may be repeated")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE", help="for all")
    parser.add_argument("--assets", metavar="DIR", help="root of relative asset paths (default: this repository)")
    parser.add_argument("--output", metavar="DIR", type=Path, default=REPO_ROOT, help="where results/ and logs/ are")
    parser.add_argument("--eval-only", action="store_true", help="evaluate the latest checkpoints, do not train")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)

    def work() -> int:
        configs = [load_config(path, arguments.overrides, arguments.assets) for path in arguments.config]
        print(compare(configs, arguments.output, arguments.eval_only))
        return ExitCode.DONE

    return run_command(work, arguments.debug)


if __name__ == "__main__":
    sys.exit(main())
