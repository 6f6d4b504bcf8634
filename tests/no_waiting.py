"""Refuses whatever would have the host wait for a GPU, on CPU tensors: so a step can be checked without one."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

# Their results' sizes, or the results themselves, are known to the device alone.
_WAITING = {
    "aten::_local_scalar_dense",
    "aten::bincount",
    "aten::equal",
    "aten::histc",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::multinomial",
    "aten::nonzero",
    "aten::repeat_interleave.Tensor",
    "aten::unique_consecutive",
    "aten::unique_dim",
    "aten::_unique2",
}
# On CUDA they have the host read a number that is given as a tensor.
_READING = {
    f"aten::{name}{place}.{overload}"
    for name, overload in (("masked_fill", "Tensor"), ("index_fill", "int_Tensor"))
    for place in ("", "_")
}
_INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}
_MASKS = (torch.bool, torch.uint8)
# Numbers of the host's become tensors by a copy that is waited for.
_UPLOADS = {"torch.tensor", "torch.as_tensor", "torch.asarray", "torch.from_numpy", "torch.Tensor.new_tensor"}
_DOWNLOADS = {f"torch.Tensor.{name}" for name in ("item", "tolist", "cpu")} | {
    f"torch.Tensor.__{name}__" for name in ("bool", "int", "float", "index")
}


class WouldWait(RuntimeError):
    """A call that waits for the device; of the kind that CUDA's own errors are."""


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator.name()
        if name in _WAITING | _READING:
            raise WouldWait(name)
        if name in _INDEXING and any(index is not None and index.dtype in _MASKS for index in args[1]):
            raise WouldWait(f"{name} with a mask")
        return operator(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = resolve_name(function)
        if name in _UPLOADS | _DOWNLOADS:
            raise WouldWait(name)
        return function(*args, **(kwargs or {}))


class NoWaiting(ExitStack):
    """Within it, calls that wait for a GPU raise ``WouldWait``; ``numpy()``, which a GPU's tensors refuse, may be."""

    def __enter__(self) -> NoWaiting:
        super().__enter__()
        self.enter_context(_Functions())
        self.enter_context(_Operators())
        return self
