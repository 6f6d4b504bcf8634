"""What tools/gpu_check.sh measured, as Markdown for docs/experiments/gpu.md.

    python tools/results_table.py gpu_check

Reads the CSVs in ``DIR/report`` alone: the tests' outcome, the benchmark, and the runs' training and evaluation.
"""

from __future__ import annotations

import argparse
import json
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.benchmarks.benchmark_table import markdown
from distill.reports.markdown_table import markdown_table
from distill.runs.command_line import add_debug_option, given_path, run_command
from machine.files import CsvRow, check_output_file, read_csv, write_atomically
from settings.errors import InputError

# Import names of what the steps need; a bare machine lacks some of them.
_NEEDED = (
    *("torch", "numpy", "numba", "yaml", "pydantic", "imageio"),
    *("tqdm", "skimage", "scipy", "PIL", "plyfile", "pytest"),
)
_RUN_COLUMNS = (
    *("run", "device", "training s", "steps", "PSNR to the teacher", "PSNR to ground truth", "SSIM to ground truth"),
    *("frames/s", "GPU peak GiB", "command"),
)


def check_device(name: str) -> None:
    """Whether the steps can run on a device, before they begin.

    Raises:
        InputError: a package is missing, or there is no such device.
    """
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        hint = 'Install the project: pip install -e ".[test]".'
        raise InputError("python", "packages", f"no {', '.join(missing)}", ", ".join(_NEEDED), hint)
    import torch  # not before it is known to be there

    if name == "cuda" and not torch.cuda.is_available():
        found = f"none (torch {torch.__version__})"
        raise InputError("--device", "CUDA device", found, "one that torch finds", "Use --device cpu.")
    if name == "cuda" and find_spec("triton") is None:
        raise InputError(
            "python", "packages", "no triton", "triton, which torch's CUDA builds bring", "pip install triton"
        )


def results_table(folder: Path, code: str = "") -> str:
    """All tables of an output folder of ``gpu_check.sh``; a part that is not there is left out.

    Args:
        code: what names the code that was measured, for the first line.

    Raises:
        InputError: nothing has been measured there.
    """
    report = folder / "report"
    parts = [f"Code: {code}."] if code else []
    found = [*_tests(report), *_benchmarks(report), *_runs(report)]
    if not found:
        hint = "Run tools/gpu_check.sh first."
        raise InputError(folder, "report", "no tests, benchmark or runs", "an output folder of gpu_check.sh", hint)
    return "\n\n".join([*parts, *found]) + "\n"


def _tests(report: Path) -> list[str]:
    lines = []
    for path in sorted(report.glob("tests*.xml")):
        suite = ElementTree.parse(path).getroot()
        suite = suite if suite.tag == "testsuite" else suite.find("testsuite")
        total, skipped = int(suite.get("tests")), int(suite.get("skipped"))
        bad = int(suite.get("failures")) + int(suite.get("errors"))
        seconds, date = float(suite.get("time")), suite.get("timestamp", "")[:10]
        passed = total - skipped - bad
        lines.append(f"{path.stem}, {date}: {passed} passed, {bad} failed, {skipped} skipped, {seconds:.0f} s.")
    return ["\n".join(f"- {line}" for line in lines)] if lines else []


def _benchmarks(report: Path) -> list[str]:
    return [text for path in sorted(report.glob("benchmark*.csv")) if (text := markdown(_read(path)))]


def _runs(report: Path) -> list[str]:
    """A table of the evaluated runs, the teacher's fit among them; its columns are ``_RUN_COLUMNS``."""
    lines = []
    for logs in sorted((report / "logs").glob("*/*/")):
        evaluations = sorted(logs.glob("eval_step_*.csv"), key=lambda path: path.stat().st_mtime)
        evaluations = [path for path in evaluations if not path.stem.endswith(("_frames", "_parity"))]
        if evaluations:
            lines.append(_run_cells(report, logs, _read(evaluations[-1])))
    return [markdown_table(_RUN_COLUMNS, lines, "---")] if lines else []


def _run_cells(report: Path, logs: Path, rows: list[CsvRow]) -> list[str]:
    by_reference = {row["reference"]: row for row in rows if row["split"] == "holdout"}
    teacher, truth = by_reference.get("teacher", {}), by_reference.get("ground_truth", {})
    any_row = truth or teacher
    trained = [row for name in ("training_metrics.csv", "fitting_metrics.csv") for row in _read(logs / name)[-1:]]
    last = trained[0] if trained else {}
    versions_json = report / "results" / logs.parent.name / logs.name / "versions.json"
    versions = json.loads(versions_json.read_text(encoding="utf-8")) if versions_json.is_file() else {}
    word = (any_row.get("verdict") or any_row.get("collapsed") or "").partition(":")[0]
    verdict = f" **{word}**" if word else ""
    return [
        f"{logs.parent.name}/{logs.name}{verdict}",
        versions.get("device_name") or "",
        _number(last, "wall_s", ".0f"),
        _number(last, "step", ",.0f"),
        _number(teacher, "psnr", ".2f"),
        _number(truth, "psnr", ".2f"),
        _number(truth, "ssim", ".4f"),
        _number(any_row, "avg_fps", ".3g"),
        _number(any_row, "gpu_peak_gib", ".2f"),
        f"`{versions['command']}`" if versions.get("command") else "",
    ]


def _number(row: CsvRow, column: str, spec: str) -> str:
    text = row.get(column)
    return f"{float(text):{spec}}" if text else ""


def _read(path: Path) -> list[CsvRow]:
    return list(read_csv(path).rows.values())


def _work(chosen: argparse.Namespace) -> int:
    if chosen.check_device is not None:
        check_device(chosen.check_device)
        return 0
    if chosen.write is not None:
        check_output_file("--write", chosen.write, (".md",))
    text = results_table(chosen.folder, chosen.code)
    print(text, end="")
    if chosen.write is not None:
        write_atomically(chosen.write, text)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Print what tools/gpu_check.sh measured as Markdown.",
        epilog="Exit status: 0 done, 2 bad input, or --check-device finds something missing, "
        "4 the machine failed, 130 interrupted.",
    )
    parser.add_argument("folder", nargs="?", type=given_path, metavar="DIR", help="the folder that it wrote to")
    parser.add_argument("--code", default="", metavar="TEXT", help="the code measured, for the first line")
    parser.add_argument("--write", type=given_path, metavar="FILE", help="also write the table there")
    parser.add_argument(
        "--check-device",
        choices=["cpu", "cuda"],
        metavar="NAME",
        help="only check whether everything it needs is there",
    )
    add_debug_option(parser)
    chosen = parser.parse_args(arguments)
    if chosen.folder is None and chosen.check_device is None:
        parser.error("name a folder, or --check-device")
    return run_command(lambda: _work(chosen), chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
