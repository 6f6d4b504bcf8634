"""Five samples on three rays by hand, then the fast twins against the torch reference."""

from math import exp, log, nan

import pytest
import torch

from kernels.compositing.compositing import Composite, composite, finish
from tests.triton_device import TRITON, device_of, needs_gpu, needs_triton

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
TWINS = pytest.mark.parametrize("twin", ["numba", TRITON])


def five_samples():
    """Ray 0: three samples of alpha 1/2; ray 1: empty; ray 2: an opaque sample in front of another."""
    dt = torch.tensor([0.5, 0.25, 0.5, 0.1, 0.1])
    return {
        "density": torch.tensor([log(2) / 0.5, log(2) / 0.25, log(2) / 0.5, 1e4, 3.0]),
        "rgb": torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.25, 0.5, 0.75], [1, 1, 1]]),
        "t": torch.tensor([1.0, 2.0, 4.0, 3.0, 3.1]),
        "dt": dt,
        "offsets": torch.tensor([0, 3, 3, 5]),
    }


def random_samples(rays, longest=40, opaque=False, channels=3):
    counts = torch.randint(longest + 1, (rays,)) * (torch.rand(rays) < 0.8)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    total = int(offsets[-1])
    scale = 300.0 if opaque else 8.0
    t = 2 + torch.rand(total)
    return {
        "density": torch.rand(total) ** 4 * scale,
        "rgb": torch.rand(total, channels),
        "t": t,
        "dt": 0.01 + 0.02 * torch.rand(total),
        "offsets": offsets,
    }


def run(implementation, samples, upstream, least_share=0.0):
    """The four outputs, and the gradients of density and rgb, brought back to the CPU."""
    device = device_of(implementation)
    samples = {name: value.detach().to(device, copy=True) for name, value in samples.items()}
    density, rgb = samples.pop("density").requires_grad_(), samples.pop("rgb").requires_grad_()
    result = composite(density, rgb, **samples, least_share=least_share, implementation=implementation)
    torch.autograd.backward(list(result[:3]), [grad.to(device) for grad in upstream])
    return [output.detach().cpu() for output in result], [density.grad.cpu(), rgb.grad.cpu()]


def forward(implementation, samples):
    """The four outputs, brought back to the CPU."""
    device = device_of(implementation)
    result = composite(**{name: value.to(device) for name, value in samples.items()}, implementation=implementation)
    return Composite(*(output.cpu() for output in result))


def random_upstream(samples):
    rays, channels = len(samples["offsets"]) - 1, samples["rgb"].shape[1]
    return torch.randn(rays, channels), torch.randn(rays), torch.randn(rays)


@IMPLEMENTATIONS
def test_five_samples_by_hand(implementation):
    result = forward(implementation, five_samples())
    assert result.weights.tolist() == pytest.approx([0.5, 0.25, 0.125, 1, 0], abs=1e-6)
    assert result.alpha.tolist() == pytest.approx([0.875, 0, 1], abs=1e-6)
    assert result.distance.tolist() == pytest.approx([0.5 + 0.5 + 0.5, 0, 3], abs=1e-6)
    expected = torch.tensor([[0.5, 0.25, 0.125], [0, 0, 0], [0.25, 0.5, 0.75]])
    torch.testing.assert_close(result.rgb, expected, atol=1e-6, rtol=0)


@IMPLEMENTATIONS
def test_gradients_by_hand(implementation):
    upstream = [torch.zeros(3, 3), torch.zeros(3), torch.ones(3)]
    upstream[0][0, 1] = 1  # of the loss distance.sum() + rgb[0, 1]
    _, (density_grad, rgb_grad) = run(implementation, five_samples(), upstream)
    # On ray 0 the weight of sample j falls by dt_i w_j with the density of a sample i before it, and sample i's own
    # rises by dt_i T_(i+1): T = 1/2, 1/4, 1/8. Its value is t, plus 1 for the green sample.
    by_hand = [0.5 * (0.5 * 1 - 0.25 * 3 - 0.125 * 4), 0.25 * (0.25 * 3 - 0.125 * 4), 0.5 * 0.125 * 4, 0, 0]
    assert density_grad.tolist() == pytest.approx(by_hand, abs=1e-6)
    expected = torch.zeros(5, 3)
    expected[:3, 1] = torch.tensor([0.5, 0.25, 0.125])
    torch.testing.assert_close(rgb_grad, expected, atol=1e-6, rtol=0)


def test_torch_reference_by_finite_differences():
    samples = {name: value.double() if value.is_floating_point() else value for name, value in five_samples().items()}
    samples["density"][3] = 2.0
    density, rgb = samples.pop("density").requires_grad_(), samples.pop("rgb").requires_grad_()

    def function(density, rgb):
        return composite(density, rgb, **samples, implementation="torch")[:3]

    assert torch.autograd.gradcheck(function, (density, rgb))


