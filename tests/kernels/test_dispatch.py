import pytest
import torch

from kernels.dispatch import chosen_implementations, resolve

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        (CPU, ("torch", "numba"), "numba"),
        (CPU, ("torch", "numba", "triton"), "numba"),
        (CPU, ("torch",), "torch"),
        (CUDA, ("torch", "numba"), "torch"),
        (CUDA, ("torch", "numba", "triton"), "triton"),
        (torch.device("mps"), ("torch", "numba", "triton"), "torch"),
    ],
)
def test_auto_is_the_fastest_that_runs_on_the_device(device, available, expected):
    assert resolve("test_kernel", "auto", device, available) == expected
    assert chosen_implementations()[f"test_kernel[{device.type}]"] == expected


def test_a_named_implementation_is_taken_and_reported():
    assert resolve("test_kernel", "torch", CPU, ("torch", "numba")) == "torch"
    assert chosen_implementations()["test_kernel[cpu]"] == "torch"


@pytest.mark.parametrize(("name", "device"), [("triton", CPU), ("numba", CUDA), ("fortran", CPU)])
def test_what_cannot_run_there_is_refused(name, device):
    with pytest.raises(ValueError, match=rf"test_kernel: implementation '{name}' cannot run on {device.type}.*torch"):
        resolve("test_kernel", name, device, ("torch", "numba", "triton"))
