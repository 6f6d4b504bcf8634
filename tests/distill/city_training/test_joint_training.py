"""Blocks trained together: rays of many cameras through them, and a fine-tune that was stopped."""

import signal

import pytest
import torch

from distill.city_training import joint_training
from distill.city_training.joint_training import BlockPart, JointOptions, composite_training, fine_tune
from distill.model.checkpoint import load_checkpoint, restore_student, save_checkpoint
from distill.training.optimizer import StudentOptimizer
from machine.interrupts import Interrupt, Stopped
from machine.memory import MIB
from machine.weights_files import read_weights
from scene.rays import Rays, intersect_box
from settings.errors import InputError
from settings.loading import load_config
from settings.training import TrainConfig
from tests.distill.city_rendering.test_compositing import BOX, QUARTERS, SETTINGS, broken_march, mottled  # noqa: F401
from tests.toy_city import noise_views, toy_city

OPTIONS = JointOptions(steps=5, rays=64)


def rays_across():
    """From all sides, so that no two need meet the blocks in one order; some miss all."""
    origins = 3 * torch.nn.functional.normalize(torch.randn(150, 3), dim=1)
    directions = torch.nn.functional.normalize(1.2 * torch.randn(150, 3) - origins, dim=1)
    return Rays(origins, directions, *intersect_box(origins, directions, BOX, SETTINGS.near, SETTINGS.far))


def test_rays_of_many_cameras_and_their_gradients_are_those_of_the_whole(mottled):  # noqa: F811
    rays, pull = rays_across(), torch.randn(150, 5)
    parts = [BlockPart(box, mottled, torch.device("cpu")) for box in QUARTERS]
    cut, places = composite_training(parts, rays, None, SETTINGS.near, SETTINGS.far)
    assert places == [0, 1, 2, 3]
    whole = broken_march(mottled, rays, QUARTERS)
    assert (rays.far <= rays.near).any()
    results = []
    for planes in (cut, whole):
        values = torch.cat([planes[0], planes[1][:, None], planes[2][:, None]], dim=1)
        gradients = torch.autograd.grad((values * pull).sum(), list(mottled.student.parameters()))
        results.append((values, *gradients))
    for mine, reference in zip(*results, strict=True):
        assert (mine - reference).abs().max() < 1e-5 * max(1.0, reference.abs().max())


@pytest.fixture
def city(tmp_path, look_at, monkeypatch):
    """Two blocks, and a teacher of noise."""
    manifest = toy_city(tmp_path, (2, 1, 1))
    teacher = noise_views(look_at([(2.2, 1.4, 1.1), (-1.8, 1.9, 0.7), (0.5, -2.0, 1.4)]))
    monkeypatch.setattr(joint_training, "load_teacher", lambda config: teacher)
    return manifest, load_config(manifest.path(manifest.config))


def weights(manifest):
    """Of all blocks' finest students."""
    states = [read_weights(manifest.path(block.students[0].file), "", "")["student"] for block in manifest.blocks]
    return [tensor for state in states for tensor in state["weights"].values()]


def ending_in_the_fourth(monkeypatch, error):
    """The steps that are taken from now on, of all fine-tunes together; the fourth of them raises ``error``."""
    steps, take = [], joint_training._Tuning._take

    def ends(tuning, sampler):
        steps.append(tuning.step)
        if len(steps) == 4:
            raise error
        return take(tuning, sampler)

    monkeypatch.setattr(joint_training._Tuning, "_take", ends)
    return steps


def test_a_fine_tune_that_was_killed_goes_on_to_the_same_bits(city, monkeypatch):
    manifest, config = city
    tuned = fine_tune(manifest, config, OPTIONS)
    assert [block.students[0].file for block in tuned.blocks] == [
        f"blocks/{name}/joint_000001.pth" for name in ("b000", "b001")
    ]
    assert [block.students[1] for block in tuned.blocks] == [block.students[1] for block in manifest.blocks]
    undisturbed = weights(tuned)
    assert not all(torch.equal(mine, before) for mine, before in zip(undisturbed, weights(manifest), strict=True))
    manifest.path(joint_training.STATE).unlink()

    class Killed(Exception):
        pass

    monkeypatch.setattr(joint_training, "_SAVE_EVERY", 2)
    steps = ending_in_the_fourth(monkeypatch, Killed)
    with pytest.raises(Killed):
        fine_tune(manifest, config, OPTIONS)
    again = fine_tune(manifest, config, OPTIONS)
    assert steps == [0, 1, 2, 3, 2, 3, 4]
    path = again.path(again.blocks[0].students[0].file)
    written = path.stat().st_mtime_ns
    fine_tune(again, config, OPTIONS)  # from what the tuned ones were made of: nothing is left
    assert len(steps) == 7
    assert path.stat().st_mtime_ns == written
    assert all(torch.equal(mine, before) for mine, before in zip(weights(again), undisturbed, strict=True))


