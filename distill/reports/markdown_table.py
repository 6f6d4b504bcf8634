"""Tables in GitHub-flavoured Markdown, wherever a figure is shown to a person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

REFERENCES = {"teacher": "the teacher", "ground_truth": "ground truth"}
"""What a figure is measured against, in words."""


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], rules: str | Sequence[str] = " --- ") -> str:
    """A header, the rule below it, and a line per row; without a line end.

    Args:
        rules: under each column what sets its alignment, e.g. `` ---: ``; one text: under all.
    """
    rules = [rules] * len(header) if isinstance(rules, str) else rules
    return "\n".join([_line(header), f"|{'|'.join(rules)}|", *map(_line, rows)])


def escape_markdown(text: str) -> str:
    """Text that shows as it is in a table's cell: one line, no markup, no HTML.

    An underscore between letters or digits is no markup and stays as it is.
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|~#])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def code_span(text: str) -> str:
    """Text as code, whatever backticks are in it; in a table's cell ``|`` is still to be escaped."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " * bool(longest)
    return f"{fence}{space}{text}{space}{fence}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
