"""Every kind of loss on two or three rays, worked out on paper."""

import math

import pytest
import torch

from distill.losses.pictures import (
    RayBatch,
    alpha_loss,
    depth_loss,
    normalize_distance,
    rgb_loss,
    scheduled_weight,
    term_weights,
    total_loss,
)
from kernels.compositing.compositing import Composite
from scene.rays import Rays
from settings.losses import AlphaLossConfig, DepthLossConfig, LossConfig, RgbLossConfig, ScheduledTerm
from tests.triton_device import DEVICE, needs_triton


def make_rays(near, far):
    count = len(near)
    return Rays(torch.zeros(count, 3), torch.zeros(count, 3), torch.tensor(near), torch.tensor(far))


def make_batch(distance=(3.0, 4.0, 0.0), coverage=(1.0, 0.5, 1.0), near=(2.0, 2.0, 2.0), far=(6.0, 4.0, 6.0)):
    """Three rays; the third has no known distance. Teacher colour 0.5 on white."""
    count = len(near)
    return RayBatch(
        rays=make_rays(near, far),
        rgb=torch.full((count, 3), 0.5),
        background=torch.ones(count, 3),
        coverage=torch.tensor(coverage),
        distance=None if distance is None else torch.tensor(distance),
    )


def make_result(distance, alpha, rgb=None):
    """What the student accumulated; ``distance`` is the expected one, where alpha is not 0."""
    alpha = torch.tensor(alpha).requires_grad_()
    accumulated = (torch.tensor(distance) * alpha.detach()).requires_grad_()
    rgb = torch.zeros(len(alpha), 3) if rgb is None else torch.tensor(rgb)
    return Composite(rgb.requires_grad_(), alpha, accumulated, torch.zeros(0))


@pytest.mark.parametrize(
    ("progress", "expected"),
    [(0, 2), (0.3, 2), (0.6, 2), (0.7, 1.7), (0.8, 1.4), (1, 0.8), (1.7, 0.8)],
)
def test_weight_holds_and_decays(progress, expected):
    term = ScheduledTerm(weight=2.0, decay_start=0.6, final=0.4)
    assert scheduled_weight(term, progress) == pytest.approx(expected)


@pytest.mark.parametrize(("progress", "expected"), [(0.4999, 2.0), (0.5, 0.8), (1.0, 0.8)])
def test_weight_falls_at_once_where_its_decay_begins_and_ends_together(progress, expected):
    term = ScheduledTerm(weight=2.0, decay_start=0.5, decay_end=0.5, final=0.4)
    assert scheduled_weight(term, progress) == pytest.approx(expected)


def test_weight_that_would_only_decay_at_the_end_stays():
    assert scheduled_weight(ScheduledTerm(weight=2.0, final=0.4), 1.0) == 2.0


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0, 3.0])
def test_weight_is_constant_by_default(progress):
    assert scheduled_weight(ScheduledTerm(weight=0.7), progress) == 0.7


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("l2", (0.01 + 0.04 + 0.25) / 6),
        ("l1", (0.1 + 0.2 + 0.5) / 6),
        # Square / 2 up to delta 0.2, then 0.2 * (error - 0.1).
        ("huber", (0.005 + 0.02 + 0.2 * 0.4) / 6),
    ],
)
def test_rgb_loss_by_hand(kind, expected):
    predicted = torch.tensor([[0.1, 0.7, 1.0], [0.3, 0.3, 0.3]])
    target = torch.tensor([[0.2, 0.5, 0.5], [0.3, 0.3, 0.3]])
    assert rgb_loss(predicted, target, RgbLossConfig(kind=kind, delta=0.2)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("l2", (0.04 + 0.25) / 2), ("bce", -(math.log(0.8) + 0.5 * math.log(0.999) + 0.5 * math.log(0.001)) / 2)],
)
def test_alpha_loss_by_hand(kind, expected):
    predicted, target = torch.tensor([0.8, 0.999 if kind == "bce" else 1.0]), torch.tensor([1.0, 0.5])
    assert alpha_loss(predicted, target, AlphaLossConfig(kind=kind)).item() == pytest.approx(expected, rel=1e-4)


