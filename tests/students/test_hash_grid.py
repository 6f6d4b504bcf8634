import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import normalize

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.networks.radiance_mlp import truncated_exp
from students.hash_grid import HashGridSettings, HashGridStudent

BOX = ((-1.0, 0.0, 2.0), (3.0, 1.0, 4.0))
SETTINGS = {
    "levels": 4,
    "features": 2,
    "table_size": 512,
    "base_resolution": 4,
    "finest_resolution": 32,
    "hidden_width": 16,
    "density_layers": 1,
    "color_layers": 2,
    "geo_features": 7,
    "direction_degree": 2,
}


def make_student(implementation="auto", **changes):
    return HashGridStudent(BOX, HashGridSettings(**{**SETTINGS, **changes}), implementation)


def samples(count=65, rays=9):
    lower, upper = torch.tensor(BOX)
    positions = lower + torch.rand(count, 3) * (upper - lower)
    return positions, normalize(torch.randn(rays, 3), dim=1), torch.randint(rays, (count,))


def test_the_longest_side_of_the_box_spans_the_unit():
    unit = make_student().unit_positions(torch.tensor([[-1.0, 0, 2], [3, 1, 4], [1, 0.5, 3]]))
    assert unit.tolist() == [[0, 0, 0], [1, 0.25, 0.5], [0.5, 0.125, 0.25]]


def test_parameters_by_hand():
    student = make_student()
    # 64 + 512 dense and 2 * 512 hashed entries; 8 encoded channels -> 16 -> 1 + 7; 7 + 9 -> 16 -> 16 -> 3.
    assert student.table.shape == (1600, 2)
    assert [tuple(weight.shape) for weight in student.density_weights] == [(16, 8), (8, 16)]
    assert [tuple(weight.shape) for weight in student.color_weights] == [(16, 16), (16, 16), (3, 16)]
    assert student.parameter_count() == 3200 + 128 + 128 + 256 + 256 + 48
    groups = student.parameter_groups()
    assert {name: len(group) for name, group in groups.items()} == {"table": 1, "mlp": 5}
    assert {id(parameter) for group in groups.values() for parameter in group} == {
        id(parameter) for parameter in student.parameters()
    }


def test_planes_by_hand():
    student = make_student(planes=(8, 32))
    # 1600 entries of grids as above; three planes of 64 vertices, and three of 1024, of which 512 entries are left.
    assert student.table.shape == (1600 + 3 * 64 + 3 * 512, 2)
    assert student.density_weights[0].shape == (16, 20)  # 4 + 6 levels of two features
    assert student.parameter_count() == HashGridStudent.parameters_of(HashGridSettings(**SETTINGS, planes=(8, 32)))


def test_the_direction_is_an_input_of_the_density_network_by_hand():
    student = make_student(density_degree=1)
    assert student.density_weights[0].shape == (16, 11)  # 8 encoded channels and 3 harmonics
    assert student.parameter_count() == HashGridStudent.parameters_of(HashGridSettings(**SETTINGS, density_degree=1))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
        student.density_weights[0][0, 9] = 2.0  # the second, along z
        student.density_weights[1][0, 0] = 1.0
    positions, directions = samples(3)[0], torch.tensor([[0.0, 0, 1], [0, 0.8, 0.6], [0.6, 0, -0.8]])
    # sqrt(3 / 4 pi) z; below zero the neuron is off.
    expected = pytest.approx([0.977205, 0.586323, 0.0], abs=1e-5)
    density, _ = student(positions, directions, torch.arange(3))
    assert density.log().tolist() == student.density(positions, directions).log().tolist() == expected
    # Without a direction harmonics are their mean over the sphere.
    assert student.density(positions).log().tolist() == pytest.approx([0.0] * 3)


def test_the_density_sees_no_more_of_the_direction_than_the_colour():
    with pytest.raises(ValidationError, match="at most direction_degree 2"):
        HashGridSettings(**SETTINGS, density_degree=3)


def test_the_colour_network_has_a_width_of_its_own():
    student = make_student(color_width=32)
    assert [tuple(weight.shape) for weight in student.density_weights] == [(16, 8), (8, 16)]
    assert [tuple(weight.shape) for weight in student.color_weights] == [(32, 16), (32, 32), (3, 32)]
    assert student.parameter_count() == HashGridStudent.parameters_of(HashGridSettings(**SETTINGS, color_width=32))


def test_initial_values():
    student = make_student()
    assert student.table.abs().max() <= 1e-4
    assert student.table.std().item() == pytest.approx(1e-4 / 3**0.5, rel=0.05)
    # He: uniform within sqrt(6 / fan_in).
    for weight in (*student.density_weights, *student.color_weights):
        bound = (6 / weight.shape[1]) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound
    # So a fresh field is nearly uniform.
    density, rgb = student(*samples())
    assert ((density - 1).abs() < 0.01).all()
    assert ((rgb > 0) & (rgb < 1)).all()


