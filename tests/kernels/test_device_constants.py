import torch

from kernels.device_constants import constant

CPU = torch.device("cpu")


def test_a_constant_is_made_once():
    first = constant((1.0, 2.5), CPU)
    assert first.tolist() == [1.0, 2.5] and first.dtype == torch.float32
    assert constant((1.0, 2.5), CPU) is first


def test_another_type_or_device_is_another_constant():
    whole = constant((3, 4), CPU, torch.int64)
    assert whole.dtype == torch.int64 and whole.tolist() == [3, 4]
    assert constant((3, 4), torch.device("meta")).device.type == "meta"
    assert constant((3, 4), CPU).dtype == torch.float32
