"""One tiny network by hand, then numba and Triton (in its interpreter if need be) against the torch reference."""

import math

import numpy as np
import pytest
import torch

from kernels.networks import grouped_mlp_numba
from kernels.networks.grouped_layout import GroupedLayout, fourier_features
from kernels.networks.grouped_mlp import grouped_density_mlp, grouped_radiance_mlp
from kernels.optimization.updates import TouchedRows
from tests.kernels.networks.grouped_cases import SEEN, SMALL, assert_twins_agree, random_case, random_upstream, run
from tests.triton_device import TRITON, WIDTHS_OF_TWINS, device_of

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
TWINS = pytest.mark.parametrize("twin", ["numba", TRITON])
# Linear networks of 4 x 2 and 4 x 3 values: x, y, z, bias -> geometry, raw; geometry, direction (2), bias -> rgb.
LINEAR = GroupedLayout(
    frequencies=0, hidden_width=16, density_layers=0, color_layers=0, geo_features=1, direction_width=2
)


def run_density(implementation, layout, case):
    arguments = (case[name].to(device_of(implementation)) for name in ("x", "cell_index", "density_parameters"))
    return grouped_density_mlp(*arguments, layout, implementation=implementation).cpu()


def test_parameter_count_by_hand():
    # 6 octaves: 3 + 36 channels. (39 + 1) * 32 + (32 + 1) * 33, and (32 + 16 + 1) * 32 + (32 + 1) * 3.
    layout = GroupedLayout(6, 32, 1, 1, 32, 16)
    assert layout.density_dims.tolist() == [[40, 32], [33, 33]]
    assert layout.color_dims.tolist() == [[49, 32], [33, 3]]
    assert (layout.density_size, layout.color_size) == (1280 + 1089, 1568 + 99)
    assert layout.density_size + layout.color_size == 4036


def test_fourier_features_by_hand():
    features = fourier_features(torch.tensor([[0.0, 1.0, -0.5]]), 2)
    root = math.sqrt(0.5)
    # Quarter turns per unit in the first octave, half turns in the second.
    expected = [0, 1, -0.5] + [0, 1, -root] + [1, 0, root] + [0, 0, -1] + [1, -1, 0]
    assert features[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_neuron_that_is_off_lets_a_hundredth_through():
    """As where checkpoints were trained: with another slope they are other students."""
    layout = GroupedLayout(0, 16, 1, 0, geo_features=1, direction_width=1)
    first, last = torch.zeros(4, 16), torch.zeros(17, 2)
    first[0, 0] = last[0, 1] = 1.0  # x by the first neuron to the raw density
    parameters = torch.cat([first.flatten(), last.flatten()])[None]
    x = torch.tensor([[1.0, 0, 0], [-1, 0, 0]])
    density = grouped_density_mlp(x, torch.zeros(2, dtype=torch.int64), parameters, layout, implementation="torch")
    assert density.tolist() == pytest.approx([math.exp(1), math.exp(-0.01)], rel=1e-6)


@IMPLEMENTATIONS
def test_two_linear_cells_by_hand(implementation):
    case = {
        "x": torch.tensor([[1.0, 0.0, 0.0], [0.5, -1.0, 0.0], [0.0, 0.0, 1.0]]),
        "basis": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "ray_index": torch.tensor([0, 1, 1]),
        "cell_index": torch.tensor([2, 0, 2]),
        # Rows x, y, z, bias; columns geometry, raw density.
        "density_parameters": torch.tensor(
            [[[2.0, 1], [3, 0.5], [0, 0], [0, 0.25]], [[9.0, 9]] * 4, [[0.0, -1], [0, 0], [4, 0.5], [1, 2]]]
        ).view(3, 8),
        # Rows geometry, two directions, bias; columns red, green, blue.
        "color_parameters": torch.tensor(
            [
                [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]],
                [[9.0] * 3] * 4,
                [[0, 0, 1], [1, 1, 0], [0, 2, 0], [0, -1, 0]],
            ]
        ).view(3, 12),
    }
    upstream = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 0, 0]])
    touched = TouchedRows(3, rows_per_flag=1), TouchedRows(3, rows_per_flag=1)
    (density, rgb), (density_grad, color_grad) = run(implementation, LINEAR, case, upstream, touched)
    # Raw: 2 - 1, 0.25 + 0.5 - 0.5, 2 + 0.5. Geometry: 1, 1 - 3, 1 + 4.
    assert density.tolist() == pytest.approx([math.exp(1), math.exp(0.25), math.exp(2.5)], rel=1e-6)
    logits = torch.tensor([[1.0, 0, 1], [-2, 0, 1], [0, 1, 5]])
    torch.testing.assert_close(rgb, torch.sigmoid(logits), rtol=1e-6, atol=1e-7)
    # Point 0: d density = exp(1), times (x, 1) in the raw column of cell 2.
    expected = torch.zeros(3, 4, 2)
    expected[2, :, 1] = math.exp(1) * torch.tensor([1.0, 0, 0, 1])
    # Point 1: d red = 4 s (1 - s) at logit -2, times (geometry, direction, 1) in cell 0, and back through weight 1.
    slope = 4 * math.exp(-2) / (1 + math.exp(-2)) ** 2
    expected[0, :, 0] = slope * torch.tensor([0.5, -1, 0, 1])
    torch.testing.assert_close(density_grad, expected.view(3, 8), rtol=1e-5, atol=1e-6)
    expected = torch.zeros(3, 4, 3)
    expected[0, :, 0] = slope * torch.tensor([-2.0, 0, 1, 1])
    torch.testing.assert_close(color_grad, expected.view(3, 12), rtol=1e-5, atol=1e-6)
    if implementation == "numba":
        assert [rows.flags.tolist() for rows in touched] == [[1, 0, 1, 0]] * 2
    torch.testing.assert_close(run_density(implementation, LINEAR, case), density)


