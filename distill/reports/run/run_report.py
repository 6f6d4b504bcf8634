"""What a run tells people at its end: ``report.md`` and its picture, made from the files in its folders alone."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from distill.evaluation.parity import FIGURES
from distill.evaluation.results import judged_row
from distill.reports.markdown_table import REFERENCES, code_span, escape_markdown, markdown_table
from distill.reports.run.changed_settings import KEYS_BELOW, REQUIRED, changed_settings
from distill.reports.run.training_curves import draw_curves, read_columns
from distill.reports.tensorboard import Board
from machine.files import CsvRow, CsvTable, read_csv, write_atomically
from machine.memory import MIB
from machine.run_folder import RunFolder, is_fit, is_results_folder, is_stopped_fit, own_folder, spellings
from settings.config import Config
from settings.errors import InputError
from settings.loading import run_config
from settings.words import counted, show

_log = logging.getLogger(__name__)
_PICTURES = ("contact_sheet", "worst_1", "worst_2", "worst_3", "median")
_SUBJECTS = ("student", "teacher", "ratio")
_DIGITS = {
    **dict.fromkeys(("psnr", "psnr_foreground", "psnr_blank", "psnr_teacher", "psnr_silhouette"), 2),
    **{"avg_fps": 1, "power_avg_w": 1},
}
_FRAMES = {"holdout": "held-out frames", "train": "training frames", "all": "all frames"}
_OF_RAYS = (
    "The PSNR of a training batch is that of single rays. Where a pixel is the mean of several (render.supersample), "
    "pictures are some dB better."
)


def publish(config: Config, folder: RunFolder, step: int) -> None:
    """TensorBoard's events of the evaluation at ``step``, and the report, as ``config.logging`` asks for.

    The run is finished and measured: whatever fails here is said in a warning, and does not change its exit status.
    """
    try:
        with Board(folder, config.logging.tensorboard, step) as board:
            board.add_evaluation(folder, step)
        if config.logging.report:
            print(f"report   {folder.results / write_report(folder.results, folder.logs).name}")
    except Exception as error:  # a figure of a finished run must not cost its exit status, whatever the cause
        _log.warning(
            "no report: %s: %s. `python tools/report.py %s` tries again.", type(error).__name__, error, folder.results
        )


def write_report(results: Path, logs: Path | None = None) -> Path:
    """Writes ``report.md`` and ``report_curves.png`` into ``results``.

    The evaluation shown is that of the last step, the one written last. Pictures are linked, not copied, so that the
    report moves with its folder; what a run has not measured or drawn is left out.

    Args:
        results: ``results/<scene>/<run>/``.
        logs: the run's logs; ``../../../logs/<scene>/<run>/`` by default.

    Returns:
        The path of ``report.md``.

    Raises:
        InputError: no finished run of a student: config, versions or training_metrics.csv are missing or damaged.
    """
    results = next(filter(is_results_folder, spellings(results)), results.resolve())
    is_run = (results / "config.yaml").is_file() and len(results.parents) >= 3
    if is_run and logs is None:
        logs = results.parents[2] / "logs" / results.parent.name / results.name
    is_teacher = is_fit(results) or is_stopped_fit(results)
    if not is_run or (is_teacher and not (logs / "training_metrics.csv").exists()):
        own = own_folder(results)
        found, hint = own or ("nothing", "Name the folder results/<scene>/<run> of a run.")
        raise InputError(results, "config.yaml", found, "the folder of a run", hint)
    config = run_config(results / "config.yaml")
    versions = _read_versions(results / "versions.json")
    columns = read_columns(logs / "training_metrics.csv")
    logged = int(columns["step"][-1])
    latest = _evaluation(logs, range(logged, logged + config.train.log_every))
    measured = None
    if latest is not None and latest.main_row["psnr"]:
        row = latest.main_row
        measured = (f"{_frames_of(row)} against {_reference_of(row, config)}", float(row["psnr"]))
    draw_curves(columns, results / "report_curves.png", measured)
    lines = [
        f"# {escape_markdown(f'{config.scene}/{config.run}')}",
        *_summary(config, columns, latest, results / "checkpoints"),
        *_figures(latest),
        *_beside_teacher(logs, latest),
        "## Training",
        "![curves of the losses, PSNR, samples and occupancy](report_curves.png)",
        _OF_RAYS,
        f"[training_metrics.csv]({_link(logs / 'training_metrics.csv', results)})",
        *_pictures(results, latest),
        "## Settings that differ from the defaults",
        _settings(config),
        "## Made with",
        markdown_table(("what", "value"), ((name, _cell(value)) for name, value in versions.items())),
    ]
    path = results / "report.md"
    write_atomically(path, "\n\n".join(lines) + "\n")
    return path


@dataclass(frozen=True)
class Evaluation:
    """A summary CSV of an evaluation.

    Attributes:
        stem: ``step_020000[_<tag>]``, which its pictures' names begin with.
        rows: per split and reference, cells as text.
    """

    stem: str
    rows: list[CsvRow]

    @property
    def main_row(self) -> CsvRow:
        """The one a run is judged by."""
        return judged_row(self.rows)


def _evaluation(logs: Path, steps: range) -> Evaluation | None:
    """The summary of one of the ``steps`` that was written last, if any; a file per frame is told by its columns.

    Those of other steps may be an earlier run's in the same folder.

    Args:
        steps: those that the run may have ended at, by its last row: a signal ends it between two rows.
    """
    named = ((path, re.match(r"eval_step_(\d+)", path.name)) for path in logs.glob("eval_step_*.csv"))
    paths = [path for path, match in named if match and int(match[1]) in steps]
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        rows = list(read_csv(path).rows.values())
        if rows and {"step", "split", "reference", "frames", "psnr"} <= rows[0].keys():
            return Evaluation(path.stem.removeprefix("eval_"), rows)
    return None


def _read_versions(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, "file", getattr(error, "strerror", None) or error, "what a run was made with") from error
    if not isinstance(found, dict):
        raise InputError(path, "top level", show(found), "an object")
    return found


def _summary(
    config: Config, columns: dict[str, list[float]], latest: Evaluation | None, checkpoints: Path
) -> list[str]:
    steps, seconds = int(columns["step"][-1]), columns["wall_s"][-1]
    if latest is not None:
        steps = int(latest.main_row["step"])
    took = f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.2g}"
    text = f"A {config.student.kind} student, trained {counted(steps, 'step')} in {took} s, seed {config.seed}"
    file = checkpoints / f"step_{steps:06d}.lrd"
    if config.compact.target_mib is not None and file.is_file():
        text += f"; its compact file, {file.name}, has {file.stat().st_size / MIB:.3f} MiB"
    text += "."
    if latest is None:
        return [text, "Not evaluated at its last step."]
    row = latest.main_row
    if latest.stem != f"step_{steps:06d}{f'_{config.tag}' if config.tag else ''}":
        text += f" The figures are those of {latest.stem}, the evaluation that was written last."
    text += f" Its PSNR on {_frames_of(row)} is {_against(row, config)}"
    text += f"; a blank picture has {_cell(row['psnr_blank'], 2)} dB." if row.get("psnr_blank") else "."
    truth = next((each for each in latest.rows if _is_truth_of(each, row)), None)
    if truth is not None and not config.taught_by_images:
        text += f" On the same frames it is {_against(truth, config)}"
        own = truth.get("psnr_teacher")
        text += f", where the teacher has {_cell(own, 2)} dB." if own else "."
    if row.get("collapsed"):
        return [f"**{row['collapsed']}: no better than a picture that needs no learning.**", text]
    return [f"**{row['verdict'].capitalize()}.**", text] if row.get("verdict") else [text]


def _frames_of(row: CsvRow) -> str:
    return _FRAMES.get(row["split"], row["split"])


def _reference_of(row: CsvRow, config: Config) -> str:
    if row["reference"] == "teacher" and config.taught_by_images:
        return "the dataset's images"
    return REFERENCES.get(row["reference"], row["reference"])


def _against(row: CsvRow, config: Config) -> str:
    return f"{_cell(row['psnr'], 2)} dB against {_reference_of(row, config)}"


def _is_truth_of(row: CsvRow, judged: CsvRow) -> bool:
    """Whether a row is of the same frames as the judged one, against ground truth where that is not."""
    return row["reference"] == "ground_truth" != judged["reference"] and row["split"] == judged["split"]


def _figures(latest: Evaluation | None) -> list[str]:
    if latest is None:
        return []
    names = [name for name in latest.rows[0] if name and any(row[name] for row in latest.rows)]
    rows = ([_cell(row[name], _DIGITS.get(name, 4)) for name in names] for row in latest.rows)
    return ["## Figures", markdown_table(names, rows), "What each column means: docs/outputs.md of the program."]


def _beside_teacher(logs: Path, latest: Evaluation | None) -> list[str]:
    """Speed, power and size of student and teacher, as far as they were measured."""
    table = read_csv(logs / f"eval_{latest.stem}_parity.csv") if latest else CsvTable()
    of = {row.get("subject"): row for row in table.rows.values()}
    if not {*_SUBJECTS} <= of.keys():
        return []
    rows = []
    for name, (label, spec) in FIGURES.items():
        cells = [_figure(of[subject].get(name), ".3g" if subject == "ratio" else spec) for subject in _SUBJECTS]
        rows += [(label, *cells)] if any(cells) else []
    sources = [f"{subject}: {_cell(source)}" for subject in _SUBJECTS if (source := of[subject].get("source"))]
    lines = ["## Student beside its teacher", markdown_table(("", *_SUBJECTS), rows)]
    return [*lines, f"{'; '.join(sources)}."] if sources else lines


def _figure(text: str | None, spec: str) -> str:
    """A number as ``spec`` has it, else as it is; nothing where it was not measured."""
    try:
        number = float(text or "")
    except ValueError:
        return _cell(text)
    return format(int(number) if spec.endswith("d") else number, spec)


def _pictures(results: Path, latest: Evaluation | None) -> list[str]:
    """Links to what the evaluation drew, with the frame in words."""
    lines = []
    for kind in _PICTURES if latest else ():
        for path in sorted((results / "eval").glob(f"{latest.stem}_{kind}*.png")):
            frame = re.fullmatch(rf"{re.escape(latest.stem)}_{kind}(?:_frame_(\d+))?\.png", path.name)
            if frame:
                words = kind.replace("_", " ") + (f", frame {int(frame[1])}" if frame[1] else "")
                lines.append(f"**{words}**\n\n![{words}]({_link(path, results)})")
    return ["## Pictures", *lines] if lines else []


def _settings(config: Config) -> str:
    rows = ((f"`{key}`", _value(value), _value(usual)) for key, value, usual in changed_settings(config))
    return markdown_table(("setting", "this run", "default"), rows)


def _value(value: object) -> str:
    if value is REQUIRED:
        return "required"
    if value is KEYS_BELOW:
        return "the keys below"
    return code_span(json.dumps(value, default=str, ensure_ascii=False)).replace("|", "\\|")


def _cell(value: object, digits: int | None = None) -> str:
    """As it is, or with that many decimals where it is a number that has any; nothing for None."""
    text = "" if value is None else str(value)
    if digits is not None and re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text):
        text = f"{float(text):.{digits}f}"
    return escape_markdown(text)


def _link(path: Path, folder: Path) -> str:
    resolved, named = spellings(path)
    path = resolved if folder == folder.resolve() else named
    return quote(os.path.relpath(path, folder).replace(os.sep, "/"))
