"""``docs/dashboard.md``: the tables, and what was wrong with the files."""

from __future__ import annotations

from collections.abc import Sequence

from distill.reports.dashboard.run_files import Problem
from distill.reports.dashboard.stage_tables import COLUMNS, RULES, StageTable, TableRow
from distill.reports.dashboard.stages import RULE
from distill.reports.markdown_table import escape_markdown, markdown_table

_HEAD = ("run", "student", *(column.title for column in COLUMNS), "measured on", "notes")
_RULES = (*[" --- "] * 2, *[" ---: "] * len(COLUMNS), *[" --- "] * 2)


def dashboard_markdown(tables: Sequence[StageTable], problems: Sequence[Problem]) -> str:
    """The whole file: a table per scene and stage, best figures bold, then the problems and the rules."""
    blocks = ["# Dashboard", "Made by `python tools/dashboard.py` from `logs/` and `results/`; written anew each time."]
    if not tables:
        blocks.append("No runs yet.")
    for table in tables:
        blocks.append(f"## {escape_markdown(table.title)}")
        blocks.append(markdown_table(_HEAD, map(_cells, table.rows), _RULES))
    if problems:
        blocks.append("## Files that could not be read in full")
        blocks.append("\n".join(f"- {escape_markdown(p.file)}: {escape_markdown(p.reason)}" for p in problems))
    blocks.append("## How to read it")
    blocks.append("\n".join(f"- {escape_markdown(rule)}" for rule in (*RULES, RULE)))
    return "\n\n".join(blocks) + "\n"


def _cells(row: TableRow) -> list[str]:
    figures = [f"**{cell.text}**" if cell.best else cell.text for cell in row.cells]
    name = escape_markdown(row.run.name) + (f" **{row.run.mark[0]}**" if row.run.mark else "")
    notes = escape_markdown("; ".join(row.notes))
    return [name, escape_markdown(row.run.student or ""), *figures, escape_markdown(row.measured_on), notes]