def test_binary_cross_entropy_is_bounded_and_its_gradient_finite():
    predicted = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = alpha_loss(predicted, torch.tensor([1.0, 0.0]), AlphaLossConfig(kind="bce"))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-4), rel=1e-3)
    assert predicted.grad.isfinite().all()


def test_distance_is_normalised_between_near_and_far():
    rays = make_rays([2.0, 2.0, 0.5], [6.0, 4.0, 1.0])
    assert normalize_distance(torch.tensor([3.0, 4.0, 0.5]), rays).tolist() == [0.25, 1.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Normalised: teacher 0.25 and 1, student 0.5 and 0.95; errors 0.25 and 0.05.
        ("l1", (0.25 + 0.05) / 2),
        ("l2", (0.0625 + 0.0025) / 2),
        ("smooth_l1", (0.25 - 0.05 + 0.5 * 0.05**2 / 0.1) / 2),
    ],
)
def test_depth_loss_by_hand(kind, expected):
    result = make_result([4.0, 3.9, 5.0], [0.9, 0.4, 0.7])
    loss, statistics = depth_loss(result, make_batch(), DepthLossConfig(kind=kind, delta=0.1))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    # The third ray has no known distance.
    assert statistics.valid_fraction.item() == pytest.approx(2 / 3)
    assert statistics.distance.tolist() == [3, 4]
    assert statistics.normalized.tolist() == [0.25, 1]


def test_rays_below_the_alpha_threshold_have_no_depth_term():
    result = make_result([4.0, 2.0, 5.0], [0.9, 0.4, 0.7])
    config = DepthLossConfig(alpha_threshold=0.6)
    loss, statistics = depth_loss(result, make_batch(), config)
    assert loss.item() == pytest.approx(0.25)
    assert statistics.valid_fraction.item() == pytest.approx(1 / 3)
    loss.backward()
    assert result.distance.grad[1:].tolist() == [0, 0]
    # d/d distance of |distance / alpha - 3| / 4.
    assert result.distance.grad[0].item() == pytest.approx(1 / 0.9 / 4)
    assert depth_loss(result, make_batch(), DepthLossConfig(alpha_threshold=0.5))[0].item() > 0.25


def test_a_student_without_substance_has_no_depth_error():
    result = make_result([0.0, 3.9, 0.0], [0.0, 0.5, 1e-4])
    loss, statistics = depth_loss(result, make_batch(), DepthLossConfig())
    assert loss.item() == pytest.approx(0.05 / 2, rel=1e-4)
    assert statistics.valid_fraction.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("kind", ["l1", "l2", "smooth_l1"])
def test_rays_that_miss_the_box_leave_finite_gradients(kind):
    batch = make_batch(distance=(3.0, 3.0, 3.0), near=(2.0, 2.0, 2.0), far=(2.0, 6.0, 2.0))
    result = make_result([0.0, 3.0, 0.0], [0.0, 0.8, 0.0])
    config = LossConfig(alpha=AlphaLossConfig(weight=1.0), depth=DepthLossConfig(weight=1.0, kind=kind))
    loss, terms, statistics = total_loss(result, batch, config, term_weights(config, 0.5))
    loss.backward()
    assert terms["depth"].item() == pytest.approx(0, abs=1e-6)
    assert statistics.valid_fraction.item() == pytest.approx(1 / 3)
    for tensor in (result.rgb, result.alpha, result.distance):
        assert tensor.grad.isfinite().all()
    assert result.distance.grad[[0, 2]].tolist() == [0, 0]


