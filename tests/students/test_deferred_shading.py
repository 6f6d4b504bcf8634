"""A colour network that is run once per ray: for one sample the same as per sample, exact for many, blending right."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from kernels.compositing.compositing import composite
from students import STUDENTS
from students.base import Student

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
OWN = {
    "hash_grid": {"levels": 3, "features": 2, "table_size": 256, "base_resolution": 4, "finest_resolution": 16},
    "kilo_uniform": {"grid": (2, 2, 3), "frequencies": 2},
}
MLPS = {"hidden_width": 16, "density_layers": 1, "color_layers": 1, "geo_features": 5, "direction_degree": 2}
COUNTS = torch.tensor([3, 0, 1, 6])  # samples of four rays


def student_of(kind: str, implementation: str = "auto", **changes) -> Student:
    torch.manual_seed(0)
    settings = STUDENTS[kind].Settings(**OWN[kind], **MLPS, **{"shading": "deferred", **changes})
    student = STUDENTS[kind](BOX, settings, implementation)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return student


@pytest.fixture(params=["hash_grid", "kilo_uniform"])
def kind(request) -> str:
    return request.param


def samples() -> tuple:
    """Positions, directions, ray of each sample, its distance and length, the rays' offsets."""
    torch.manual_seed(1)
    count = int(COUNTS.sum())
    ray_index, offsets = torch.arange(4).repeat_interleave(COUNTS), torch.cat([torch.zeros(1).long(), COUNTS.cumsum(0)])
    directions = normalize(torch.randn(4, 3), dim=1)
    return torch.rand(count, 3) * 2 - 1, directions, ray_index, torch.rand(count), torch.full((count,), 0.3), offsets


def rendered(student: Student, implementation: str = "auto") -> tuple:
    positions, directions, ray_index, t, dt, offsets = samples()
    density, channels, _ = student.emission(positions, directions, ray_index)
    result = composite(density, channels, t, dt, offsets, implementation=implementation)
    return student.rgb_of_rays(result.rgb, result.alpha, directions), result, density


def test_settings_choose_it_and_per_sample_is_the_default(kind) -> None:
    assert student_of(kind).deferred and student_of(kind).channels == 5
    plain = STUDENTS[kind](BOX, STUDENTS[kind].Settings(**OWN[kind], **MLPS))
    assert not plain.deferred and plain.channels == 3


def test_a_ray_is_the_colour_of_its_mean_features_times_alpha(kind) -> None:
    student = student_of(kind)
    positions, directions, ray_index, *_ = samples()
    with torch.no_grad():
        rgb, result, _ = rendered(student)
        geo = student.emission(positions, directions, ray_index)[1]
        for ray, mine in enumerate(torch.arange(len(positions)).split(COUNTS.tolist())):
            weights = result.weights[mine]
            mean = (weights[:, None] * geo[mine]).sum(0) / weights.sum().clamp(min=1e-8)
            expected = weights.sum() * student.shade(mean[None], directions[ray][None])[0]
            torch.testing.assert_close(rgb[ray], expected, atol=1e-5, rtol=0)
    assert not rgb[1].any() and (rgb[3] > 0).all()


def test_a_ray_with_one_sample_has_that_samples_colour_times_alpha(kind) -> None:
    """So a silhouette blends with what is behind it as it does per sample."""
    student = student_of(kind)
    with torch.no_grad():
        rgb, result, _ = rendered(student)
        point = student(*samples()[:3])[1][3]
    torch.testing.assert_close(rgb[2], result.alpha[2] * point, atol=1e-6, rtol=0)


def test_a_hash_grid_has_the_points_of_its_per_sample_twin() -> None:
    deferred, plain = student_of("hash_grid"), student_of("hash_grid", shading="per_sample")
    for one, other in zip(deferred(*samples()[:3]), plain(*samples()[:3]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_all_cells_share_one_colour_network() -> None:
    student = student_of("kilo_uniform")
    assert student.color_networks.shape == (1, student.layout.color_size)
    assert student.networks_with_a_common_part() == () and list(student.touched_rows()) == [student.density_networks]
    rgb = rendered(student)[0]
    rgb.sum().backward()
    assert student.color_networks.grad.any() and student.density_networks.grad.any()


def test_gradients_are_exact_through_the_division(kind) -> None:
    """Against torch's own in every kernel, of colour, alpha and distance together."""
    grads, upstream = [], torch.randn(4, 3)
    for implementation in ("torch", "numba"):
        student = student_of(kind, implementation)
        rgb, result, _ = rendered(student, implementation)
        ((rgb * upstream).sum() + result.alpha.square().sum() + result.distance.sum()).backward()
        grads.append([parameter.grad for parameter in student.parameters()])
    for mine, reference in zip(grads[1], grads[0], strict=True):
        scale = max(1e-3, reference.abs().max().item())
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-4 * scale)


def test_the_mean_is_differentiated_as_finite_differences_say() -> None:
    student = student_of("hash_grid", "torch").double()
    student.precision = torch.float64
    directions = normalize(torch.randn(3, 3, dtype=torch.float64), dim=1)
    channels = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor([1.0, 0.3, 1e-2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: student.rgb_of_rays(*given, directions), (channels, alpha))


def test_rays_that_see_nothing_have_finite_gradients(kind) -> None:
    student = student_of(kind)
    channels, alpha = torch.zeros(2, 5, requires_grad=True), torch.zeros(2, requires_grad=True)
    rgb = student.rgb_of_rays(channels, alpha, torch.tensor([[0.0, 0, 1]]).expand(2, 3))
    assert not rgb.any()
    rgb.sum().backward()
    assert channels.grad.isfinite().all() and alpha.grad.isfinite().all()


def test_a_thin_ray_has_a_dense_ones_colour(kind) -> None:
    """Down to where its alpha is far less than pictures show: there a colour that faded would hide what it is of."""
    features, directions = torch.randn(4, 5), normalize(torch.randn(4, 3), dim=1)
    alphas = torch.tensor([0.5, 1e-3, 1e-5, 1e-7])[:, None]
    for implementation in ("torch", "numba"):
        student = student_of(kind, implementation)
        colors = [student.rgb_of_rays(features * alpha, alpha.expand(4), directions) / alpha for alpha in alphas]
        for color in colors[1:]:
            torch.testing.assert_close(color, colors[0], rtol=1e-4, atol=1e-6)
