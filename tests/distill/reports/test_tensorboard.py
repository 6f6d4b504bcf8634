"""TensorBoard's events, read back by TensorBoard itself."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.reports.tensorboard import Board
from lego_response_distill import main
from machine.run_folder import RunFolder
from scene.images import read_image
from settings.loading import load_config
from tests.program import arguments, csv_rows
from tests.toy_scene import write_toy_scene

RESULTS, LOGS = "results/toy/first", "logs/toy/first"
ON = {"tensorboard": True}


def events_of(root: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(root / LOGS / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def test_events_are_the_figures_of_the_csvs_and_the_pictures(tmp_path) -> None:
    write_toy_scene(tmp_path, loss={"depth": {"weight": 0.1}}, logging=ON)
    main(arguments(tmp_path, "--max-steps", "40"))
    events, log = events_of(tmp_path), csv_rows(tmp_path / LOGS / "training_metrics.csv")
    filled = {name for name in log[0] if any(row[name] for row in log)} - {"step"}
    tags = set(events.Tags()["scalars"])
    assert {tag for tag in tags if "/" not in tag} == filled
    for name in ("loss", "loss_depth", "psnr_batch", "occupied_fraction"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(int(row["step"]), pytest.approx(float(row[name]), rel=1e-6)) for row in log]
    holdout = csv_rows(tmp_path / LOGS / "eval_step_000040.csv")[0]
    (event,) = events.Scalars("holdout/teacher/psnr")
    assert (event.step, event.value) == (40, pytest.approx(float(holdout["psnr"])))
    assert set(events.Tags()["images"]) == {
        "eval/worst_1", "eval/worst_2", "eval/worst_3", "eval/median", "eval/contact_sheet",
    }  # fmt: skip
    (image,) = events.Images("eval/contact_sheet")
    shown = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    assert (shown == read_image(tmp_path / RESULTS / "eval/step_000040_contact_sheet.png")[..., :3]).all()


def board_of(root: Path, resumed_at: int | None = None) -> Board:
    path = root / "toy.yaml"
    if not path.exists():
        write_toy_scene(root)
    return Board(RunFolder(load_config(path, (), root), root), True, resumed_at)


def test_a_resumed_run_writes_on_and_a_fresh_one_anew(tmp_path) -> None:
    with board_of(tmp_path) as board:
        for step in (10, 20, 30):
            board.add_scalars({"step": step, "loss": step / 10, "power_w": None})
    with board_of(tmp_path, resumed_at=20) as board:
        board.add_scalars({"step": 40, "loss": 9.0})
    events = events_of(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 1), (20, 2), (40, 9)]
    assert events.Tags()["scalars"] == ["loss"]
    with board_of(tmp_path) as board:
        board.add_scalars({"step": 10, "loss": 7.0})
    assert [(event.step, event.value) for event in events_of(tmp_path).Scalars("loss")] == [(10, 7)]


def test_off_imports_and_writes_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    folder = RunFolder(load_config(write_toy_scene(tmp_path), (), tmp_path), tmp_path)
    with Board(folder, on=False) as board:
        board.add_scalars({"step": 1, "loss": 1.0})
        board.add_evaluation(folder, 1)
    assert not folder.tensorboard.exists()


def test_a_missing_package_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys) -> None:
    write_toy_scene(tmp_path, logging=ON)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments(tmp_path)) == 2
    error = capsys.readouterr().err
    assert "logging.tensorboard" in error and "pip install tensorboard" in error
    assert sorted(tmp_path.rglob("*")) == before
