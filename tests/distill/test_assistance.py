"""Assisted distillation: where points are drawn, what is compared, and what an assistant must have in common."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from distill.assistance import PointSupervision, assistant_config, check_same_box, pretrain_on_points
from distill.config import load_config
from distill.pipeline import build_model, load_teacher
from distill.schema import HashGridConfig
from distill.training.step_watch import TrainingDiverged
from scene.errors import InputError
from scene.rays import SceneBox
from tests.toy_scene import write_toy_scene

CPU = torch.device("cpu")
KILO = ["student={kind: kilo_uniform, grid: [2, 2, 2], hidden_width: 16}", "train.lr=0.01"]


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    return write_toy_scene(tmp_path)


def supervision_of(path: Path, *overrides: str):
    config = load_config(path, overrides, path.parent)
    teacher = load_teacher(config)
    assistant = build_model(config.model_copy(update={"student": HashGridConfig(levels=2)}), teacher, CPU)
    model = build_model(config, teacher, CPU)
    points = PointSupervision(assistant.student, model.grid, teacher.views.cameras, model.settings.step, 500)
    return config, model, assistant, points


class _Constant(torch.nn.Module):
    """A field of one density and colour that remembers where it was asked."""

    def __init__(self, density: float, color: float) -> None:
        super().__init__()
        self.value, self.color, self.asked = density, color, []

    def forward(self, positions, directions, ray_index):
        self.asked.append((positions, directions))
        return positions.new_full((len(positions),), self.value), positions.new_full((len(positions), 3), self.color)


def test_points_are_in_or_beside_the_teachers_cells(config_path) -> None:
    _, model, _, points = supervision_of(config_path, "data.box={lower: [-1, -1, -1], upper: [1, 1, 1]}")
    field = _Constant(1.0, 0.5)
    points.loss(field, torch.Generator().manual_seed(0))
    positions, directions = field.asked[0]
    cell = ((positions - torch.tensor(model.grid.box.lower)) / model.grid.cell_size).floor()
    occupied = model.grid.teacher.nonzero().float()
    nearest = torch.cdist(cell, occupied, p=float("inf")).amin(1)
    assert nearest.max() == 1 and (nearest == 0).any()
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(500))
    # A point is seen from one of the cameras: they are 2 units from the origin.
    along = (positions * directions).sum(-1)
    camera = positions - directions * (along + (along**2 - positions.square().sum(-1) + 4).sqrt())[:, None]
    torch.testing.assert_close(camera.norm(dim=-1), torch.full((500,), 2.0), atol=1e-3, rtol=0)


def test_what_is_compared_by_hand(config_path) -> None:
    _, _, _, points = supervision_of(config_path)
    points.assistant, points.step = _Constant(0.6931472, 0.75), 1.0  # alpha 1/2
    terms = points.loss(_Constant(1.3862944, 0.25), torch.Generator().manual_seed(0))  # alpha 3/4
    assert terms["alpha"].item() == pytest.approx(1 / 16, rel=1e-5)
    assert terms["rgb"].item() == pytest.approx(3 / 4 * 1 / 4, rel=1e-5)
    same = points.loss(points.assistant, torch.Generator().manual_seed(0))
    assert same["alpha"] == 0 and same["rgb"] == 0


def test_a_student_learns_from_points_alone(config_path, tmp_path) -> None:
    config, model, _, points = supervision_of(config_path, *KILO, "train.max_steps=200", "train.pointwise_share=0.5")
    points.assistant = _Constant(20.0, 0.8)
    before = points.loss(model.student, torch.Generator().manual_seed(7))
    pretrain_on_points(config, model.student, points, None, tmp_path / "points.csv")
    after = points.loss(model.student, torch.Generator().manual_seed(7))
    assert after["alpha"] < 0.2 * before["alpha"] and after["rgb"] < 0.2 * before["rgb"]
    with open(tmp_path / "points.csv", encoding="utf-8") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(10, 110, 10))


class _Broken(_Constant):
    """An assistant that knows no colour."""

    def forward(self, *asked):
        density, rgb = super().forward(*asked)
        return density, rgb * float("nan")


@pytest.mark.parametrize("resident", [False, True])
def test_answers_that_are_not_finite_end_it_with_their_step(config_path, tmp_path, resident) -> None:
    config, model, _, points = supervision_of(config_path, *KILO)
    points.assistant = _Broken(20.0, 0.8)
    with pytest.raises(TrainingDiverged, match="pointwise step 1: loss term 'rgb' is nan; lower train.lr"):
        pretrain_on_points(config, model.student, points, None, tmp_path / "points.csv", resident)
    assert all(parameter.isfinite().all() for parameter in model.student.parameters())


def test_a_resident_student_learns_from_points_too(config_path, tmp_path) -> None:
    config, model, _, points = supervision_of(config_path, *KILO, "train.max_steps=200", "train.pointwise_share=0.5")
    points.assistant = _Constant(20.0, 0.8)
    before = points.loss(model.student, torch.Generator().manual_seed(7))
    pretrain_on_points(config, model.student, points, None, tmp_path / "points.csv", resident=True)
    after = points.loss(model.student, torch.Generator().manual_seed(7))
    assert after["alpha"] < 0.2 * before["alpha"] and after["rgb"] < 0.2 * before["rgb"]


def test_an_assistant_of_another_box_is_refused(config_path) -> None:
    _, _, assistant, _ = supervision_of(config_path)
    box = assistant.grid.box
    check_same_box(assistant, box, "assistant.pth")
    moved = SceneBox(tuple(value - 0.1 for value in box.lower), box.upper)
    with pytest.raises(InputError, match=r"assistant\.pth: box: found .*expected this run's scene box"):
        check_same_box(assistant, moved, "assistant.pth")


def test_the_auto_assistants_run(config_path) -> None:
    config = load_config(config_path, [*KILO, "train.assistant=auto", "train.max_steps=400"], config_path.parent)
    theirs = assistant_config(config)
    assert (theirs.run, theirs.student.kind, theirs.train.assistant) == ("first_assistant", "hash_grid", None)
    assert theirs.train.max_steps == 100
    timed = config.model_copy(update={"train": config.train.model_copy(update={"max_seconds": 60.0})})
    assert assistant_config(timed).train.max_seconds == 15.0
