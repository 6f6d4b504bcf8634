"""Whether gsplat can run here, found out before its first use, and its one-time compilation.

The wheel on PyPI holds CUDA sources that are compiled on first use. What that needs is often missing, and what then
comes out is a traceback of a hundred lines; here it is one message. All is tried that will be called, for a package
that can be imported is not one that runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from kernels.gaussians.rasterize import View
from kernels.gaussians.rasterize_gsplat import rasterize_gsplat
from machine.devices import cuda_devices
from settings.errors import InputError

OLDEST_VERSION = (1, 5)
# gsplat's kernels use cooperative groups' labeled_partition.
LEAST_CAPABILITY = (7, 0)
_SOURCE = "teacher.rasterizer"
_WITHOUT = "Or do without it: teacher.rasterizer=cpu draws Gaussians on the CPU, device=cpu fits them there."
_log = logging.getLogger(__name__)


@cache
def gsplat_runs(device: torch.device) -> bool:
    """Whether gsplat can draw on a CUDA device; where it cannot, one warning a process says why and what to install."""
    try:
        ensure_gsplat(device)
    except InputError as error:
        _log.warning("Gaussians are drawn on the CPU, since gsplat does not run: %s", error)
        return False
    return True


@cache
def ensure_gsplat(device: torch.device) -> None:
    """Checks all that gsplat needs on a device, loads its CUDA code, compiling it if need be, and draws with it; once a
    process.

    Raises:
        InputError: the first thing that is missing, and what to do about it.
    """
    _check_device(device)
    gsplat = _import_gsplat()
    if not _is_compiled():
        _check_build_tools()
        _log.info("compiling gsplat's CUDA kernels, a few minutes the first time")
    start = time.perf_counter()
    _load_kernels()
    _try_kernels(device)
    _log.info("gsplat %s is ready (%.1f s)", gsplat.__version__, time.perf_counter() - start)


def _check_device(device: torch.device) -> None:
    if device.type != "cuda":
        raise _problem("device", device, "a CUDA device", "gsplat runs on NVIDIA GPUs only.")
    if not torch.cuda.is_available():
        hint = "Install the GPU's driver and a CUDA build of torch (python -m torch.utils.collect_env shows both)."
        raise _problem("CUDA", "no device that torch can use", "an NVIDIA GPU", hint)
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise _problem("device", device, cuda_devices(count), "Name another one with --device.")
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        found = f"compute capability {capability[0]}.{capability[1]} ({torch.cuda.get_device_name(device)})"
        least = f"at least {LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]}"
        raise _problem("GPU", found, least, "gsplat needs a newer GPU.")
    if not _torch_supports(capability):
        found = f"compute capability {capability[0]}.{capability[1]}"
        expected = f"one that torch {torch.__version__} is built for ({', '.join(torch.cuda.get_arch_list())})"
        raise _problem("GPU", found, expected, "Install a build of torch for this GPU.")


def _torch_supports(capability: tuple[int, int]) -> bool:
    """Code for sm_XY runs on the same major version from that minor on; compute_XY on everything newer."""
    for architecture in torch.cuda.get_arch_list():
        kind, _, number = architecture.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            continue
        version = divmod(int(digits[0]), 10)
        if version <= capability and (kind == "compute" or version[0] == capability[0]):
            return True
    return False


def _import_gsplat() -> ModuleType:
    try:
        gsplat = importlib.import_module("gsplat")
    except Exception as error:  # what a package of it raises, too
        hint = (
            'Install it with pip install -e ".[cuda]"; PyPI\'s wheel is compiled on first use, by the CUDA toolkit '
            f"{torch.version.cuda}, g++ and ninja."
        )
        raise _problem("gsplat", f"none that can be imported ({error})", "the package gsplat", hint) from error
    version = tuple(int(part) for part in re.findall(r"\d+", gsplat.__version__)[:2])
    if version < OLDEST_VERSION:
        expected = f"at least {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]}"
        raise _problem("gsplat", f"version {gsplat.__version__}", expected, "pip install --upgrade gsplat.")
    return gsplat


def _is_compiled() -> bool:
    """Whether the installed gsplat came with its CUDA code compiled: its own wheels for a torch and CUDA version."""
    return importlib.util.find_spec("gsplat.csrc") is not None


def _check_build_tools() -> None:
    """The CUDA toolkit (its major version torch's), a C++ compiler, ninja."""
    from torch.utils import cpp_extension  # it looks for CUDA when imported, and warns where there is none

    toolkit_hint = (
        f"Install the CUDA toolkit {torch.version.cuda} (nvcc) and set CUDA_HOME to its folder, or install one of "
        "gsplat's compiled wheels."
    )
    home = cpp_extension.CUDA_HOME
    if home is None:
        raise _problem("CUDA toolkit", "none (CUDA_HOME is not set)", "nvcc to compile gsplat with", toolkit_hint)
    nvcc = Path(home) / "bin" / "nvcc"
    if not nvcc.is_file():
        raise _problem("CUDA toolkit", f"no {nvcc}", "nvcc to compile gsplat with", toolkit_hint)
    toolkit = _toolkit_version(nvcc)
    if torch.version.cuda is None or toolkit.split(".")[0] != torch.version.cuda.split(".")[0]:
        expected = f"{torch.version.cuda}, the one of torch {torch.__version__}, to its major version"
        raise _problem("CUDA toolkit", f"{toolkit} in {home}", expected, toolkit_hint)
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise _problem("C++ compiler", f"no {compiler}", "g++ or clang++", "Install g++, or set CXX to a compiler.")
    if shutil.which("ninja") is None:
        raise _problem("ninja", "no such program", "ninja, which drives the compiler", "pip install ninja.")


def _toolkit_version(nvcc: Path) -> str:
    """Such as ``"12.8"``."""
    try:
        done = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        found = f"an nvcc that does not run ({error})"
        raise _problem("CUDA toolkit", found, "a working nvcc", "Reinstall it.") from error
    release = re.search(r"release (\d+\.\d+)", done.stdout)
    if release is None:
        raise _problem("CUDA toolkit", "an nvcc that tells no version", "a working nvcc", "Reinstall it.")
    return release[1]


def _load_kernels() -> None:
    try:
        backend = importlib.import_module("gsplat.cuda._backend")
    except Exception as error:  # the build raises RuntimeError, OSError, ImportError or CalledProcessError
        hint = "Set VERBOSE=1 to see the compiler's output; an older gsplat or torch may go together better."
        found = f"CUDA code that does not build ({_last_line(error)})"
        raise _problem("gsplat", found, "code that builds", hint) from error
    if backend._C is None:
        raise _problem("gsplat", "no CUDA code loaded", "its CUDA code", "Set VERBOSE=1 and look at what gsplat says.")


def _try_kernels(device: torch.device) -> None:
    """Draws one Gaussian: code that loads may still be for another GPU."""
    means, covariance = torch.tensor([[0.0, 0.0, -1.0]]), 0.01 * torch.eye(3)
    tensors = means, covariance[None], torch.ones(1), torch.zeros(1, 1, 3)
    try:
        view = View(torch.eye(4), 8.0, 8.0, 8.0, 8.0, 16, 16)
        drawn, _ = rasterize_gsplat(*(tensor.to(device) for tensor in tensors), [view])
        shown = drawn.alpha.max().item() > 0.5
    except Exception as error:  # of gsplat, torch or the driver, each its own
        found = f"CUDA code that does not run ({_last_line(error)})"
        raise _problem(
            "gsplat", found, "code for this GPU", "Reinstall gsplat, so that it is compiled anew."
        ) from error
    if not shown:
        raise _problem("gsplat", "a blank picture of a Gaussian", "the Gaussian", "Reinstall gsplat.")


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _problem(field: str, found: object, expected: str, hint: str) -> InputError:
    return InputError(_SOURCE, field, found, expected, f"{hint} {_WITHOUT}")
