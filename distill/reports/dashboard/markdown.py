"""``docs/dashboard.md``: the tables, and what was wrong with the files."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distill.reports.dashboard.csv_files import Problem
from distill.reports.dashboard.stages import RULE
from distill.reports.dashboard.tables import COLUMNS, RULES, StageTable, TableRow

_HEAD = ("run", "student", *(column.title for column in COLUMNS), "measured on", "notes")


def dashboard_markdown(tables: Sequence[StageTable], problems: Sequence[Problem]) -> str:
    """The whole file: a table per scene and stage, best figures bold, then the problems and the rules."""
    blocks = ["# Dashboard", "Made by `python tools/dashboard.py` from `logs/` and `results/`; written anew each time."]
    if not tables:
        blocks.append("No runs yet.")
    for table in tables:
        blocks.append(f"## {escape_markdown(table.title)}")
        align = ["---", "---", *["---:"] * len(COLUMNS), "---", "---"]
        blocks.append("\n".join([_line(_HEAD), _line(align), *(_line(_cells(row)) for row in table.rows)]))
    if problems:
        blocks.append("## Files that could not be read in full")
        blocks.append("\n".join(f"- {escape_markdown(p.file)}: {escape_markdown(p.reason)}" for p in problems))
    blocks.append("## How to read it")
    blocks.append("\n".join(f"- {escape_markdown(rule)}" for rule in (*RULES, RULE)))
    return "\n\n".join(blocks) + "\n"


def escape_markdown(text: str) -> str:
    """Text that shows as it is in a GitHub-flavoured table cell: one line, no markup, no HTML.

    An underscore between letters or digits is no markup and stays as it is.
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _cells(row: TableRow) -> list[str]:
    figures = [f"**{cell.text}**" if cell.best else cell.text for cell in row.cells]
    name = escape_markdown(row.run.name) + (f" **{row.run.mark[0]}**" if row.run.mark else "")
    notes = escape_markdown("; ".join(row.notes))
    return [name, escape_markdown(row.run.student or ""), *figures, escape_markdown(row.measured_on), notes]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
