"""Where tests run Triton's kernels: on the GPU if there is one, else in the interpreter (see ``conftest``)."""

from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest
import torch

from kernels.triton_support import MAX_WIDTH, triton_refusal

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def _spare_the_interpreter() -> None:
    """Leaves out what takes nearly half of the interpreter's time and changes no result.

    At every call of a function within a kernel the interpreter replaces all of Triton's language by its own, which it
    has done already; and for every sum and product of integers it computes whether it overflows, but looks at that only
    in debug mode.
    """
    from triton.language import core
    from triton.runtime import interpreter

    put_in_place, builder = interpreter._patch_lang, interpreter.interpreter_builder

    @cache
    def languages_seen_by(function):
        names = function.__globals__.values()
        return [module for module in (interpreter.tl, core) if any(value is module for value in names)]

    def put_in_place_once(function):
        missing = any(core.is_builtin(language.load) for language in languages_seen_by(function))
        return put_in_place(function) if missing else interpreter._LangPatchScope()

    if not builder.options.debug:
        builder.options = replace(builder.options, sanitize_overflow=False)
    interpreter._patch_lang = put_in_place_once


if not GPU and triton_refusal(DEVICE) is None:
    with suppress(ImportError, AttributeError):
        _spare_the_interpreter()

needs_triton = pytest.mark.skipif(triton_refusal(DEVICE) is not None, reason=str(triton_refusal(DEVICE)))
needs_gpu = pytest.mark.skipif(not GPU or triton_refusal(DEVICE) is not None, reason="a real size, for a GPU alone")
needs_bfloat16 = pytest.mark.skipif(not GPU, reason="Triton's interpreter multiplies bfloat16's bits, not its values")
TRITON = pytest.param("triton", marks=needs_triton)
"""The implementation as a parameter of a test, skipped with the reason where it cannot run."""
WIDTHS_OF_TWINS = [
    *(("numba", width) for width in (16, 32, 64, 128)),
    *(pytest.param("triton", width, marks=needs_triton) for width in (16, 32, MAX_WIDTH)),
]
"""Twins of the networks and widths of their layers, as two parameters of a test."""


def device_of(implementation):
    """The device whose tensors a test gives to an implementation."""
    return DEVICE if implementation == "triton" else torch.device("cpu")
