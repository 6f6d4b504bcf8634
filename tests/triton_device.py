"""Where tests run Triton's kernels: on the GPU if there is one, else in the interpreter (see ``conftest``)."""

import pytest
import torch

from kernels.triton_support import triton_refusal

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")

needs_triton = pytest.mark.skipif(triton_refusal(DEVICE) is not None, reason=str(triton_refusal(DEVICE)))
needs_gpu = pytest.mark.skipif(not GPU or triton_refusal(DEVICE) is not None, reason="a real size, for a GPU alone")
needs_bfloat16 = pytest.mark.skipif(not GPU, reason="Triton's interpreter multiplies bfloat16's bits, not its values")
TRITON = pytest.param("triton", marks=needs_triton)
"""The implementation as a parameter of a test, skipped with the reason where it cannot run."""


def device_of(implementation):
    """The device whose tensors a test gives to an implementation."""
    return DEVICE if implementation == "triton" else torch.device("cpu")