@pytest.mark.parametrize("opaque", [False, True])
@pytest.mark.parametrize(
    ("twin", "rays"),
    [
        *(("numba", rays) for rays in (0, 1, 7, 8, 9, 63, 64, 65, 1001)),
        # A program of Triton's takes 8 rays.
        *(pytest.param("triton", rays, marks=needs_triton) for rays in (0, 1, 7, 8, 9, 33)),
    ],
)
def test_twins_equal_torch(twin, rays, opaque):
    samples = random_samples(rays, opaque=opaque)
    upstream = random_upstream(samples)
    outputs, grads = run("torch", samples, upstream)
    twin_outputs, twin_grads = run(twin, samples, upstream)
    for twin, expected in zip(twin_outputs + twin_grads, outputs + grads, strict=True):
        torch.testing.assert_close(twin, expected, atol=2e-6, rtol=2e-5)


@TWINS
@pytest.mark.parametrize("channels", [1, 15])
def test_other_channels_than_colour_are_composited_alike(twin, channels):
    samples = random_samples(9, channels=channels)
    samples["rgb"] = samples["rgb"] * 4 - 2
    upstream = random_upstream(samples)
    outputs, grads = run("torch", samples, upstream)
    assert outputs[0].shape == (9, channels)
    twin_outputs, twin_grads = run(twin, samples, upstream)
    for twin, expected in zip(twin_outputs + twin_grads, outputs + grads, strict=True):
        torch.testing.assert_close(twin, expected, atol=2e-6, rtol=2e-5)


@IMPLEMENTATIONS
def test_long_rays_conserve_energy(implementation):
    samples = random_samples(9, longest=600 if implementation == "triton" else 3000)
    result = forward(implementation, samples)
    ray = torch.repeat_interleave(torch.arange(9), samples["offsets"].diff())
    thickness = torch.zeros(9).index_add(0, ray, samples["density"] * samples["dt"])
    torch.testing.assert_close(result.alpha, -torch.expm1(-thickness), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.zeros(9).index_add(0, ray, result.weights), result.alpha, atol=1e-5, rtol=0)
    assert (result.weights >= 0).all()


@IMPLEMENTATIONS
def test_no_samples_at_all(implementation):
    device = device_of(implementation)
    offsets = torch.zeros(4, dtype=torch.int64, device=device)
    empty = torch.zeros(0, requires_grad=True, device=device)
    nothing = torch.zeros(0, device=device)
    result = composite(empty, nothing.view(0, 3), nothing, nothing, offsets, implementation=implementation)
    assert result.rgb.tolist() == [[0, 0, 0]] * 3
    assert result.alpha.tolist() == result.distance.tolist() == [0, 0, 0]
    assert result.weights.shape == (0,)
    result.alpha.sum().backward()
    assert empty.grad.shape == (0,)


@TWINS
def test_an_opaque_sample_behind_thin_ones_keeps_its_weight(twin):
    # Its thickness of 16 000 has an ulp of 1e-3: the transmittance in front must not be taken as a difference with it.
    samples = {
        "density": torch.tensor([20.0, 30.0, 3.2e6, 1.0]),
        "rgb": torch.rand(4, 3),
        "t": torch.arange(4.0),
        "dt": torch.full((4,), 0.005),
        "offsets": torch.tensor([0, 4]),
    }
    weights = forward(twin, samples).weights
    assert weights.tolist() == pytest.approx([1 - exp(-0.1), exp(-0.1) - exp(-0.25), exp(-0.25), 0], abs=2e-7)


@TWINS
def test_one_colour_for_all_samples_needs_no_copies(twin):
    samples = random_samples(21)
    one = torch.rand(3)
    spread = forward(twin, {**samples, "rgb": one.expand(len(samples["t"]), 3)})
    for ours, theirs in zip(spread, forward(twin, {**samples, "rgb": one.repeat(len(samples["t"]), 1)}), strict=True):
        assert torch.equal(ours, theirs)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_triton_on_samples_of_half_precision(dtype):
    samples = random_samples(33)
    samples.update({name: samples[name].to(dtype) for name in ("density", "rgb")})
    upstream = random_upstream(samples)
    whole = {name: value.float() if value.is_floating_point() else value for name, value in samples.items()}
    outputs, grads = run("torch", whole, upstream)
    twin_outputs, twin_grads = run("triton", samples, upstream)
    for twin, expected in zip(twin_outputs, outputs, strict=True):
        torch.testing.assert_close(twin, expected, atol=2e-6, rtol=2e-5)
    for twin, expected in zip(twin_grads, grads, strict=True):
        assert twin.dtype == dtype
        torch.testing.assert_close(twin.float(), expected, atol=1e-5, rtol=torch.finfo(dtype).eps)


