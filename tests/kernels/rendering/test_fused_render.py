"""The fused renderers (in Triton's interpreter if need be) against the torch references of what they fuse."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from kernels.compositing.compositing import composite
from kernels.marching.ray_marching import march
from kernels.marching.ray_samples import Cells
from kernels.rendering.fused_render import FusedRenderer, fused_refusal
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings, KiloUniformStudent
from tests.triton_device import DEVICE, TRITON, device_of, needs_triton

BOX = ((-1.0, -0.8, -0.5), (1.0, 1.0, 0.7))
HASH = {
    "levels": 5, "features": 2, "table_size": 128, "base_resolution": 3, "finest_resolution": 12, "hidden_width": 20,
    "density_layers": 1, "color_layers": 2, "geo_features": 7, "direction_degree": 2, "density_degree": None,
}  # fmt: skip
KILO = {
    "grid": (2, 1, 3), "frequencies": 2, "hidden_width": 16, "density_layers": 2, "color_layers": 1, "geo_features": 5,
    "direction_degree": 1,
}  # fmt: skip


def hash_grid(**changes):
    """A student that differs from place to place, up to opaque within a bin."""
    settings = HashGridSettings.model_construct(**{**HASH, **changes})  # unchecked: more than configs may say
    student = HashGridStudent(BOX, settings, "torch")
    with torch.no_grad():
        student.table.uniform_(-1, 1)
        student.density_weights[-1][0] *= 6
    return student


def kilo_uniform(**changes):
    student = KiloUniformStudent(BOX, KiloUniformSettings(**{**KILO, **changes}), "torch")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return student


STUDENTS = pytest.mark.parametrize(
    "make",
    [
        hash_grid,
        kilo_uniform,
        lambda: hash_grid(shading="deferred", color_width=64),
        lambda: hash_grid(levels=12, planes=(9, 14)),
        lambda: hash_grid(density_degree=1),
        lambda: hash_grid(shading="deferred", color_width=64, density_degree=1),
        lambda: kilo_uniform(shading="deferred"),
        lambda: kilo_uniform(direction_degree=2, density_degree=2),
        lambda: kilo_uniform(shading="deferred", density_degree=1),
    ],
    ids=[
        "hash",
        "kilo",
        "hash_deferred",
        "hash_planes",
        "hash_seen",
        "hash_deferred_seen",
        "kilo_deferred",
        "kilo_seen",
        "kilo_deferred_seen",
    ],
)

# One for each way in which a ray's samples become its colour: where it ends is the same for all students of a way.
WAYS = pytest.mark.parametrize(
    "make",
    [
        hash_grid,
        lambda: hash_grid(shading="deferred", color_width=64, density_degree=1),
        kilo_uniform,
        lambda: kilo_uniform(shading="deferred", density_degree=1),
    ],
    ids=["hash", "hash_deferred_seen", "kilo", "kilo_deferred_seen"],
)


TWINS = pytest.mark.parametrize("implementation", ["numba", TRITON])


def make_cells(share=0.4):
    return Cells(BOX[0], 0.2, (torch.rand(10, 9, 6) < share).byte())


def make_rays(count):
    """From around the box to places in and near it; some intervals are empty, some begin or end inside."""
    origins = 2.5 * normalize(torch.randn(count, 3), dim=1)
    directions = normalize(1.2 * (torch.rand(count, 3) - 0.5) - origins, dim=1)
    near = 1.2 + 0.6 * torch.rand(count)
    return origins, directions, near, near + (2.2 * torch.rand(count) - 0.2)


def reference(student, rays, cells, step, limit, termination=0.0):
    """Rgb, alpha, distance and the number of samples of each ray; a ray ends where its transmittance says so."""
    samples = march(*rays, cells, step=step, limit=limit, implementation="torch")
    with torch.no_grad():
        density, channels, _ = student.emission(samples.positions, rays[1], samples.ray_index)
    weights = composite(density, channels, samples.t, samples.dt, samples.offsets, implementation="torch").weights
    before = torch.cat([torch.zeros(1), weights.double().cumsum(0)])
    reached = 1 - (before[:-1] - before[samples.offsets[:-1]][samples.ray_index])
    density = density * (reached > termination)
    result = composite(density, channels, samples.t, samples.dt, samples.offsets, implementation="torch")
    with torch.no_grad():
        rgb = student.rgb_of_rays(result.rgb, result.alpha, rays[1])
    return (rgb, result.alpha, result.distance), samples.offsets.diff()


def fused(student, rays, cells, width, step, limit, implementation="triton", termination=0.0, precision=torch.float32):
    device = device_of(implementation)
    field = student.to(device).fused_field()
    cells = replace(cells, occupied=cells.occupied.to(device))
    rays = (part.to(device) for part in rays)
    render = FusedRenderer(field, cells, precision, implementation)
    picture = render(*rays, width=width, step=step, limit=limit, termination=termination)
    student.cpu()
    return [part.cpu() for part in picture]


def assert_same(found, expected, atol=2e-5):
    for part, other in zip(found, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=atol)


@TWINS
@STUDENTS
def test_rays_are_what_the_kernels_one_after_another_make_of_them(make, implementation):
    student, cells, rays = make(), make_cells(), make_rays(34)
    expected, counts = reference(student, rays, cells, 0.2, 1000)
    assert (counts == 0).any() and counts.max() > 3
    assert (expected[1] > 0.99).any() and ((expected[1] > 0.1) & (expected[1] < 0.9)).any()
    assert_same(fused(student, rays, cells, 17, 0.2, 1000, implementation), expected)


@TWINS
def test_a_table_that_is_columns_of_another_tensor_is_read(implementation):
    # As wide entries as there are, for which numba compiles its kernel anew; the interpreter takes long with them.
    width = 8 if implementation == "numba" else 1
    student, cells, rays = hash_grid(features=width), make_cells(), make_rays(34)
    student.table = nn.Parameter((2 * torch.rand(len(student.table), 2 * width) - 1)[:, ::2])
    expected, _ = reference(student, rays, cells, 0.06, 1000)
    assert_same(fused(student, rays, cells, 17, 0.06, 1000, implementation), expected)


@TWINS
@pytest.mark.parametrize(("count", "width"), [(1, 1), (5, 5), (18 * 17, 18)])
def test_pictures_of_any_size(count, width, implementation):
    """A slot takes ray after ray, and the last picture has four squares of pixels."""
    student, cells, rays = hash_grid(), make_cells(0.1), make_rays(count)
    expected, _ = reference(student, rays, cells, 0.2, 3)
    assert_same(fused(student, rays, cells, width, 0.2, 3, implementation), expected)


@needs_triton
def test_a_picture_whose_bins_are_found_in_parts_is_the_same(monkeypatch):
    from kernels.rendering import picture_bins_triton

    student, cells, rays = hash_grid(), make_cells(0.1), make_rays(18 * 17)
    whole = fused(student, rays, cells, 18, 0.2, 1000)
    monkeypatch.setattr(picture_bins_triton, "_MOST_RUNS", 1)
    assert_same(fused(student, rays, cells, 18, 0.2, 1000), whole, atol=1e-6)


@TWINS
@STUDENTS
def test_no_rays(make, implementation):
    picture = fused(make(), make_rays(0), make_cells(), 4, 0.1, 10, implementation)
    assert [part.shape for part in picture] == [(0, 3), (0,), (0,)]


@needs_triton
@pytest.mark.parametrize(
    ("levels", "planes", "expected", "padded"),
    [
        (16, (), [(0, 16, False)], [32]),
        (16, (9, 14), [(0, 16, False), (16, 22, True)], [32, 16]),
        (7, (9, 14), [(0, 7, False), (7, 13, True)], [16, 16]),
        (20, (9, 14), [(0, 16, False), (16, 20, False), (20, 26, True)], [32, 16, 16]),
    ],
)
def test_triton_encodes_sixteen_levels_at_most_together_and_planes_apart(levels, planes, expected, padded):
    """32 took registers from everything else, and of a plane half as many corners are looked up."""
    from kernels.rendering.fused_hash_triton import Prepared

    field = hash_grid(levels=levels, planes=planes, density_degree=1).fused_field()
    options = Prepared(field, torch.float32)._options
    assert [*options["LEVELS"]] == expected
    widths = [2 * (end - first) for first, end, _ in expected]
    lows, highs, _, pads = options["DENSITY"][3:]
    assert [high - low for low, high in zip(lows, highs, strict=True)] == [*widths, 3]  # the harmonics
    assert [*pads] == [*padded, 16]


@TWINS
@WAYS
def test_a_ray_ends_at_its_last_sample_allowed(make, implementation):
    student, cells, rays = make(), make_cells(1.0), make_rays(12)
    _, counts = reference(student, rays, cells, 0.1, 1000)
    expected, limited = reference(student, rays, cells, 0.1, 2)
    assert (counts > 2).any() and limited.max() == 2
    assert_same(fused(student, rays, cells, 4, 0.1, 2, implementation), expected)


@TWINS
@WAYS
def test_a_ray_ends_at_the_sample_that_leaves_too_little_of_it(make, implementation):
    student, cells, rays = make(), make_cells(1.0), make_rays(20)
    whole, _ = reference(student, rays, cells, 0.2, 1000)
    expected, _ = reference(student, rays, cells, 0.2, 1000, termination=0.3)
    assert ((whole[1] - expected[1]) > 1e-3).any()
    assert_same(fused(student, rays, cells, 5, 0.2, 1000, implementation, termination=0.3), expected)


@TWINS
def test_fog_is_seen_though_no_sample_weighs_a_thousandth(implementation):
    student, rays, cells = hash_grid(), make_rays(40), make_cells(1.0)
    student.density_unit = 2.0**-15
    expected, _ = reference(student, rays, cells, 0.02, 200)
    assert 3e-4 < expected[1].max() < 1e-3
    assert_same(fused(student, rays, cells, 8, 0.02, 200, implementation), expected, atol=5e-5)


@TWINS
def test_empty_space_is_crossed_without_missing_a_bin(implementation):
    """Bins much smaller than cells, few cells occupied, edges that are no multiple of a coarse cell's."""
    student, rays = hash_grid(levels=1, color_layers=1), make_rays(16)
    cells = make_cells(0.02)
    expected, counts = reference(student, rays, cells, 0.037, 1000)
    assert counts.max() > 3 and (counts == 0).any()
    assert_same(fused(student, rays, cells, 8, 0.037, 1000, implementation), expected)


