"""Students for views from afar."""

import os
from dataclasses import replace

import pytest
import torch

from distill.city.block_runs import cell_size
from distill.city_rendering.streaming import load_model
from distill.city_training import coarser_students
from distill.city_training.coarser_students import add_coarser, coarser_settings, taught_by
from scene.rays import SceneBox
from settings.loading import load_config
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings
from tests.toy_city import toy_city


@pytest.mark.parametrize(
    ("levels", "base", "finest", "ratio", "wanted"),
    [
        (9, 16, 4096, 4, (7, 1024)),  # each level twice as fine as the one before
        (9, 16, 4096, 16, (5, 256)),
        (9, 16, 4096, 256, None),
        (4, 4, 32, 4, (2, 8)),
        (1, 16, 16, 4, None),
        (1, 16, 512, 4, None),  # a single level has the coarsest cells
        (2, 16, 512, 4, None),  # there is nothing between its two
        (3, 16, 512, 4, (2, 91)),
        (3, 16, 512, 16, None),  # as coarse as those four times as large
    ],
)
def test_levels_are_as_far_apart_as_before(levels, base, finest, ratio, wanted):
    settings = HashGridSettings(levels=levels, base_resolution=base, finest_resolution=finest)
    coarse = coarser_settings(settings, ratio)
    assert wanted == (None if coarse is None else (coarse.levels, coarse.finest_resolution))


def test_planes_are_coarser_too_and_so_is_what_a_block_is_said_to_hold():
    settings = HashGridSettings(levels=6, base_resolution=16, finest_resolution=512, planes=(32, 1024, 128, 131))
    coarse = coarser_settings(settings, 4)
    assert coarse.planes == (32, 256) and coarse.finest_resolution == 128
    box = SceneBox((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert cell_size(coarse, box) == 4 * cell_size(settings, box)
    assert HashGridStudent.parameters_of(coarse) < HashGridStudent.parameters_of(settings)


@pytest.mark.parametrize("degree", [None, 2])
def test_what_is_taken_over_means_the_same(degree, city, monkeypatch):
    manifest, config = city
    monkeypatch.setattr(coarser_students, "_STEPS", 0)
    fine = HashGridSettings(
        levels=3, base_resolution=4, finest_resolution=64, table_size=512, planes=(64, 16), density_degree=degree,
        hidden_width=8,
    )  # fmt: skip
    model = load_model(config, manifest.path(manifest.blocks[0].students[0].file), torch.device("cpu"))
    teacher = HashGridStudent((model.grid.box.lower, model.grid.box.upper), fine)
    teacher.density_unit *= 8  # as a checkpoint of an earlier version may have it
    with torch.no_grad():  # what the coarser one has not says nothing: its planes, and the finest grid
        teacher.table.uniform_(-1, 1)
        teacher.table[teacher.layout.offsets[2] :] = 0
    coarse = coarser_settings(fine, 4)
    assert coarse.planes == (4, 16) and coarse.levels == 2 and coarse.finest_resolution == 16
    student = taught_by(replace(model, student=teacher), coarse, 0.25, config)
    with torch.no_grad():
        student.table[student.layout.offsets[2] :] = 0
    places, directions = torch.rand(50, 3), torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    rays = torch.arange(50)
    for own, other in zip(student(places, directions, rays), teacher(places, directions, rays), strict=True):
        torch.testing.assert_close(own, other)


def test_other_kinds_have_no_coarser_students():
    assert coarser_settings(KiloUniformSettings(), 4) is None


@pytest.fixture
def city(tmp_path, monkeypatch):
    monkeypatch.setattr(coarser_students, "_STEPS", 5)
    monkeypatch.setattr(coarser_students, "_SAMPLES", 256)
    manifest = toy_city(tmp_path, (1, 1, 1))
    return manifest, load_config(manifest.path(manifest.config))


def test_a_coarser_student_shows_more_of_the_finest_than_its_first_levels_do(city, monkeypatch):
    manifest, config = city
    model = load_model(config, manifest.path(manifest.blocks[0].students[0].file), torch.device("cpu"))
    settings = coarser_settings(model.student.settings, 4)
    positions = torch.rand(500, 3) * torch.tensor([2.0, 2, 1]) - 1
    positions = positions[model.grid.occupied_at(positions)]
    target = 1 - torch.exp(-model.student.density(positions) * 0.25)

    def error(student):
        return (1 - torch.exp(-student.density(positions) * 0.25) - target).square().mean().item()

    monkeypatch.setattr(coarser_students, "_STEPS", 30)
    taught = taught_by(model, settings, 0.25, config)
    monkeypatch.setattr(coarser_students, "_STEPS", 0)
    assert error(taught) < 0.9 * error(taught_by(model, settings, 0.25, config))


def test_coarser_students_follow_the_finest_and_are_made_once(city):
    manifest, config = city
    more = add_coarser(manifest, config, 3)
    (block,) = more.blocks
    assert [student.file for student in block.students[1:]] == ["blocks/b000/coarser_1.pth"]  # 32 / 4 > 4 > 32 / 16
    assert [student.cell_size for student in block.students] == [2 / 32, 2 / 8]
    path = more.path(block.students[1].file)
    assert block.students[1].bytes == path.stat().st_size < block.students[0].bytes
    assert load_model(config, path, torch.device("cpu")).student.settings.levels == 2
    written = path.stat().st_mtime_ns
    add_coarser(more, config, 3)
    assert path.stat().st_mtime_ns == written
    os.utime(more.path(block.students[0].file), ns=(written + 10**9, written + 10**9))
    add_coarser(more, config, 3)
    assert path.stat().st_mtime_ns != written
