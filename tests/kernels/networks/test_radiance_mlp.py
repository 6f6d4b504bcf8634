"""A net small enough for paper, then numba and Triton (in its interpreter if need be) against the torch reference."""

from math import exp

import pytest
import torch

from kernels.dispatch import chosen_implementations
from kernels.networks.radiance_mlp import density_mlp, radiance_mlp, truncated_exp, twins_of
from tests.triton_device import (
    DEVICE,
    TRITON,
    WIDTHS_OF_TWINS,
    device_of,
    needs_bfloat16,
    needs_gpu,
    needs_triton,
)

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
TWINS = pytest.mark.parametrize("twin", ["numba", TRITON])


def sigmoid(x):
    return 1 / (1 + exp(-x))


def layers(*sizes):
    return [
        torch.randn(rows, columns) * (1.5 / columns) ** 0.5 for columns, rows in zip(sizes, sizes[1:], strict=False)
    ]


def random_inputs(count, channels=6, geometry=3, rays=7, basis=4, width=16, density_layers=1, color_layers=2):
    return (
        torch.randn(count, channels),
        torch.randn(rays, basis),
        torch.randint(rays, (count,)),
        layers(channels, *[width] * density_layers, 1 + geometry),
        layers(geometry + basis, *[width] * color_layers, 3),
    )


def run(implementation, inputs, upstream, dtype=torch.float32):
    """Density, rgb, and the gradients of the features and of all weights, computed on the implementation's device."""
    device = device_of(implementation)
    features, basis, ray_index, density_weights, color_weights = inputs
    features = features.detach().to(device, dtype, copy=True).requires_grad_()
    basis, ray_index = basis.to(device), ray_index.to(device)
    density_weights, color_weights = (
        [weight.to(device, copy=True).requires_grad_() for weight in weights]
        for weights in (density_weights, color_weights)
    )
    density, rgb, _ = radiance_mlp(
        features, basis, ray_index, density_weights, color_weights, implementation=implementation
    )
    torch.autograd.backward([density, rgb], [grad.to(device) for grad in upstream])
    grads = [tensor.grad.cpu() for tensor in (features, *density_weights, *color_weights)]
    return density.detach().cpu(), rgb.detach().cpu(), grads


def upstream(count):
    return torch.randn(count), torch.randn(count, 3)


def away_from_kinks(inputs, grads):
    """Upstream gradients, zero for samples of which some neuron is within rounding of its ReLU's kink.

    There the gradient jumps: two sums of the same products may fall on different sides, and both are right.
    """
    features, basis, ray_index, *networks = inputs
    x, least = features.double(), torch.full((len(features),), torch.inf, dtype=torch.float64)
    for weights in networks:
        for weight in weights[:-1]:
            x = x @ weight.double().t()
            least = torch.minimum(least, (x.abs() / x.square().mean().sqrt()).amin(1))
            x = x.relu()
        x = torch.cat([(x @ weights[-1].double().t())[:, 1:], basis.double()[ray_index]], dim=1)
    smooth = least > 1e-5
    assert len(smooth) < 100 or smooth.float().mean() > 0.98
    return [grad * (smooth if grad.ndim == 1 else smooth[:, None]) for grad in grads]


def assert_twins_agree(inputs, implementation="numba", grads=None):
    """Up to float32 sums in another order, relative to the largest value of a tensor. Returns the twin's gradients."""
    grads = away_from_kinks(inputs, upstream(len(inputs[0])) if grads is None else grads)
    density, rgb, reference = run("torch", inputs, grads)
    twin_density, twin_rgb, twins = run(implementation, inputs, grads)
    torch.testing.assert_close(twin_density, density, atol=1e-6, rtol=2e-4)
    torch.testing.assert_close(twin_rgb, rgb, atol=1e-5, rtol=0)
    for twin, expected in zip(twins, reference, strict=True):
        scale = expected.abs().amax().item() if expected.numel() else 0.0
        torch.testing.assert_close(twin, expected, atol=1e-4 * scale + 1e-7, rtol=0)
    return twins


@IMPLEMENTATIONS
def test_two_samples_by_hand(implementation):
    device = device_of(implementation)
    density_weights = [torch.tensor([[1.0, -1.0], [0.5, 0.25]]), torch.tensor([[0.3, 0.7], [1.0, 2.0]])]
    color_weights = [torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 2.0]])]
    basis = torch.tensor([[9.0], [0.5]])
    density, rgb, _ = radiance_mlp(
        torch.tensor([[1.0, 2.0], [2.0, 0.0]], device=device),
        basis.to(device),
        torch.tensor([1, 0], device=device),
        [weight.to(device) for weight in density_weights],
        [weight.to(device) for weight in color_weights],
        implementation=implementation,
    )
    # (1, 2) -> relu(-1, 1) = (0, 1) -> raw 0.7, geometry 2; with the basis 0.5 -> (2, 0.5, -1).
    # (2, 0) -> (2, 1) -> raw 1.3, geometry 4; with the basis 9 -> (4, 9, 14).
    assert density.tolist() == pytest.approx([exp(0.7), exp(1.3)], rel=1e-5)
    assert rgb[0].tolist() == pytest.approx([sigmoid(2), sigmoid(0.5), sigmoid(-1)], rel=1e-5)
    assert rgb[1].tolist() == pytest.approx([sigmoid(4), sigmoid(9), sigmoid(14)], rel=1e-5)


