"""Trainable Gaussians: changing their number keeps every table and Adam's moments in step."""

import torch

from teacher.fitting.gaussian_model import GaussianModel
from teacher.gaussians import Gaussians

RATES = dict.fromkeys(("means", "scales", "quats", "opacities", "sh0", "shN"), 0.1)


def gaussians(count=4, coefficients=4):
    return Gaussians(
        means=torch.arange(3.0 * count).view(count, 3),
        log_scales=torch.randn(count, 3),
        rotations=torch.randn(count, 4),
        opacity_logits=torch.randn(count),
        sh=torch.randn(count, coefficients, 3),
    )


def stepped(model):
    """The model after one step whose gradient is the index of the row."""
    for table in model.params.values():
        rows = torch.arange(len(table), dtype=torch.float32).view(-1, *[1] * (table.ndim - 1))
        table.grad = rows.expand_as(table).contiguous()
    model.step()
    return model


def test_a_snapshot_is_what_it_started_from():
    start = gaussians()
    found = GaussianModel(start, 1, RATES).snapshot()
    for name in ("means", "log_scales", "rotations", "opacity_logits", "sh"):
        assert torch.equal(getattr(found, name), getattr(start, name))


def test_missing_coefficients_start_at_zero_and_surplus_ones_are_dropped():
    start = gaussians(coefficients=4)
    assert torch.equal(GaussianModel(start, 2, RATES).snapshot().sh[:, 4:], torch.zeros(4, 5, 3))
    assert torch.equal(GaussianModel(start, 0, RATES).snapshot().sh, start.sh[:, :1])


def test_coefficients_up_to_a_degree():
    model = GaussianModel(gaussians(), 3, RATES)
    assert [model.sh(degree).shape[1] for degree in range(4)] == [1, 4, 9, 16]
    assert torch.equal(model.sh(3), model.snapshot().sh)


def test_selecting_takes_moments_along():
    model = stepped(GaussianModel(gaussians(), 1, RATES))
    before = model.snapshot()
    model.select(torch.tensor([3, 1]))
    assert torch.equal(model.snapshot().means, before.means[[3, 1]])
    for name, optimizer in model.optimizers.items():
        moment = optimizer.state[model.params[name]]["exp_avg"]
        torch.testing.assert_close(moment.flatten(1).mean(1) if moment.ndim > 1 else moment, torch.tensor([0.3, 0.1]))
    # Adam goes on with the tables that were selected.
    stepped(model)
    assert not torch.equal(model.snapshot().means, before.means[[3, 1]])


def test_appended_gaussians_have_no_momentum():
    model = stepped(GaussianModel(gaussians(), 1, RATES))
    model.append({name: table.detach()[:2] for name, table in model.params.items()})
    assert len(model) == 6
    moment = model.optimizers["opacities"].state[model.params["opacities"]]["exp_avg"]
    torch.testing.assert_close(moment, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.0, 0.0]))


def test_a_restored_model_goes_on_as_if_it_had_not_been_stopped():
    model = stepped(GaussianModel(gaussians(), 1, RATES))
    other = GaussianModel(gaussians(2), 1, RATES)
    other.load_state(model.state())
    stepped(model), stepped(other)
    assert torch.equal(model.snapshot().means, other.snapshot().means)
    assert torch.equal(model.snapshot().sh, other.snapshot().sh)
