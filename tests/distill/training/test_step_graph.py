"""Recorded steps do what steps do: on the CPU with fakes for CUDA's graphs, and on a GPU where there is one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from distill.training.step_graph import MOST_GRAPHS, WARM_UP, StepGraphs, bucket_of, graph_refusal
from settings.loading import load_config
from tests.fake_cuda_graphs import install
from tests.toy_scene import add_training_split, write_toy_scene
from tests.toy_training import losses_of, trainer_of

CPU = torch.device("cpu")
SMALL = ("kernels=torch", "train.samples_per_step=640", "train.rays_per_step=64", "occupancy.warmup_steps=4")
SCHEDULES = ("loss.alpha={weight: 0.1, decay_start: 0}", "loss.alpha.final=0", "loss.depth={weight: 0.1}")
SCHEDULES += ("occupancy.update_every=5",)
KILO = "student={kind: kilo_uniform, grid: [1, 1, 2], hidden_width: 16, density_layers: 1, frequencies: 2}"


@pytest.fixture(scope="module")
def config_path(tmp_path_factory) -> Path:
    path = write_toy_scene(tmp_path_factory.mktemp("toy"))
    add_training_split(path.parent)
    return path


class Accumulator:
    """A function with a memory of its own, as a training step is."""

    def __init__(self) -> None:
        self.total, self.calls = torch.zeros(()), 0

    def __call__(self, inputs):
        self.calls += 1
        self.total += inputs["x"].sum()
        return 2 * inputs["x"] + self.total


def test_replays_give_what_calls_give(monkeypatch) -> None:
    made, _ = install(monkeypatch)
    plain, function = Accumulator(), Accumulator()
    graphs = StepGraphs(function, CPU)
    for call in range(WARM_UP + 6):
        for size in (3, 5):
            inputs = {"x": torch.rand(size) + call}
            assert torch.equal(graphs(inputs), plain(inputs))
    # One recording a shape; after it the function itself is not called.
    assert [graph.replays for graph in made] == [6, 6]
    assert function.calls == 2 * (WARM_UP + 1)
    assert len(graphs) == 2


def test_inputs_of_a_recorded_call_are_left_as_they_are(monkeypatch) -> None:
    install(monkeypatch)
    graphs = StepGraphs(Accumulator(), CPU)
    given = [torch.rand(3) for _ in range(WARM_UP + 3)]
    kept = [value.clone() for value in given]
    for value in given:
        graphs({"x": value})
    assert all(torch.equal(one, two) for one, two in zip(given, kept, strict=True))


def test_only_the_latest_graphs_are_kept(monkeypatch) -> None:
    made, _ = install(monkeypatch)
    graphs = StepGraphs(Accumulator(), CPU)
    for size in range(1, MOST_GRAPHS + 3):
        for _ in range(WARM_UP + 1):
            graphs({"x": torch.ones(size)})
    assert len(graphs) == MOST_GRAPHS and len(made) == MOST_GRAPHS + 2
    graphs({"x": torch.ones(MOST_GRAPHS + 2)})
    assert len(made) == MOST_GRAPHS + 2
    for _ in range(WARM_UP + 1):
        graphs({"x": torch.ones(1)})
    assert len(made) == MOST_GRAPHS + 3


def test_what_cannot_be_recorded_runs_as_it_is_and_says_what_went_wrong_first(monkeypatch, caplog) -> None:
    """A recording that cannot be ended hides why, and leaves its stream behind as the current one."""
    _, streams = install(monkeypatch)
    plain, function, before = Accumulator(), Accumulator(), streams.current

    def waits(inputs):
        if streams.current is not before and function.calls == WARM_UP:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        return function(inputs)

    graphs = StepGraphs(waits, CPU)
    with caplog.at_level(logging.DEBUG):
        for call in range(WARM_UP + 4):
            inputs = {"x": torch.full((3,), float(call))}
            assert torch.equal(graphs(inputs), plain(inputs))
            assert streams.current is before
    warning, details = caplog.records
    assert warning.getMessage().endswith("run as they are: operation not permitted when stream is capturing")
    assert details.levelno == logging.DEBUG and "in waits\n" in caplog.text


def test_a_step_after_a_recording_that_failed_finds_no_gradients_of_it(config_path, monkeypatch) -> None:
    """On a GPU they would be whatever lay in their memory: the recording made room for them and computed nothing."""
    expected = losses_of(trainer_of(config_path, *SMALL, asynchronous=True), WARM_UP + 4)
    install(monkeypatch)
    trainer = trainer_of(config_path, *SMALL, "train.cuda_graphs=true", asynchronous=True)
    apply, steps = trainer.step.watched.apply, []

    def waits_in_the_recording(step, terms, factor=None):
        steps.append(step)
        if len(steps) == WARM_UP + 1:
            raise RuntimeError("operation not permitted when stream is capturing")
        apply(step, terms, factor)

    monkeypatch.setattr(trainer.step.watched, "apply", waits_in_the_recording)
    assert losses_of(trainer, WARM_UP + 4) == expected
    assert trainer.step.graphs.refusal == "operation not permitted when stream is capturing"


def test_a_recording_refuses_a_number_that_the_host_would_read(monkeypatch) -> None:
    install(monkeypatch)
    graphs = StepGraphs(lambda inputs: inputs["x"].masked_fill(inputs["x"] > 0, inputs["value"]), CPU)
    for _ in range(WARM_UP + 1):
        graphs({"x": torch.ones(3), "value": torch.tensor(2.0)})
    assert graphs.refusal == "aten::masked_fill.Tensor"


@pytest.mark.parametrize("rays", [1, 63, 64, 65, 127, 1000, 1024, 4095, 4096, 100_000])
def test_a_bucket_is_a_little_smaller_at_most(rays) -> None:
    found = bucket_of(rays)
    assert found <= max(rays, 64)
    assert found > rays * 15 / 16 - 64
    assert bucket_of(found) == found


def test_there_are_few_buckets() -> None:
    assert len({bucket_of(rays) for rays in range(8192, 16384)}) == 16


@pytest.mark.parametrize(
    ("overrides", "asynchronous", "reason"),
    [
        ((), True, None),
        ((), False, "wait for the device"),
        (("loss.density.weight=0.1",), True, "loss.density looks at other samples"),
        ((KILO,), True, None),
        ((KILO.replace("grid", "shading: deferred, grid"),), True, None),
        (("student.shading=deferred",), True, None),
    ],
)
def test_reasons_against_recording(config_path, overrides, asynchronous, reason) -> None:
    config = load_config(config_path, [*overrides], config_path.parent)
    found = graph_refusal(config, asynchronous)
    assert found is None if reason is None else reason in found


MIXED = "data.ground_truth={split: train, weight: 0.5}"


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("train.precision=float16", "loss.rgb.kind=huber", "loss.alpha={weight: 0.1, kind: bce}"),
        (KILO, "train.lr_common=0.02", "loss.depth={weight: 0.1, kind: l2}"),
        (KILO, "train.precision=float16"),
        (MIXED, "loss.rgb.kind=l1", "loss.depth={weight: 0.1, kind: l1}"),
        ("render.sampling=auto", "student.shading=deferred"),
    ],
    ids=["hash_grid", "float16", "kilo", "kilo_float16", "mixed", "guided_deferred"],
)
def test_recorded_training_equals_the_unrecorded(config_path, monkeypatch, more) -> None:
    if KILO in more:
        # The reference of the grouped MLPs asks how many points each cell has; one cell needs no asking.
        more = (more[0].replace("[1, 1, 2]", "[1, 1, 1]"), *more[1:])
        monkeypatch.setattr(
            "kernels.networks.grouped_mlp._groups", lambda cells: (torch.arange(len(cells)), {0: len(cells)})
        )
    plain = trainer_of(config_path, *SMALL, *SCHEDULES, *more, asynchronous=True)
    expected = losses_of(plain, WARM_UP + 8)
    made, _ = install(monkeypatch)
    trainer = trainer_of(config_path, *SMALL, *SCHEDULES, *more, "train.cuda_graphs=true", asynchronous=True)
    found = losses_of(trainer, WARM_UP + 8)
    assert trainer.step.graphs.refusal is None
    assert [graph.replays for graph in made] == [8]
    assert found == expected
    ours, theirs = trainer.model.student.state_dict(), plain.model.student.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert trainer.step.optimizer.state_dict()["param_groups"] == plain.step.optimizer.state_dict()["param_groups"]
    trainer.save()


def test_a_run_that_cannot_be_recorded_says_why_and_runs(config_path, caplog) -> None:
    inside = ("loss.density.weight=0.1", "features.resolution=8")
    trainer = trainer_of(config_path, *SMALL, *inside, "train.cuda_graphs=true", asynchronous=True)
    trainer.check()
    trainer.probe(1)
    assert caplog.text.count("without effect") == 1
    assert "train.cuda_graphs is without effect: loss.density looks" in caplog.text
    assert len(losses_of(trainer, 2)) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records graphs on a CUDA device")
def test_recorded_training_on_a_real_device(config_path) -> None:
    losses = {}
    for graphs in ("false", "true"):
        trainer = trainer_of(
            config_path, "train.rays_per_step=64", f"train.cuda_graphs={graphs}", device=torch.device("cuda")
        )
        losses[graphs] = losses_of(trainer, 60)
        assert trainer.step.graphs is None or (trainer.step.graphs.refusal is None and len(trainer.step.graphs) > 0)
    assert losses["true"] == pytest.approx(losses["false"], rel=0.05)
