"""Students and their settings: one registration makes a student that configs, checkpoints and the reference know."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from pydantic import Field

from settings.kinds import STUDENT_KINDS
from settings.loading import load_config, to_yaml
from settings.sections import Section
from settings.words import expanded_schema
from students import STUDENTS, build_student
from students.base import Student, density_unit_of, register
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings, KiloUniformStudent
from tests.toy_configs import BRICKS, refusal

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


class FogSettings(Section):
    kind: Literal["fog"] = Field("fog", description="the same everywhere")
    thickness: float = Field(1.0, gt=0, description="density, 1 / world unit")


class Fog(Student):
    Settings = FogSettings

    def __init__(self, box, settings, implementation="auto"):
        super().__init__(box, settings, implementation)
        self.thickness = torch.nn.Parameter(torch.tensor(settings.thickness))

    def forward(self, positions, directions, ray_index):
        return self.density(positions), torch.ones(len(positions), 3)

    def density(self, positions, directions=None):
        return self.thickness.expand(len(positions))

    def parameter_groups(self):
        return {"table": [], "mlp": [self.thickness]}

    def encoding_width(self):
        return 3


@pytest.fixture
def with_fog(monkeypatch):
    monkeypatch.setattr(STUDENT_KINDS, "_sections", dict(STUDENT_KINDS._sections))
    register(Fog)
    yield
    del STUDENTS["fog"]
    expanded_schema.cache_clear()


def test_the_students_by_kind():
    assert {"hash_grid": HashGridStudent, "kilo_uniform": KiloUniformStudent} == STUDENTS


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_config_names_the_student_that_is_built(write, kind):
    settings = load_config(write(BRICKS), [f"student.kind={kind}"]).student
    student = build_student(BOX, settings, "torch")
    assert isinstance(student, STUDENTS[kind])
    assert (student.kind, student.settings, student.implementation) == (kind, settings, "torch")


def test_a_config_without_a_student_has_a_hash_grid(write):
    assert load_config(write(BRICKS)).student == HashGridStudent.Settings()


def test_settings_of_no_student_build_none():
    with pytest.raises(KeyError, match="fog"):
        build_student(BOX, FogSettings())


def test_a_registered_student_is_known_everywhere(write, with_fog):
    config = load_config(write(BRICKS), ["student={kind: fog, thickness: 2.5}"])
    assert build_student(BOX, config.student).density(torch.zeros(2, 3)).tolist() == [2.5, 2.5]
    assert load_config(write(to_yaml(config), "again.yaml")) == config
    error = refusal(write(BRICKS), "student={kind: fog, thicknes: 2.5}")
    assert (error.field, error.hint) == ("student.thicknes", "Did you mean student.thickness?")
    assert refusal(write(BRICKS), "student.kind=smoke").expected == "one of hash_grid, kilo_uniform, fog"


def test_places_are_in_units_of_the_longest_side(field):
    student = field(lambda positions: positions[:, 0], box=((-1.0, 0.0, 2.0), (3.0, 2.0, 3.0)))
    places = student.unit_positions(torch.tensor([[-1.0, 0.0, 2.0], [0.0, 1.0, 2.5], [3.0, 2.0, 3.0]]))
    assert places.tolist() == [[0.0, 0.0, 0.0], [0.25, 0.25, 0.125], [1.0, 0.5, 0.25]]


def test_the_tap_of_samples_tells_densities_apart_down_to_a_millionth(field):
    student = field(lambda positions: positions[:, 0])
    asked = torch.tensor([[0.0, 0, 0], [1e-5, 0, 0], [2.0, 0, 0]]), torch.eye(3)[:1], torch.zeros(3, dtype=torch.int64)
    tap = student.emission(*asked, ("sample",))[2]["sample"]
    assert tap[:, 3].tolist() == pytest.approx([math.log(1e-6), math.log(1e-5), math.log(2.0)], rel=1e-5)
    assert tap[0, :3].tolist() == [0.25, 0.5, 1.0]


def test_a_student_neither_varies_nor_waits_unless_it_says_so():
    fog = Fog(BOX, FogSettings())
    assert fog.waits_for("geo") == [] and fog.fused_field() is None


@pytest.mark.parametrize(
    "settings",
    [
        HashGridSettings(levels=3, features=2, table_size=512, finest_resolution=24, hidden_width=8, color_layers=3),
        KiloUniformSettings(grid=(2, 1, 3), hidden_width=16),
        KiloUniformSettings(grid=(2, 1, 3), hidden_width=16, shading="deferred"),
    ],
)
def test_a_student_s_size_is_known_before_it_is_built(settings):
    built = build_student(((0, 0, 0), (1, 1, 1)), settings)
    assert type(built).parameters_of(settings) == built.parameter_count()


@pytest.mark.parametrize(
    ("width", "unit"),
    [(1, 1), (2.4, 1), (7.99, 1), (8, 1 / 8), (63, 1 / 8), (64, 1 / 64), (1e4, 8**-4), (0.99, 8), (1e-3, 8**4)],
)
def test_density_is_in_units_of_which_a_box_is_one_to_eight_wide(width, unit):
    assert density_unit_of(((-width, 0, 0), (0.0, width / 2, width / 3))) == unit


@pytest.mark.parametrize(
    "settings",
    [
        HashGridSettings(levels=3, features=2, table_size=512, finest_resolution=24, hidden_width=8),
        KiloUniformSettings(grid=(2, 1, 3), hidden_width=16),
        KiloUniformSettings(grid=(2, 1, 3), hidden_width=16, shading="deferred", density_degree=1),
    ],
    ids=["hash_grid", "kilo_uniform", "deferred"],
)
@pytest.mark.parametrize("scale", [64, 1 / 512])
def test_the_same_weights_show_the_same_in_a_scene_of_another_scale(settings, scale):
    student = build_student(BOX, settings)
    scaled = build_student(tuple(tuple(scale * value for value in corner) for corner in BOX), settings)
    box = scaled.box.clone()
    scaled.load_state_dict({**student.state_dict(), "box": box})
    positions, rays = 2 * torch.rand(60, 3) - 1, torch.arange(60)
    directions = torch.nn.functional.normalize(torch.randn(60, 3), dim=1)
    assert torch.equal(scale * scaled.density(scale * positions, directions), student.density(positions, directions))
    density, rgb = student(positions, directions, rays)
    scaled_density, scaled_rgb = scaled(scale * positions, directions, rays)
    assert torch.equal(scale * scaled_density, density) and torch.equal(scaled_rgb, rgb)
