"""A step as a CUDA graph: recorded once for a number of rays, then replayed by a single launch."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from distill.losses.pictures import RayBatch
from machine import ranks
from machine.devices import numbers_on
from scene.rays import Rays
from settings.config import Config

_log = logging.getLogger(__name__)
WARM_UP = 6  # calls of a shape before it is worth recording; kernels compile in the first one
MOST_GRAPHS = 8
_FINEST_RAYS = 64
_SIGNIFICANT_BITS = 4
_OPTIONAL = ("distance", "reach")  # of a batch

Result = TypeVar("Result")


def bucket_of(rays: int) -> int:
    """The number of rays to draw where up to ``rays`` are wanted: at most 1/16 fewer, and few numbers in all.

    Every other number would be a graph of its own.
    """
    step = max(_FINEST_RAYS, 1 << max(0, rays.bit_length() - 1 - _SIGNIFICANT_BITS))
    return max(_FINEST_RAYS, rays // step * step)


def graph_refusal(config: Config, asynchronous: bool) -> str | None:
    """Why a run's steps cannot be recorded; None where they can."""
    if ranks.size() > 1:
        return f"{ranks.size()} processes exchange gradients in each step"
    if not asynchronous:
        return "its steps wait for the device"
    if config.loss.internal_terms:
        return f"loss.{config.loss.internal_terms[0]} looks at other samples in each step"
    if config.far_field.kind != "none":
        return "far_field.kind asks for another number of samples in each step"
    return None


def step_inputs(batch: RayBatch, numbers: Sequence[float], device: torch.device) -> dict[str, Tensor]:
    """All that differs from step to step, as tensors on the device; nothing waits for it.

    ``numbers`` are one of them, float64, that whole ones below 2^53 come through unchanged.
    """
    rays = batch.rays
    inputs = {"origins": rays.origins, "directions": rays.directions, "near": rays.near, "far": rays.far}
    inputs |= {"rgb_target": batch.rgb, "background": batch.background, "coverage": batch.coverage}
    inputs |= {name: value for name in _OPTIONAL if (value := getattr(batch, name)) is not None}
    return inputs | {"numbers": numbers_on(device, numbers)}


def batch_of(inputs: Mapping[str, Tensor]) -> RayBatch:
    """The batch among ``step_inputs``."""
    rays = Rays(*(inputs[name] for name in ("origins", "directions", "near", "far")))
    planes = (inputs[name] for name in ("rgb_target", "background", "coverage"))
    return RayBatch(rays, *planes, *(inputs.get(name) for name in _OPTIONAL))


@dataclass
class _Recorded(Generic[Result]):
    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    result: Result


class StepGraphs(Generic[Result]):
    """Calls a function of tensors by way of CUDA graphs, one for each set of shapes.

    The first calls with new shapes are made as they are; then one is recorded, and later ones copy their inputs to
    where the recorded call read its own and replay it. What the function changes must stay where it is in memory,
    what it returns is overwritten by later calls, and it must not wait for the device. Where recording fails the
    reason is logged, and calls go on as they are.

    Args:
        function: of named tensors.
        device: a CUDA device.
    """

    def __init__(self, function: Callable[[Mapping[str, Tensor]], Result], device: torch.device) -> None:
        self._function, self._device = function, device
        self._calls: Counter[tuple] = Counter()
        self._graphs: OrderedDict[tuple, _Recorded[Result]] = OrderedDict()
        self._side: torch.cuda.Stream | None = None
        self.refusal: str | None = None

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Result:
        if self.refusal is not None:
            return self._function(inputs)
        # Laid out as a recorded call finds them from the first call on: kernels are compiled for strides too, and while
        # a step is recorded none may be.
        inputs = {name: value.contiguous() for name, value in inputs.items()}
        shapes = tuple((name, tuple(value.shape)) for name, value in inputs.items())
        recorded = self._graphs.get(shapes)
        if recorded is None:
            self._calls[shapes] += 1
            if self._calls[shapes] <= WARM_UP:
                return self._warm_up(inputs)
            recorded = self._record(inputs)
            if recorded is None:
                return self._function(inputs)
            self._graphs[shapes] = recorded
            while len(self._graphs) > MOST_GRAPHS:
                dropped, _ = self._graphs.popitem(last=False)
                self._calls[dropped] = 0
        self._graphs.move_to_end(shapes)
        for dtype in {value.dtype for value in inputs.values()}:
            names = [name for name, value in inputs.items() if value.dtype == dtype]
            # One launch for all of a type.
            torch._foreach_copy_([recorded.inputs[name] for name in names], [inputs[name] for name in names])
        recorded.graph.replay()
        return recorded.result

    def _warm_up(self, inputs: Mapping[str, Tensor]) -> Result:
        """On a side stream, as a recording will be: autograd and cuBLAS keep to the stream they first ran on."""
        current = torch.cuda.current_stream(self._device)
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            result = self._function(inputs)
        current.wait_stream(self._side)
        return result

    def _record(self, inputs: Mapping[str, Tensor]) -> _Recorded[Result] | None:
        kept = {name: value.clone() for name, value in inputs.items()}
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # What other threads ask of the device meanwhile, such as those of a live teacher, is their own affair.
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                result = self._function(kept)
        except RuntimeError as error:
            # A recording that cannot be ended leaves its stream behind as the current one.
            torch.cuda.set_stream(current)
            self.refusal = _first_cause(error)
            self._graphs.clear()
            _log.warning("steps cannot be recorded as CUDA graphs and run as they are: %s", self.refusal)
            _log.debug("why they cannot be recorded:", exc_info=error)
            return None
        return _Recorded(graph, kept, result)


def _first_cause(error: BaseException) -> str:
    """The first line of what went wrong first: that a recording cannot be ended follows from it."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return (str(error) or type(error).__name__).splitlines()[0]
