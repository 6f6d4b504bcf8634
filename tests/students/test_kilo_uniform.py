import copy

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import normalize

from kernels.optimization.adam import adam_step
from settings.errors import InputError
from students.kilo_uniform import KiloUniformSettings, KiloUniformStudent
from tests.toy_configs import BRICKS, refusal

BOX = ((-1.0, 0.0, 2.0), (1.0, 1.0, 5.0))
SETTINGS = {
    "grid": (2, 3, 4),
    "frequencies": 3,
    "hidden_width": 16,
    "density_layers": 1,
    "color_layers": 1,
    "geo_features": 7,
    "direction_degree": 2,
}
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])


def make_student(implementation="auto", diverse=True, **changes):
    """A student, by default with a network of its own in every cell."""
    student = KiloUniformStudent(BOX, KiloUniformSettings(**{**SETTINGS, **changes}), implementation)
    if diverse:
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return student


def samples(count=65, rays=9):
    lower, upper = torch.tensor(BOX)
    positions = lower + torch.rand(count, 3) * (upper - lower)
    return positions, normalize(torch.randn(rays, 3), dim=1), torch.randint(rays, (count,))


def test_parameters_by_hand():
    student = make_student()
    # 3 + 18 channels and a bias -> 16 -> 7 + 1; 7 + 9 and a bias -> 16 -> 3.
    assert student.density_networks.shape == (24, 22 * 16 + 17 * 8)
    assert student.color_networks.shape == (24, 17 * 16 + 17 * 3)
    assert student.parameter_count() == 24 * (352 + 136 + 272 + 51)
    # Weight decay goes with the group `mlp`: what is fed with the direction, and nothing else.
    assert student.parameter_groups() == {"table": [student.density_networks], "mlp": [student.color_networks]}


def test_parameters_of_a_cell_at_the_sizes_of_the_prototype():
    sizes = {"frequencies": 6, "hidden_width": 32, "geo_features": 32, "direction_degree": 3}
    assert make_student(grid=(1, 1, 1), **sizes).parameter_count() == 4036


def test_the_direction_is_an_input_of_the_density_networks_by_hand():
    student = make_student(density_degree=1)
    assert student.density_networks.shape == (24, 25 * 16 + 17 * 8)  # 21 channels, 3 harmonics and a bias
    assert student.parameter_count() == 24 * KiloUniformStudent.parameters_of(
        KiloUniformSettings(**{**SETTINGS, "grid": (1, 1, 1)}, density_degree=1)
    )
    with torch.no_grad():
        student.density_networks.zero_()
        student.density_networks[:, 22 * 16] = 2.0  # of the second harmonic, along z, to the first neuron
        student.density_networks[:, 25 * 16 + 7] = 1.0  # of that neuron to raw density
    positions, directions = samples(3)[0], torch.tensor([[0.0, 0, 1], [0, 0.8, 0.6], [0.6, 0, -0.8]])
    # sqrt(3 / 4 pi) z; below zero the neuron leaks a hundredth.
    expected = pytest.approx([0.977205, 0.586323, -0.00781764], abs=1e-5)
    density, _ = student(positions, directions, torch.arange(3))
    assert density.log().tolist() == student.density(positions, directions).log().tolist() == expected
    # Without a direction harmonics are their mean over the sphere.
    assert student.density(positions).log().tolist() == pytest.approx([0.0] * 3)


def test_the_density_sees_no_more_of_the_direction_than_the_colour():
    with pytest.raises(ValidationError, match="at most direction_degree 2"):
        KiloUniformSettings(**SETTINGS, density_degree=3)


def test_every_cell_starts_from_the_same_network():
    student = make_student(diverse=False)
    for networks in (student.density_networks, student.color_networks):
        assert torch.equal(networks, networks[:1].expand_as(networks))
    # He-uniform first layer of 21 inputs, octaves weaker by half each, then its biases.
    weights, biases = student.density_networks[0, : 21 * 16].view(21, 16), student.density_networks[0, 336:352]
    bound = (6 / 21) ** 0.5
    for rows, scale in ((slice(0, 9), 1.0), (slice(9, 15), 0.5), (slice(15, 21), 0.25)):
        assert 0.9 * scale * bound < weights[rows].abs().max() <= scale * bound
    assert not biases.any()