@IMPLEMENTATIONS
def test_density_is_a_truncated_exponential_with_a_live_gradient(implementation):
    device = device_of(implementation)
    features = torch.tensor([[20.0], [15.0], [1.0], [-20.0]], device=device, requires_grad=True)
    identity, color = [torch.tensor([[1.0], [0.0]], device=device)], [torch.zeros(3, 2, device=device)]
    basis, rays = torch.zeros(1, 1, device=device), torch.zeros(4, dtype=torch.int64, device=device)
    density, rgb, _ = radiance_mlp(features, basis, rays, identity, color, implementation=implementation)
    assert density.tolist() == pytest.approx([exp(15), exp(15), exp(1), exp(-20)], rel=1e-4)
    assert rgb.tolist() == [[0.5] * 3] * 4
    density.sum().backward()
    # exp of raw clamped to [-15, 15].
    assert features.grad[:, 0].tolist() == pytest.approx([exp(15), exp(15), exp(1), exp(-15)], rel=1e-4)


def test_truncated_exp_gradient_by_finite_differences():
    raw = torch.tensor([-3.0, 0.0, 2.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(truncated_exp, raw)


def test_torch_reference_by_finite_differences():
    features, basis, ray_index, density_weights, color_weights = random_inputs(5, width=4)
    split = len(density_weights)
    weights = [weight.double().requires_grad_() for weight in density_weights + color_weights]

    def function(features, *weights):
        where = features, basis.double(), ray_index
        return radiance_mlp(*where, weights[:split], weights[split:], implementation="torch")[:2]

    assert torch.autograd.gradcheck(function, (features.double().requires_grad_(), *weights))


@TWINS
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 301])
def test_twins_equal_torch_at_any_count(twin, count):
    assert_twins_agree(random_inputs(count), twin)


@pytest.mark.parametrize(("twin", "width"), WIDTHS_OF_TWINS)
@pytest.mark.parametrize(("density_layers", "color_layers"), [(1, 1), (1, 2), (2, 3), (3, 1)])
def test_twins_equal_torch_at_any_depth_and_width(twin, width, density_layers, color_layers):
    count = 300 if twin == "numba" else 70  # more than a block of any width
    assert_twins_agree(random_inputs(count, 24, 15, 11, 16, width, density_layers, color_layers), twin)


@TWINS
@pytest.mark.parametrize(("channels", "geometry", "basis"), [(1, 1, 1), (40, 2, 25), (3, 31, 9)])
def test_twins_equal_torch_with_inputs_wider_than_the_layers(twin, channels, geometry, basis):
    assert_twins_agree(random_inputs(65, channels, geometry, 3, basis, width=8), twin)


@needs_triton
def test_a_triton_program_that_takes_several_blocks(monkeypatch):
    # A bit-equal second run: the programs' sums are added in a fixed order.
    monkeypatch.setattr("kernels.networks.radiance_mlp_triton._PROGRAMS", 3)
    inputs, grads = random_inputs(300), upstream(300)
    first = assert_twins_agree(inputs, "triton", grads)
    _, _, second = run("triton", inputs, grads)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def check_half_precision(implementation, dtype, tolerance, count=130, **sizes):
    """Outputs and gradients near those of float32; returns inputs and density in float32."""
    inputs, grads = random_inputs(count, **sizes), upstream(count)
    density, rgb, reference = run("torch", inputs, grads)
    half_density, half_rgb, half = run(implementation, inputs, grads, dtype)
    assert half_density.dtype == half_rgb.dtype == torch.float32
    assert [grad.dtype for grad in half] == [dtype] + [torch.float32] * (len(half) - 1)
    pairs = zip((half_density, half_rgb, *half), (density, rgb, *reference), strict=True)
    errors = [((found - expected).norm() / expected.norm()).item() for found, expected in pairs]
    assert 0 < max(errors) < 5 * tolerance
    assert errors[1] < tolerance
    return inputs, density


@needs_triton
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 5e-3), pytest.param(torch.bfloat16, 4e-2, marks=needs_bfloat16)]
)
def test_triton_multiplies_in_the_features_type(dtype, tolerance):
    check_half_precision("triton", dtype, tolerance)


@needs_triton
def test_layers_too_wide_for_triton_go_to_another_implementation():
    assert_twins_agree(random_inputs(3, width=144), "triton")
    assert chosen_implementations()[f"radiance_mlp[{DEVICE.type}]"] in ("numba", "torch")


