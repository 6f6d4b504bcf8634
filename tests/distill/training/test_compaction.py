"""Runs that end with a compact file: its size, the figures on the way, resuming."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numba
import pytest
import torch
import yaml

from distill.compact import rounding
from distill.compact.rounding_pace import RoundingPace
from distill.model.checkpoint import load_checkpoint
from distill.training import compaction
from distill.training import trainer as trainer_module
from distill.training.compaction import Compaction
from machine.memory import MIB
from settings.errors import InputError
from tests.program import csv_rows
from tests.toy_scene import write_toy_scene
from tests.toy_training import CPU, trainer_of

TARGET = 8000 / MIB
COMPACT = (f"compact.target_mib={TARGET}", "compact.share=0.5", "train.max_seconds=null")
EARLY = *COMPACT, "compact.round_every=5"


@pytest.fixture
def path(tmp_path):
    return toy(tmp_path)


@pytest.fixture
def kilo(tmp_path):
    student = {"kind": "kilo_uniform", "grid": [2, 2, 2], "hidden_width": 16}
    path = write_toy_scene(tmp_path, train={"samples_per_step": 1024})
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "student": student}))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 60 steps, and the config that it was of; weights were rounded in the last 30."""
    path = toy(tmp_path_factory.mktemp("finished"))
    trainer = trainer_of(path, *COMPACT, "train.checkpoint_steps=[47]")
    trainer.run(show_progress=False)
    return trainer, path


@pytest.fixture
def after(finished, tmp_path):
    """The config of that run, whose folder is put back afterwards: a file's weights have what its paths leave them."""
    _, path = finished
    kept = shutil.copytree(path.parent, tmp_path / "kept")
    yield path
    shutil.rmtree(path.parent)
    shutil.copytree(kept, path.parent)


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """The config of a run that was not stopped, and the bytes of its file."""
    path = toy(tmp_path_factory.mktemp("early"))
    torch.manual_seed(0)  # as before each test
    trainer_of(path, *EARLY).run(show_progress=False)
    return path, file_of(path).read_bytes()


def toy(folder):
    return write_toy_scene(folder, train={"samples_per_step": 1024, "log_every": 10})


def file_of(path, step=60):
    return path.parent / f"results/toy/first/checkpoints/step_{step:06d}.lrd"


def stopped(path, steps, *settings):
    """The checkpoint of a run that was stopped."""
    trainer = trainer_of(path, *settings)
    for _ in range(steps):
        trainer.sampler.advance(trainer.take_step().rays)
    trainer.save()
    return file_of(path, steps).with_suffix(".pth")


@pytest.mark.parametrize("student", ["path", "kilo"])
def test_what_chooses_integers_is_compiled_before_the_clock_runs(student, request, monkeypatch):
    calls = []
    for kernel in (rounding.round_rows, rounding.round_matrices):

        def noted(*given, kernel=kernel):
            calls.append((kernel, *map(numba.typeof, given)))
            kernel(*given)

        monkeypatch.setattr(rounding, kernel.__name__, noted)
    settings = *COMPACT, "compact.share=0.97"
    trainer = trainer_of(request.getfixturevalue(student), *settings)
    trainer.check()
    compiled = {*calls}
    calls.clear()
    while not trainer.compaction.figures():
        trainer.take_step()
    assert calls and {*calls} <= compiled


def test_a_run_ends_with_a_file_of_the_wanted_size_and_a_student_that_is_the_file_s(finished):
    trainer, path = finished
    size = file_of(path).stat().st_size
    assert 0.9 * 8000 < size <= 8000
    found = load_checkpoint(file_of(path), CPU)
    kept = load_checkpoint(file_of(path).with_suffix(".pth"), CPU)["student"]["weights"]
    for name, value in trainer.model.student.state_dict().items():
        assert value.equal(found["student"]["weights"][name]) and value.equal(kept[name]), name
    assert found["occupancy"]["state"]["occupied"].equal(trainer.model.grid.occupied)
    rows = csv_rows(trainer.folder.training_csv)
    assert [row["bits_per_entry"] for row in rows[:2]] == ["", ""]
    assert float(rows[-1]["size_estimate_mib"]) * MIB == pytest.approx(size, rel=0.03)
    assert found["step"] == 60


def test_a_run_resumed_while_its_weights_are_rounded_ends_with_the_same_bytes(after):
    whole = file_of(after).read_bytes()
    file_of(after).unlink()
    halfway = file_of(after, 47).with_suffix(".pth")
    trainer_of(after, *COMPACT, "train.checkpoint_steps=[47]", resume=halfway).run(show_progress=False)
    assert file_of(after).read_bytes() == whole


@pytest.mark.parametrize("steps", [20, 32])  # before weights are rounded, after
def test_a_run_that_was_stopped_ends_as_one_that_was_not(early, steps):
    path, whole = early
    file_of(path).unlink(missing_ok=True)
    trainer_of(path, *EARLY, resume=stopped(path, steps, *EARLY)).run(show_progress=False)
    assert file_of(path).read_bytes() == whole


@pytest.mark.parametrize("share", [0.5, 0.9])  # at the checkpoint weights are not rounded yet; they are
def test_a_run_that_is_over_where_it_is_resumed_ends_with_a_file_too(path, share):
    settings = *COMPACT, f"compact.share={share}"
    halfway = stopped(path, 20, *settings)
    kept = halfway.read_bytes()
    trainer = trainer_of(path, *settings, "train.max_steps=20", resume=halfway)
    trainer.run(show_progress=False)
    assert trainer.progress.step == 20 and 0.9 * 8000 < file_of(path, 20).stat().st_size <= 8000
    own, found = trainer.model.student.state_dict(), load_checkpoint(file_of(path, 20), CPU)["student"]["weights"]
    assert halfway.read_bytes() == kept and all(value.equal(own[name]) for name, value in found.items())