@IMPLEMENTATIONS
def test_output_and_density(implementation):
    student = make_student(implementation)
    positions, directions, ray_index = samples(301)
    density, rgb = student(positions, directions, ray_index)
    assert density.shape == (301,) and rgb.shape == (301, 3)
    assert density.min() >= 0 and rgb.min() > 0 and rgb.max() < 1
    torch.testing.assert_close(student.density(positions), density.detach(), rtol=1e-4, atol=1e-5)
    assert not student.density(positions).requires_grad


@pytest.mark.parametrize("changes", [{}, {"density_degree": 2}])
def test_implementations_agree(changes):
    student = make_student("torch", **changes)
    twin = copy.deepcopy(student)
    twin.implementation = "numba"
    inputs = samples(301)
    upstream = torch.randn(301), torch.randn(301, 3)
    outputs = [model(*inputs) for model in (student, twin)]
    for result in outputs:
        torch.autograd.backward(result, upstream)
    for reference, found in zip(*outputs, strict=True):
        torch.testing.assert_close(found, reference, rtol=1e-3, atol=1e-4)
    for reference, found in zip(student.parameters(), twin.parameters(), strict=True):
        scale = float(reference.grad.abs().max())
        torch.testing.assert_close(found.grad, reference.grad, rtol=1e-3, atol=1e-4 * scale)


def test_no_samples():
    student = make_student()
    density, rgb = student(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert density.shape == (0,) and rgb.shape == (0, 3)
    (density.sum() + rgb.sum()).backward()
    assert student.density(torch.zeros(0, 3)).shape == (0,)


def test_a_step_moves_only_the_cells_that_had_samples():
    student = make_student(diverse=False)
    positions = torch.tensor([[-0.5, 0.5, 2.5]]).repeat(10, 1) + 0.1 * torch.rand(10, 3)  # cell (0, 1, 0)
    density, rgb = student(positions, normalize(torch.randn(1, 3), dim=1), torch.zeros(10, dtype=torch.int64))
    (density.sum() + rgb.sum()).backward()
    for parameter, touched in student.touched_rows().items():
        before = parameter.detach().clone()
        moments = torch.zeros_like(parameter), torch.zeros_like(parameter)
        with torch.no_grad():
            adam_step(
                parameter, parameter.grad, *moments, step=1, lr=0.1, betas=(0.9, 0.99), eps=1e-15, touched=touched
            )
        assert (parameter != before).any(1).nonzero()[:, 0].tolist() == [4]
        assert not touched.flags.any() and not parameter.grad.any()


def test_settings_and_weights_build_the_same_student_again():
    student = make_student()
    again = KiloUniformStudent(BOX, student.settings)
    again.load_state_dict(student.state_dict())
    inputs = samples()
    with torch.no_grad():
        for one, two in zip(student(*inputs), again(*inputs), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("grid: [2, 0, 2]", "student.grid: found [2, 0, 2], expected three numbers of cells, each at least 1"),
        ("grid: [2, 2]", "student.grid: found [2, 2], expected 3 values, each an integer"),
        ("hidden_width: 24", "student.hidden_width: found 24, expected one of `16`, `32`, `64`, `128`"),
        ("levels: 3", "student.levels: found an unknown key, expected one of kind, grid"),
    ],
)
def test_bad_settings(write, changes, message):
    assert message in str(refusal(write(BRICKS), f"student={{kind: kilo_uniform, {changes}}}"))


def test_more_networks_than_could_be_trained():
    # 811 parameters a cell, 16 bytes each while training: 1e9 cells are 811e9 * 16 / 2**30 GiB.
    message = "811,000,000,000 parameters that take 12,084.8 GiB to train, expected at most 8 GiB"
    with pytest.raises(InputError, match=f"student.grid: .*{message}"):
        make_student(grid=(1000, 1000, 1000))
    # 488 of these are the density network's; the 323 of deferred colours are there once.
    with pytest.raises(InputError, match="488,000,000,323 parameters that take 7,271.8 GiB"):
        make_student(grid=(1000, 1000, 1000), shading="deferred")


def test_inner_features_wait_for_the_number_of_points_of_each_network():
    student = make_student()
    assert student.waits_for("sample") == []
    assert student.waits_for("geo") == ["features.tap: geo, for the number of points of each network"]


def test_deferred_shading_waits_for_hidden_neurons_alone():
    student = make_student(shading="deferred")
    assert student.waits_for("geo") == []
    assert student.waits_for("hidden") == ["features.tap: hidden, for the number of points of each network"]
