"""Curves of a training CSV: which panels there are, and that the picture shows the figures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from distill.reports.run.training_curves import draw_curves, panels, read_columns
from scene.images import read_image
from settings.errors import InputError

ROWS = """\
step,wall_s,samples_per_ray,loss,loss_rgb,loss_depth,loss_feature_l2,psnr_batch,grad_ratio_l2,occupied_fraction
50,1.5,12.5,0.5,0.4,,0.3,20,0.9,0.25
100,3.0,11.5,0.25,0.2,,0,24,0.1,0.125
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "training_metrics.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_cell_is_not_a_number(tmp_path) -> None:
    columns = read_columns(write(tmp_path, ROWS))
    assert columns["wall_s"] == [1.5, 3.0] and columns["loss_feature_l2"] == [0.3, 0.0]
    assert all(map(math.isnan, columns["loss_depth"]))


def test_a_panel_has_the_columns_that_have_figures(tmp_path) -> None:
    found = {panel.columns: panel for panel in panels(read_columns(write(tmp_path, ROWS)))}
    assert list(found) == [
        ("loss", "loss_rgb", "loss_feature_l2"), ("psnr_batch",), ("samples_per_ray",), ("occupied_fraction",),
        ("grad_ratio_l2",),
    ]  # fmt: skip
    assert found[("psnr_batch",)].x == "wall_s"


def test_an_older_csv_has_fewer_panels(tmp_path) -> None:
    columns = read_columns(write(tmp_path, "step,wall_s,loss\n1,1,2\n"))
    assert [panel.columns for panel in panels(columns)] == [("loss",)]


def test_the_picture_changes_with_the_figures_and_the_mark(tmp_path) -> None:
    columns = read_columns(write(tmp_path, ROWS))
    pictures = []
    for name, changed, mark in (
        ("a", columns, None),
        ("b", columns | {"psnr_batch": [20.0, 21.0]}, None),
        ("c", columns, ("holdout", 23.0)),
    ):
        draw_curves(changed, tmp_path / f"{name}.png", mark)
        pictures.append(read_image(tmp_path / f"{name}.png"))
    assert len({picture.shape for picture in pictures}) == 1
    middle = pictures[0].shape[1] // 2
    for other in pictures[1:]:  # the panel of PSNR is the second of the first row
        differs = np.argwhere((pictures[0] != other).any(axis=-1))
        assert len(differs) and differs[:, 1].min() > middle * 0.9 and differs[:, 0].max() < len(other) / 2


def test_steps_are_counted_in_whole_numbers(tmp_path, monkeypatch) -> None:
    ticks = []

    def savefig(figure, path):
        ticks.extend(figure.axes[0].get_xticks())
        path.touch()

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", savefig)
    draw_curves(read_columns(write(tmp_path, "step,wall_s,loss\n10,1,2\n")), tmp_path / "a.png")
    assert ticks and all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize("text", ["", "step,wall_s,loss\n", "a,b\n1,2\n"], ids=["empty", "no rows", "other columns"])
def test_a_csv_that_cannot_be_drawn_is_named(tmp_path, text) -> None:
    with pytest.raises(InputError, match="training_metrics.csv"):
        read_columns(write(tmp_path, text))
    with pytest.raises(InputError, match=r"none\.csv"):
        read_columns(tmp_path / "none.csv")
