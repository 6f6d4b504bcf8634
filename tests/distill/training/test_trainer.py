"""The training loop: exact resume, honest stops, a probe that leaves no trace."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from distill.training.trainer import Trainer
from machine.files import read_csv
from settings.errors import InputError, TrainingDiverged
from teacher.rasterizer import Rasterizer
from teacher.sources import load_teacher
from teacher.sources.live_producers import InlineProducer, ThreadedProducer, make_producer
from tests.toy_scene import FRAMES, SIZE, add_training_split, write_toy_scene
from tests.toy_training import trainer_of


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    return write_toy_scene(
        tmp_path, loss={"depth": {"weight": 0.1}}, train={"checkpoint_steps": [30], "samples_per_step": 1024}
    )


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    weights = {name: value.clone() for name, value in trainer.model.student.state_dict().items()}
    grid = {f"grid.{name}": value.clone() for name, value in trainer.model.grid.state_dict().items()}
    return {**weights, **grid, "generator": trainer.step.generator.get_state()}


def test_the_rays_of_a_supersampled_student_are_of_finer_pictures(config_path) -> None:
    half = f"data.resolution={SIZE // 2}", "data.holdout_every=0", "eval.splits=[train]"
    trainers = [trainer_of(config_path, *half, f"render.supersample={scale}") for scale in (1, 2)]
    assert [trainer.sampler.pixels for trainer in trainers] == [FRAMES * SIZE**2 // 4, FRAMES * SIZE**2]
    assert [trainer.model.settings.supersample for trainer in trainers] == [1, 2]
    cells = [trainer.model.grid.occupied for trainer in trainers]
    assert torch.equal(*cells)  # samples are as far apart, and in the same cells


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(config_path) -> None:
    whole = trainer_of(config_path)
    whole.run(show_progress=False)
    resumed = trainer_of(config_path, resume=whole.folder.checkpoint_path(30))
    assert resumed.progress.step == 30
    resumed.run(show_progress=False)
    first, second = state_of(whole), state_of(resumed)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("run", ["first", "another"])  # the checkpoint's, and one that has none of that step
def test_a_run_that_is_over_where_it_is_resumed_leaves_its_checkpoint_as_it_is(config_path, run, caplog) -> None:
    caplog.set_level("INFO")
    whole = trainer_of(config_path, "train.max_steps=32")
    whole.run(show_progress=False)
    checkpoint = whole.folder.checkpoint_path(30)
    content = checkpoint.read_bytes()
    resumed = trainer_of(config_path, f"run={run}", "train.max_steps=20", resume=checkpoint)
    resumed.run(show_progress=False)
    assert "nothing is left to train: the run is over at step 30" in caplog.text
    assert checkpoint.read_bytes() == content and resumed.folder.checkpoint_path(30).is_file()


def test_without_time_for_a_first_step_it_is_said_what_took_it(config_path) -> None:
    trainer = trainer_of(config_path, "train.max_seconds=5")
    trainer.progress.seconds = trainer.progress.seconds_before = 7.5
    with pytest.raises(InputError, match=r"max_seconds: found 5, expected more than 7\.5 s, which"):
        trainer.check()


def test_checkpoints_that_no_step_reaches_are_said(config_path, caplog) -> None:
    trainer_of(config_path, "train.max_steps=30", "train.checkpoint_steps=[10, 40, 50]").check()
    assert "train.checkpoint_steps: the run ends at step 30, before 40, 50" in caplog.text


# More samples than elsewhere: views must be asked for often.
LIVE = (
    "teacher.kind=gaussians",
    "teacher.outputs=null",
    "teacher.live={buffer: 4, reuse: 1.5, ahead: 2}",
    "train.samples_per_step=4096",
)


@pytest.fixture
def live_path(config_path) -> Path:
    add_training_split(config_path.parent)
    return config_path


@pytest.mark.parametrize(
    "more",
    [(), ("data.ground_truth={split: train, weight: 0.5}",), ("render.sampling=teacher",)],
    ids=["live", "mixed", "guided"],
)
def test_a_resumed_live_run_equals_the_uninterrupted_one_bit_for_bit(live_path, more) -> None:
    whole = trainer_of(live_path, *LIVE, *more)
    whole.run(show_progress=False)
    resumed = trainer_of(live_path, *LIVE, *more, resume=whole.folder.checkpoint_path(30))
    resumed.run(show_progress=False)
    first, second = state_of(whole), state_of(resumed)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    taken, again = (trainer.sampler.state()["taken"] for trainer in (whole, resumed))
    assert taken == again > 20


class _SaysCuda(Rasterizer):
    """Renders on the CPU, but gives out that it is a GPU that does."""

    def __init__(self, gaussians, implementation, *, device, threads, drawing) -> None:
        super().__init__(gaussians, drawing=drawing)
        assert (implementation, device) == ("auto", torch.device("cuda"))
        self.device = device


def test_a_live_run_is_the_same_with_views_made_in_line(live_path, monkeypatch) -> None:
    threaded, in_line = trainer_of(live_path, *LIVE), trainer_of(live_path, *LIVE)
    assert isinstance(threaded.sampler.producer, ThreadedProducer)
    monkeypatch.setattr("teacher.sources.live_producers.Rasterizer", _SaysCuda)
    in_line.sampler.producer = make_producer(in_line.config, load_teacher(in_line.config), torch.device("cuda"))
    assert isinstance(in_line.sampler.producer, InlineProducer)
    threaded.run(show_progress=False)
    in_line.run(show_progress=False)
    first, second = state_of(threaded), state_of(in_line)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_probe_takes_no_view_from_a_live_teacher(live_path) -> None:
    trainer = trainer_of(live_path, *LIVE)
    with trainer.sampler:
        before = trainer.sampler.state()
        trainer.probe(3)
        assert trainer.sampler.state() == before


def test_a_live_teacher_that_fails_ends_the_run_with_its_own_error(live_path, monkeypatch) -> None:
    trainer = trainer_of(live_path, *LIVE)
    render = trainer.sampler.producer._render

    def fails_at_nine(index: int):
        if index == 9:
            raise MemoryError("no room for view 9")
        return render(index)

    monkeypatch.setattr(trainer.sampler.producer, "_render", fails_at_nine)
    with pytest.raises(MemoryError, match="view 9"):
        trainer.run(show_progress=False)
    assert not any(thread.name == "live teacher" for thread in threading.enumerate())


def test_a_resumed_run_keeps_its_own_occupancy_resolution(config_path) -> None:
    first = trainer_of(config_path, "train.max_steps=5")
    first.run(show_progress=False)
    path = first.folder.checkpoint_path(5)
    second = trainer_of(config_path, "occupancy.resolution=9", "train.max_steps=8", resume=path)
    second.run(show_progress=False)
    third = trainer_of(config_path, resume=second.folder.checkpoint_path(8))
    assert third.model.grid.shape == first.model.grid.shape


def test_a_scene_64_times_as_large_is_learnt_as_well(config_path) -> None:
    drawn = "teacher.kind=gaussians", "teacher.outputs=null", "train.max_steps=150", "train.lr=0.06"
    usual = trainer_of(config_path, *drawn)
    path = config_path.parent / "data" / "transforms.json"
    dataset = json.loads(path.read_text(encoding="utf-8"))
    for frame in dataset["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 64
    path.write_text(json.dumps(dataset), encoding="utf-8")
    large = trainer_of(config_path, *drawn, "teacher.scale=64")
    assert large.model.grid.box.extent == pytest.approx([64 * side for side in usual.model.grid.box.extent])
    reached = []
    for trainer in (usual, large):
        trainer.run(show_progress=False)
        rows = read_csv(trainer.folder.training_csv).rows
        reached.append(float(rows[max(rows)]["psnr_batch"]))
    assert reached[1] == pytest.approx(reached[0], abs=0.1)


def test_another_seed_gives_another_student(config_path) -> None:
    first, second = (trainer_of(config_path, f"seed={seed}", "train.max_steps=5") for seed in (0, 1))
    for trainer in (first, second):
        trainer.run(show_progress=False)
    assert not torch.equal(first.model.student.table, second.model.student.table)


def test_the_probe_leaves_no_trace(config_path) -> None:
    trainer = trainer_of(config_path)
    before = state_of(trainer)
    assert trainer.probe(2) > 0
    assert trainer.progress.step == 0 and not trainer.step.optimizer.state
    assert all(torch.equal(value, before[name]) for name, value in state_of(trainer).items())


def test_a_term_that_is_not_finite_stops_the_run_and_is_named(config_path) -> None:
    trainer = trainer_of(config_path)
    with torch.no_grad():
        trainer.model.student.color_weights[-1].fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"step 1: loss term 'rgb' is nan"):
        trainer.run(show_progress=False)
    assert not list(trainer.folder.checkpoints.iterdir())


def test_time_ends_a_run_and_drives_its_schedule(config_path) -> None:
    trainer = trainer_of(config_path, "train.max_seconds=1.5", "train.max_steps=1000000")
    trainer.run(show_progress=False)
    assert 1.5 <= trainer.progress.seconds < 10
    assert trainer.fraction_done() >= 1
    train = trainer.config.train
    assert train.lr_final_ratio < trainer.step.optimizer.param_groups[0]["lr"] / train.lr < 0.1


@pytest.mark.filterwarnings("error::tqdm.TqdmWarning")
def test_the_bar_of_a_timed_run_ends_full_and_no_fuller(config_path, capsys) -> None:
    trainer = trainer_of(config_path, "train.max_seconds=0.3", "train.max_steps=1000000")
    trainer.run()
    assert trainer.progress.seconds > 0.3
    assert "train: 100%" in capsys.readouterr().err
    trainer.run()  # as resumed: there is nothing left to do


def test_the_ray_count_follows_the_sample_budget(config_path) -> None:
    trainer = trainer_of(config_path, "train.samples_per_step=2000", "train.rays_per_step=100000")
    trainer.run(show_progress=False)
    samples = [trainer.take_step().rendered.samples for _ in range(5)]
    assert 1400 < sum(samples) / 5 < 2800


def test_reference_and_fast_kernels_train_alike(config_path) -> None:
    losses = {}
    for kernels in ("torch", "numba"):
        trainer = trainer_of(config_path, f"kernels={kernels}", "occupancy.warmup_steps=8")
        losses[kernels] = [trainer.take_step().loss.item() for _ in range(12)]
    assert losses["numba"] == pytest.approx(losses["torch"], rel=1e-3)


def test_images_see_as_far_as_the_teacher_does_from_their_cameras(config_path) -> None:
    guided = ("teacher.kind=gaussians", "render.sampling=teacher", "data.ground_truth={split: train}")
    own = trainer_of(config_path, *guided).sampler
    assert own.images.reach.isfinite().any() and torch.equal(own.images.reach, own.teacher.reach)
    add_training_split(config_path.parent)
    others = trainer_of(config_path, *guided).sampler.images
    assert others.reach.isfinite().any() and others.reach.shape == others.coverage.shape


@pytest.mark.parametrize("live", [(), LIVE])
def test_finer_pictures_of_a_teacher_and_of_images_see_as_far_as_coarse_ones(live_path, live) -> None:
    guided = (*live, "teacher.kind=gaussians", "render.sampling=teacher", "data.ground_truth={split: train}")
    finer = f"data.resolution={SIZE // 2}", "teacher.supersample=2"
    trainer = trainer_of(live_path, *guided, *finer)
    images = trainer.sampler.images
    assert trainer.model.settings.supersample == 2 and images.coverage.numel() % SIZE**2 == 0
    assert images.reach.shape == images.coverage.shape and images.reach.isfinite().any()
    trainer.run(show_progress=False)
    assert trainer.progress.step == 60
