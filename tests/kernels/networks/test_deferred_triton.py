"""The density networks alone, as deferred shading asks for them: Triton's twins against torch."""

from __future__ import annotations

import pytest
import torch

from kernels.dispatch import chosen_implementations
from kernels.networks import grouped_mlp, radiance_mlp
from kernels.networks.grouped_layout import GroupedLayout
from kernels.networks.grouped_mlp import grouped_geometry_mlp
from kernels.networks.radiance_mlp import geometry_mlp
from tests.kernels.networks.deferred_cases import assert_close, run_colors
from tests.triton_device import DEVICE, device_of, needs_triton

pytestmark = needs_triton
HALF_AND_EXACT = (("triton", torch.float16), ("torch", torch.float32))


def hash_case(count, channels=6, width=16, layers=1, geometry=3):
    """Features (channel-major, as the encoding hands them over) and the density network's layers."""
    widths = [channels, *[width] * layers, 1 + geometry]
    weights = [torch.randn(out, into) * (1.5 / into) ** 0.5 for into, out in zip(widths, widths[1:], strict=False)]
    return torch.randn(channels, count).t(), weights


def run_hash(implementation, features, weights, dtype=torch.float32, taps=()):
    device = device_of(implementation)
    leaves = [features.to(device, dtype).requires_grad_(), *(weight.to(device, copy=True) for weight in weights)]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    outputs = geometry_mlp(leaves[0], leaves[1:], taps, implementation=implementation)
    return differentiated(outputs, leaves)


def run_grouped(implementation, x, cell_index, parameters, layout, precision=None, taps=()):
    device = device_of(implementation)
    leaf = parameters.to(device, copy=True).requires_grad_()
    named = {"precision": precision, "implementation": implementation}
    outputs = grouped_geometry_mlp(x.to(device), cell_index.to(device), leaf, layout, taps, **named)
    return differentiated(outputs, [leaf])


def differentiated(outputs, leaves):
    """Outputs and the leaves' gradients, upstream being the same in every call."""
    density, geometry, inside = outputs
    generator = torch.Generator().manual_seed(3)
    upstream = [torch.randn(part.shape, generator=generator) for part in (density, geometry, *inside.values())]
    total = sum(
        (part.float() * grad.to(part.device)).sum()
        for part, grad in zip((density, geometry, *inside.values()), upstream, strict=True)
    )
    total.backward()
    return [part.detach().cpu() for part in (density, geometry)], [leaf.grad.cpu() for leaf in leaves]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 65, 300])
def test_any_number_of_samples(count, monkeypatch):
    monkeypatch.setattr("kernels.networks.radiance_mlp_triton._PROGRAMS", 3)  # which take several blocks each
    case = hash_case(count)
    assert_close(found := run_hash("triton", *case), run_hash("torch", *case), 1e-4)
    assert all(torch.equal(one, two) for one, two in zip(found[1], run_hash("triton", *case)[1], strict=True))
    assert chosen_implementations()[f"geometry_mlp[{DEVICE.type}]"] == "triton"


@pytest.mark.parametrize(
    "sizes", [(1, 7, 1, 1), (40, 32, 2, 15), (9, 16, 0, 5), (3, 8, 1, 31)], ids=["tiny", "usual", "linear", "outputs"]
)
def test_any_size_of_the_network(sizes):
    channels, width, layers, geometry = sizes
    case = hash_case(77, channels, width, layers, geometry)
    assert_close(run_hash("triton", *case), run_hash("torch", *case), 1e-4)


def test_half_precision_has_the_types_of_the_reference():
    features, weights = hash_case(130, 16, 32, 1, 15)
    features, weights = features.half().float(), [weight.half().float() for weight in weights]
    found = run_hash("triton", features, weights, torch.float16)
    exact = run_hash("torch", features, weights)
    assert [part.dtype for part in found[0]] == [torch.float32, torch.float16]
    assert [grad.dtype for grad in found[1]] == [torch.float16, torch.float32, torch.float32]
    typed = [
        [value.to(part.dtype) for value, part in zip(*pair, strict=True)] for pair in zip(exact, found, strict=True)
    ]
    assert_close(found, typed, 5e-3)