def test_no_valid_ray_gives_a_depth_loss_of_zero():
    result = make_result([3.0, 3.0, 3.0], [0.5, 0.5, 0.5])
    loss, statistics = depth_loss(result, make_batch(distance=(0.0, 0.0, 0.0)), DepthLossConfig())
    loss.backward()
    assert loss.item() == 0
    assert not result.distance.grad.any()
    assert len(statistics.distance) == 0


def test_the_total_is_the_scheduled_sum_on_the_rays_background():
    # Ray colours on white: 0.2 + 0.5 and 0.4 + 0.1; the teacher's are 0.5.
    result = make_result([4.0, 4.0], [0.5, 0.9], rgb=[[0.2] * 3, [0.4] * 3])
    batch = make_batch((4.0, 3.0), (1.0, 1.0), (2.0, 2.0), (6.0, 6.0))
    config = LossConfig(
        rgb=RgbLossConfig(weight=1.0),
        alpha=AlphaLossConfig(weight=0.1, decay_end=0.5, decay_start=0.0, final=0.0),
        depth=DepthLossConfig(weight=0.5, decay_start=0.0, final=0.0),
    )
    total, terms, _ = total_loss(result, batch, config, term_weights(config, 0.25))
    expected = {"rgb": 0.04 / 2, "alpha": (0.25 + 0.01) / 2, "depth": 0.25 / 2}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected)
    assert total.item() == pytest.approx(0.02 + 0.05 * 0.13 + 0.375 * 0.125)


def test_terms_that_are_off_are_left_out():
    result = make_result([4.0, 4.0, 4.0], [0.5, 0.9, 0.7])
    total, terms, statistics = total_loss(result, make_batch(), LossConfig(), {"rgb": 1.0, "depth": 0.0})
    assert list(terms) == ["rgb"]
    assert total.item() == terms["rgb"].item()
    # The teacher's depth is still measured.
    assert statistics.distance.tolist() == [3, 4]
    assert total_loss(result, make_batch(distance=None), LossConfig(), {"rgb": 1.0})[2] is None


def test_rays_that_were_not_rendered_have_no_part_in_any_term():
    result = make_result([4.0, 3.9, 3.0], [0.9, 0.4, 0.7])
    batch = make_batch()
    kept = torch.tensor([True, False, True])
    kinds = {"rgb": ("l1", "l2", "huber"), "alpha": ("l2", "bce"), "depth": ("l1", "l2", "smooth_l1")}
    for name, kind in ((name, kind) for name, each in kinds.items() for kind in each):
        config = LossConfig(**{"alpha": {"weight": 1.0}, "depth": {"weight": 1.0}, name: {"weight": 1.0, "kind": kind}})
        weights = term_weights(config, 0.5)
        _, found, _ = total_loss(result, batch, config, weights, kept)
        rows = kept.nonzero()[:, 0]
        columns = (value[rows] for value in (batch.rgb, batch.background, batch.coverage, batch.distance))
        part = RayBatch(batch.rays[rows], *columns)
        _, expected, _ = total_loss(Composite(*(value[rows] for value in result[:3]), result[3]), part, config, weights)
        torch.testing.assert_close(found[name], expected[name])
    nothing, _, _ = total_loss(result, batch, config, weights, torch.zeros(3, dtype=torch.bool))
    assert nothing == 0


def random_case(rays, shared_background=False, depth=True):
    """Rays of every sort: not kept, without depth or alpha, past the box, equal to the teacher's."""
    near = torch.rand(rays) + 1
    far = near + torch.rand(rays) * (torch.rand(rays) < 0.9)
    coverage = torch.rand(rays).round(decimals=1)
    distance = (near + 0.5) * (torch.rand(rays) < 0.8) if depth else None
    background = torch.rand(3).expand(rays, 3) if shared_background else torch.rand(rays, 3)
    batch = RayBatch(
        Rays(torch.zeros(rays, 3), torch.zeros(rays, 3), near, far), torch.rand(rays, 3), background, coverage, distance
    )
    alpha = torch.rand(rays) * (torch.rand(rays) < 0.8)
    alpha[::7] = coverage[::7]
    alpha[::9] = 1.0
    return batch, (torch.rand(rays, 3) * alpha[:, None], alpha, alpha * (near + 0.6)), torch.rand(rays) < 0.9


