"""Prints the reference of all settings as Markdown, made from the schema; or keeps it up to date in a Markdown file.

    python tools/config_reference.py [--write docs/config.md | --check docs/config.md]

The file has the reference between two comments, ``<!-- config-reference:begin -->`` and ``...:end -->``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.reports.markdown_table import markdown_table
from machine.files import write_atomically
from settings.config import Config
from settings.errors import InputError
from settings.words import Node, expanded_schema, fields, in_words, options

_HEADER = ("key", "value", "default", "meaning")
BEGIN, END = "<!-- config-reference:begin -->", "<!-- config-reference:end -->"


def config_reference() -> str:
    """Markdown: a heading and a table of keys for every section."""
    rows: dict[str, list[list[str]]] = {"": []}
    titles, table = {"": "Top level"}, {"": ""}
    for field, node in fields(expanded_schema(Config)):
        if _is_section(node):
            titles[field], rows[field], table[field] = f"`{field}`: {node['description']}", [], field
            continue
        section = max((name for name in titles if not name or field.startswith(f"{name}.")), key=len)
        key = field.removeprefix(section).lstrip(".")
        if key == "kind" and "const" in node:  # a section of several kinds has a table for each
            table[section] = f"{section} {node['const']}"
            titles[table[section]], rows[table[section]] = f"`{section}` of kind `{node['const']}`", []
        rows[table[section]].append(_row(key, node))
    tables = {name: markdown_table(_HEADER, lines, "---") for name, lines in rows.items() if lines}
    return "\n".join(f"**{titles[name]}**\n\n{table}\n" for name, table in tables.items())


def replace_reference(path: Path) -> tuple[str, str]:
    """The file's text as it is and as it should be.

    Raises:
        InputError: unreadable, or without the two comments in order.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a Markdown file") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(path, "text", "no place for the reference", f"a line {BEGIN} and after it a line {END}")
    return text, f"{before}{BEGIN}\n{config_reference()}{END}{after}"


def _is_section(node: Node) -> bool:
    return all("properties" in option for option in options(node))


def _row(key: str, node: Node) -> list[str]:
    default = f"`{json.dumps(node['default'])}`".replace('"', "") if "default" in node else "required"
    cells = (f"`{key}`", in_words(node), default if default != "``" else "empty", node["description"])
    return [cell.replace("|", "\\|") for cell in cells]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="The config reference as Markdown, made from the schema.",
        epilog="Exit status: 0 done, 1 out of date (--check), 2 bad input.",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--write", type=Path, metavar="FILE", help="put the reference into FILE between its marks, e.g. docs/config.md"
    )
    action.add_argument("--check", type=Path, metavar="FILE", help="exit 1 if the reference in FILE is out of date")
    chosen = parser.parse_args(arguments)
    path = chosen.write or chosen.check
    if path is None:
        print(config_reference(), end="")
        return 0
    try:
        old, new = replace_reference(path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if chosen.check and old != new:
        print(
            f"{path}: the config reference is out of date; run tools/config_reference.py --write {path}",
            file=sys.stderr,
        )
        return 1
    if chosen.write and old != new:
        write_atomically(path, new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
