"""An ONNX graph as it is written down: each operation gives the name of its output.

The opset is 18, the first with the bitwise operations that hashing takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from machine.memory import GIB
from settings.errors import InputError

OPSET = 18
_IR_VERSION = 8  # of that opset's time, so that older runtimes read the file
MOST_BYTES = 2**31 - 1
"""What a protobuf message, which an ONNX file is, may hold."""
Operand = str | float | np.ndarray
"""The name of an operation's output, or a constant; a number stands for one float32."""


def import_onnx() -> tuple[ModuleType, ModuleType]:
    """The packages ``onnx`` and ``onnxruntime``.

    Raises:
        InputError: one of them is not there.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        hint = 'pip install -e ".[export]"'
        raise InputError(
            "--onnx", "package", f"no {error.name}", "onnx and onnxruntime", f"{hint} brings both."
        ) from error
    return onnx, onnxruntime


class Graph:
    """Operations and constants; inputs are (rows, width) float32 of any number of rows."""

    def __init__(self) -> None:
        self._onnx, _ = import_onnx()
        self._nodes, self._constants, self._inputs = [], [], []

    def input(self, name: str, width: int) -> str:
        """A new input (rows, width); its name."""
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, ["n", width]))
        return name

    def constant(self, values: float | np.ndarray) -> str:
        """The name of a constant, for one that several operations take."""
        array = np.full(1, values, np.float32) if isinstance(values, float) else np.asarray(values, order="C")
        name = f"constant_{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *operands: Operand, name: str = "", **attributes: object) -> str:
        """Adds an operation; the name of its one output.

        Args:
            name: of the output; empty: one is found.
        """
        name = name or f"{kind}_{len(self._nodes)}"
        names = [each if isinstance(each, str) else self.constant(each) for each in operands]
        self._nodes.append(self._onnx.helper.make_node(kind, names, [name], **attributes))
        return name

    def whole_numbers(self, values: str) -> str:
        """float32 as int64."""
        return self.op("Cast", values, to=self._onnx.TensorProto.INT64)

    def floats(self, values: str) -> str:
        """Anything as float32."""
        return self.op("Cast", values, to=self._onnx.TensorProto.FLOAT)

    def column(self, values: str, index: int) -> str:
        """One entry of the last axis, which goes."""
        return self.op("Gather", values, np.array(index), axis=-1)

    def clipped(self, values: str, lowest: Operand, highest: Operand) -> str:
        """Values moved into a range."""
        return self.op("Min", self.op("Max", values, lowest), highest)

    def reshaped(self, values: str, *shape: int) -> str:
        """Of another shape; -1 once, 0: as it is there."""
        return self.op("Reshape", values, np.array(shape))

    def total(self, values: str, axis: int) -> str:
        """The sum along an axis, which goes."""
        return self.op("ReduceSum", values, np.array([axis]), keepdims=0)

    def finished(self, outputs: Mapping[str, int], metadata: Mapping[str, str]) -> bytes:
        """The model's file.

        Args:
            outputs: names of operations, and the width of each (rows, width); 0: (rows,).

        Raises:
            InputError: it would be larger than an ONNX file may be.
        """
        onnx = self._onnx
        size = sum(len(constant.raw_data) for constant in self._constants)
        if size > MOST_BYTES:
            found = f"a student of {size / GIB:.1f} GiB"
            raise InputError("--onnx", "size", found, "less than the 2 GiB of a protobuf message", "Use --safetensors.")
        infos = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", width] if width else ["n"])
            for name, width in outputs.items()
        ]
        graph = onnx.helper.make_graph(self._nodes, "field", self._inputs, infos, self._constants)
        model = onnx.helper.make_model(
            graph,
            producer_name="lego_response_distill",
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model)
        return model.SerializeToString()
