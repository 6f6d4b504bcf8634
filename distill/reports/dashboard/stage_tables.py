"""A table per scene and stage, a row per run, the best figures found: as the page shows them, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import wrap

from distill.reports.dashboard.run_files import Problem
from distill.reports.dashboard.run_records import Run
from distill.reports.dashboard.stages import RULE, STAGES
from distill.reports.markdown_table import escape_markdown, markdown_table

RULES = (
    "A run's figures are those of its latest evaluation (of each tag): of held-out frames against the teacher where "
    "it has them; the teacher of a control is the dataset's images.",
    "An empty cell was not measured. The best figure of a column is bold where at least two runs were measured alike: "
    "on the same split, against the same reference, on the same background, at the same width; marked runs do not "
    "compete.",
    "Gap to blank: PSNR above that of the best single-colour picture. COLLAPSED: no more than 0.5 dB above it, or "
    "no better than the teacher's silhouette in one colour with half of the blank picture's error left or less than "
    "half of the teacher's coverage. Likely blank: the CSV has no psnr_blank to compare with, and its PSNR is below "
    "12 dB, which blank pictures reach. Far from its teacher: neither, but below 20 dB or the silhouette.",
    "A city's blocks are runs of the city; those that have not been run are left out. Each is measured against its own "
    "part of the teacher, so that none is the best. Figures of the whole city are in its evaluation.csv.",
    "Files of the earlier evaluator (metrics_summary.csv, metrics_white.json) are read too. What it measured in linear "
    "RGB, all that has a psnr_foreground, has a table of its own: no figure there compares with those of sRGB values.",
    "Gap to teacher: PSNR against ground truth of the teacher less that of the student, on the same frames (from "
    "psnr_teacher of the evaluation's CSV); below 0 the student is better than its teacher.",
    "Size: as the parity CSV has it, else the student's weights in the checkpoint that was evaluated; of a fitted "
    "teacher its PLY. FPS: rendering alone, from the evaluation's CSV, else the parity CSV. Power: mean while "
    "rendering.",
)
"""What the figures are, in sentences."""


@dataclass(frozen=True)
class Column:
    """A column: its title with the unit, the value of a run, digits after the point, and which end is better."""

    title: str
    value: Callable[[Run], float | None]
    digits: int
    better: Callable[[Sequence[float]], float] | None = None


@dataclass(frozen=True)
class Cell:
    """``value`` sorts, ``text`` is shown: empty for what was not measured."""

    value: float | None
    text: str
    best: bool


@dataclass(frozen=True)
class TableRow:
    """A run's line: what its figures were measured on in words, its figures, and notes to them."""

    run: Run
    measured_on: str
    cells: list[Cell]
    notes: list[str]


@dataclass(frozen=True)
class StageTable:
    """The runs of one scene and stage."""

    scene: str
    stage: str
    rows: list[TableRow]

    @property
    def title(self) -> str:
        return f"{self.scene or 'no scene'}: {STAGES[self.stage]}"


def fps(run: Run) -> float | None:
    """Frames a second of rendering alone: of the evaluation's CSV, else of the parity CSV."""
    return _rendering(run, "avg_fps", "fps_median")


def _power(run: Run) -> float | None:
    return _rendering(run, "power_avg_w", "power_avg_w")


def _rendering(run: Run, evaluated: str, beside_teacher: str) -> float | None:
    """A figure of the evaluation's CSV, else of the parity CSV, by its name in either."""
    found = run.figure(evaluated)
    return run.latest.student_parity.get(beside_teacher) if found is None and run.latest else found


COLUMNS = (
    Column("steps", lambda run: run.steps, 0),
    Column("width px", lambda run: run.width, 0),
    Column("PSNR dB", lambda run: run.figure("psnr"), 2, max),
    Column("SSIM", lambda run: run.figure("ssim"), 4, max),
    Column("LPIPS-vgg", lambda run: run.figure("lpips_vgg"), 4, min),
    Column("FPS", fps, 1, max),
    Column("size MiB", lambda run: run.size_mib, 2, min),
    Column("power W", _power, 1, min),
    Column("gap to teacher dB", lambda run: run.gap_to_teacher, 2, min),
    Column("gap to blank dB", lambda run: run.gap_to_blank, 2, max),
)
"""The figures of a row, in the order of its cells."""