@pytest.mark.parametrize(("twin", "width"), WIDTHS_OF_TWINS)
def test_twins_match_torch_for_cells_of_none_one_and_many_points(twin, width):
    layout = GroupedLayout(4, width, 2, 1, 7, 9)
    many, more = (333, 160) if twin == "numba" else (81, 40)  # Triton's blocks have 32 points
    cell_index = torch.tensor([5] + [1] * many + [3] * 17 + [0] * more)
    cell_index = cell_index[torch.randperm(len(cell_index))]
    assert_twins_agree(layout, random_case(layout, cell_index, cells=7), twin)


@TWINS
@pytest.mark.parametrize("layers", [(0, 0), (2, 0), (0, 2), (1, 3)])
def test_twins_match_torch_for_any_depth(twin, layers):
    layout = GroupedLayout(2, 16, *layers, geo_features=3, direction_width=1, harmonics=5)
    assert_twins_agree(layout, random_case(layout, torch.randint(4, (99,)), cells=4), twin)


def test_numba_matches_torch_in_one_cell_shared_by_several_tasks(monkeypatch):
    monkeypatch.setattr(grouped_mlp_numba, "_PIECE", 100)
    assert_twins_agree(SEEN, random_case(SEEN, torch.zeros(517), cells=1))


@TWINS
@pytest.mark.parametrize("frequencies", [0, 1, 6, 10])
def test_features_inside_the_kernel(twin, frequencies):
    # A linear network that copies one feature at a time into the raw density shows every channel.
    layout = GroupedLayout(frequencies, 16, 0, 0, 1, 1)
    channels = layout.position_width
    parameters = torch.zeros(channels, channels + 1, 2)
    parameters[torch.arange(channels), torch.arange(channels), 1] = 1
    x = torch.cat([torch.rand(50, 3) * 4 - 2, torch.tensor([[-1.0, 0, 1], [3.5, -7, 2]])])
    case = {
        "x": x.repeat_interleave(channels, 0),
        "cell_index": torch.arange(channels).repeat(len(x)),
        "density_parameters": parameters.view(channels, -1),
    }
    density = run_density(twin, layout, case)
    exact = fourier_features(x.double(), frequencies)
    # Every doubling of the angle doubles the rounding error of float32. The feature is read as the logarithm of an
    # exponential, of -7 at least: a GPU's are an ulp off, at most 4.8e-7 there.
    bound = 4e-7 * 2.0**frequencies + 4.8e-7
    assert (density.log().view(len(x), channels) - exact).abs().max() < bound


@IMPLEMENTATIONS
def test_density_alone_is_the_density(implementation):
    case = random_case(SMALL, torch.randint(6, (301,)), cells=6)
    density, *_ = grouped_radiance_mlp(**case, layout=SMALL, implementation="torch")
    torch.testing.assert_close(run_density(implementation, SMALL, case), density, rtol=1e-4, atol=1e-6)


@IMPLEMENTATIONS
def test_no_points(implementation):
    case = random_case(SMALL, [], cells=3)
    (density, rgb), grads = run(implementation, SMALL, case, (torch.zeros(0), torch.zeros(0, 3)))
    assert density.shape == (0,) and rgb.shape == (0, 3)
    assert all(grad is not None and not grad.any() for grad in grads)
    assert run_density(implementation, SMALL, case).shape == (0,)


