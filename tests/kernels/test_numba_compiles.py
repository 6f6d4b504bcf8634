"""What makes a kernel long to compile: each is compiled on a user's machine before the first step."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
_NUMBERS = ("zero", "one")  # names of them, in kernels


@pytest.fixture(scope="module")
def compiled() -> dict[str, ast.FunctionDef]:
    """The functions that numba compiles, by file and name."""
    return {
        f"{path.relative_to(KERNELS)}: {node.name}": node
        for path in sorted(KERNELS.rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(decorator).startswith("njit(") for decorator in node.decorator_list)
    }


def test_no_kernel_copies_an_array_into_a_part_of_another(compiled):
    """Numba puts the shapes of what does not fit into words, and compiles for seconds what makes texts of numbers."""
    copies = [f"{name}: {text}" for name, function in compiled.items() for text in _copies(function)]
    assert len(compiled) > 100 and not copies, copies


def test_copies_are_found_however_they_are_written():
    written = ("a[:] = b", "a[:2] = b[1:3]", "a[:] = b.reshape(-1)", "a[0, :] = b[0]", "a[:], c[:] = 0, b")
    assert [list(_copies(ast.parse(text))) for text in written] == [[text] for text in map(_unparsed, written)]
    filled = "a[:] = 0\nb[:2] = _ZERO\nc[:] = np.float32(0)\nd[:], e[:] = 0, zero\nf[0] = g[0]"
    assert list(_copies(ast.parse(filled))) == []


def _copies(function: ast.AST) -> Iterator[str]:
    """Assignments to a part of an array of what is not a number."""
    for node in ast.walk(function):
        parts = [part for target in getattr(node, "targets", ()) for part in ast.walk(target)]
        if any(isinstance(part, ast.Slice) for part in parts) and not _is_number(node.value):
            yield ast.unparse(node)


def _is_number(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return all(map(_is_number, node.elts))
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) == "np.float32"
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id.strip("_").lower() in _NUMBERS)


def _unparsed(text: str) -> str:
    return ast.unparse(ast.parse(text))


def test_no_kernel_is_compiled_again_for_a_number_that_is_written_where_it_is_called(compiled):
    """Numba takes a number in a call for a type of its own: ``FIRST`` and its like are of the type of a variable."""
    given = defaultdict(lambda: (set(), set()))
    names = {node.name for node in compiled.values()}
    for function in compiled.values():
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                for place, argument in enumerate(node.args):
                    is_number = isinstance(argument, ast.Constant) and type(argument.value) is int
                    given[node.func.id, place][is_number].add(ast.unparse(argument))
    both = {call: places for call, places in given.items() if all(places)}
    assert given and not both, both