TITLES = ("run", "student", *(column.title for column in COLUMNS), "measured on", "notes")
_RULES = (*[" --- "] * 2, *[" ---: "] * len(COLUMNS), *[" --- "] * 2)


def stage_tables(runs: Sequence[Run]) -> list[StageTable]:
    """By scene, then in the order of the stages; best PSNR first, runs without one last."""
    tables = []
    for scene in sorted({run.scene for run in runs}):
        for stage in STAGES:
            chosen = [run for run in runs if (run.scene, run.stage) == (scene, stage)]
            if chosen:
                chosen.sort(key=lambda run: (run.mark is not None, -(run.figure("psnr") or float("-inf")), run.name))
                tables.append(StageTable(scene, stage, _rows(chosen)))
    return tables


def dashboard_markdown(tables: Sequence[StageTable], problems: Sequence[Problem]) -> str:
    """``docs/dashboard.md``: a table per scene and stage, best figures bold, then the problems and the rules."""
    blocks = ["# Dashboard", "Made by `python tools/dashboard.py` from `logs/` and `results/`; written anew each time."]
    if not tables:
        blocks.append("No runs yet.")
    for table in tables:
        blocks.append(f"## {escape_markdown(table.title)}")
        blocks.append(markdown_table(TITLES, map(_line_of, table.rows), _RULES))
    if problems:
        blocks.append("## Files that could not be read in full")
        blocks.append("\n".join(f"- {escape_markdown(p.file)}: {escape_markdown(p.reason)}" for p in problems))
    blocks.append("## How to read it")
    blocks.append("\n".join(_item(escape_markdown(rule)) for rule in (*RULES, RULE)))
    return "\n\n".join(blocks) + "\n"


def _item(text: str) -> str:
    """Of a list, wrapped as the other pages of docs/ are."""
    return "\n".join(wrap(f"- {text}", 160, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def measured_on(run: Run) -> str:
    """``holdout, teacher, on white``, as far as the CSV says."""
    row = run.latest.judged if run.latest else {}
    background = row.get("background")
    words = (row.get("split"), run.reference, background and f"on {background}")
    words = (*words, None if run.is_comparable else "in linear RGB")
    return ", ".join(str(word) for word in words if word)


def _rows(runs: Sequence[Run]) -> list[TableRow]:
    columns = [_cells(column, runs) for column in COLUMNS]
    return [TableRow(run, measured_on(run), [cells[n] for cells in columns], _notes(run)) for n, run in enumerate(runs)]


def _cells(column: Column, runs: Sequence[Run]) -> list[Cell]:
    values = [column.value(run) for run in runs]
    texts = ["" if value is None else f"{value:,.{column.digits}f}" for value in values]
    best = {}
    for basis in {_basis(run) for run in runs}:
        alike = [n for n, run in enumerate(runs) if _basis(run) == basis and values[n] is not None and run.mark is None]
        if column.better is not None and len(alike) > 1:
            best[basis] = texts[column.better(alike, key=values.__getitem__)]  # equal as shown: all of them are best
    return [
        Cell(value, text, value is not None and run.mark is None and text == best.get(_basis(run)))
        for run, value, text in zip(runs, values, texts, strict=True)
    ]


def _basis(run: Run) -> tuple[str, int | None, str]:
    return measured_on(run), run.width, run.name if run.is_block else ""


def _notes(run: Run) -> list[str]:
    notes = [": ".join(run.mark)] if run.mark else []
    if run.latest is None or not run.latest.rows:
        notes.append("no evaluation that can be read" if run.latest else "not evaluated")
    elif run.blank_unknown and not run.mark:
        notes.append("no psnr_blank to compare with: it may be blank")
    return notes


def _line_of(row: TableRow) -> list[str]:
    figures = [f"**{cell.text}**" if cell.best else cell.text for cell in row.cells]
    name = escape_markdown(row.run.name) + (f" **{row.run.mark[0]}**" if row.run.mark else "")
    notes = escape_markdown("; ".join(row.notes))
    return [name, escape_markdown(row.run.student or ""), *figures, escape_markdown(row.measured_on), notes]
