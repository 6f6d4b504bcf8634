"""The two ways to rasterise and grow: when rounds are due, and that gsplat's strategy gets what it needs."""

import math
import sys

import pytest
import torch

from settings.errors import InputError
from settings.fitting import FittingConfig
from settings.loading import REPO_ROOT, load_config
from teacher.fitting.backends import CpuBackend, GsplatBackend, choose_backend, fitting_device
from teacher.fitting.gaussian_model import GaussianModel
from teacher.rasterizer import camera_view
from tests.fake_gsplat import FakeGsplat
from tests.toy_scene import block_of_gaussians, ring_of_cameras

RATES = dict.fromkeys(("means", "scales", "quats", "opacities", "sh0", "shN"), 1e-3)
GAUSSIANS, WIDTH = block_of_gaussians()[::6], 12
COUNT = len(GAUSSIANS)
SETTINGS = FittingConfig(grow_from=2, grow_every=2, grow_gradient=1e-12)


@pytest.fixture
def gsplat(monkeypatch):
    fake = FakeGsplat()
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    return fake


def backends():
    return {"cpu": CpuBackend(SETTINGS, 1.0, COUNT), "gsplat": GsplatBackend(SETTINGS, 1.0)}


def steps(backend, model, phases, most=COUNT + 200):
    """One view a step; returns how many Gaussians there are after each."""
    counts, generator = [], torch.Generator().manual_seed(0)
    cameras = ring_of_cameras(len(phases), WIDTH, WIDTH)
    for index, phase in enumerate(phases):
        output = backend.render(model, camera_view(cameras, index), 0)
        (output.rgb - 0.3).square().mean().backward()
        model.step()
        backend.after_step(model, index + 1, phase, most, generator)
        counts.append(len(model))
    return counts


@pytest.mark.parametrize("name", ["cpu", "gsplat"])
def test_grows_when_due_up_to_the_limit_then_only_prunes(gsplat, name):
    backend, model = backends()[name], GaussianModel(GAUSSIANS, 0, RATES)
    model.params["opacities"].data[5] = -9.0
    counts = steps(backend, model, ["grow", "grow", "grow", "grow", "prune", "prune", None, None])
    assert counts[0] == COUNT and counts[1] > COUNT  # grown, and the transparent one is gone
    assert counts[3] >= counts[2] == counts[1] and counts[3] <= COUNT + 200
    model.params["opacities"].data[:3] = -9.0
    assert steps(backend, model, ["prune", "prune"])[1] == counts[-1] - 3
    model.params["opacities"].data[:3] = -9.0
    assert len(set(steps(backend, model, [None, None]))) == 1


def test_both_render_the_same_picture(gsplat):
    model, view = GaussianModel(GAUSSIANS, 0, RATES), camera_view(ring_of_cameras(4, WIDTH, WIDTH), 3)
    ours, theirs = (backend.render(model, view, 0) for backend in backends().values())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["cpu", "gsplat"])
def test_a_restored_backend_goes_on(gsplat, name):
    counts = []
    for stop in (None, 3):
        backend, model = backends()[name], GaussianModel(GAUSSIANS, 0, RATES)
        steps(backend, model, ["grow", None, "grow"], most=COUNT + 30)
        if stop:
            state = {key: value for key, value in backend.state().items()}
            backend = backends()[name]
            backend.load_state(state)
        counts.append(steps(backend, model, ["grow", "grow"], most=COUNT + 30))
    assert counts[0] == counts[1]


def test_the_device_chooses(gsplat, monkeypatch):
    assert isinstance(choose_backend(SETTINGS, 1.0, 10, torch.device("cpu")), CpuBackend)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="CUDA"):
        choose_backend(SETTINGS, 1.0, 10, torch.device("cuda"))


def test_the_strategy_never_resets_by_itself(gsplat):
    GsplatBackend(SETTINGS, 1.0)
    assert gsplat.strategies[0].reset_every > 10**9 and gsplat.strategies[0].refine_stop_iter > 10**9
    assert math.isclose(gsplat.strategies[0].prune_opa, SETTINGS.prune_opacity)


@pytest.mark.parametrize(
    ("asked", "runs", "chosen"), [("auto", True, "cuda"), ("auto", False, "cpu"), ("cuda", False, "cuda")]
)
def test_a_fit_whose_device_is_left_open_goes_to_the_cpu_where_gsplat_does_not_run(monkeypatch, asked, runs, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("teacher.fitting.backends.gsplat_runs", lambda device: runs)
    config = load_config(REPO_ROOT / "configs/quickstart_teacher.yaml", [f"device={asked}"])
    assert fitting_device(config) == torch.device(chosen)
