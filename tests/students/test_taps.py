"""What students show of their internal features: the same field, each activation as wide as it says."""

from __future__ import annotations

import pytest
import torch

from students import STUDENTS
from students.base import TAPS, Student

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
HASH = {"levels": 3, "features": 2, "table_size": 256, "base_resolution": 4, "finest_resolution": 16}
MLPS = {"hidden_width": 16, "density_layers": 1, "color_layers": 1, "geo_features": 5, "direction_degree": 2}


def student_of(kind: str, shading: str = "per_sample") -> Student:
    torch.manual_seed(0)
    own = HASH if kind == "hash_grid" else {"grid": (2, 2, 3), "frequencies": 2}
    student = STUDENTS[kind]
    return student(BOX, student.Settings(**own, **MLPS, shading=shading))


@pytest.fixture(
    params=[(kind, shading) for kind in ("hash_grid", "kilo_uniform") for shading in ("per_sample", "deferred")]
)
def student(request) -> Student:
    return student_of(*request.param)


@pytest.fixture
def asked() -> tuple:
    torch.manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(6, 3), dim=-1)
    return torch.rand(400, 3) * 2 - 1, directions, torch.randint(6, (400,))


def test_the_field_is_the_same_with_taps(student, asked) -> None:
    plain, tapped = student.emission(*asked), student.emission(*asked, TAPS)
    assert torch.equal(plain[0], tapped[0]) and torch.equal(plain[1], tapped[1])
    assert {tap: values.shape for tap, values in tapped[2].items()} == {
        tap: (400, student.tap_width(tap)) for tap in TAPS
    }


def test_activations_are_float32_whatever_the_factors_are(student, asked) -> None:
    exact = student.emission(*asked, TAPS)[2]
    with student.computing_in(torch.bfloat16):
        found = student.emission(*asked, TAPS)[2]
    for tap, values in found.items():
        assert values.dtype == torch.float32
        assert (values - exact[tap]).norm() < 0.03 * exact[tap].norm()


def test_only_what_is_asked_for_is_given(student, asked) -> None:
    assert set(student.emission(*asked, ("geo",))[2]) == {"geo"}


def test_a_sample_is_its_colour_and_log_density(student, asked) -> None:
    (density, rgb), taps = student(*asked), student.emission(*asked, ("sample",))[2]
    assert torch.equal(taps["sample"][:, :3], rgb)
    torch.testing.assert_close(taps["sample"][:, 3].exp(), density, rtol=1e-4, atol=1e-5)


def test_the_log_density_of_a_sample_is_that_of_its_unit_however_small(student, asked) -> None:
    usual = student.emission(*asked, ("sample",))[2]["sample"]
    student.density_unit = 8.0**-9
    assert student(*asked)[0].max() < 1e-6
    assert torch.equal(student.emission(*asked, ("sample",))[2]["sample"], usual)


@pytest.mark.parametrize("tap", ["hidden", "geo", "sample"])
def test_every_inner_tap_reaches_the_parameters(student, asked, tap) -> None:
    student.emission(*asked, (tap,))[2][tap].square().sum().backward()
    reached = [parameter for parameter in student.parameters() if parameter.grad is not None]
    assert any(parameter.grad.abs().sum() > 0 for parameter in reached)


def test_the_encoding_of_a_grid_of_networks_has_nothing_to_learn(asked) -> None:
    assert not student_of("kilo_uniform").emission(*asked, ("encoding",))[2]["encoding"].requires_grad
    assert student_of("hash_grid").emission(*asked, ("encoding",))[2]["encoding"].requires_grad


def test_an_unknown_tap_is_refused(student, asked) -> None:
    with pytest.raises(ValueError, match="'colour'.*encoding"):
        student.emission(*asked, ("colour",))
    with pytest.raises(ValueError, match="'colour'.*encoding"):
        student.tap_width("colour")
