"""How many kernels a training step would launch on a GPU, counted on the CPU by what it asks of torch and of Triton."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

# Operators that only make or look at a tensor's description, beside those whose result is a view.
_FREE = {
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"),
    *("aten::_unsafe_view", "aten::_reshape_alias", "aten::set_", "aten::resize_", "aten::lift_fresh"),
    *("aten::detach", "aten::record_stream", "aten::is_same_size", "prim::device"),
}


class _Operators(TorchDispatchMode):
    def __init__(self, launches: Counter[str]) -> None:
        super().__init__()
        self.launches = launches

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        name = operator.name().partition(".")[0]
        if name not in _FREE and not operator.is_view and not _does_nothing(result, args):
            self.launches[name] += 1
        return result


def _does_nothing(result, args) -> bool:
    """Whether there was nothing to write; a conversion to the type that is there already gives its input back."""
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return bool(tensors) and not any(tensor.numel() for tensor in tensors)


class LaunchCount(ExitStack):
    """Within it ``launches`` counts, by name: torch's operators that run a kernel, each taken for one, and Triton's
    kernels in the interpreter, without what the interpreter does itself.
    """

    def __enter__(self) -> LaunchCount:
        from triton.runtime.interpreter import GridExecutor

        super().__enter__()
        self.launches: Counter[str] = Counter()
        run = GridExecutor.__call__

        def launch(executor, *args, **kwargs):
            self.launches[executor.fn.__name__] += 1
            with _disable_current_modes():
                return run(executor, *args, **kwargs)

        self.enter_context(patch.object(GridExecutor, "__call__", launch))
        self.enter_context(_Operators(self.launches))
        return self

    @property
    def total(self) -> int:
        return sum(self.launches.values())
