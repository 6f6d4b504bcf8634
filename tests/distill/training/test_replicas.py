"""Two processes train the toy scene by the loss curve of one; and what they exchange, by hand."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from distill.evaluation.evaluator import evaluate
from distill.training.replicas import Replicas, Share, for_all_ranks
from kernels.optimization.updates import TouchedRows
from machine import ranks
from machine.run_folder import RunFolder
from settings.training import TrainConfig
from teacher.sources import load_teacher
from tests.program import FORKS, quiet_fork
from tests.toy_scene import BOTH_SPLITS, write_toy_scene
from tests.toy_training import CPU, losses_of, trainer_of

LOSSES = {"depth": {"weight": 0.1}, "alpha": {"weight": 0.1}}
STEPS = 6
OVERRIDES = ("occupancy.warmup_steps=2", "occupancy.update_every=2", "train.max_steps=60", "train.checkpoint_every=40")


def join(port: int, rank: int, environment: dict[str, str]) -> None:
    environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "NUMBA_NUM_THREADS": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def train_together(path: Path) -> tuple[list[float], bool, list[dict], int | None]:
    """What both ranks do: losses, whether the students are the same bits, figures of frames, and what stopped them."""
    ranks.join()
    trainer = trainer_of(path, *OVERRIDES)
    losses = losses_of(trainer, STEPS)
    swift = trainer_of(path, *OVERRIDES, asynchronous=True)
    combine, ranks.combine = ranks.combine, lambda *_: False  # as on several machines
    losses_of(swift, STEPS)
    ranks.combine = combine
    alike = is_alike(trainer) and is_alike(swift)
    rows = measure(trainer)
    if not ranks.is_first():
        trainer.between_steps = lambda: os.kill(os.getpid(), signal.SIGTERM) or 0.0
    trainer.run(show_progress=False)
    ranks.leave(0)
    return losses, alike, rows, trainer.stopped_by


def is_alike(trainer) -> bool:
    """Whether both ranks have the same bits, as the first knows."""
    grid = trainer.model.grid
    state = [*trainer.model.student.state_dict().values(), grid.remembered, grid.occupied]
    theirs = [*ranks.gathered(iter([[tensor.detach().clone() for tensor in state]]), 1)]
    return all(torch.equal(*pair) for other in theirs for pair in zip(state, other, strict=True))


def measure(trainer) -> list[dict]:
    """Figures of each frame but for its time."""
    config, views = trainer.config, load_teacher(trainer.config).views
    folder = RunFolder(config, trainer.folder.results.parents[2])
    renderer = trainer.model.renderer()

    def render(index, background):
        return renderer.render(views.cameras, index, background)

    rows = evaluate(render, views, config, 0, folder, CPU).frame_rows
    return [{name: value for name, value in row.items() if name != "render_s"} for row in rows]


def second(port: int, path: Path, answers) -> None:
    join(port, 1, os.environ)
    torch.set_num_threads(1)
    answers.put(train_together(path)[3])


@quiet_fork
def test_two_processes_train_evaluate_stop_and_are_gone_on_with_as_one(tmp_path, monkeypatch) -> None:
    path = write_toy_scene(tmp_path, loss=LOSSES, eval={"save_renders": False, **BOTH_SPLITS})
    alone = trainer_of(path, *OVERRIDES)
    expected, figures = losses_of(alone, STEPS), measure(alone)
    seventh = losses_of(alone, 2)[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Where a process can go on as a copy of this one it imports nothing anew.
    context = multiprocessing.get_context("fork" if FORKS else "spawn")
    answers = context.Queue()
    other = context.Process(target=second, args=(port, path, answers), daemon=True)
    other.start()
    environment: dict[str, str] = {}
    join(port, 0, environment)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    losses, alike, rows, stopped_by = train_together(path)
    assert answers.get(timeout=300) == stopped_by == signal.SIGTERM
    other.join()
    assert losses == pytest.approx(expected, abs=1e-6)
    assert alike
    assert len(rows) == len(figures)
    for row, figure in zip(rows, figures, strict=True):
        assert row == pytest.approx(figure, abs=1e-3)
    # The signal to the second has ended both after the step in which it came; the first has saved it.
    checkpoint = tmp_path / "results/toy/first/checkpoints" / f"step_{STEPS + 1:06d}.pth"
    resumed = trainer_of(path, *OVERRIDES, resume=checkpoint)
    assert resumed.progress.step == STEPS + 1
    assert losses_of(resumed, 1) == pytest.approx([seventh], abs=1e-6)


def test_of_a_table_only_what_some_replica_has_touched_is_exchanged(monkeypatch) -> None:
    table, weights = nn.Parameter(torch.zeros(80, 2)), nn.Parameter(torch.zeros(2, 3))
    touched = TouchedRows(len(table))
    table.grad = torch.zeros(80, 2)
    table.grad[3], touched.flags[0] = 1.0, 1
    sizes, theirs = [], torch.zeros_like(touched.flags)
    theirs[4] = 1

    def total(values):
        sizes.append(values.numel())
        return values.add_(0.5)

    monkeypatch.setattr(ranks, "combine", lambda *_: False)  # as on several machines
    monkeypatch.setattr(ranks, "total", total)
    monkeypatch.setattr(ranks, "largest", lambda flags: torch.maximum(flags, theirs))
    field = SimpleNamespace(parameters=lambda: [table, weights], touched_rows=lambda: {table: touched})
    share = Share({"rgb": torch.tensor(0.25)}, torch.tensor(1), torch.tensor(1))
    summed = Replicas([field], None, CPU).sum(torch.tensor(2.0), {"rgb": torch.tensor(4.0)}, share, 0.0)
    assert sizes == [2 * 8 * 2 + 6 + 2]
    expected = torch.zeros(80, 2)
    expected[0:8], expected[32:40] = 0.5, 0.5
    expected[3] += 1
    assert torch.equal(table.grad, expected)
    assert torch.equal(weights.grad, torch.full((2, 3), 0.5))
    assert touched.flags.nonzero()[:, 0].tolist() == [0, 4]
    assert summed == (2.5, {"rgb": 1.5})


def test_a_batch_of_each_process_comes_with_the_square_root_of_their_number(monkeypatch) -> None:
    train = TrainConfig(lr=0.01, lr_common=0.02, rays_per_step=100, samples_per_step=1000)
    monkeypatch.setattr(ranks, "size", lambda: 4)
    assert for_all_ranks(train) is train
    scaled = for_all_ranks(train.model_copy(update={"scale_batch": True}))
    assert (scaled.lr, scaled.lr_mlp, scaled.lr_common) == (0.02, None, 0.04)
    assert (scaled.rays_per_step, scaled.samples_per_step) == (400, 4000)
