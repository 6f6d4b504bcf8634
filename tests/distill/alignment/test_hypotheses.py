"""Each hypothesis undoes its mistake: on numbers, before any picture is rendered."""

from dataclasses import replace

import pytest
import torch

from distill.alignment.hypotheses import (
    AS_IT_IS,
    Cause,
    another_order,
    axes_hypotheses,
    fitted_background,
    on_background,
    order_hypotheses,
    picture_hypotheses,
    pose_hypotheses,
)
from distill.model.view_renderers import Rendering
from tests.toy_scene import ring_of_cameras

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


@pytest.fixture
def view():
    alpha = torch.rand(6, 6)
    alpha[0] = 0
    return Rendering(torch.rand(6, 6, 3) * alpha[..., None], alpha, torch.zeros(6, 6))


def named(hypotheses, words):
    return next(one for one in hypotheses if words in one.name)


def test_orientations_are_the_seven_that_a_square_picture_has(view):
    turns = [one for one in picture_hypotheses(WHITE, True) if one.cause == Cause.AXES]
    images = [view.over(WHITE), *(one.picture(view, WHITE) for one in turns)]
    assert len(images) == 8
    assert all(not torch.equal(a, b) for n, a in enumerate(images) for b in images[:n])
    oblong = [one for one in picture_hypotheses(WHITE, False) if one.cause == Cause.AXES]
    assert len(oblong) == 3 and all(one.picture(view, WHITE).shape == (6, 6, 3) for one in oblong)
    quarter = named(turns, "90 degrees anticlockwise").picture(view, WHITE)
    torch.testing.assert_close(quarter, torch.rot90(view.over(WHITE), 1, (0, 1)))


def test_backgrounds(view):
    names = {one.name for one in picture_hypotheses(WHITE, True) if one.cause == Cause.BACKGROUND}
    assert names == {"the pictures are on black"}
    torch.testing.assert_close(on_background(BLACK, "black").picture(view, WHITE), view.rgb)
    assert "to black" in on_background(BLACK, "black").advice
    assert "[0.2, 0.4, 0.8]" in on_background((0.2, 0.4, 0.8), "blue").advice
    fitted = fitted_background([view, view], [view.over((0.2, 0.4, 0.8))] * 2)
    assert fitted == pytest.approx((0.2, 0.4, 0.8), abs=1e-5)
    opaque = view._replace(alpha=torch.ones(6, 6))
    assert all(0 <= part <= 1 for part in fitted_background([opaque], [opaque.rgb]))


def test_alpha(view):
    hypotheses = picture_hypotheses(WHITE, True)
    alpha = view.alpha[..., None]
    twice = named(hypotheses, "multiplied twice").picture(view, WHITE)
    torch.testing.assert_close(twice, view.rgb * alpha + 1 - alpha)
    straight = torch.where(alpha > 0, view.rgb / alpha.clamp(min=1e-6), 0.0)
    torch.testing.assert_close(named(hypotheses, "dropped").picture(view, WHITE), straight.clamp(0, 1))
    never = named(hypotheses, "not multiplied").picture(view, WHITE)
    torch.testing.assert_close(never, (straight + 1 - alpha).clamp(0, 1))


def test_colour(view):
    hypotheses = picture_hypotheses(WHITE, True)
    torch.testing.assert_close(named(hypotheses, "BGR").picture(view, WHITE)[..., 0], view.over(WHITE)[..., 2])
    middle = Rendering(torch.full((1, 1, 3), 0.5), torch.ones(1, 1), torch.zeros(1, 1))
    linear = named(hypotheses, "linear").picture(middle, WHITE)
    torch.testing.assert_close(linear, torch.full((1, 1, 3), 0.214041), atol=1e-5, rtol=0)


def test_poses_are_brought_back():
    right = ring_of_cameras(5)
    opencv = replace(right, c2w=right.c2w @ torch.diag(torch.tensor([1.0, -1, -1, 1])))
    inverted = replace(right, c2w=right.world_to_camera())
    colmap = replace(right, c2w=opencv.world_to_camera())
    for wrong, words in ((opencv, "are OpenCV's"), (inverted, "are world-to-camera"), (colmap, "(COLMAP)")):
        found = named(pose_hypotheses(), words).cameras(wrong)
        torch.testing.assert_close(found.c2w, right.c2w, atol=1e-5, rtol=0)


def test_axes_are_all_there_are_and_none_twice():
    right = ring_of_cameras(3)
    hypotheses = [one for one in pose_hypotheses() if "axis" in one.name or "is up" in one.name]
    hypotheses += axes_hypotheses()
    poses = [right.c2w, *(one.cameras(right).c2w for one in hypotheses)]
    assert len({one.name for one in hypotheses}) == len(hypotheses) == 48 * 2 - 2
    distances = torch.cdist(torch.stack(poses).flatten(1), torch.stack(poses).flatten(1))
    assert distances.fill_diagonal_(1).min() > 0.1
    # A mirrored world with cameras mirrored to match has poses that are rigid.
    for name in ("the x axis is flipped", "the y axis is flipped", "the z axis is flipped"):
        (found,) = [one.cameras(right).c2w for one in hypotheses if one.name == name]
        assert torch.linalg.det(found[:, :3, :3]).min() > 0.999


def test_orders_bring_each_picture_back():
    names = [f"r_{index}" for index in range(12)]
    own = torch.arange(12)
    wrong = {
        "1 frame late": own.roll(1),
        "2 frames early": own.roll(-2),
        "reverse order": own.flip(0),
        "pictures are sorted by names": torch.tensor(sorted(range(12), key=lambda index: names[index])),
    }
    wrong["poses are sorted by names"] = wrong["pictures are sorted by names"].argsort()
    hypotheses = order_hypotheses(names)
    for words, pictures in wrong.items():
        order = named(hypotheses, words).order
        for index, place in enumerate(order):
            assert place == -1 or pictures[place] == index, words
        assert sum(place >= 0 for place in order) >= 10
    assert [one.order for one in order_hypotheses(["only"])] == []


def test_an_order_of_its_own_names_examples():
    found = another_order((2, 1, -1), ["a", "b", "c"])
    assert "a shows c" in found.name and "b shows" not in found.name and found.cause == Cause.ORDER
    assert AS_IT_IS.cameras is AS_IT_IS.picture is AS_IT_IS.order is None