def test_the_same_seed_gives_the_same_student():
    students = []
    for _ in range(2):
        torch.manual_seed(3)
        students.append(make_student().state_dict())
    assert all(torch.equal(students[0][name], students[1][name]) for name in students[0])


def test_one_entry_of_the_table_followed_through_the_field():
    # Only level 0 speaks, at vertex (1, 1, 1); the density MLP hands it on as raw density, the colours stay at 1/2.
    student = make_student()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
        student.table[1 + 4 * (1 + 4 * 1), 0] = 2.0
        student.density_weights[0][0, 0] = 1.0
        student.density_weights[1][0, 0] = 1.5
    lower, longest = torch.tensor(BOX[0]), 4.0
    # On the grid at 3 u + 0.5: the vertex itself, half way to the next in x, and half way in all three axes.
    unit = torch.tensor([[1 / 6, 1 / 6, 1 / 6], [1 / 3, 1 / 6, 1 / 6], [1 / 3, 1 / 3, 1 / 3]])
    density, rgb = student(lower + longest * unit, torch.tensor([[0.0, 0, 1]]), torch.zeros(3, dtype=torch.int64))
    assert density.log().tolist() == pytest.approx([3.0, 1.5, 0.375], abs=1e-4)
    assert rgb.tolist() == [[0.5] * 3] * 3
    assert student.density(lower + longest * unit).log().tolist() == pytest.approx([3.0, 1.5, 0.375], abs=1e-4)


def test_colour_depends_on_the_direction_and_density_does_not():
    student = make_student()
    position = torch.tensor([[0.5, 0.5, 3.0]]).expand(2, 3)
    directions = torch.tensor([[0.0, 0, 1], [0, 0.6, -0.8]])
    density, rgb = student(position, directions, torch.tensor([0, 1]))
    assert density[0] == density[1]
    assert (rgb[0] - rgb[1]).abs().max() > 0.01
    basis = sh_basis(directions, 2)
    hidden = torch.relu(student._encode(position) @ student.density_weights[0].T) @ student.density_weights[1].T
    layer = torch.cat([hidden[:, 1:], basis], dim=1)
    for weight in student.color_weights[:-1]:
        layer = torch.relu(layer @ weight.T)
    torch.testing.assert_close(rgb, torch.sigmoid(layer @ student.color_weights[-1].T), atol=1e-5, rtol=0)
    torch.testing.assert_close(density, truncated_exp(hidden[:, 0]), atol=0, rtol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"planes": (8, 32), "density_degree": 2}, {"density_degree": 1, "shading": "deferred"}]
)
def test_implementations_share_weights_values_and_gradients(changes):
    reference, twin = make_student("torch", **changes), make_student("numba", **changes)
    with torch.no_grad():
        reference.table.uniform_(-1, 1)
    twin.load_state_dict(reference.state_dict())
    inputs = samples()
    upstream = torch.randn(65), torch.randn(65, 3)
    outputs = []
    for student in (reference, twin):
        outputs.append(student(*inputs))
        torch.autograd.backward(list(outputs[-1]), list(upstream))
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    for one, other in zip(reference.parameters(), twin.parameters(), strict=True):
        scale = one.grad.abs().max().item()
        torch.testing.assert_close(one.grad, other.grad, atol=1e-3 * scale, rtol=0)
    torch.testing.assert_close(reference.density(inputs[0]), twin.density(inputs[0]), atol=1e-4, rtol=1e-3)
    assert not reference.density(inputs[0]).requires_grad


def test_touched_rows_are_those_of_the_table():
    student = make_student("numba")
    density, rgb = student(*samples(2))
    assert not student.touched_rows()[student.table].flags.any()
    (density.sum() + rgb.sum()).backward()
    flags = student.touched_rows()[student.table].flags
    assert list(student.touched_rows()) == [student.table]
    assert 0 < flags.sum() <= 2 * 4 * 8  # two points, four levels, eight corners


def test_no_samples_give_zero_gradients():
    student = make_student()
    density, rgb = student(torch.zeros(0, 3), torch.tensor([[0.0, 0, 1]]), torch.zeros(0, dtype=torch.int64))
    assert density.shape == (0,)
    assert rgb.shape == (0, 3)
    (density.sum() + rgb.sum()).backward()
    assert all(not parameter.grad.any() for parameter in student.parameters())
    assert student.density(torch.zeros(0, 3)).shape == (0,)


def test_settings_build_the_same_student_again():
    student = make_student(features=8, hidden_width=8)
    again = HashGridStudent(BOX, student.settings)
    again.load_state_dict(student.state_dict())
    inputs = samples()
    for one, other in zip(student(*inputs), again(*inputs), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(again.box, torch.tensor(BOX))


def test_every_step_is_alike_and_none_waits():
    assert make_student().waits_for("geo") == []
