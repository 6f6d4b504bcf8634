import sys
from types import SimpleNamespace

import pytest
import torch

from kernels import dispatch, triton_support
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


class Driver:
    """Triton's, which is built when it is first asked for anything, if it can be."""

    def __init__(self):
        self.error, self.asked = None, 0
        self.active = self

    def get_current_device(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return 0


@pytest.fixture
def gpu_with_triton(monkeypatch):
    """A machine with a GPU, as far as anybody asks, and the driver of its Triton."""
    driver, caches = Driver(), (triton_support._gpu_refusal, triton_support._driver_refusal)
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "triton.runtime", SimpleNamespace(driver=driver))
    monkeypatch.setattr(triton_support, "_installed", lambda: True)
    monkeypatch.setattr(triton_support, "interpreting", lambda: False)
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    for each in caches:
        each.cache_clear()
    yield driver
    for each in caches:
        each.cache_clear()


def test_old_gpus_are_refused(gpu_with_triton, monkeypatch):
    capabilities = {0: (6, 1), 1: (7, 0), 2: (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    assert triton_refusal(torch.device("cuda:0")) == "triton needs compute capability 7.0, found 6.1"
    assert triton_refusal(torch.device("cuda:1")) is triton_refusal(torch.device("cuda:2")) is None


@pytest.mark.parametrize("error", [RuntimeError("Failed to find C compiler.\nPlease specify"), AssertionError()])
def test_without_a_c_compiler_kernels_run_on_torch_and_one_line_says_why(gpu_with_triton, monkeypatch, caplog, error):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(dispatch, "_told", set())
    gpu_with_triton.error, device = error, torch.device("cuda:0")
    names = [dispatch.resolve(kernel, "auto", device, ("torch", "numba", "triton")) for kernel in ("one", "two")]
    assert names == ["torch", "torch"] and gpu_with_triton.asked == 1
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning.startswith("kernels run on torch, several times slower: triton cannot build its launcher: ")
    assert "needs a C compiler" in warning and "\n" not in warning
    assert warning.endswith("says: Failed to find C compiler." if str(error) else "says: AssertionError")
    with pytest.raises(ValueError, match="cannot run on cuda .triton cannot build its launcher"):
        dispatch.resolve("one", "triton", device, ("torch", "numba", "triton"))


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
