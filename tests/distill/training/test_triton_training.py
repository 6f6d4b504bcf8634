"""Whole training steps on Triton's kernels, as CUDA takes them, against the torch reference."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from machine.memory import MIB
from tests import fake_cuda_graphs
from tests.launch_count import LaunchCount
from tests.toy_scene import add_training_split, write_toy_scene
from tests.toy_training import trainer_of
from tests.triton_device import DEVICE, GPU, needs_triton

SMALL = (
    *("train.samples_per_step=160", "train.rays_per_step=16", "render.max_samples_per_ray=64", "render.step_size=0.1"),
    *("occupancy.resolution=8", "occupancy.warmup_steps=1", "occupancy.update_every=1"),
)
HASH = ("student.levels=2", "student.hidden_width=16")
KILO = ("student={kind: kilo_uniform, grid: [2, 1, 2], hidden_width: 16, density_layers: 1, frequencies: 2}",)
SEEN = "student.planes=[4,8]", "student.density_degree=2"
HASH_SEEN, KILO_SEEN = (*HASH, *SEEN), (KILO[0][:-1] + ", density_degree: 1}",)
COMPACT = f"compact.target_mib={8000 / MIB}", "compact.share=0.9", "compact.round_every=2", "train.max_seconds=null"
MIXED = "data.ground_truth={split: train, weight: 4}"
HASH_DEFERRED, KILO_DEFERRED = ((*student, "student.shading=deferred") for student in (HASH, KILO))


@pytest.fixture(scope="module")
def config_path(tmp_path_factory) -> Path:
    path = write_toy_scene(tmp_path_factory.mktemp("toy"))
    add_training_split(path.parent)
    return path


def trained(path: Path, kernels: str, more: tuple[str, ...], steps: int = 2):
    device = DEVICE if kernels == "triton" else torch.device("cpu")
    trainer = trainer_of(path, *SMALL, *more, f"kernels={kernels}", asynchronous=True, device=device)
    # What a device draws differs from device to device.
    trainer.step._drawing = lambda: trainer.step.generator
    trainer.began = {name: value.detach().cpu().clone() for name, value in trainer.model.student.named_parameters()}
    losses = []
    for _ in range(steps):
        losses.append(trainer.take_step().loss.item())
    return trainer, losses


def moved_of(trainer, name: str, begin: torch.Tensor) -> torch.Tensor:
    """How far a parameter has moved; of what Muon moves its momentum.

    Muon takes small parts of it as far as large ones, be they what rounding makes: of gradients that differ by a
    millionth, as a GPU's do, KiloUniform's steps have more than a third of another direction, with as few samples.
    """
    parameter = trainer.model.student.get_parameter(name)
    if parameter in trainer.model.student.matrices():
        return trainer.step.optimizer.state[parameter]["first_moment"].flatten().cpu()
    return (parameter.detach().cpu() - begin).flatten()


@needs_triton
@pytest.mark.parametrize(
    ("student", "precision"),
    [
        (HASH, "float32"),
        (KILO, "float16"),
        (HASH_DEFERRED, "float16"),
        (KILO_DEFERRED, "float32"),
        (HASH_SEEN, "float16"),
        (KILO_SEEN, "float16"),
    ],
    ids=[
        *("hash_grid-float32", "kilo_uniform-float16", "hash_grid_deferred-float16", "kilo_uniform_deferred-float32"),
        *("hash_grid_directions-float16", "kilo_uniform_directions-float16"),
    ],
)
def test_steps_on_triton_equal_those_of_the_reference(config_path, student, precision) -> None:
    more = (*student, f"train.precision={precision}")
    reference, expected = trained(config_path, "torch", more)
    trainer, found = trained(config_path, "triton", more)
    close = {"float32": 1e-4, "float16": 5e-3}[precision]
    assert found == pytest.approx(expected, rel=close)
    for name, begin in reference.began.items():
        moved, wanted = (moved_of(each, name, begin) for each in (trainer, reference))
        # Adam moves an entry by its gradient's sign: what is rounding alone may go either way.
        assert torch.cosine_similarity(moved, wanted, dim=0) > {"float32": 0.999, "float16": 0.95}[precision], name
        if name == "table":
            # Adam is lazy with them: what no sample touched has not moved at all.
            assert ((moved == 0) == (wanted == 0)).float().mean() > 0.995
            assert 0.05 < (moved == 0).float().mean() < 1


@pytest.fixture(
    scope="module",
    params=[
        *((HASH_SEEN, 38), ((*HASH_SEEN, MIXED), 42), (KILO_SEEN, 48), (HASH_DEFERRED, 44), (KILO_DEFERRED, 44)),
    ],
    ids=["hash_grid", "hash_grid_mixed", "kilo_uniform", "hash_grid_deferred", "kilo_uniform_deferred"],
)
def quickstart(config_path, request):
    """Three steps as the quickstart trains: float16, a depth term, rays that end where the teacher's do.

    Settings, the trainer, losses, what the second step launched, where the grid stays, and how much that may be.
    """
    student, most = request.param
    more = (*SMALL, *student, "train.precision=float16", "loss.depth={weight: 0.1}", "render.sampling=auto")
    more += ("train.lr_common=0.02", "loss.alpha={weight: 0.1}", "occupancy.update_every=2")
    trainer, losses = trained(config_path, "triton", more, steps=1)
    with LaunchCount() as count:
        second = trainer.take_step()
    losses += [second.loss.item(), trainer.take_step().loss.item()]
    return SimpleNamespace(settings=more, trainer=trainer, losses=losses, count=count, most=most)


@needs_triton
@pytest.mark.skipif(GPU, reason="looks into Triton's interpreter")
def test_a_step_takes_few_launches(quickstart) -> None:
    assert quickstart.count.total <= quickstart.most, quickstart.count.launches


@needs_triton
@pytest.mark.skipif(GPU, reason="looks into Triton's interpreter")
def test_a_recorded_step_launches_on_triton_what_any_other_does(config_path, monkeypatch, quickstart) -> None:
    monkeypatch.setattr("distill.training.step_graph.WARM_UP", 1)
    made, _ = fake_cuda_graphs.install(monkeypatch)
    trainer, found = trained(config_path, "triton", (*quickstart.settings, "train.cuda_graphs=true"), steps=3)
    assert trainer.step.graphs.refusal is None and [graph.replays for graph in made] == [2]
    assert found == pytest.approx(quickstart.losses, rel=1e-5)
    ours, theirs = (each.model.student.state_dict() for each in (trainer, quickstart.trainer))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)


@needs_triton
@pytest.mark.skipif(GPU, reason="looks into Triton's interpreter")
@pytest.mark.parametrize(
    "student", [HASH_SEEN, KILO_SEEN, KILO_DEFERRED], ids=["hash_grid", "kilo_uniform", "deferred"]
)
def test_the_probe_compiles_all_that_the_first_steps_need(config_path, student) -> None:
    """Those before the first refresh of the grid, the refresh, and what follows it with other numbers of rays."""
    more = (*SMALL, *student, "train.precision=float16", "occupancy.warmup_steps=2", "occupancy.update_every=2")
    trainer = trainer_of(config_path, *more, "kernels=triton", asynchronous=True)
    with LaunchCount() as probe:
        trainer.probe(1)
    with LaunchCount() as training:
        for step in range(3):
            trainer.step.rays_per_step = 16 - step
            trainer.take_step()
    assert training.launches["_density"] == 1
    assert training.compiled <= probe.compiled


@needs_triton
@pytest.mark.skipif(GPU, reason="looks into Triton's interpreter")
def test_a_recording_launches_what_was_compiled_before_it(config_path, monkeypatch) -> None:
    """Of views without alpha, whose rays share one background."""
    monkeypatch.setattr("distill.training.step_graph.WARM_UP", 1)
    more = (*SMALL, *HASH, "train.precision=float16", "train.cuda_graphs=true", "occupancy.update_every=100")
    made, _ = fake_cuda_graphs.install(monkeypatch)
    trainer = trainer_of(config_path, *more, "kernels=triton", asynchronous=True)
    assert trainer.sampler.draw(16, trainer.step.generator).background.stride(0) == 0
    with LaunchCount() as probe:
        trainer.probe(1)
    with LaunchCount() as training:
        for _ in range(2):
            trainer.take_step()
    assert [graph.replays for graph in made] == [1]
    assert training.compiled <= probe.compiled


@needs_triton
@pytest.mark.skipif(GPU, reason="looks into Triton's interpreter")
@pytest.mark.parametrize("student", [HASH_SEEN, KILO_SEEN], ids=["hash_grid", "kilo_uniform"])
def test_recorded_steps_train_rounded_weights_as_others_do(config_path, monkeypatch, student) -> None:
    """What follows from rounding is written where a recorded step reads: no graph is made anew."""
    monkeypatch.setattr("distill.training.step_graph.WARM_UP", 1)
    more = (*SMALL, *student, *COMPACT, "train.precision=float16", "train.max_steps=10", "occupancy.update_every=100")
    plain, expected = trained(config_path, "triton", more, steps=4)
    made, _ = fake_cuda_graphs.install(monkeypatch)
    trainer, found = trained(config_path, "triton", (*more, "train.cuda_graphs=true"), steps=4)
    assert trainer.step.graphs.refusal is None and [graph.replays for graph in made] == [3]
    assert trainer.compaction.figures()["bits_per_entry"] > 0
    assert found == pytest.approx(expected, rel=1e-3)
    ours, theirs = trainer.model.student.state_dict(), plain.model.student.state_dict()
    for name, value in ours.items():
        # Rounding of the last bits, which Muon does not make small, has some weights take another integer.
        assert (value - theirs[name]).norm() < 0.05 * theirs[name].norm(), name


@needs_triton
@pytest.mark.skipif(GPU, reason="looks into Triton's interpreter")
def test_a_step_at_rounded_weights_takes_a_launch_more_for_each_parameter(config_path) -> None:
    """All of which are compiled before the first step."""
    more = (*SMALL, *HASH_SEEN, *COMPACT, "train.precision=float16", "train.max_steps=10", "occupancy.update_every=100")
    trainer = trainer_of(config_path, *more, "kernels=triton", "compact.round_every=100", asynchronous=True)
    with LaunchCount() as before:
        trainer.check()
    while not trainer.compaction.figures():
        trainer.take_step()
    weights, parameters = trainer.compaction._weights, len([*trainer.model.student.parameters()])
    result = trainer.take_step()
    with LaunchCount() as count:
        for _ in range(4):
            weights.keep(result.lr, result.rays, result.terms["rgb"])
    assert count.launches["_straight_through"] == 4 * parameters and count.launches["_average_moved"] == 1
    assert count.total <= 4 * (parameters + 8)
    assert count.compiled <= before.compiled
