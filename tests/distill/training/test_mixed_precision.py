"""Training in half precision on the torch reference: it learns, recovers from overflows, and does not stop unheard."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from settings.errors import TrainingDiverged
from tests.program import csv_rows
from tests.toy_scene import write_toy_scene
from tests.toy_training import losses_of, trainer_of

STEPS = 25
SMALL = ("kernels=torch", "train.samples_per_step=512", "train.rays_per_step=128", "train.lr=0.02")
KILO = "student={kind: kilo_uniform, grid: [1, 1, 2], hidden_width: 16, density_layers: 1, frequencies: 2}"
INSIDE = ("loss.density.weight=0.01", "loss.feature_l2.weight=0.1", "features.resolution=8")


@pytest.fixture(scope="module")
def config_path(tmp_path_factory) -> Path:
    return write_toy_scene(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def in_float32(config_path):
    return {more: losses_of(trainer_of(config_path, *SMALL, *more), STEPS) for more in ((), (KILO,), INSIDE)}


@pytest.mark.parametrize(
    ("more", "precision"),
    [((), "float16"), ((KILO,), "bfloat16"), (INSIDE, "float16")],
    ids=["hash_grid-float16", "kilo_uniform-bfloat16", "features-float16"],
)
def test_half_precision_learns_about_as_well(config_path, in_float32, precision, more) -> None:
    trainer = trainer_of(config_path, *SMALL, *more, f"train.precision={precision}")
    losses, expected = losses_of(trainer, STEPS), in_float32[more]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert sum(losses[-10:]) == pytest.approx(sum(expected[-10:]), rel=0.05)
    assert losses != expected
    assert {parameter.dtype for parameter in trainer.model.student.parameters()} == {torch.float32}
    moments = [value for state in trainer.step.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in moments if isinstance(value, torch.Tensor) and value.dim()} == {torch.float32}
    # Outside of training the student computes in float32.
    assert trainer.model.student.precision == torch.float32


def test_an_overflow_skips_its_step_and_training_goes_on(config_path) -> None:
    trainer = trainer_of(config_path, *SMALL, "train.precision=float16")
    losses_of(trainer, 5)
    before = {name: value.clone() for name, value in trainer.model.student.state_dict().items()}
    trainer.step.watched.scale.value.fill_(2.0**40)  # gradients times that are beyond float16
    losses_of(trainer, 1)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.student.state_dict().items())
    assert trainer.step.watched.figures()["skipped_steps"] == 1
    losses = losses_of(trainer, 30)
    figures = trainer.step.watched.figures()
    assert 1 < figures["skipped_steps"] < 15 and 1 < figures["loss_scale"] < 2.0**24
    assert losses[-1] < losses[0]
    steps = {int(state["step"]) for state in trainer.step.optimizer.state.values()}
    assert steps == {36 - figures["skipped_steps"]}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_overflow_that_stays_ends_the_run_with_its_name(config_path, asynchronous) -> None:
    trainer = trainer_of(
        config_path,
        *SMALL,
        "train.precision=float16",
        "train.log_every=30",
        f"run=broken_{asynchronous}",
        asynchronous=asynchronous,
    )
    with torch.no_grad():
        trainer.model.student.density_weights[0].fill_(1e30)  # infinite in float16
    with pytest.raises(TrainingDiverged) as caught:
        trainer.run(show_progress=False)
    message = str(caught.value)
    assert "loss scale is at its floor of 1" in message
    assert "at step 1; use train.precision: bfloat16 or float32, or lower train.lr" in message
    assert trainer.progress.step == (30 if asynchronous else 16)
    assert not list(trainer.folder.checkpoints.iterdir())


def test_rows_tell_the_scale_and_the_skipped_steps(config_path) -> None:
    trainer = trainer_of(config_path, *SMALL, "train.precision=float16", "train.max_steps=20", "run=rows")
    trainer.step.watched.scale.value.fill_(2.0**20)
    trainer.run(show_progress=False)
    rows = csv_rows(trainer.folder.training_csv)
    last = trainer.step.watched.figures()
    assert float(rows[-1]["loss_scale"]) == last["loss_scale"]
    assert int(rows[-1]["skipped_steps"]) == last["skipped_steps"]
    assert rows[0]["dropped_rays"] == ""


def test_the_scale_is_restored(config_path) -> None:
    trainer = trainer_of(
        config_path, *SMALL, "train.precision=float16", "run=kept", "train.max_steps=6", "train.checkpoint_steps=[3]"
    )
    trainer.step.watched.scale.value.fill_(512.0)
    trainer.run(show_progress=False)
    again = trainer_of(
        config_path, *SMALL, "train.precision=float16", "run=kept", resume=trainer.folder.checkpoint_path(6)
    )
    assert again.step.watched.state() == trainer.step.watched.state()
    assert again.step.watched.scale.value == 512
