"""Rounded weights in training: what the student sees, what is kept, what the file will hold."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch

from distill.compact.compact_file import load_compact
from distill.compact.rounded_weights import RoundedWeights
from distill.model.checkpoint import load_checkpoint
from distill.model.model import Model, restore_model
from distill.training.sampler_choice import make_sampler
from distill.training.step import TrainingStep
from settings.errors import InputError
from settings.loading import load_config
from teacher.sources import load_teacher
from tests.toy_scene import write_toy_scene
from tests.toy_training import trainer_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The config of a toy run that is finished."""
    path = write_toy_scene(tmp_path_factory.mktemp("toy"), train={"samples_per_step": 1024})
    trainer_of(path).run(show_progress=False)
    return path


class Training(NamedTuple):
    """Rounded weights of a checkpoint's student, and what trains it on."""

    rounded: RoundedWeights
    step: TrainingStep
    state: dict
    model: Model

    def take_step(self):
        self.rounded.show()
        result = self.step(60, 0.5)
        self.rounded.keep(result.lr, len(result.batch.rays), result.terms["rgb"])


def rounded_weights(step, state, path):
    settings = step.config.compact, step.config.loss.rate
    return RoundedWeights(step.student, step.optimizer.state, lambda: state, path, *settings)


@pytest.fixture
def training(trained):
    """Makes one of that run's checkpoint, with settings overridden."""

    def make(*overrides):
        checkpoint = trained.parent / "results/toy/first/checkpoints/step_000060.pth"
        config = load_config(trained, overrides, trained.parent)
        state = load_checkpoint(checkpoint, CPU)
        model = restore_model(config, state, checkpoint, CPU)
        sampler = make_sampler(config, load_teacher(config), model, CPU)
        step = TrainingStep(config, model, sampler, CPU, None, False)
        step.restore(state)
        rounded = rounded_weights(step, state, checkpoint)
        rounded.begin()
        return Training(rounded, step, state, model)

    return make


def test_a_student_that_is_not_finite_is_refused_and_its_parameters_are_named(training):
    run = training()
    rounded = run.rounded
    moments = run.step.optimizer.state[run.model.student.density_weights[0]]
    with torch.no_grad():
        run.model.student.table[3, 1] = math.nan
        run.model.student.color_weights[-1][:, :2] = math.inf
        moments["second_moment"][0, 0] = math.inf
    broken = "1 of table, 1 of density_weights.0's second moment, 6 of color_weights.2"
    with pytest.raises(InputError, match=f"step_000060.pth: student: found not finite: {broken}, expected finite"):
        rounded.begin()


def table_in_steps(rounded):
    each = rounded.rounded_parts[0]
    return each.parameter.detach().view(each.part.shape) / each.steps


def test_what_training_changes_is_kept_where_rounding_hides_it(training):
    run = training("loss.rate.weight=0", "compact.price=0.000001")
    rounded = run.rounded
    before, steps = rounded.rounded_parts[0].scaled.clone(), []
    for _ in range(2):
        rounded.show()
        steps.append(table_in_steps(rounded))  # the student as the step finds it
        run.take_step()
    moved = rounded.rounded_parts[0].scaled - before
    assert 0 < moved.abs().median() < 0.5
    torch.testing.assert_close(steps[0], before.round(), atol=1e-3, rtol=0)
    free = rounded.rounded_parts[0].less == 0
    assert free.float().mean() > 0.5
    torch.testing.assert_close(table_in_steps(rounded)[free], (before + moved).round()[free], atol=1e-3, rtol=0)


def test_training_finds_the_student_with_the_integers_that_were_chosen(training):
    run = training("compact.price=1.5")
    rounded = run.rounded
    rounded.coarseness = 1e-5
    run.take_step()
    rounded.round()
    chosen = [torch.from_numpy(each.values) for each in rounded.rounded_parts]
    nearest = [each.scaled.round() for each in rounded.rounded_parts]
    assert any((one != other).logical_and(one != 0).any() for one, other in zip(chosen, nearest, strict=True))
    rounded.show()
    for each, values in zip(rounded.rounded_parts, chosen, strict=True):
        torch.testing.assert_close(each.weights, values * each.steps)


def test_bits_pull_weights_towards_zero_as_hard_as_their_weight_says(training):
    sizes = []
    for weight in (0, 1e5):
        run = training(f"loss.rate.weight={weight}")
        rounded = run.rounded
        for _ in range(5):
            run.take_step()
        sizes.append(rounded.rounded_parts[0].scaled.abs().mean())
    assert sizes[1] < 0.95 * sizes[0]


