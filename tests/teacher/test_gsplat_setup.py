"""Every check before gsplat's first use, each with a machine that fails just that one."""

import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.utils import cpp_extension

from settings.errors import InputError
from teacher import gsplat_setup
from teacher.gsplat_setup import ensure_gsplat, gsplat_runs
from tests.fake_gsplat import FakeGsplat

CUDA = torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on which all is in order; tests break one thing."""
    ensure_gsplat.cache_clear()
    gsplat_runs.cache_clear()
    for name, value in (
        ("is_available", lambda: True),
        ("device_count", lambda: 1),
        ("get_device_capability", lambda device: (8, 6)),
        ("get_device_name", lambda device: "a GPU"),
        ("get_arch_list", lambda: ["sm_75", "sm_80", "sm_90", "compute_90"]),
    ):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    fake, backend = FakeGsplat(), ModuleType("gsplat.cuda._backend")
    backend._C = object()
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", backend)
    monkeypatch.setattr(gsplat_setup, "_is_compiled", lambda: False)
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(gsplat_setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(gsplat_setup, "_try_kernels", lambda device: None)
    yield SimpleNamespace(gsplat=fake, backend=backend, nvcc=nvcc, patch=monkeypatch)
    ensure_gsplat.cache_clear()
    gsplat_runs.cache_clear()


def refused(device=CUDA):
    with pytest.raises(InputError) as caught:
        ensure_gsplat(device)
    message = str(caught.value)
    assert "teacher.rasterizer=cpu" in message and "\n" not in message, "one message, with the way out"
    return message


def test_all_in_order_is_said_once(machine, caplog):
    caplog.set_level(logging.INFO)
    ensure_gsplat(CUDA)
    ensure_gsplat(CUDA)
    messages = [record.message for record in caplog.records]
    assert messages[0] == "compiling gsplat's CUDA kernels, a few minutes the first time"
    assert len(messages) == 2 and messages[1].startswith("gsplat 1.5.3 is ready (")


def test_a_compiled_wheel_needs_no_tools(machine, caplog):
    caplog.set_level(logging.INFO)
    machine.patch.setattr(gsplat_setup, "_is_compiled", lambda: True)
    machine.patch.setattr(cpp_extension, "CUDA_HOME", None)
    machine.patch.setattr(gsplat_setup.shutil, "which", lambda name: None)
    ensure_gsplat(CUDA)
    assert len(caplog.records) == 1 and "compiling" not in caplog.text


def test_the_cpu_is_no_device_for_it(machine):
    assert "device: found cpu, expected a CUDA device" in refused(torch.device("cpu"))


def test_no_cuda_device(machine):
    machine.patch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA: found no device" in refused()


def test_a_device_index_too_high(machine):
    assert "found cuda:3, expected cuda:0. " in refused(torch.device("cuda", 3))


def test_an_old_gpu(machine):
    machine.patch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert "compute capability 6.1 (a GPU), expected at least 7.0" in refused()


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), ["sm_80"], True),
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["sm_80", "compute_80"], True),
        ((12, 0), ["sm_90a", "sm_120"], True),
        ((7, 5), [], False),
    ],
)
def test_a_gpu_that_torch_is_not_built_for(machine, capability, architectures, runs):
    machine.patch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    machine.patch.setattr(torch.cuda, "get_arch_list", lambda: architectures)
    if runs:
        ensure_gsplat(CUDA)
    else:
        assert "Install a build of torch for this GPU" in refused()


def test_gsplat_is_not_installed(machine):
    machine.patch.setitem(sys.modules, "gsplat", None)
    assert "found none that can be imported" in (message := refused())
    assert 'pip install -e ".[cuda]"' in message and "the CUDA toolkit 12.8, g++ and ninja" in message


@pytest.mark.parametrize(("version", "is_old"), [("1.4.0", True), ("0.1.13", True), ("1.5.0+pt24cu124", False)])
def test_gsplat_is_too_old(machine, version, is_old):
    machine.gsplat.__version__ = version
    if is_old:
        assert f"found version {version}, expected at least 1.5" in refused()
    else:
        ensure_gsplat(CUDA)


def test_no_toolkit(machine):
    machine.patch.setattr(cpp_extension, "CUDA_HOME", None)
    assert "CUDA toolkit: found none" in (message := refused()) and "CUDA toolkit 12.8" in message


def test_a_toolkit_without_nvcc(machine):
    machine.nvcc.unlink()
    assert f"CUDA toolkit: found no {machine.nvcc}" in refused()


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho nothing\n"])
def test_an_nvcc_that_does_not_answer(machine, script):
    machine.nvcc.write_text(script)
    assert "CUDA toolkit: found an nvcc that" in refused()


def test_a_toolkit_of_another_major_version(machine):
    machine.patch.setattr(torch.version, "cuda", "13.0")
    assert "found 12.4 in" in (message := refused()) and "expected 13.0" in message


def test_no_compiler(machine):
    machine.patch.setattr(gsplat_setup.shutil, "which", lambda name: None if name == "c++" else name)
    assert "C++ compiler: found no c++" in refused()
    machine.patch.setenv("CXX", "clang++")
    ensure_gsplat(CUDA)


def test_no_ninja(machine):
    machine.patch.setattr(gsplat_setup.shutil, "which", lambda name: None if name == "ninja" else name)
    assert "ninja: found no such program" in refused()


def test_a_build_that_fails(machine):
    class Broken:
        def __init__(self, error):
            self.error = error

        def find_spec(self, name, path=None, target=None):
            if name == "gsplat.cuda._backend":
                raise self.error

    machine.patch.delitem(sys.modules, "gsplat.cuda._backend")
    machine.patch.setitem(sys.modules, "gsplat.cuda", ModuleType("gsplat.cuda"))
    sys.modules["gsplat.cuda"].__path__ = []
    machine.gsplat.__path__ = []
    error = RuntimeError("Error building extension 'gsplat_cuda':\nnvcc fatal: unsupported gpu")
    machine.patch.setattr(sys, "meta_path", [Broken(error), *sys.meta_path])
    assert "does not build (nvcc fatal: unsupported gpu)" in refused()


def test_a_build_that_gives_nothing(machine):
    machine.backend._C = None
    assert "no CUDA code loaded" in refused()


def test_a_failed_check_is_not_remembered(machine):
    machine.backend._C = None
    refused()
    machine.backend._C = object()
    ensure_gsplat(CUDA)


TRY_KERNELS = gsplat_setup._try_kernels


def test_a_gaussian_is_drawn_before_gsplat_is_trusted(machine):
    TRY_KERNELS(torch.device("cpu"))
    assert machine.gsplat.calls[0]["cameras"] == 1


@pytest.mark.parametrize(("opacity", "found"), [(0.0, "a blank picture"), (None, "does not run (no kernel image)")])
def test_code_that_loads_and_does_not_draw(machine, opacity, found):
    def rasterization(**arguments):
        if opacity is None:
            raise RuntimeError("CUDA error:\nno kernel image")
        return FakeGsplat().rasterization(**{**arguments, "opacities": torch.full((1,), opacity)})

    machine.gsplat.rasterization = rasterization
    machine.patch.setattr(gsplat_setup, "_try_kernels", lambda device: TRY_KERNELS(torch.device("cpu")))
    assert found in refused()


def test_where_gsplat_does_not_run_one_warning_says_why_and_what_to_install(machine, caplog):
    machine.patch.setattr(cpp_extension, "CUDA_HOME", None)
    assert not gsplat_runs(CUDA) and not gsplat_runs(CUDA)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("Gaussians are drawn on the CPU, since gsplat does not run: teacher.rasterizer: ")
    assert "Install the CUDA toolkit 12.8" in record.message


def test_gsplat_runs_where_all_is_in_order(machine, caplog):
    assert gsplat_runs(CUDA) and not caplog.records