@pytest.mark.parametrize(("tap", "by_triton"), [("geo", True), ("hidden", False)])
def test_features_as_a_tap_are_the_output_and_hidden_ones_come_from_another(tap, by_triton):
    case = hash_case(40)
    expected, found = (run_hash(name, *case, taps=(tap,)) for name in ("torch", "triton"))
    assert (chosen_implementations()[f"geometry_mlp[{DEVICE.type}]"] == "triton") is by_triton
    assert_close(found, expected, 1e-4)


def test_layers_too_wide_for_triton_go_to_another():
    case = hash_case(20, width=144)
    expected, found = (run_hash(name, *case) for name in ("torch", "triton"))
    assert_close(found, expected, 1e-4)
    assert chosen_implementations()[f"geometry_mlp[{DEVICE.type}]"] != "triton"


def grouped_case(cell_index, width=16, layers=1, geometry=5, frequencies=2, cells=6):
    layout = GroupedLayout(frequencies, width, layers, 1, geo_features=geometry, direction_width=4)
    cell_index = torch.as_tensor(cell_index, dtype=torch.int64)
    x = torch.rand(len(cell_index), 3) * 2.4 - 1.2
    return x, cell_index, 0.3 * torch.randn(cells, layout.density_size), layout


@pytest.mark.parametrize(
    "cell_index", [[], [3], [4] * 217 + [1] * 71 + [0] * 70], ids=["none", "one", "several_programs_each"]
)
def test_any_number_of_points_in_cells(cell_index, monkeypatch):
    monkeypatch.setattr("kernels.networks.grouped_mlp_triton._PIECE", 70)
    case = grouped_case(torch.tensor(cell_index)[torch.randperm(len(cell_index))])
    found = run_grouped("triton", *case)
    assert_close(found, run_grouped("torch", *case), 1e-4)
    assert torch.equal(found[1][0], run_grouped("triton", *case)[1][0])
    assert chosen_implementations()[f"grouped_geometry_mlp[{DEVICE.type}]"] == "triton"


@pytest.mark.parametrize("sizes", [(7, 0, 1), (32, 2, 15), (16, 1, 31)], ids=["linear", "usual", "outputs"])
def test_any_size_of_the_networks(sizes):
    width, layers, geometry = sizes
    case = grouped_case(torch.randint(6, (99,)), max(width, 16), layers, geometry)
    assert_close(run_grouped("triton", *case), run_grouped("torch", *case), 1e-4)


def test_parameters_are_rounded_but_not_the_sums_of_their_gradients():
    case = grouped_case(torch.zeros(600), width=32, geometry=15)
    found, exact = run_grouped("triton", *case, precision=torch.float16), run_grouped("torch", *case)
    assert [part.dtype for part in found[0]] == [torch.float32, torch.float16]
    assert found[1][0].dtype == torch.float32
    exact[0][1] = exact[0][1].half()
    assert_close(found, exact, 1e-2)


def test_cells_out_of_range_give_nan_and_no_gradient():
    case = grouped_case([0, 6, 5, -1])
    (density, geometry), (grad,) = run_grouped("triton", *case)
    assert density.isnan().tolist() == [False, True, False, True]
    assert geometry.isnan().all(1).tolist() == geometry.isnan().any(1).tolist() == density.isnan().tolist()
    assert grad[[1, 2, 3, 4]].abs().max() == 0


@pytest.mark.parametrize("kind", [radiance_mlp, grouped_mlp], ids=["one_network", "cells"])
@pytest.mark.parametrize("count", [0, 1, 33, 130])
def test_colors_of_rays(kind, count, monkeypatch):
    monkeypatch.setattr("kernels.networks.deferred_triton._PROGRAMS", 3)
    monkeypatch.setattr("kernels.networks.deferred_triton._BACKWARD_PROGRAMS", 2)
    assert_close(run_colors(kind, "triton", count), run_colors(kind, "torch", count), 1e-4)


@pytest.mark.parametrize("kind", [radiance_mlp, grouped_mlp], ids=["one_network", "cells"])
def test_colors_of_rays_in_half_precision(kind):
    found, exact = (run_colors(kind, name, 130, kept) for name, kept in HALF_AND_EXACT)
    assert_close((found[0], []), (exact[0], []), 5e-3)
    for grad, reference in zip(found[1], exact[1], strict=True):
        # A neuron that rounding turns on or off counts whole.
        assert 0.99 < torch.cosine_similarity(grad.flatten(), reference.flatten(), dim=0) < 1.01