@TWINS
@pytest.mark.parametrize(
    "make",
    [hash_grid, kilo_uniform, partial(hash_grid, shading="deferred"), partial(kilo_uniform, shading="deferred")],
    ids=["hash", "kilo", "hash_deferred", "kilo_deferred"],
)
def test_half_precision_stays_within_a_grey_level(make, implementation):
    student, cells, rays = make(), make_cells(), make_rays(40)
    exact, _ = reference(student, rays, cells, 0.3, 1000)
    half = fused(student, rays, cells, 8, 0.3, 1000, implementation, precision=torch.float16)
    error = (half[0] - exact[0]).abs()
    assert error.max() < 2 / 255
    assert error.max() > 1e-5 or student.kind == "kilo_uniform", "networks of cells are float32 on the CPU"
    assert (error.amax(1) < 1 / 255).float().mean() > 0.95


@TWINS
def test_finite_weights_beyond_half_precision_give_finite_pictures(implementation):
    student, cells, rays = hash_grid(), make_cells(), make_rays(40)
    with torch.no_grad():
        student.table.mul_(1e7)
        student.density_weights[0].mul_(1e6)
    exact, _ = reference(student, rays, cells, 0.3, 1000)
    half = fused(student, rays, cells, 8, 0.3, 1000, implementation, precision=torch.float16)
    assert all(part.isfinite().all() for part in half)
    torch.testing.assert_close(half[1], exact[1], rtol=0, atol=1e-4)