def test_a_run_whose_time_is_over_before_its_row_is_written_ends_with_a_file_too(path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    trainer = trainer_of(path, *COMPACT, "train.max_seconds=10")
    at_steps, settle = {20: 9.0, 30: 4.0}, trainer.step.settle

    def waits(steps):  # as for a GPU, before a row
        clock.now += at_steps.pop(steps, 0.0)
        settle(steps)

    monkeypatch.setattr(trainer.step, "settle", waits)
    trainer.run(show_progress=False)
    assert not at_steps and trainer.progress.seconds == 13
    assert 0.9 * 8000 < file_of(path, trainer.progress.step).stat().st_size <= 8000


def test_a_file_of_a_finished_run_that_is_lost_is_written_again_and_one_that_is_there_is_left(after):
    file_of(after).unlink()
    last = file_of(after).with_suffix(".pth")
    trainer_of(after, *COMPACT, resume=last).run(show_progress=False)
    assert 0.9 * 8000 < file_of(after).stat().st_size <= 8000
    file_of(after).write_bytes(b"left")
    trainer_of(after, *COMPACT, resume=last).run(show_progress=False)
    assert file_of(after).read_bytes() == b"left"


@pytest.mark.parametrize("sparsity", [0.0, 10.0])
def test_until_weights_are_rounded_a_table_is_pulled_to_zero_in_such_runs(path, sparsity):
    settings = *COMPACT, "compact.share=0.1", f"compact.sparsity={sparsity}"
    trainer, without = trainer_of(path, *settings), trainer_of(path, "train.max_seconds=null")
    for _ in range(40):
        trainer.take_step()
        without.take_step()
    assert trainer.compaction.figures() == {}  # nothing is rounded yet
    table, free = (each.model.student.table.detach() for each in (trainer, without))
    if sparsity:
        assert table.abs().mean() < 0.8 * free.abs().mean() and (table == 0).sum() > 2 * (free == 0).sum()
    else:
        assert table.equal(free)


@pytest.mark.parametrize(("target", "share"), [(8000, 0.01), (16000, 0.0025), (1000, 0.2)])
def test_the_pull_falls_with_the_square_of_the_bits_and_ends_when_they_count(path, target, share, monkeypatch):
    trainer = trainer_of(path, *COMPACT, "train.max_steps=40")
    table, strengths = trainer.model.student.table, []
    given = {"target_mib": target / MIB, "sparsity": 0.01 * (8 * 8000 / table.numel()) ** 2, "share": 0.5}
    compact = trainer.config.compact.model_copy(update=given)
    trainer.compaction = Compaction(compact, trainer.step, trainer._header)
    monkeypatch.setattr(compaction, "typical_gradient", lambda moment: torch.ones(()))
    monkeypatch.setattr(compaction, "shrink", lambda *arguments: strengths.append(float(arguments[2])))
    rates = [trainer.take_step().lr for _ in range(19)]
    assert strengths == pytest.approx([share * 16 * rates[15]])
    if target > 2000:  # less has no room for cells
        for _ in range(20):
            trainer.take_step()
        assert len(strengths) == 1 and trainer.compaction.figures()


def test_so_does_one_of_networks_whose_maps_have_been_made_anew_by_then(kilo):
    settings = *COMPACT, "compact.share=0.9", "compact.round_every=20", "train.checkpoint_steps=[47]"
    trainer = trainer_of(kilo, *settings)
    trainer.run(show_progress=False)
    whole = file_of(kilo).read_bytes()
    estimate = float(csv_rows(trainer.folder.training_csv)[-1]["size_estimate_mib"])
    assert estimate * MIB == pytest.approx(len(whole), rel=0.03)
    file_of(kilo).unlink()
    halfway = file_of(kilo, 47).with_suffix(".pth")
    state = load_checkpoint(halfway, CPU)["compaction"]["weights"]["density_networks"]["networks"]
    assert state["renewals"] == 1
    trainer_of(kilo, *settings, resume=halfway).run(show_progress=False)
    assert file_of(kilo).read_bytes() == whole


def test_cells_networks_are_rounded_from_the_first_step_on_where_that_is_wanted(kilo):
    trainer = trainer_of(kilo, *COMPACT, "compact.share=1", "train.max_steps=5")
    trainer.run(show_progress=False)
    assert 0.8 * 8000 < file_of(kilo, 5).stat().st_size <= 8000
    found = load_checkpoint(file_of(kilo, 5), CPU)["student"]["weights"]
    assert trainer.model.student.state_dict()["density_networks"].equal(found["density_networks"])


def test_a_size_that_cannot_be_had_is_refused_before_training(path):
    trainer = trainer_of(path, "compact.target_mib=0.0001")
    with pytest.raises(InputError, match="config: compact.target_mib: found 0.0001 MiB, expected more than 0.00"):
        trainer.check()


def test_by_the_clock_choosing_integers_may_take_half_of_the_time_and_by_steps_all_it_takes(path, monkeypatch):
    made = []
    monkeypatch.setattr(compaction, "RoundingPace", lambda *given: made.append(given) or RoundingPace(*given))
    for max_seconds in ("60", "null"):
        trainer = trainer_of(path, *COMPACT, "compact.round_every=7", f"train.max_seconds={max_seconds}")
    assert made == [(7, True), (7, False)]
    asked = []
    monkeypatch.setattr(trainer.compaction._pace, "is_due", lambda steps: asked.append(steps) or False)
    while len(asked) < 2:
        trainer.take_step()
    assert asked == [1, 2]  # in the first of them integers were chosen in any case