@pytest.mark.parametrize(
    ("dtype", "width", "offered"),
    [
        (torch.float32, 32, True),
        (torch.float32, 33, False),
        (torch.float16, 64, True),
        (torch.float16, 65, False),
        (torch.float64, 16, False),
    ],
)
def test_triton_takes_narrow_layers_alone(dtype, width, offered):
    assert ("triton" in twins_of(dtype, width)) is offered and "triton" not in twins_of(dtype, width, tapped=True)


@needs_gpu
@pytest.mark.parametrize("width", [16, 32])
def test_triton_equals_torch_at_a_real_size(width):
    assert_twins_agree(random_inputs(200_003, 32, 15, 4096, 16, width, 1, 2), "triton")


@needs_gpu
@pytest.mark.parametrize("width", [32, 64])
def test_triton_multiplies_in_half_precision_at_a_real_size(width):
    sizes = {"channels": 32, "geometry": 15, "rays": 4096, "basis": 16, "width": width}
    check_half_precision("triton", torch.float16, 6e-3, 262_144, **sizes)  # 2.5 % of a gradient on an H200


@TWINS
def test_channel_major_features_are_taken_as_they_are(twin):
    # The layout in which the numba hash encoding hands them over.
    inputs = random_inputs(65)
    grads = upstream(65)
    _, rgb, reference = run(twin, inputs, grads)
    _, twin_rgb, twins = run(twin, (inputs[0].t().contiguous().t(), *inputs[1:]), grads)
    assert torch.equal(rgb, twin_rgb)
    assert all(torch.equal(one, two) for one, two in zip(reference, twins, strict=True))


def test_same_bits_for_any_number_of_threads(use_threads):
    # More than two chunks of 4096, so that the weights' partial sums are added up.
    inputs, grads = random_inputs(9001), upstream(9001)
    use_threads(1)
    density, rgb, single = run("numba", inputs, grads)
    use_threads(2)
    twin_density, twin_rgb, double = run("numba", inputs, grads)
    assert torch.equal(density, twin_density)
    assert torch.equal(rgb, twin_rgb)
    assert all(torch.equal(one, two) for one, two in zip(single, double, strict=True))


def test_chunks_beyond_the_first_count_in_the_gradient():
    inputs = random_inputs(9001)
    assert_twins_agree(inputs)
    grads = torch.zeros(9001), torch.zeros(9001, 3)
    grads[1][9000] = 1
    _, _, (features, *weights) = run("numba", inputs, grads)
    assert (features[:9000] == 0).all()
    assert (features[9000] != 0).any()
    assert all((weight != 0).any() for weight in weights)


@IMPLEMENTATIONS
@pytest.mark.parametrize("count", [0, 1, 257])
@pytest.mark.parametrize("density_layers", [1, 2])
def test_density_alone_is_the_same_density(implementation, count, density_layers):
    features, basis, ray_index, density_weights, color_weights = random_inputs(count, density_layers=density_layers)
    expected, *_ = radiance_mlp(features, basis, ray_index, density_weights, color_weights, implementation="numba")
    device = device_of(implementation)
    density = density_mlp(
        features.to(device), [weight.to(device) for weight in density_weights], implementation=implementation
    )
    torch.testing.assert_close(density.cpu(), expected, atol=1e-6, rtol=2e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_the_reference_multiplies_in_the_features_type(dtype, tolerance):
    inputs, density = check_half_precision("torch", dtype, tolerance)
    found = density_mlp(inputs[0].to(dtype), inputs[3], implementation="torch")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, density, rtol=5 * tolerance, atol=tolerance)


def test_auto_leaves_half_precision_to_torch_on_a_cpu():
    features, basis, ray_index, *weights = random_inputs(7)
    expected = radiance_mlp(features.half(), basis, ray_index, *weights, implementation="torch")
    found = radiance_mlp(features.half(), basis, ray_index, *weights)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    with pytest.raises(ValueError, match="implementation 'numba' cannot run"):
        radiance_mlp(features.half(), basis, ray_index, *weights, implementation="numba")


def test_numba_does_not_visit_samples_without_a_gradient_on_its_way_back():
    inputs, grads = random_inputs(9000), upstream(9000)
    hidden = torch.rand(9000) < 0.7
    hidden[4096:8192] = True  # a whole chunk
    grads = [grad.masked_fill(hidden if grad.ndim == 1 else hidden[:, None], 0) for grad in grads]
    expected = run("torch", inputs, grads)[2]
    inputs[0][hidden] = torch.nan  # times a gradient of 0, it would be one of the weights' gradients
    features, *weights = run("numba", inputs, grads)[2]
    assert not features[hidden].any()
    for found, want in zip([features, *weights], expected, strict=True):
        torch.testing.assert_close(found, want, atol=1e-4 * want.abs().max().item(), rtol=0)
