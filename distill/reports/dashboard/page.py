"""``dashboard.html``: one file that needs no server and no network.

The tables are HTML; curves, scatter plots and pictures are drawn by the page's own JavaScript from a block of JSON. A
content security policy admits nothing but the page's own script and style, and pictures that are in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import chain
from typing import Any

import numpy as np

from distill.reports.dashboard.encoded_pictures import Panels, encode_pictures
from distill.reports.dashboard.run_files import Problem, Problems, Row
from distill.reports.dashboard.run_records import Evaluation, Picture, Run
from distill.reports.dashboard.stage_tables import COLUMNS, RULES, TITLES, Cell, StageTable, TableRow, fps, measured_on
from distill.reports.dashboard.stages import RULE, STAGES
from distill.reports.html_page import html_page, json_for_html

_SCRIPTS = ("format.js", "tables.js", "chart.js", "plots.js", "runs.js", "main.js")
_CURVE_POINTS = 200  # more than a plot's width shows
_WORST_FRAMES = 8
_SHOWN_VERSIONS = ("device_name", "device", "threads", "seed", "torch", "numba", "python", "git_commit", "command")


def dashboard_page(
    runs: Sequence[Run], tables: Sequence[StageTable], problems: Problems, root_name: str, built: str
) -> str:
    """The page.

    Args:
        problems: those of the files; unreadable pictures are added.
        root_name: what the page says it shows.
        built: when, as the page says it.
    """
    judged = [list(run.latest.pictures) if run.latest else [] for run in runs]
    panels = iter(encode_pictures(list(chain.from_iterable(judged)), problems))
    shots = [[(picture, next(panels)) for picture in pictures] for pictures in judged]
    data = {"stages": STAGES, "runs": [_run_data(run, pictures) for run, pictures in zip(runs, shots, strict=True)]}
    fields = {
        "data": json_for_html(data),
        "root": escape(root_name),
        "built": escape(built),
        "tables": "\n".join(_table(table) for table in tables) or '<p class="empty">No runs yet.</p>',
        "problems": _problems(problems.found),
        "rules": "".join(f"<li>{escape(rule)}</li>" for rule in (*RULES, RULE)),
    }
    return html_page(__package__, _SCRIPTS, fields)


def _run_data(run: Run, pictures: Sequence[tuple[Picture, Panels | None]]) -> dict[str, Any]:
    latest = run.latest
    rows = list(chain.from_iterable(evaluation.rows for evaluation in run.evaluations))
    return {
        "key": run.key,
        "scene": run.scene,
        "name": run.name,
        "stage": run.stage,
        "student": run.student,
        "width": run.width,
        "mark": run.mark,
        "isBlock": run.is_block,
        "measuredOn": measured_on(run),
        "psnr": run.figure("psnr") if run.is_comparable else None,
        "fps": fps(run),
        "size": run.size_mib,
        "parameters": run.parameters,
        "curve": _curve(run.training),
        "rows": _listed(rows),
        "parity": _listed(latest.parity) if latest else None,
        "worst": _worst_frames(latest) if latest else None,
        "pictures": [_picture_data(latest, picture, panels) for picture, panels in pictures if panels],
        "references": _panel_names(run),
        "versions": [[name, str(run.versions[name])] for name in _SHOWN_VERSIONS if run.versions.get(name) is not None],
    }


def _panel_names(run: Run) -> list[str]:
    return [run.reference or "teacher", "fitted teacher" if run.stage == "teacher" else "student", "error"]


def _picture_data(evaluation: Evaluation, picture: Picture, panels: Panels) -> dict[str, Any]:
    frame = _frame_of(evaluation, picture.frame)
    title = picture.kind.replace("_", " ")
    figures = {"psnr": frame.get("psnr"), "name": frame.get("name")}
    return {"kind": title, "frame": picture.frame, "width": panels.width, "uris": panels.uris, **figures}


def _judged_frames(evaluation: Evaluation) -> list[Row]:
    """The frames' rows of the evaluation's judged split and reference; worst first."""
    judged = evaluation.judged
    like = [
        row
        for row in evaluation.frames
        if row.get("psnr") is not None
        and row.get("reference") == judged.get("reference")
        and judged.get("split") in (row.get("split"), "all", None)
    ]
    return sorted(like, key=lambda row: row["psnr"])


def _frame_of(evaluation: Evaluation, frame: int) -> Row:
    return next((row for row in _judged_frames(evaluation) if row.get("frame") == frame), {})


def _worst_frames(evaluation: Evaluation) -> dict[str, Any] | None:
    return _listed(_judged_frames(evaluation)[:_WORST_FRAMES])


def _listed(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Rows as a table: the columns that any of them has something in, and their values; None without rows."""
    columns = [name for name in dict.fromkeys(chain(*rows)) if any(row.get(name) is not None for row in rows)]
    if not columns:
        return None
    values = [[row.get(name) for name in columns] for row in rows]
    return {"columns": columns, "rows": [[_rounded(value) for value in line] for line in values]}


