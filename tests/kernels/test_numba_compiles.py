"""What makes a kernel long to compile: each is compiled on a user's machine before the first step."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


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
    copies = [
        f"{name}: {ast.unparse(node)}"
        for name, function in compiled.items()
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        and any(isinstance(part, ast.Slice) for target in node.targets for part in ast.walk(target))
        and any(isinstance(part, ast.Subscript) for part in ast.walk(node.value))
    ]
    assert len(compiled) > 100 and not copies, copies


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
