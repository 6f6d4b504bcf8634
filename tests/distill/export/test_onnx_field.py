"""Students as ONNX: onnxruntime computes what the program computes; what cannot be expressed is refused."""

import numpy as np
import pytest
import torch

from distill.export.onnx_field import TOLERANCE, compared, field_bytes, write_onnx
from distill.model.model import Model
from distill.rendering.far_field import FarField
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import RenderSettings
from settings.errors import InputError
from settings.far_field import FarFieldConfig
from settings.rendering import OccupancyConfig
from students import build_student
from tests.distill.compact.students_at_hand import BOX, HASH, KILO, RESOLUTION

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SETTINGS = {
    "hash": HASH.model_copy(update={"planes": ()}),
    "hash_planes": HASH.model_copy(update={"planes": (6, 40, 20), "density_degree": None}),
    "hash_deferred": HASH.model_copy(update={"shading": "deferred", "direction_degree": 4, "density_layers": 2}),
    "kilo": KILO.model_copy(update={"color_layers": 2, "density_degree": None}),
    "kilo_seen": KILO,
    "kilo_deferred": KILO.model_copy(
        update={"shading": "deferred", "frequencies": 0, "density_degree": None, "direction_degree": 0}
    ),
}


def model_of(settings) -> Model:
    """A student of random weights, large enough that its densities and colours vary, in half of its cells."""
    torch.manual_seed(1)
    student = build_student((BOX.lower, BOX.upper), settings, "torch")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.uniform_(-1.0, 1.0)
    grid = OccupancyGrid(BOX, RESOLUTION, 0.1, 0.01, 0.95)
    grid.bound_by_teacher(torch.rand(grid.shape) < 0.5)
    return Model(student, grid, RenderSettings(0.1, 64, 1e-3, 1 << 16, 0.0, 9.0, "torch"))


@pytest.mark.parametrize("name", SETTINGS)
def test_onnxruntime_computes_what_the_student_does(name, tmp_path):
    model = model_of(SETTINGS[name])
    files, error = write_onnx(tmp_path / "x.onnx", model, 7)
    assert error.is_small and error.points >= 2048, error
    assert [file.name for file in files] == ["x.onnx"] + ["x_shade.onnx"] * model.student.deferred
    session = onnxruntime.InferenceSession(files[0])
    directions = np.tile(np.float32([[0, 0, 1]]), (200, 1))
    inside = np.random.default_rng(0).uniform(BOX.lower, BOX.upper, (200, 3)).astype(np.float32)
    density, rgb = session.run(["density", "rgb"], {"positions": inside, "directions": directions})
    assert 0.3 < (density > 0).mean() < 0.7 and rgb.std() > 0.01  # half of the cells are occupied, and nothing is flat
    outside = np.full((200, 3), 5, np.float32)
    assert not session.run(["density"], {"positions": outside, "directions": directions})[0].any()


@pytest.mark.parametrize("name", ["hash", "kilo_seen"])
def test_densities_are_the_world_s_whatever_unit_the_student_has(name):
    model = model_of(SETTINGS[name])
    model.student.density_unit = 8.0
    assert compared([field_bytes(model, 7)], model).is_small
    usual = field_bytes(model_of(SETTINGS[name]), 7)
    assert compared([usual], model).density > TOLERANCE


@pytest.mark.parametrize("unit", [8.0**-4, 8.0**4])
def test_densities_that_are_off_are_found_out_whatever_the_unit(unit):
    """Half of each density, in a world of any scale."""
    model = model_of(SETTINGS["kilo_seen"])
    model.student.density_unit = unit / 2
    halved = field_bytes(model, 7)
    model.student.density_unit = unit
    assert compared([field_bytes(model, 7)], model).is_small
    assert compared([halved], model).density == pytest.approx(0.5, rel=1e-4)


def test_a_file_of_other_weights_is_found_out():
    model, other = model_of(HASH), model_of(HASH)
    with torch.no_grad():
        other.student.color_weights[0] += 0.01
        other.student.table[:8] += 0.01
    error = compared([field_bytes(other, 7)], model)
    assert error.rgb > TOLERANCE and error.density > TOLERANCE and not error.is_small


def test_what_is_no_function_of_position_and_direction_is_refused(field, tmp_path):
    model = model_of(HASH)
    far_settings = FarFieldConfig(table_size=64, finest_resolution=32, occupancy_resolution=8)
    model.far_field = FarField(BOX, far_settings, OccupancyConfig())
    with pytest.raises(InputError, match="far_field: found a student with a far field"):
        write_onnx(tmp_path / "x.onnx", model, 7)
    model = model_of(HASH)
    model.student = field(lambda positions: positions[:, 0])
    with pytest.raises(InputError, match="expected hash_grid or kilo_uniform"):
        write_onnx(tmp_path / "x.onnx", model, 7)
    assert not list(tmp_path.iterdir())