def test_a_block_that_no_ray_meets_stays_as_it_is(city, look_at, monkeypatch):
    manifest, config = city
    narrow = noise_views(look_at([(0.5, -2.2, 0.1)], target=(0.5, 0.0, 0.0), focal=300.0))
    monkeypatch.setattr(joint_training, "load_teacher", lambda config: narrow)
    before = weights(manifest)
    after = weights(fine_tune(manifest, config, OPTIONS))
    same = [torch.equal(mine, old) for mine, old in zip(after, before, strict=True)]
    half = len(same) // 2
    assert all(same[:half]) and not all(same[half:])


def with_budgets(manifest, size):
    """The city, its blocks' runs ended as those that make compact files of so many bytes."""
    for block in manifest.blocks:
        path = manifest.path(block.students[0].file)
        state = load_checkpoint(path, "cpu")
        student = restore_student(state, path, torch.device("cpu"), "torch")
        optimizer = StudentOptimizer(student, TrainConfig(), "torch")
        for parameter in student.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        save_checkpoint(path, {**state, "optimizer": optimizer.state_dict()})
        manifest = manifest.with_block(block.name, budget_mib=size / MIB)
    return manifest


def test_compact_files_are_made_anew_within_their_budgets(city, monkeypatch):
    manifest, config = city
    manifest = with_budgets(manifest, 2500)
    tuned = fine_tune(manifest, config, OPTIONS)
    files = [tuned.path(block.students[0].file) for block in tuned.blocks]
    assert [path.relative_to(tuned.folder).as_posix() for path in files] == [
        f"blocks/{name}/joint_000001.lrd" for name in ("b000", "b001")
    ]
    assert [block.students[0].bytes for block in tuned.blocks] == [path.stat().st_size for path in files]
    assert all(2000 < path.stat().st_size <= 2500 for path in files)
    whole = [path.read_bytes() for path in files]
    assert fine_tune(tuned, config, OPTIONS) == tuned
    tuned.path(joint_training.STATE).unlink()
    files[1].unlink()
    monkeypatch.setattr(joint_training, "_SAVE_EVERY", 1)
    steps = ending_in_the_fourth(monkeypatch, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(manifest, config, OPTIONS)
    fine_tune(manifest, config, OPTIONS)
    assert steps == [0, 1, 2, 3, 3, 4]
    assert [path.read_bytes() for path in files] == whole


def test_the_state_of_another_fine_tune_is_not_gone_on_from(city, caplog):
    manifest, config = city
    fine_tune(manifest, config, JointOptions(steps=1, rays=16))
    fine_tune(manifest, config, JointOptions(steps=1, rays=17))
    assert "is of other blocks or settings: the fine-tune starts anew" in caplog.text


def test_a_block_whose_checkpoint_is_damaged_is_refused(city):
    manifest, config = city
    manifest.path(manifest.blocks[0].students[0].file).write_bytes(b"nothing")
    with pytest.raises(InputError, match="b000/checkpoints/step_000001.pth: checkpoint"):
        fine_tune(manifest, config, OPTIONS)


def test_a_signal_leaves_the_state(city, monkeypatch):
    manifest, config = city

    class AskedAtOnce(Interrupt):
        def __enter__(self):
            super().__enter__().signal = signal.SIGTERM
            return self

    monkeypatch.setattr(joint_training, "Interrupt", AskedAtOnce)
    with pytest.raises(Stopped) as stopped:
        fine_tune(manifest, config, OPTIONS)
    assert stopped.value.status == 143
    assert manifest.path(joint_training.STATE).is_file()
