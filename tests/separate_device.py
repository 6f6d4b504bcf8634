"""A device that is none of the CPU's, without a GPU: its tensors meet no others, as on CUDA, and hold real values.

On the CPU everything is on one device, so that a tensor left on the wrong one would be found by a GPU alone. Kernels
are torch's there. A process has the device from its first backward pass on or never: ``python -m tests.separate_device
CONFIG`` is one that trains there and on the CPU, and prints a line for each student.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from machine.memory import MIB
from tests.toy_training import CPU, trainer_of

NAME = "separate"
_REGISTER = "_setup_privateuseone_for_python_backend"
_BETWEEN = {"aten::copy_", "aten::_to_copy"}  # what may go from one device to another

STUDENTS = {
    "hash_grid": "{levels: 2, hidden_width: 16, planes: [4, 8], density_degree: 2}",
    "kilo_uniform": "{kind: kilo_uniform, grid: [2, 1, 2], hidden_width: 16, density_layers: 1, density_degree: 1}",
}
_SETTINGS = (
    *("train.samples_per_step=160", "train.rays_per_step=16", "render.max_samples_per_ray=64", "render.step_size=0.1"),
    *("occupancy.resolution=8", "occupancy.warmup_steps=1", "occupancy.update_every=2", "render.picture_step=0.5"),
    *("kernels=torch", "train.max_steps=8", "train.max_seconds=null"),
    *(f"compact.target_mib={8000 / MIB}", "compact.share=0.8", "compact.round_every=2"),
)


def is_there() -> bool:
    """Whether this version of torch can be given a device."""
    return hasattr(backend_registration, _REGISTER)


@cache
def separate_device() -> torch.device:
    """The device, for what is done within ``SeparateDevice``."""
    getattr(backend_registration, _REGISTER)(NAME)
    return torch.device(NAME, 0)


class _Held(torch.Tensor):
    """A tensor of the device, around the CPU's with its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> _Held:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        held = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **layout, device=separate_device())
        held.inner = inner
        return held

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return _run(operator, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What makes tensors of numbers, and numbers of tensors, passes operators by."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            made = function(*args, **{name: value for name, value in kwargs.items() if name != "device"})
            return made.to(kwargs["device"])
        if function is torch.Tensor.tolist:
            return function(args[0].cpu())
        return function(*args, **kwargs)


class _Operators(TorchDispatchMode):
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here: the wrapper that keeps torch's compiler out of each operator imports all of it."""
        return False

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        return _run(operator, args, kwargs or {})


class SeparateDevice(ExitStack):
    """Within it tensors can be on ``separate_device()``; operators on tensors of both devices raise ``RuntimeError``.

    Numbers, which a CPU's tensor without dimensions is to a GPU, may be of either.
    """

    def __enter__(self) -> SeparateDevice:
        super().__enter__()
        separate_device()
        self.enter_context(_Functions())
        self.enter_context(_Operators())
        return self


def _run(operator, args: tuple, kwargs: dict):
    tensors = [*_tensors_in((args, kwargs))]
    name, asked = operator.name().partition(".")[0], kwargs.get("device")
    stays = any(isinstance(tensor, _Held) for tensor in tensors)
    if stays and name not in _BETWEEN and any(tensor.ndim for tensor in tensors if not isinstance(tensor, _Held)):
        raise RuntimeError(f"{name}: tensors are on {NAME} and on cpu")
    if asked is not None:
        stays, kwargs = torch.device(asked).type == NAME, {**kwargs, "device": CPU}
    result = operator(*_mapped(_within, args), **_mapped(_within, kwargs))
    changed = next((tensor for tensor in tensors if _within(tensor) is result), None)
    if changed is not None:
        return changed
    return _mapped(_Held, result) if stays else result


def _within(value: torch.Tensor) -> torch.Tensor:
    return value.inner if isinstance(value, _Held) else value


def _tensors_in(value) -> Iterator[torch.Tensor]:
    """Those of what an operator takes or gives: numbers and tensors, in tuples, lists and dicts.

    Torch's own ``tree_map``, which knows of more, takes several times as long, and each operator asks it twice.
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(part)


def _mapped(change: Callable[[torch.Tensor], torch.Tensor], value):
    """The same with other tensors."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: _mapped(change, part) for name, part in value.items()}
    return type(value)([_mapped(change, part) for part in value]) if isinstance(value, tuple | list) else value


def _trained(path: Path, student: str, device: torch.device) -> list[float]:
    """Losses of a run, and of one that goes on from its state; a picture's mean; bytes of the compact file."""
    trainers = [trainer_of(path, *_SETTINGS, f"student={student}", asynchronous=True, device=device) for _ in range(2)]
    first, second = trainers
    for trainer in trainers:
        trainer.step._drawing = lambda step=trainer.step: step.generator
    first.check()
    found = [first.take_step().loss.item() for _ in range(5)]
    first.step.settle(5)
    model, state = first.model, (first.step.state(), first.compaction.state())
    weights = {name: value.cpu() for name, value in model.student.state_dict().items()}
    step, compaction = tree_map(lambda part: part.cpu().to(device) if isinstance(part, torch.Tensor) else part, state)
    for name, value in second.model.student.state_dict().items():
        value.copy_(weights[name])
    second.step.restore(step)
    second.compaction.restore(compaction)
    second.progress.step = 5
    found += [second.take_step().loss.item() for _ in range(2)]
    model.settings = replace(model.settings, supersample=2)
    found.append(model.renderer().render(first.sampler.cameras, 0, (1.0, 1.0, 1.0)).rgb.mean().item())
    first._finish_compaction()
    return [*found, first.folder.compact_path(first.progress.step).stat().st_size / MIB]


def _met() -> int:
    """How many of the ways to meet the CPU are refused."""
    there, refused = torch.arange(3.0, device=separate_device()), 0
    assert (there * 2 + torch.tensor(1.0)).tolist() == [1.0, 3.0, 5.0] and there.device.type == NAME
    for meet in (lambda: there + torch.ones(3), lambda: there[torch.tensor([0])], lambda: there.numpy()):
        try:
            meet()
        except RuntimeError:
            refused += 1
    return refused


def main(path: Path) -> None:
    """Trains on both devices and prints by how much the figures of the two differ."""
    with SeparateDevice():
        print("refused", _met())
        there = {name: _trained(path, student, separate_device()) for name, student in STUDENTS.items()}
    for name, student in STUDENTS.items():
        pairs = zip(there[name], _trained(path, student, CPU), strict=True)
        print(name, max(abs(one - other) for one, other in pairs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