@IMPLEMENTATIONS
def test_only_cells_with_points_get_a_gradient(implementation):
    case = random_case(SMALL, torch.tensor([1, 4]).repeat(20), cells=6)
    touched = TouchedRows(6, rows_per_flag=1), TouchedRows(6, rows_per_flag=2)
    _, grads = run(implementation, SMALL, case, random_upstream(case), touched)
    for grad in grads:
        assert grad.abs().sum(1).nonzero()[:, 0].tolist() == [1, 4]
    if implementation == "numba":
        assert [rows.flags.nonzero()[:, 0].tolist() for rows in touched] == [[1, 4], [0, 2]]


@IMPLEMENTATIONS
def test_gradients_add_up_over_calls(implementation):
    case = random_case(SMALL, torch.randint(3, (40,)), cells=3)
    upstream = random_upstream(case)
    _, single = run(implementation, SMALL, case, upstream)
    device = device_of(implementation)
    case = {name: value.to(device) for name, value in case.items()}
    leaves = {name: case[name].clone().requires_grad_() for name in ("density_parameters", "color_parameters")}
    for _ in range(2):
        outputs = grouped_radiance_mlp(**{**case, **leaves}, layout=SMALL, implementation=implementation)[:2]
        torch.autograd.backward(outputs, [grad.to(device) for grad in upstream])
    for leaf, grad in zip(leaves.values(), single, strict=True):
        torch.testing.assert_close(leaf.grad.cpu(), 2 * grad)


@IMPLEMENTATIONS
def test_computed_networks_get_their_gradients(implementation):
    case = random_case(SMALL, torch.randint(3, (40,)), cells=3)
    upstream, device = random_upstream(case), device_of(implementation)
    _, expected = run("torch", SMALL, case, upstream)
    case = {name: value.to(device) for name, value in case.items()}
    halves = {name: (case[name] / 2).requires_grad_() for name in ("density_parameters", "color_parameters")}
    networks = {name: 2 * half for name, half in halves.items()}
    outputs = grouped_radiance_mlp(**{**case, **networks}, layout=SMALL, implementation=implementation)[:2]
    found = torch.autograd.grad(outputs, list(halves.values()), [grad.to(device) for grad in upstream])
    for grad, want in zip(found, expected, strict=True):
        torch.testing.assert_close(grad.cpu(), 2 * want, rtol=1e-3, atol=1e-4)


@IMPLEMENTATIONS
@pytest.mark.parametrize("fixed", ["density_parameters", "color_parameters"])
def test_fixed_networks_get_no_gradient(implementation, fixed):
    case = random_case(SMALL, torch.randint(3, (40,)), cells=3)
    upstream, device = random_upstream(case), device_of(implementation)
    names = ["density_parameters", "color_parameters"]
    expected = dict(zip(names, run("torch", SMALL, case, upstream)[1], strict=True))
    case = {name: value.to(device) for name, value in case.items()}
    (free,) = {*names} - {fixed}
    case[free].requires_grad_()
    outputs = grouped_radiance_mlp(**case, layout=SMALL, implementation=implementation)[:2]
    differentiable = [(out, grad.to(device)) for out, grad in zip(outputs, upstream, strict=True) if out.requires_grad]
    torch.autograd.backward(*zip(*differentiable, strict=True))
    assert case[fixed].grad is None
    torch.testing.assert_close(case[free].grad.cpu(), expected[free], rtol=1e-3, atol=1e-4)


@IMPLEMENTATIONS
def test_density_is_truncated_and_its_gradient_never_vanishes(implementation):
    parameters = torch.zeros(2, 8)
    parameters[:, 7] = torch.tensor([20.0, -40.0])  # the raw density's bias
    case = random_case(LINEAR, [0, 1], cells=2) | {"density_parameters": parameters}
    (density, _), (grad, _) = run(implementation, LINEAR, case, (torch.ones(2), torch.zeros(2, 3)))
    assert density.tolist() == pytest.approx([math.exp(15), math.exp(-40)], rel=1e-5)
    assert grad[:, 7].tolist() == pytest.approx([math.exp(15), math.exp(-15)], rel=1e-5)


