"""What a page holds of a student, value by value, and students that it cannot hold."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.rendering.far_field import FarField
from distill.web.packing import packed_student
from distill.web.shader_source import Layer, glsl, stored_network, written_network
from settings.errors import InputError
from settings.far_field import FarFieldConfig
from settings.rendering import OccupancyConfig
from tests.distill.web.web_students import BOX, STUDENTS, model_of


def _content(packed, number):
    texture, content = packed.textures[number], gzip.decompress(packed.content)
    values = content[texture["offset"] : texture["offset"] + texture["length"]]
    return np.frombuffer(values, texture["type"]).reshape(*reversed(texture["size"]), texture["channels"])


def test_entries_are_the_tables_and_those_that_no_sample_reaches_are_nought():
    model = model_of(STUDENTS["hash grid"])
    entries = _content(packed_student(model, "x.pth"), 0).reshape(-1, 2)[: len(model.student.table)]
    table, zero = model.student.table.detach().numpy().astype(np.float16), (entries == 0).all(1)
    assert np.array_equal(entries[~zero], table[~zero])
    assert 0 < zero.sum() < len(zero) / 2


def test_a_step_is_as_thick_as_the_student_s_unit_of_density_makes_it():
    model = model_of(STUDENTS["hash grid"])
    model.student.density_unit = 8.0
    shader = packed_student(model, "x.pth").shader
    assert "#define STEP 0.05\n" in shader and "#define STEP_IN_UNITS 0.4\n" in shader


def test_leaps_end_at_the_next_occupied_cell():
    model = model_of(STUDENTS["deferred networks"])
    leaps = _content(packed_student(model, "x.pth"), 1)[..., 0]
    occupied = model.grid.occupied.numpy() != 0
    assert leaps.shape == occupied.shape and np.array_equal(leaps == 0, occupied)
    blocks = model.grid.cells.empty_blocks
    for x, y, z in np.argwhere(~occupied)[::97]:
        assert leaps[x, y, z] == 1 + blocks[x // 4, y // 4, z // 4]


class OnGpu(torch.Tensor):
    """Refuses to be read where it is, as a tensor on a GPU does."""

    def numpy(self, *_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def to(self, *where):
        return super().to(*where).as_subclass(torch.Tensor)


@pytest.mark.parametrize("name", ["hash grid", "deferred networks"])
def test_a_student_on_a_gpu_is_packed_as_on_the_cpu(name):
    model, there = model_of(STUDENTS[name]), model_of(STUDENTS[name])
    for module in (there.student, there.grid):
        module._apply(lambda tensor: tensor.as_subclass(OnGpu))  # as ``to`` moves it
    assert packed_student(there, "x.pth") == packed_student(model, "x.pth")


def test_products_are_the_matrix_four_by_four():
    generator = np.random.default_rng(0)
    layer = Layer(generator.normal(size=(7, 5)).astype(np.float32), np.ones(5, np.float32))
    x = generator.normal(size=8).astype(np.float32)
    found = np.einsum("iopq,ip->oq", layer.products(), x.reshape(2, 4)).ravel()
    assert np.allclose(found[:5], x[:7] @ layer.matrix, atol=1e-6) and not found[5:].any()
    assert layer.texels().shape == (2 + 2 * 2 * 4, 4)


def test_a_network_looks_its_values_up_once_for_all_the_places_that_it_is_evaluated_for():
    layers = [Layer(np.ones((8, 12), np.float32), np.ones(12, np.float32)), Layer(np.ones((12, 4)), np.ones(4))]
    one, four = (stored_network("f", layers, together) for together in (1, 4))
    assert one.count("texel(") == four.count("texel(") == 3 + 3 * 4 + 1 + 4
    assert stored_network("f", layers, used=3).count("texel(") == 3 + 3 * 3 + 1 + 4
    assert four.startswith("void f(int at, vec4 x[8], out vec4 y[4]) {") and four.count("+= m *") == 4 * (3 + 1)


def test_numbers_are_written_to_their_last_bit():
    assert [glsl(value) for value in (3, True, 0.1, (1, 2), (0.5, 1e-30))] == [
        *("3", "1", "0.1", "ivec2(1, 2)"),
        "vec2(0.5, 1e-30)",
    ]
    values = torch.randn(16, 1).numpy() * np.float32(1e-3)
    text = written_network("f", [Layer(values)])
    assert text.startswith("void f(vec4 x[4], out vec4 y[1]) {\n  y[0] = mat4(")
    written = [np.float32(number) for number in text.split("mat4(")[1].split(")")[0].split(", ")]
    assert written[::4] == values[:4, 0].tolist()


def _with_far_field(model):
    model.far_field = FarField(BOX, FarFieldConfig(kind="contracted"), OccupancyConfig(), "torch")


def _with_a_weight_of_nan(model):
    model.student.table.data[0] = torch.nan


def _with_a_large_weight(model):
    model.student.table.data[0] = 1e5


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_with_far_field, "far_field: found a student with a far field, expected one without"),
        (_with_a_weight_of_nan, "student.weights.table: found a magnitude of nan, expected at most 65504"),
        (_with_a_large_weight, "student.weights.table: found a magnitude of 100000, expected at most 65504"),
    ],
)
def test_what_a_page_cannot_express_is_refused(spoil, said):
    model = model_of(STUDENTS["hash grid"])
    spoil(model)
    with pytest.raises(InputError, match=said):
        packed_student(model, "x.pth")


def test_a_wide_student_is_refused():
    wide = STUDENTS["hash grid"].model_copy(update={"hidden_width": 128})
    with pytest.raises(InputError, match=r"student.hidden_width: found networks of [\d,]+ weights, expected at most"):
        packed_student(model_of(wide), "x.pth")


def test_samples_of_a_page_are_as_close_as_those_of_the_programs_pictures():
    model = model_of(STUDENTS["hash grid"])
    model = replace(model, settings=replace(model.settings, step=0.5, picture_step=0.75))
    assert "#define STEP 0.375\n" in packed_student(model, "x.pth").shader
