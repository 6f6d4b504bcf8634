"""Markdown tables, and text in them."""

from __future__ import annotations

from distill.reports.markdown_table import code_span, escape_markdown, markdown_table


def test_a_table_has_its_rule_below_the_header() -> None:
    assert markdown_table(("a", "b"), [["1", ""]]) == "| a | b |\n| --- | --- |\n| 1 |  |"
    assert markdown_table(["a", "b"], iter([]), "---") == "| a | b |\n|---|---|"
    assert markdown_table(["a", "b"], [], (" --- ", " ---: ")).splitlines()[1] == "| --- | ---: |"


def test_text_is_escaped() -> None:
    assert escape_markdown("a|b <script> *x* `y`\nz") == r"a\|b &lt;script&gt; \*x\* \`y\` z"
    assert escape_markdown("_a_b_ [c](d)") == r"\_a_b\_ \[c\](d)"


def test_code_holds_backticks() -> None:
    assert [code_span(text) for text in ("a*b", "a`b", "`")] == ["`a*b`", "`` a`b ``", "`` ` ``"]