@needs_triton
def test_what_does_not_fit_is_refused():
    student, cells, rays = hash_grid(), make_cells(), make_rays(6)
    with pytest.raises(ValueError, match="width: found 4"):
        fused(student, rays, cells, 4, 0.1, 10)
    assert fused_refusal(student.fused_field(), DEVICE, "triton") is None
    assert "kind of student" in fused_refusal(None, DEVICE)
    wide_color = hash_grid(shading="deferred", color_width=80).fused_field()
    assert "64 wide, found 80" in fused_refusal(wide_color, DEVICE, "triton")
    assert "power of two" in fused_refusal(hash_grid(features=3).fused_field(), DEVICE, "triton")
    assert "64 wide, found 160" in fused_refusal(hash_grid(levels=20, features=8).fused_field(), DEVICE, "triton")
    beside_harmonics = hash_grid(levels=16, features=4, hidden_width=64, density_degree=2).fused_field()
    assert fused_refusal(beside_harmonics, DEVICE, "triton") is None
    wide = kilo_uniform(geo_features=140)
    assert "found 144" in fused_refusal(wide.fused_field(), DEVICE, "triton")
    with pytest.raises(ValueError, match="found 144"):
        fused(wide, rays, cells, 6, 0.1, 10)


def test_triton_wants_a_gpu(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    field, cpu = hash_grid().fused_field(), torch.device("cpu")
    assert fused_refusal(field, cpu) is None
    assert "CUDA device" in fused_refusal(field, cpu, "triton")
    assert "no torch" in fused_refusal(field, cpu, "torch")


def test_wide_networks():
    rays, cells = make_rays(70), make_cells(1.0)
    for student in (hash_grid(hidden_width=160), kilo_uniform(hidden_width=128)):
        expected, counts = reference(student, rays, cells, 0.2, 1000)
        assert counts.sum() > 200
        assert_same(fused(student, rays, cells, 10, 0.2, 1000, "numba"), expected, atol=1e-4)


def test_a_tile_leaps_to_what_any_of_its_rays_meets():
    """Rays side by side through a large empty grid, one cell of which a few of them meet."""
    student = hash_grid(levels=1, color_layers=1)
    occupied = torch.zeros(80, 72, 48, dtype=torch.uint8)
    occupied[41, 37, 11] = occupied[44, 39, 30] = 1
    cells, (row, column) = Cells(BOX[0], 0.025, occupied), torch.meshgrid(*[torch.arange(40)] * 2, indexing="ij")
    directions = normalize(
        torch.stack([(column - 19.5) / 400, (row - 19.5) / 400, -torch.ones(40, 40)], -1).view(-1, 3), dim=1
    )
    origins, near = torch.tensor([0.03, 0.1, 2.2]).expand(1600, 3), torch.full((1600,), 0.5)
    rays = origins, directions, near, near + 4
    expected, counts = reference(student, rays, cells, 0.01, 1000)
    assert 3 < (counts > 0).sum() < 100
    assert_same(fused(student, rays, cells, 40, 0.01, 1000, "numba"), expected)


def test_numba_renders_the_same_picture_on_any_number_of_threads(use_threads):
    student, cells, rays = kilo_uniform(), make_cells(), make_rays(40 * 36)
    pictures = []
    for threads in (1, 3):
        use_threads(threads)
        pictures.append(fused(student, rays, cells, 40, 0.2, 1000, "numba"))
    assert all(torch.equal(one, other) for one, other in zip(*pictures, strict=True))