def test_same_bits_for_one_and_two_threads(use_threads, monkeypatch):
    monkeypatch.setattr(grouped_mlp_numba, "_PIECE", 128)
    monkeypatch.setattr(grouped_mlp_numba, "_GRAIN", 64)
    case = random_case(SMALL, torch.cat([torch.zeros(700), torch.randint(9, (900,))]), cells=9)
    upstream = random_upstream(case)
    results = []
    for threads in (1, 2):
        use_threads(threads)
        results.append(run("numba", SMALL, case, upstream))
    for one, two in zip(*(outputs + grads for outputs, grads in results), strict=True):
        assert torch.equal(one, two)


def test_pieces_cover_every_point_once_and_share_only_large_cells():
    cell_index = np.array([2, 0, 2, 2, 3, 2, 2])
    order, pieces, slots = grouped_mlp_numba.route(cell_index, 4, 2)
    assert order.tolist() == [1, 0, 2, 3, 5, 6, 4]
    assert pieces.tolist() == [[0, 0, 1, -1], [2, 1, 3, 0], [2, 3, 5, 1], [2, 5, 6, 2], [3, 6, 7, -1]]
    assert slots == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_width": 24}, r"hidden_width: found 24, expected one of \[16, 32, 64, 128\]"),
        ({"hidden_width": 256}, "hidden_width: found 256"),
        ({"frequencies": -1}, "frequencies: found -1, expected at least 0"),
        ({"geo_features": 0}, "geo_features: found 0, expected at least 1"),
        ({"harmonics": -1}, "harmonics: found -1, expected at least 0"),
    ],
)
def test_bad_layouts(changes, message):
    sizes = {"frequencies": 6, "hidden_width": 32, "density_layers": 1, "color_layers": 1, "geo_features": 8}
    with pytest.raises(ValueError, match=message):
        GroupedLayout(**{**sizes, "direction_width": 16, **changes})


def test_cell_out_of_range():
    for cell, message in ((3, "found 3 to 3, expected 0 to 2"), (-1, "found -1 to -1")):
        case = random_case(SMALL, [cell], cells=3)
        with pytest.raises(ValueError, match=message):
            grouped_radiance_mlp(**case, layout=SMALL, implementation="numba")


def test_parameters_of_another_layout():
    case = random_case(SMALL, [0], cells=3) | {"density_parameters": torch.zeros(3, SMALL.density_size + 1)}
    with pytest.raises(ValueError, match=rf"parameters must be contiguous \(cells, {SMALL.density_size}\)"):
        grouped_radiance_mlp(**case, layout=SMALL)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
def test_the_reference_multiplies_in_the_parameters_type(dtype, tolerance):
    case = random_case(SMALL, torch.randint(3, (99,)), cells=3)
    upstream = random_upstream(case)
    expected, expected_grads = run("torch", SMALL, case, upstream)
    half = case | {name: case[name].to(dtype) for name in ("density_parameters", "color_parameters")}
    found, grads = run("torch", SMALL, half, upstream)
    assert all(value.dtype == torch.float32 for value in found)
    assert all(value.dtype == dtype for value in grads)
    for value, reference in zip([*found, *grads], [*expected, *expected_grads], strict=True):
        assert 0 < ((value.float() - reference).norm() / reference.norm()).item() < tolerance
    density = grouped_density_mlp(
        half["x"], half["cell_index"], half["density_parameters"], SMALL, implementation="torch"
    )
    torch.testing.assert_close(density, found[0].detach())


def test_cells_that_nobody_kept_account_of_are_all_flagged():
    case = random_case(SMALL, torch.randint(3, (9,)), cells=3)
    touched = TouchedRows(3, rows_per_flag=1), TouchedRows(3, rows_per_flag=1)
    grouped_radiance_mlp(**case, layout=SMALL, touched=touched, implementation="torch")
    assert all(rows.flags.all() for rows in touched)


def test_numba_does_not_visit_points_without_a_gradient_on_its_way_back():
    case = random_case(SMALL, torch.randint(4, (900,)), cells=5)
    hidden = (torch.rand(900) < 0.6) | (case["cell_index"] == 2)  # a cell without any other too
    grads = [grad.masked_fill(hidden if grad.ndim == 1 else hidden[:, None], 0) for grad in random_upstream(case)]
    expected = run("torch", SMALL, case, grads)[1]
    case["x"][hidden] = torch.nan  # times a gradient of 0, it would be one of the parameters' gradients
    for found, want in zip(run("numba", SMALL, case, grads)[1], expected, strict=True):
        assert want.any() and not found[2].any()
        torch.testing.assert_close(found, want, atol=1e-4 * want.abs().max().item(), rtol=0)
