"""Where tests run Triton's kernels: on the GPU if there is one, else in the interpreter (see ``shared_fixtures``)."""

from contextlib import suppress

import pytest
import torch

from kernels.triton_support import triton_refusal
from tests.fast_interpreter import spare_the_interpreter

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")


def _bytes_of(arguments):
    """First and one past the last byte of every tensor."""
    for argument in arguments:
        if isinstance(argument, tuple):
            yield from _bytes_of(argument)
        elif isinstance(argument, torch.Tensor) and argument.numel():
            reach = sum((size - 1) * stride for size, stride in zip(argument.shape, argument.stride(), strict=True))
            yield argument.data_ptr(), argument.data_ptr() + (reach + 1) * argument.element_size()


def _watch_memory():
    """Makes every access of an interpreted kernel that no mask forbids lie within a tensor that it was launched with.

    A GPU ends the process where the interpreter reads whatever lies there, if anything does.
    """
    from triton.runtime import interpreter

    executor, builder = interpreter.GridExecutor, interpreter.InterpreterBuilder
    take, load, store = executor._init_args_hst, builder.create_masked_load, builder.create_masked_store
    add, memory = builder.create_atomic_rmw, []

    def take_and_note(self, arguments, named):
        arguments, named = take(self, arguments, named)
        memory[:] = _bytes_of([*arguments, *named.values()])
        return arguments, named

    def check(pointers, mask):
        places = pointers.data[mask.data]
        if not places.size:
            return
        low, high = int(places.min()), int(places.max()) + pointers.get_element_ty().primitive_bitwidth // 8
        if not any(first <= low and high <= end for first, end in memory):
            raise IndexError(f"bytes {low} to {high} are in no tensor of the launch: {memory}")

    def checked_load(self, pointers, mask, *rest):
        check(pointers, mask)
        return load(self, pointers, mask, *rest)

    def checked_store(self, pointers, value, mask, *rest):
        check(pointers, mask)
        return store(self, pointers, value, mask, *rest)

    def checked_add(self, operation, pointers, value, mask, *rest):
        check(pointers, mask)
        return add(self, operation, pointers, value, mask, *rest)

    executor._init_args_hst, builder.create_masked_load = take_and_note, checked_load
    builder.create_masked_store, builder.create_atomic_rmw = checked_store, checked_add


if not GPU and triton_refusal(DEVICE) is None:
    with suppress(ImportError, AttributeError):
        spare_the_interpreter()
        _watch_memory()

needs_triton = pytest.mark.skipif(triton_refusal(DEVICE) is not None, reason=str(triton_refusal(DEVICE)))
needs_gpu = pytest.mark.skipif(not GPU or triton_refusal(DEVICE) is not None, reason="a real size, for a GPU alone")
needs_bfloat16 = pytest.mark.skipif(not GPU, reason="Triton's interpreter multiplies bfloat16's bits, not its values")
TRITON = pytest.param("triton", marks=needs_triton)
"""The implementation as a parameter of a test, skipped with the reason where it cannot run."""
WIDTHS_OF_TWINS = [
    *(("numba", width) for width in (16, 32, 64, 128)),
    *(pytest.param("triton", width, marks=needs_triton) for width in (16, 32)),
]
"""Twins of the networks and widths of their layers, as two parameters of a test."""


def device_of(implementation):
    """The device whose tensors a test gives to an implementation."""
    return DEVICE if implementation == "triton" else torch.device("cpu")
