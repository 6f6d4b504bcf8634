"""README.md and docs/: one page that stays one page; what they link to and name is there."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from settings.loading import REPO_ROOT, load_config

PAGES = [REPO_ROOT / "README.md", *sorted((REPO_ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    path
    for path in (REPO_ROOT / "lego_response_distill.py", *sorted((REPO_ROOT / "tools").glob("*.py")))
    if "run_command(" in path.read_text(encoding="utf-8")
]
FOLDERS = [
    REPO_ROOT / name
    for name in ("settings", "kernels", "machine", "scene", "students", "teacher", "distill", "tools", "configs")
]
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPO_ROOT).as_posix())


def test_readme_is_one_page():
    assert (REPO_ROOT / "README.md").stat().st_size <= 9000


def test_readme_leads_to_every_page_of_docs():
    linked = re.findall(r"\]\(docs/(\w+\.md)\)", (REPO_ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted({page.name for page in (REPO_ROOT / "docs").glob("*.md")} - set(linked)) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_pages_that_the_program_and_its_configs_name_are_there(folder):
    named = {
        (file.relative_to(REPO_ROOT).as_posix(), name)
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".py", ".yaml")
        for name in re.findall(r"docs/\w+(?:/\w+)*\.md", file.read_text(encoding="utf-8"))
    }
    assert [(file, name) for file, name in sorted(named) if not (REPO_ROOT / name).is_file()] == []


@by_name
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.is_file(), target
        assert not heading or heading in _anchors(file), target


@by_name
def test_no_figure_is_still_to_be_filled_in(page):
    assert re.findall(r"@@\w*|\bT(?:ODO|BD)\b", page.read_text(encoding="utf-8")) == []


@by_name
def test_files_of_the_repository_that_are_named_are_there(page):
    named = re.findall(
        r"(?<![\w/])(?:configs|tools|kernels|distill|students|teacher|scene|settings|machine)/[\w/]+\.(?:yaml|py|sh)",
        page.read_text(encoding="utf-8"),
    )
    assert [name for name in named if not (REPO_ROOT / name).is_file()] == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_names_the_exit_statuses_that_any_command_may_end_with(command):
    calls = [node for node in ast.walk(ast.parse(command.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    epilogs = [word.value for call in calls for word in call.keywords if word.arg == "epilog"]
    (epilog,) = (ast.literal_eval(value) for value in epilogs)
    assert re.search(r"\b0 .*\b2 bad input.*\b4 .*\b130 ", epilog), epilog


def test_every_column_of_every_csv_is_explained():
    """In outputs.md, or, of a city's, where that page says."""
    text = "".join((REPO_ROOT / f"docs/{page}.md").read_text(encoding="utf-8") for page in ("outputs", "city"))
    named = {word for code in re.findall(r"`([^`\n]+)`", text) for word in _spelled_out(code)}
    patterns = [re.escape(word.partition("<")[0]) + r"\w+" for word in named if re.fullmatch(r"\w+<.*>", word)]
    written = dict(_columns_written())
    assert len(written) >= 10
    unknown = {
        file: [name for name in columns if name not in named and not any(re.fullmatch(p, name) for p in patterns)]
        for file, columns in written.items()
    }
    assert {file: names for file, names in unknown.items() if names} == {}


def _columns_written() -> Iterator[tuple[str, Sequence[str]]]:
    """The columns of each call that writes a CSV, with the file that has the call."""
    places = {"write_csv": 2, "CsvLog": 1}  # of the columns among the arguments
    for path in sorted(file for folder in FOLDERS for file in folder.rglob("*.py")):
        calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
        for call in calls:
            if not isinstance(call.func, ast.Name) or call.func.id not in places or path.name == "files.py":
                continue
            name = path.relative_to(REPO_ROOT).with_suffix("").as_posix()
            columns, module = call.args[places[call.func.id]], importlib.import_module(name.replace("/", "."))
            if isinstance(columns, ast.Call):
                yield name, getattr(module, columns.func.id)(SimpleNamespace(seeds=(0,)))  # a study's
            else:
                yield f"{name}: {columns.id}", getattr(module, columns.id)


def _spelled_out(code: str) -> list[str]:
    """The words of ``a_{min,max}, b`` as they are in a CSV."""
    brace = re.search(r"\{([^}]*)\}", code)
    if brace is None:
        return re.split(r",\s*", code)
    before, after = code[: brace.start()], code[brace.end() :]
    return [word for part in brace[1].split(",") for word in _spelled_out(f"{before}{part}{after}")]


@by_name
def test_commands_that_are_shown_are_understood(page, monkeypatch):
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", _only_parsed)
    for name, options in _commands(page.read_text(encoding="utf-8")):
        main = importlib.import_module(name.removesuffix(".py").replace("/", ".")).main
        with pytest.raises(_Parsed) as parsed:
            main(options)
        given = parsed.value.args[0]
        config = getattr(given, "config", None)
        if config is not None and str(config).startswith("configs/"):
            load_config(REPO_ROOT / config, given.overrides)


class _Parsed(Exception):
    """Ends a command once its options are understood."""


def _only_parsed(parser: argparse.ArgumentParser, options: list[str]) -> None:
    given, others = parser.parse_known_args(options)
    assert others == [], (parser.prog, options)
    raise _Parsed(given)


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The program and the options of each command that a page shows; none of those with something to fill in."""
    fences = r"```bash\n(.*?)```"
    blocks = [block.replace("\\\n", " ") for block in re.findall(fences, text, flags=re.DOTALL)]
    lines = [line for block in blocks for line in _with_values(block).splitlines()]
    inline = re.findall(r"`([^`]+)`", re.sub(fences, "", text, flags=re.DOTALL))
    for line in [*lines, *(" ".join(words.split()) for words in inline)]:
        found = re.search(r"(?:python|torchrun) [^|]*?(lego_response_distill\.py|tools/\w+\.py)( .*|$)", line)
        if found and not re.search(r"\.\.\.|\[-|\$|-mib N", line):
            yield found[1], shlex.split(re.split(r" (?:&&|\||>|;) ?", found[2])[0], comments=True)


def _with_values(block: str) -> str:
    """Variables that the block sets, put in where it uses them."""
    for name, value in reversed(re.findall(r"^(\w+)=\"?(.*?)\"?(?: *#.*)?$", block, flags=re.MULTILINE)):
        block = re.sub(rf"\${name}\b", lambda _, value=value: value, block)
    return block


def _anchors(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
