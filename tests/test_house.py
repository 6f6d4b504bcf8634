"""The layout of the source: floors, circles, sizes, and what each package says that it is."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from settings.loading import REPO_ROOT

# Imports go down only: from a floor to those before it.
FLOORS = (
    ("kernels", "settings"),
    ("machine",),
    ("scene",),
    ("students", "teacher"),
    ("distill",),
    ("tools", "lego_response_distill"),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
LONGEST_FILE = 400  # lines
LARGEST_FOLDER = 0.30  # of all lines of source, subfolders apart
MOST_FILES = 24  # in a folder: more names than that are searched, not read

FILES = sorted(
    path.relative_to(REPO_ROOT)
    for name in FLOOR
    for path in ((REPO_ROOT / name).rglob("*.py") if (REPO_ROOT / name).is_dir() else [REPO_ROOT / f"{name}.py"])
)
LINES = {file: (REPO_ROOT / file).read_text(encoding="utf-8").count("\n") for file in FILES}
MODULES = {".".join(file.with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules of the source that a file imports anywhere, in its functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in MODULES else node.module


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    """The source, parsed: once, and not while tests are collected, which every process does that runs some."""
    return {file: ast.parse((REPO_ROOT / file).read_text(encoding="utf-8")) for file in FILES}


@pytest.fixture(scope="module")
def imports(trees) -> dict[str, set[str]]:
    """What each module imports of the source."""
    return {module: set(imported(trees[file])) - {module} for module, file in MODULES.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names along a circle, empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_imports_go_down_only(imports):
    wrong = [
        f"{MODULES[module]} must not import {other}"
        for module, others in imports.items()
        for other in sorted(others)
        if (floor := FLOOR[module.split(".")[0]]) < (below := FLOOR[other.split(".")[0]])
        or (floor == below and module.split(".")[0] != other.split(".")[0])
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_through_others(imports):
    names = circle(imports)
    assert not names, f"one of these imports must go: {' <- '.join(names)}"


def test_no_package_imports_itself_through_others(imports):
    packages, because = defaultdict(set), {}
    for module, others in imports.items():
        for other in others:
            here, there = MODULES[module].parent.as_posix(), MODULES[other].parent.as_posix()
            if "." not in (here, there) and here != there:
                packages[here].add(there)
                because[here, there] = f"{MODULES[module]} imports {other}"
    names = circle(packages)
    reasons = [because[here, there] for there, here in zip(names, names[1:], strict=False)]
    assert not names, f"one of these imports must go, {' <- '.join(names)}: {'; '.join(reasons)}"


def test_names_are_imported_from_where_they_are_made(trees):
    """But for packages, whose ``__init__`` may be a door to what is in them."""
    borrowed = {
        (module, alias.asname or alias.name)
        for module, file in MODULES.items()
        if file.name != "__init__.py"
        for node in trees[file].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    wrong = [
        f"{file} imports {alias.name} from {node.module}, which imports it itself"
        for file, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if (node.module, alias.name) in borrowed
    ]
    assert not wrong, "\n".join(wrong)


def test_a_private_name_of_a_module_is_used_in_it(trees):
    unused = []
    for file, tree in trees.items():
        # What is decorated may be registered by that, and needs no further mention.
        defined = (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
        made = {node.name for node in defined if not node.decorator_list}
        made |= {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
        read = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        unused += [f"{file}: {name}" for name in sorted(made - read) if name.startswith("_") and name[1:2] != "_"]
    assert not unused, "\n".join(unused)


def test_distill_has_packages_only():
    loose = [file for file in FILES if file.parent.as_posix() == "distill" and file.name != "__init__.py"]
    assert not loose, f"{loose}: a package of distill/ is their place"


def test_no_file_is_too_long_and_no_folder_holds_too_much():
    long = {str(file): lines for file, lines in LINES.items() if lines > LONGEST_FILE}
    assert not long, f"files of more than {LONGEST_FILE} lines: {long}"
    folders = Counter()
    for file, lines in LINES.items():
        folders[str(file.parent)] += lines
    large = {name: lines for name, lines in folders.items() if lines > LARGEST_FOLDER * sum(LINES.values())}
    assert not large, f"folders of more than {LARGEST_FOLDER:.0%} of {sum(LINES.values())} lines: {large}"
    full = {name: files for name, files in Counter(str(file.parent) for file in FILES).items() if files > MOST_FILES}
    assert not full, f"folders of more than {MOST_FILES} files: {full}"


def test_few_files_ask_of_what_kind_the_teacher_is(trees):
    """Its sources know: ``teacher.sources``, a class for each kind."""
    asking = {
        str(file)
        for file, tree in trees.items()
        if file.parts[0] != "settings"
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(ast.unparse(operand).endswith("teacher.kind") for operand in (node.left, *node.comparators))
    }
    assert len(asking) <= 2, f"these compare teacher.kind, which is for teacher/sources: {sorted(asking)}"


@pytest.mark.parametrize("package", sorted(str(file.parent) for file in FILES if file.name == "__init__.py"))
def test_a_package_says_in_one_sentence_what_it_is(package):
    tree = ast.parse((REPO_ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    text = ast.get_docstring(tree) or ""
    assert text.partition("\n")[0].endswith("."), f"{package}/__init__.py begins with {text!r}, expected a sentence"
