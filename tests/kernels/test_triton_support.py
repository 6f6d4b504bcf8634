import pytest
import torch

from kernels import triton_support
from kernels.triton_support import interpreting, launch_on, padded, triton_refusal
from tests.triton_device import DEVICE, GPU


@pytest.mark.parametrize(
    ("width", "least", "expected"),
    [(0, 1, 1), (1, 1, 1), (2, 1, 2), (3, 1, 4), (9, 16, 16), (16, 16, 16), (33, 16, 64)],
)
def test_padded_is_the_power_of_two_that_holds_a_width(width, least, expected):
    assert padded(width, least) == expected


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("True", True), ("0", False), ("", False)])
def test_the_interpreter_is_asked_for_by_the_environment(monkeypatch, value, expected):
    monkeypatch.setenv("TRITON_INTERPRET", value)
    assert interpreting() is expected


def test_old_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(triton_support, "_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    capabilities = {0: (6, 1), 1: (7, 0), 2: (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    triton_support._capability_refusal.cache_clear()
    assert triton_refusal(torch.device("cuda:0")) == "triton needs compute capability 7.0, found 6.1"
    assert triton_refusal(torch.device("cuda:1")) is triton_refusal(torch.device("cuda:2")) is None
    triton_support._capability_refusal.cache_clear()


def test_launches_follow_the_tensors_device(monkeypatch):
    entered = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: entered.append(device))
    launch_on(torch.device("cuda:1"))
    with launch_on(torch.device("cpu")):
        pass
    assert entered == [torch.device("cuda:1")]


@pytest.mark.skipif(GPU or triton_refusal(DEVICE) is not None, reason="of the interpreter")
def test_interpreted_kernels_are_held_to_the_tensors_they_were_given():
    from kernels.optimization import adam_triton

    tensors = [torch.ones(12)[4:8] for _ in range(4)]
    numbers = 0.1, 0.9, 0.99, 1e-8, 0.0
    adam_triton._adam[(1,)](*tensors, 4, *numbers, LAZY=False, BLOCK=1024)
    with pytest.raises(Exception, match="are in no tensor of the launch"):
        adam_triton._adam[(1,)](*tensors, 5, *numbers, LAZY=False, BLOCK=1024)
