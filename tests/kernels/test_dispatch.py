import logging

import pytest
import torch

from kernels import dispatch, triton_support
from kernels.dispatch import by_triton, chosen_implementations, implementations_in_words, resolve

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
ALL = ("torch", "numba", "triton")


@pytest.fixture(autouse=True)
def triton_for_cuda(monkeypatch):
    """Triton as it is on a GPU machine, whatever this one has: installed and compiled."""
    monkeypatch.setattr(triton_support, "_installed", lambda: True)
    monkeypatch.setattr(triton_support, "_gpu_refusal", lambda device: None)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_told", set())


@pytest.mark.parametrize(
    ("device", "available", "expected"),
    [
        (CPU, ("torch", "numba"), "numba"),
        (CPU, ALL, "numba"),
        (CPU, ("torch",), "torch"),
        (CUDA, ("torch", "numba"), "torch"),
        (CUDA, ALL, "triton"),
        (CUDA, ("torch", "triton", "tinycudann"), "triton"),
        (CUDA, ("torch", "tinycudann"), "torch"),
        (MPS, ALL, "torch"),
    ],
)
def test_auto_is_the_fastest_that_runs_on_the_device(device, available, expected):
    assert resolve("test_kernel", "auto", device, available) == expected
    assert chosen_implementations()[f"test_kernel[{device.type}]"] == expected


def test_a_named_implementation_is_taken_and_reported():
    assert resolve("test_kernel", "torch", CPU, ("torch", "numba")) == "torch"
    assert chosen_implementations()["test_kernel[cpu]"] == "torch"


@pytest.mark.parametrize(("name", "device"), [("triton", CPU), ("triton", MPS), ("numba", CUDA), ("fortran", CPU)])
def test_what_cannot_run_there_is_refused(name, device):
    with pytest.raises(ValueError, match=rf"test_kernel: implementation '{name}' cannot run on {device.type}.*torch"):
        resolve("test_kernel", name, device, ALL)


def test_a_kernel_without_a_twin_takes_triton_as_auto_where_triton_runs(monkeypatch, triton_for_cuda):
    assert resolve("test_kernel", "triton", CUDA, ("torch", "numba")) == "torch"
    with pytest.raises(ValueError, match=r"cannot run on cpu.*expected one of \['auto', 'numba', 'torch'\]"):
        resolve("test_kernel", "triton", CPU, ("torch", "numba"))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve("test_kernel", "triton", CPU, ("torch", "numba")) == "numba"


def test_tinycudann_is_taken_by_name_alone_and_on_cuda_alone():
    both = ("torch", "triton", "tinycudann")
    assert resolve("test_kernel", "tinycudann", CUDA, both) == "tinycudann"
    assert resolve("test_kernel", "tinycudann", CUDA, ALL) == "triton"  # a kernel that it has not
    for available in (both, ALL):
        with pytest.raises(ValueError, match="'tinycudann' cannot run on cpu"):
            resolve("test_kernel", "tinycudann", CPU, available)


def test_a_kernel_without_a_numba_twin_is_tritons_on_cuda_and_by_name(monkeypatch):
    monkeypatch.setattr(dispatch, "_chosen", {})
    assert not any(by_triton("test_kernel", name, CPU) for name in ("auto", "torch", "numba"))
    assert not by_triton("test_kernel", "torch", CUDA) and not chosen_implementations()
    assert all(by_triton("test_kernel", name, CUDA) for name in ("auto", "triton", "tinycudann"))
    assert chosen_implementations() == {"test_kernel[cuda]": "triton"}
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert by_triton("test_kernel", "triton", CPU) and not by_triton("test_kernel", "auto", CUDA)


def test_on_the_cpu_triton_runs_in_its_interpreter_alone_and_by_name_alone(monkeypatch):
    with pytest.raises(ValueError, match=r"TRITON_INTERPRET=1.*\['auto', 'numba', 'torch'\]"):
        resolve("test_kernel", "triton", CPU, ALL)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert resolve("test_kernel", "triton", CPU, ALL) == "triton"
    assert resolve("test_kernel", "auto", CPU, ALL) == "numba"
    assert resolve("test_kernel", "auto", CUDA, ALL) == "torch"
    with pytest.raises(ValueError, match=r"'fortran'.*\['auto', 'numba', 'torch', 'triton'\]"):
        resolve("test_kernel", "fortran", CPU, ALL)


def test_torch_on_cuda_for_want_of_triton_says_why_once(monkeypatch, caplog):
    monkeypatch.setattr(triton_support, "_installed", lambda: False)
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        assert resolve("test_kernel", "auto", CUDA, ALL) == "torch"
    assert len(caplog.messages) == 1
    assert "triton is not installed" in caplog.text
    with pytest.raises(ValueError, match=r"'triton' cannot run on cuda \(triton is not installed"):
        resolve("test_kernel", "triton", CUDA, ALL)


def test_nothing_is_said_of_a_kernel_that_has_no_twin(monkeypatch, caplog):
    monkeypatch.setattr(triton_support, "_installed", lambda: False)
    assert resolve("test_kernel", "auto", CUDA, ("torch", "numba")) == "torch"
    assert not caplog.messages


def test_what_runs_is_said_in_a_line_however_many_kernels_there_are(monkeypatch):
    cpu = dict.fromkeys([(f"kernel_{n}", "cpu") for n in range(20)], "numba")
    monkeypatch.setattr(dispatch, "_chosen", cpu)
    assert implementations_in_words() == "numba on cpu"
    cuda = {("a", "cuda"): "triton", ("b", "cuda"): "triton", ("ssim", "cuda"): "torch"}
    monkeypatch.setattr(dispatch, "_chosen", {**cpu, ("kernel_3", "cpu"): "torch", **cuda})
    assert implementations_in_words() == "triton on cuda, but torch for ssim; numba on cpu, but torch for kernel_3"