def _curve(training: Sequence[Row]) -> dict[str, list[float | None]] | None:
    """Steps, seconds and PSNR of the batch: means of at most ``_CURVE_POINTS`` groups of rows; None without PSNR."""
    rows = [row for row in training if row.get("psnr_batch") is not None and row.get("step") is not None]
    if not rows:
        return None
    groups = np.array_split(np.arange(len(rows)), min(len(rows), _CURVE_POINTS))

    def means(name: str) -> list[float | None]:
        values = [[rows[n].get(name) for n in group] for group in groups]
        return [None if None in group else _rounded(float(np.mean(group))) for group in values]

    return {"steps": means("step"), "seconds": means("wall_s"), "psnr": means("psnr_batch")}


def _rounded(value: Any) -> Any:
    """Five significant digits: what is shown, in a fraction of the space; whole numbers as they are."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.5g}")


def _table(table: StageTable) -> str:
    heads = "".join(_head(n, title) for n, title in enumerate(TITLES))
    body = "".join(_row(row) for row in table.rows)
    title = f"<h3>{escape(table.title)} <small>{len(table.rows)} run{'s' * (len(table.rows) != 1)}</small></h3>"
    table_html = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f'<section class="stage">{title}<div class="scroll">{table_html}</div></section>'


def _head(index: int, title: str) -> str:
    numeric = ' class="n"' if 2 <= index < 2 + len(COLUMNS) else ""
    return f'<th{numeric} scope="col"><button type="button">{escape(title)}</button></th>'


def _row(row: TableRow) -> str:
    run = row.run
    mark = f' <span class="mark" title="{escape(run.mark[1])}">{escape(run.mark[0])}</span>' if run.mark else ""
    link = f'<button type="button" class="link" data-run="{escape(run.key)}">{_breakable(run.name)}</button>{mark}'
    figures = "".join(_figure(cell) for cell in row.cells)
    notes = escape("; ".join(row.notes))
    cells = f"<td>{link}</td><td>{escape(run.student or '')}</td>{figures}<td>{escape(row.measured_on)}</td>"
    kind = ' class="worthless"' if run.mark else ""
    return f'<tr data-run="{escape(run.key)}"{kind}>{cells}<td class="notes">{notes}</td></tr>'


def _breakable(name: str) -> str:
    """A name that breaks behind a sign that joins words, where it has to."""
    return re.sub(r"([_-])(?=.)", r"\1<wbr>", escape(name))


def _figure(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    return f'<td class="n"{value}>{f"<b>{cell.text}</b>" if cell.best else cell.text}</td>'


def _problems(problems: Sequence[Problem]) -> str:
    if not problems:
        return "<p>All files were read in full.</p>"
    lines = "".join(f"<tr><td>{escape(p.file)}</td><td>{escape(p.reason)}</td></tr>" for p in problems)
    return f"<table><thead><tr><th>file</th><th>what is wrong</th></tr></thead><tbody>{lines}</tbody></table>"
