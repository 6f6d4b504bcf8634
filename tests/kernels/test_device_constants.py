import torch

from kernels.device_constants import constant
from kernels.encoding.hash_layout import HashLayout, levels_on

CPU = torch.device("cpu")


def test_a_constant_is_made_once():
    first = constant((1.0, 2.5), CPU)
    assert first.tolist() == [1.0, 2.5] and first.dtype == torch.float32
    assert constant((1.0, 2.5), CPU) is first


def test_a_constant_stays_where_it_is():
    """A recorded CUDA graph reads it there."""
    first = constant((1.0, 2.5), CPU)
    for value in range(1000):
        constant((float(value), 0.5), CPU)
    assert constant((1.0, 2.5), CPU) is first
    layouts = [HashLayout(2, 1, 8 << size, 2, 4) for size in range(20)]
    levels = [levels_on(layout, CPU) for layout in layouts]
    assert all(levels_on(layout, CPU) is kept for layout, kept in zip(layouts, levels, strict=True))


def test_another_type_or_device_is_another_constant():
    whole = constant((3, 4), CPU, torch.int64)
    assert whole.dtype == torch.int64 and whole.tolist() == [3, 4]
    assert constant((3, 4), torch.device("meta")).device.type == "meta"
    assert constant((3, 4), CPU).dtype == torch.float32