@needs_gpu
@pytest.mark.parametrize("opaque", [False, True])
def test_triton_at_a_real_size(opaque):
    samples = random_samples(8193, longest=600, opaque=opaque)
    upstream = random_upstream(samples)
    results = [run(name, samples, upstream) for name in ("numba", "triton")]
    for (numba, triton), atol in zip(zip(*results, strict=True), (1e-5, 1e-4), strict=True):
        for one, two in zip(numba, triton, strict=True):
            torch.testing.assert_close(two, one, atol=atol, rtol=1e-4)


def test_same_bits_for_any_number_of_threads(use_threads):
    samples = random_samples(2000)
    upstream = random_upstream(samples)
    use_threads(1)
    single = run("numba", samples, upstream)
    use_threads(2)
    for ones, twos in zip(single, run("numba", samples, upstream), strict=True):
        assert all(torch.equal(one, two) for one, two in zip(ones, twos, strict=True))


@IMPLEMENTATIONS
def test_samples_beyond_the_last_ray_weigh_nothing_and_have_no_gradient(implementation):
    samples = random_samples(23)
    padded = {name: torch.cat([value, torch.rand(7, *value.shape[1:])]) for name, value in samples.items()}
    padded["offsets"] = samples["offsets"]
    upstream = random_upstream(samples)
    outputs, grads = run(implementation, samples, upstream)
    with_padding, padded_grads = run(implementation, padded, upstream)
    for name, plain, found in zip(Composite._fields, outputs, with_padding, strict=True):
        torch.testing.assert_close(found[: len(plain)], plain, msg=name)
    last = len(samples["t"])
    assert not with_padding[3][last:].any()
    for plain, found in zip(grads, padded_grads, strict=True):
        torch.testing.assert_close(found[:last], plain)
        assert not found[last:].any()


@IMPLEMENTATIONS
def test_finishing_a_picture(implementation):
    """A ray that was ended, one seen through, an empty one, one too bright, one of a broken student."""
    alpha = torch.tensor([0.996, 0.5, 0.0, 0.25, nan])
    rgb = alpha.nan_to_num(nan)[:, None] * torch.tensor([0.5, 0.25, 1.0])
    rgb[3] = 4.0
    rays = [part.to(device_of(implementation)) for part in (rgb, alpha, alpha * 3.0)]
    picture = [part.cpu() for part in finish(*rays, 0.005, (1.0, 0.0, 0.5), implementation=implementation)]
    bright = [1.0, 1.0, 1.0]
    colors = [[0.5, 0.25, 1.0], [0.75, 0.125, 0.75], [1.0, 0.0, 0.5], bright, [nan, nan, nan]]
    opacities, distances = [1.0, 0.5, 0.0, 0.25, nan], [3.0, 3.0, 0.0, 3.0, 0.0]
    for found, expected in zip(picture, (colors, opacities, distances), strict=True):
        torch.testing.assert_close(found, torch.tensor(expected), equal_nan=True, rtol=1e-6, atol=1e-6)


@IMPLEMENTATIONS
def test_finishing_where_rays_just_end_and_are_just_seen(implementation):
    """Half of the light left where rays end at half of it; and alphas around the least that has a distance, 1e-4."""
    alpha, distance = torch.tensor([0.5, 9e-5, 1.1e-4]), torch.tensor([1.5, 9e-5, 2.2e-4])
    rays = [part.to(device_of(implementation)) for part in (torch.zeros(3, 3), alpha, distance)]
    _, opacity, mean = finish(*rays, 0.5, (0.0, 0.0, 0.0), implementation=implementation)
    torch.testing.assert_close(opacity.cpu(), torch.tensor([1.0, 9e-5, 1.1e-4]))
    torch.testing.assert_close(mean.cpu(), torch.tensor([3.0, 0.0, 2.0]))


@IMPLEMENTATIONS
def test_samples_of_little_weight_have_no_gradient_and_the_others_the_same(implementation):
    torch.manual_seed(6)
    samples, share = random_samples(30, opaque=True), 0.1
    upstream = random_upstream(samples)
    outputs, whole = run(implementation, samples, upstream)
    same, part = run(implementation, samples, upstream, share)
    assert all(torch.equal(one, two) for one, two in zip(outputs, same, strict=True))
    weights, counts = outputs[3], samples["offsets"].diff()
    little = weights < torch.repeat_interleave(share * outputs[1] / counts, counts)
    assert 0.2 < little.float().mean() < 0.9
    for found, every in zip(part, whole, strict=True):
        assert not found[little].any() and every[little].any()
        assert torch.equal(found[~little], every[~little])
    # What is left out is as small as is promised: dL/dw, and the gradient by the logarithm of the density.
    ray = torch.repeat_interleave(torch.arange(30), counts)
    rgb, alpha, distance = upstream
    value = (rgb[ray] * samples["rgb"]).sum(1) + alpha[ray] + distance[ray] * samples["t"]
    largest = torch.zeros(30).scatter_reduce(0, ray, value.abs(), "amax")[ray]
    steep = (whole[0] * samples["density"]).abs()
    assert (steep <= 2 * weights * largest * 1.01 + 1e-5 * largest).all()
