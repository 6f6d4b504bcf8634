"""Training that never waits for its device: here on CPU tensors, with what would wait made to raise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distill.losses.pictures import term_weights, total_loss
from distill.rendering.renderer import render_rays
from machine.memory import MIB
from settings.errors import TrainingDiverged
from tests.no_waiting import NoWaiting, WouldWait
from tests.program import csv_rows
from tests.toy_scene import add_training_split, write_toy_scene
from tests.toy_training import trainer_of
from tests.triton_device import DEVICE, needs_triton

TORCH = ("kernels=torch", "occupancy.warmup_steps=4", "occupancy.update_every=4")
SMALL = ("train.samples_per_step=1024", "train.rays_per_step=256")


@pytest.fixture(scope="module")
def config_path(tmp_path_factory) -> Path:
    losses = {"depth": {"weight": 0.1}, "alpha": {"weight": 0.1}}
    path = write_toy_scene(tmp_path_factory.mktemp("toy"), loss=losses, train={"checkpoint_steps": [30]})
    add_training_split(path.parent)
    return path


def asynchronous(path: Path, *overrides: str, resume: Path | None = None):
    return trainer_of(path, *overrides, resume=resume, asynchronous=True)


def go(trainer, steps: int) -> list[float]:
    """Losses of as many steps, taken as a run takes them."""
    losses = []
    for _ in range(steps):
        losses.append(trainer.take_step().loss)
    return [loss.item() for loss in losses]


@pytest.mark.parametrize("call", ["item", "tolist", "cpu", "__bool__", "nonzero", "unique"])
def test_the_guard_refuses_what_waits(call) -> None:
    values = torch.ones(1)
    with NoWaiting(), pytest.raises(WouldWait):
        getattr(values, call)()


def test_the_guard_refuses_masks_and_uploads() -> None:
    values = torch.ones(3)
    mask = values > 0
    with NoWaiting():
        for waits in (lambda: values[mask], lambda: values.new_tensor([1.0]), lambda: torch.tensor(2.0)):
            with pytest.raises(WouldWait):
                waits()
        assert values.sum().add(1).numpy() == 4


KILO = "student={kind: kilo_uniform, grid: [1, 1, 1], hidden_width: 16, density_layers: 1, frequencies: 2}"
INSIDE = ("loss.density.weight=0.01", "loss.color.weight=0.1", "loss.feature_l2.weight=0.1", "features.resolution=8")

SEEN = ("student.planes=[4,8]", "student.density_degree=2")
KILO_SEEN = (KILO[:-1] + ", density_degree: 1}",)
# Rounded from the second step on, by the same integers.
ROUNDED = (
    f"compact.target_mib={8000 / MIB}",
    "compact.share=0.97",
    "compact.round_every=1000",
    "train.max_seconds=null",
)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("train.precision=float16",),
        (*SEEN, *ROUNDED, "train.precision=float16"),
        (*KILO_SEEN, *ROUNDED),
        (*SEEN, *ROUNDED, "compact.share=0.01"),
        ("data.ground_truth={split: train, weight: 0.5}",),
        INSIDE,
        (KILO,),
        ("render.sampling=auto",),
    ],
    ids=["float32", "float16", "rounded", "kilo rounded", "to be rounded", "mixed", "features", "kilo", "guided"],
)
def test_no_step_waits_for_the_device(config_path, more, monkeypatch) -> None:
    # The reference of the grouped MLPs asks for the points of each cell, as Triton does not; one cell needs no asking.
    monkeypatch.setattr(
        "kernels.networks.grouped_mlp._groups", lambda cells: (torch.arange(len(cells)), {0: len(cells)})
    )
    monkeypatch.setattr("distill.training.compaction._SHRINK_EVERY", 8)
    trainer = asynchronous(config_path, *TORCH, *SMALL, *more, "train.log_every=1000")
    go(trainer, 5)  # constants move to the device in the first steps, one of which refreshes the occupancy
    with NoWaiting():
        for _ in range(5):  # a table is pulled to zero in the eighth step, and the occupancy refreshed before the ninth
            trainer.take_step()
    trainer.step.settle(trainer.progress.step)


def test_a_step_that_is_not_asynchronous_does_wait(config_path) -> None:
    trainer = trainer_of(config_path, *TORCH, *SMALL)
    with NoWaiting(), pytest.raises(WouldWait):
        trainer.take_step()


@pytest.mark.parametrize("kernels", ["torch", "numba"])
def test_it_trains_as_one_that_waits(config_path, kernels) -> None:
    overrides = (f"kernels={kernels}", "train.samples_per_step=2048", "train.rays_per_step=256")
    waiting, trainer = trainer_of(config_path, *overrides), asynchronous(config_path, *overrides)
    expected, found = go(waiting, 40), go(trainer, 40)
    assert sum(found[-10:]) < 0.9 * sum(found[:10])
    assert sum(found[-10:]) == pytest.approx(sum(expected[-10:]), rel=0.1)
    assert trainer.step.rays_per_step == pytest.approx(waiting.step.rays_per_step, rel=0.2)


@pytest.mark.parametrize(("samples", "room"), [(2048, 2304), (2000, 2304), (1, 512), (100_000, 112_640)])
def test_there_is_an_eighth_more_room_than_samples_are_aimed_at_in_whole_blocks(config_path, samples, room) -> None:
    # Rays can have 520 samples in the box.
    overrides = f"train.samples_per_step={samples}", "render.max_samples_per_ray=400", "render.step_size=0.003"
    assert asynchronous(config_path, *overrides).step.capacity == room
    assert trainer_of(config_path, *overrides).step.capacity is None


def test_room_is_made_for_no_more_samples_than_a_ray_can_have(config_path) -> None:
    overrides = "train.samples_per_step=1", "render.max_samples_per_ray=1000000000", "render.step_size=0.03"
    assert asynchronous(config_path, *overrides).step.capacity == 256  # for 54, in whole blocks


def test_ample_room_changes_no_loss(config_path) -> None:
    """The same rays rendered with and without a capacity."""
    trainer = trainer_of(config_path)
    batch = trainer.sampler.draw(100, trainer.step.generator)
    results = []
    for capacity in (None, 100_000):
        rendered = render_rays(
            trainer.model.student, trainer.model.grid, batch.rays, trainer.model.settings, 5, (), capacity
        )
        weights = term_weights(trainer.config.loss, 0.5)
        loss, _, _ = total_loss(rendered.composite, batch, trainer.config.loss, weights, rendered.kept)
        loss.backward()
        results.append((loss.detach(), [parameter.grad.clone() for parameter in trainer.model.student.parameters()]))
        trainer.model.student.zero_grad()
    torch.testing.assert_close(results[1], results[0])


def test_rays_without_room_are_left_out_of_the_loss_and_counted(config_path) -> None:
    trainer = trainer_of(config_path)
    batch = trainer.sampler.draw(100, trainer.step.generator)
    whole = render_rays(trainer.model.student, trainer.model.grid, batch.rays, trainer.model.settings, 5)
    room = whole.samples // 2
    part = render_rays(trainer.model.student, trainer.model.grid, batch.rays, trainer.model.settings, 5, (), room)
    assert part.samples == whole.samples and 0 < (~part.kept).sum() < 100
    weights = term_weights(trainer.config.loss, 0.5)
    _, terms, depth = total_loss(part.composite, batch, trainer.config.loss, weights, part.kept)
    error = (whole.composite.rgb + (1 - whole.composite.alpha)[:, None] * batch.background - batch.rgb) ** 2
    torch.testing.assert_close(terms["rgb"], error[part.kept].mean())
    coverage = (whole.composite.alpha - batch.coverage)[part.kept]
    assert trainer.config.loss.alpha.kind == "l2"
    torch.testing.assert_close(terms["alpha"], (coverage**2).mean())
    assert not depth.valid[~part.kept].any()


def test_a_term_that_is_not_finite_is_found_later_and_named_with_its_step(config_path) -> None:
    trainer = asynchronous(config_path, *SMALL)
    go(trainer, 3)
    before = {name: value.clone() for name, value in trainer.model.student.state_dict().items()}
    draw = trainer.sampler.draw

    def broken(count, generator):
        batch = draw(count, generator)
        batch.rgb[0, 0] = float("nan")
        return batch

    trainer.sampler.draw = broken
    go(trainer, 2)
    trainer.sampler.draw = draw
    # Nothing broken has reached the student; sound steps go on until somebody asks.
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.student.state_dict().items())
    go(trainer, 1)
    assert all(value.isfinite().all() for value in trainer.model.student.parameters())
    with pytest.raises(TrainingDiverged, match=r"step 4: loss term 'rgb' is nan; start anew with a lower train.lr"):
        trainer.save()
    assert not list(trainer.folder.checkpoints.iterdir())


def test_a_run_ends_at_the_row_after_a_broken_step(config_path) -> None:
    trainer = asynchronous(config_path, *SMALL)
    with torch.no_grad():
        trainer.model.student.color_weights[-1].fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"step 1: loss term 'rgb' is nan"):
        trainer.run(show_progress=False)
    assert trainer.progress.step == trainer.config.train.log_every


@pytest.mark.parametrize(
    "more", [SMALL, ("kernels=torch", "train.precision=float16", *SMALL)], ids=["float32", "float16"]
)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(config_path, more) -> None:
    whole = asynchronous(config_path, *more, f"run=whole_{len(more)}", "train.max_steps=36")
    whole.run(show_progress=False)
    again = asynchronous(
        config_path, *more, f"run=whole_{len(more)}", "train.max_steps=36", resume=whole.folder.checkpoint_path(30)
    )
    again.run(show_progress=False)
    first, second = whole.model.student.state_dict(), again.model.student.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert again.step.counts.pending() == whole.step.counts.pending()
    assert again.step.rays_per_step == whole.step.rays_per_step


def test_rows_tell_of_rays_without_room(config_path) -> None:
    trainer = asynchronous(config_path, "run=crowded", "train.max_steps=10", "train.samples_per_step=1024")
    trainer.run(show_progress=False)
    (row,) = csv_rows(trainer.folder.training_csv)
    # 1,024 rays at first have more samples than there is room for.
    assert int(row["dropped_rays"]) > 100
    assert float(row["rays_per_s"]) > 0
    assert row["loss_scale"] == row["skipped_steps"] == ""


@needs_triton
@pytest.mark.parametrize(
    "student",
    ["{levels: 3, hidden_width: 16}", "{kind: kilo_uniform, grid: [2, 1, 2], hidden_width: 16, frequencies: 2}"],
    ids=["hash_grid", "kilo_uniform"],
)
def test_a_step_stays_within_its_tensors_when_its_samples_do_not_fit(config_path, student, monkeypatch) -> None:
    # On the CPU the interpreter checks every access (``tests.triton_device``); what nobody wrote is filled with NaN.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    small = ("train.samples_per_step=128", "train.rays_per_step=64", "render.max_samples_per_ray=64")
    named = ("kernels=triton", "train.precision=float16", f"student={student}", "run=crowded_triton")
    trainer = trainer_of(config_path, *small, *named, asynchronous=True, device=DEVICE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        losses = go(trainer, 1)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(math.isfinite, losses)) and trainer.step.take_dropped_rays() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="asks a CUDA device whether anything waits for it")
@pytest.mark.parametrize("more", [(), (*SEEN, *ROUNDED), (*KILO_SEEN, *ROUNDED)], ids=["", "rounded", "kilo rounded"])
def test_no_step_waits_for_a_real_device(config_path, more) -> None:
    trainer = trainer_of(config_path, "kernels=auto", *more, device=torch.device("cuda"))
    go(trainer, 20)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            trainer.take_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.step.settle(trainer.progress.step)