def test_a_step_that_was_not_taken_leaves_the_weights_alone(training):
    rounded = training("loss.rate.weight=1000").rounded
    before = rounded.rounded_parts[0].scaled.clone()
    rounded.show()
    for loss in (torch.nan, torch.inf):
        rounded.keep(0.01, 100, torch.tensor(loss))
    torch.testing.assert_close(rounded.rounded_parts[0].scaled, before, rtol=1e-6, atol=1e-6)


def test_a_pull_is_the_slope_of_the_code_length_as_adam_sees_it(training):
    rounded = training("compact.price=0.25").rounded
    rounded.coarseness = 1e-6
    rounded.round()
    each = rounded.rounded_parts[0]
    moments = torch.from_numpy(each.importance.of_moments())
    slope = each.pull * each.steps**2 * moments.sqrt() / (0.5 * 0.25 * 1e-6**2)
    level = each.part.groups == 0
    mean = torch.from_numpy(abs(each.values[level][each.part.stored[level]])).double().mean(0)
    assert mean[0] > 0.05
    bits_of_one_more = -(mean / (1 + mean)).log2()[0]  # of a geometric distribution
    torch.testing.assert_close(slope[torch.from_numpy(level)][0, 0], bits_of_one_more.float(), rtol=1e-3, atol=0)


def test_a_size_is_found_in_a_few_tries(training, monkeypatch):
    rounded = training().rounded
    rounds, round_once = [], rounded.round
    monkeypatch.setattr(rounded, "round", lambda: (rounds.append(1), round_once()))
    for start, most in ((1e-8, 6000), (1e-3, 4000)):
        rounded.coarseness = start
        rounds.clear()
        rounded.seek_size(most)
        assert 0.97 * most < rounded.size() <= most and len(rounds) <= 14


def test_the_coarser_the_fewer_bits_and_the_checkpoint_s_weights_come_back(training):
    run = training()
    rounded = run.rounded
    weights = rounded.rounded_parts[0].initial
    bits = []
    for coarseness in (1e-7, 1e-5, 1e-3):
        rounded.coarseness = coarseness
        rounded.round()
        bits.append(rounded.bits)
    assert bits[0] > bits[1] > bits[2]
    run.take_step()
    rounded.restart()
    rounded.coarseness = 1e-12
    rounded.round()
    rounded.content()
    stored = torch.from_numpy(rounded.parts[0].stored)
    moment = run.step.optimizer.state[run.model.student.table]["second_moment"]
    seen = stored[:, None] & (moment > 1e-12)
    assert seen.sum() > 100
    torch.testing.assert_close(run.model.student.table.detach()[seen], weights[seen], atol=1e-3, rtol=1e-2)


def test_the_student_is_the_file_s(training, tmp_path):
    run = training()
    rounded = run.rounded
    run.take_step()
    rounded.round()
    (tmp_path / "a.lrd").write_bytes(rounded.file())
    assert rounded.size() == pytest.approx(len(rounded.file()), rel=0.01)
    found = load_compact(tmp_path / "a.lrd", CPU)["student"]["weights"]
    for name, value in run.model.student.state_dict().items():
        assert value.equal(found[name]), name


def test_the_last_rounding_fits_the_size_and_follows_it(training):
    rounded = training().rounded
    most = int(rounded.fixed) + 400
    assert 0.7 * 400 < len(rounded.file_within(most)) - rounded.fixed <= 400
    fine = rounded.coarseness
    rounded.coarseness /= 8
    for _ in range(20):
        rounded.follow(most)
    assert rounded.coarseness == pytest.approx(fine, rel=0.3)


def test_a_checkpoint_s_state_goes_on_bit_for_bit(training):
    run = training()
    rounded = run.rounded
    run.take_step()
    twin = rounded_weights(run.step, run.state, "x.pth")
    twin.restore(rounded.state())
    rounded.show()
    shown = {name: value.clone() for name, value in run.model.student.state_dict().items()}
    file = rounded.file()
    twin.show()
    for name, value in run.model.student.state_dict().items():
        assert value.equal(shown[name]), name
    assert twin.file() == file and twin.size() == rounded.size()
    assert all(one.pull.equal(other.pull) for one, other in zip(twin.rounded_parts, rounded.rounded_parts, strict=True))
