"""What a training step asks of a GPU, seen on the CPU: how many kernels it launches, and which it has compiled."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

# Operators that only make or describe a tensor, beside those whose result is a view.
_FREE = {
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"),
    *("aten::_unsafe_view", "aten::_reshape_alias", "aten::lift_fresh", "aten::detach"),
}


class _Operators(TorchDispatchMode):
    def __init__(self, launches: Counter[str]) -> None:
        super().__init__()
        self.launches = launches

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        name = operator.name().partition(".")[0]
        tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if name not in _FREE and not operator.is_view and (not tensors or any(tensor.numel() for tensor in tensors)):
            self.launches[name] += 1
        return result


class LaunchCount(ExitStack):
    """Looks on while a step is taken with Triton's kernels in the interpreter.

    Attributes:
        launches: by name, torch's operators that run a kernel, each taken for one, and Triton's kernels; what the
            interpreter asks of torch is left out.
        compiled: what Triton would have compiled: a kernel for each set of types and constants of its arguments. Whole
            numbers are constants where they are 1, and of two kinds else, multiples of 16 and others; so are addresses.
    """

    def __enter__(self) -> LaunchCount:
        from triton.runtime.interpreter import InterpretedFunction

        super().__enter__()
        self.launches: Counter[str] = Counter()
        self.compiled: set[tuple] = set()
        run = InterpretedFunction.run

        def launch(function, *args, **kwargs):
            name = function.__name__
            self.launches[name] += 1
            with _disable_current_modes():
                self.compiled.add((name, *_key(function, args, kwargs)))
                return run(function, *args, **kwargs)

        self.enter_context(patch.object(InterpretedFunction, "run", launch))
        self.enter_context(_Operators(self.launches))
        return self

    @property
    def total(self) -> int:
        """All launches."""
        return sum(self.launches.values())


def _key(function, args: tuple, kwargs: dict) -> list[tuple]:
    spared = function.kwargs.get("do_not_specialize") or ()
    anywhere = function.kwargs.get("do_not_specialize_on_alignment") or ()
    named = dict(zip(function.arg_names, args, strict=False)) | kwargs
    del named["grid"], named["warmup"]
    kinds = {
        name: _kind(value, name.isupper() or name.startswith("num_"), name in spared) for name, value in named.items()
    }
    return [(name, *(kind[:1] if name in anywhere else kind)) for name, kind in kinds.items()]


def _kind(value: object, constant: bool, spared: bool) -> tuple:
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16 == 0
    if isinstance(value, tuple) and not constant:
        return tuple(_kind(part, constant, spared) for part in value)
    if constant or value is None:
        return (value,)
    if isinstance(value, float):
        return (float,)
    wide = value >= 1 << 31
    return (wide,) if spared else (wide, value == 1, value % 16 == 0)