TWINS = pytest.mark.parametrize("twin", ["numba", pytest.param("triton", marks=needs_triton)])
KINDS = [("l2", "l2", "l1"), ("l1", "bce", "l2"), ("huber", "bce", "smooth_l1")]


def moved(batch, device):
    columns = (getattr(batch, name) for name in ("rgb", "background", "coverage", "distance"))
    return RayBatch(batch.rays.to(device), *(None if column is None else column.to(device) for column in columns))


def outcome(case, config, weights, implementation, pick):
    """What a total and its terms are, and the gradients of what ``pick`` makes of them; all on the CPU."""
    device = DEVICE if implementation == "triton" else torch.device("cpu")
    batch, columns, kept = case
    leaves = [column.clone().to(device).requires_grad_() for column in columns]
    result = Composite(*leaves, torch.zeros(0))
    total, terms, statistics = total_loss(
        result, moved(batch, device), config, weights, None if kept is None else kept.to(device), implementation
    )
    pick(total, terms).backward()
    shown = {} if statistics is None else {"valid": statistics.valid, "normalized": statistics.all_normalized}
    grads = {
        f"grad {place}": torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for place, leaf in enumerate(leaves)
    }
    return {name: value.detach().cpu() for name, value in ({"total": total} | terms | shown | grads).items()}


def assert_twins_agree(twin, case, config, weights, pick):
    expected, found = (outcome(case, config, weights, name, pick) for name in ("torch", twin))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=2e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@TWINS
@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
@pytest.mark.parametrize(
    ("rays", "more"),
    [(700, {}), (300, {"shared_background": True}), (5, {"depth": False}), (0, {})],
    ids=["rays", "shared", "flat", "none"],
)
@pytest.mark.parametrize("on_device", [False, True], ids=["numbers", "tensors"])
def test_terms_of_twins_are_torchs(twin, kinds, rays, more, on_device):
    rgb, alpha, depth = kinds
    config = LossConfig(
        rgb=RgbLossConfig(kind=rgb),
        alpha=AlphaLossConfig(kind=alpha, weight=0.3),
        depth=DepthLossConfig(kind=depth, weight=0.7, delta=0.3),
    )
    weights = {"rgb": 1.5, "alpha": 0.3, "depth": 0.7}
    if on_device:
        device = DEVICE if twin == "triton" else torch.device("cpu")
        weights = {name: torch.tensor(value, device=device) for name, value in weights.items()}
    # A term may be asked for alone too.
    case = random_case(rays, **more)
    assert_twins_agree(twin, case, config, weights, lambda total, terms: 2 * total + 3 * terms["alpha"])
    if twin == "numba" and rays:
        assert_twins_agree(twin, (*case[:2], None), config, weights, lambda total, terms: total)


@TWINS
def test_twins_leave_out_the_terms_that_are_off(twin):
    config, weights = LossConfig(), {"rgb": 1.0, "alpha": 0.5, "depth": 0.5}
    assert_twins_agree(twin, random_case(300), config, weights, lambda total, terms: total)
    on = LossConfig(depth=DepthLossConfig(weight=0.1, kind="smooth_l1"))
    assert_twins_agree(twin, random_case(300), on, weights, lambda total, terms: terms["depth"])


def test_with_a_far_field_only_distances_inside_the_box_count():
    batch = make_batch(distance=(1.5, 3.9, 7.0)).with_depth_inside()
    assert batch.distance.tolist() == pytest.approx([0.0, 3.9, 0.0])
    assert make_batch(distance=(2.0, 4.0, 6.0)).with_depth_inside().distance.tolist() == [2.0, 4.0, 6.0]  # on its faces
    assert make_batch(distance=None).with_depth_inside().distance is None
