"""Boxes in the order in which rays meet them."""

from dataclasses import replace

import pytest
import torch

from distill.city_rendering import block_order
from distill.city_rendering.block_order import front_to_back
from scene.rays import SceneBox, intersect_box
from settings.errors import InputError

# Around a hole that a cube would fill: no plane leaves them whole.
PINWHEEL = [
    SceneBox((0, 0, 0), (2, 1, 1)),
    SceneBox((2, 0, 0), (3, 2, 1)),
    SceneBox((1, 2, 0), (3, 3, 1)),
    SceneBox((0, 1, 0), (1, 3, 1)),
]


def split(count):
    """The boxes of a k-d split."""
    boxes, cut = [SceneBox((-1, -1, -1), (1, 1, 1))], 0
    while len(boxes) < count:
        box = boxes.pop(0)
        axis, share = cut % 3, 0.3 + 0.4 * torch.rand(()).item()
        face = box.lower[axis] + share * box.extent[axis]
        for side in ("upper", "lower"):
            corner = list(getattr(box, side))
            corner[axis] = face
            boxes.append(replace(box, **{side: tuple(corner)}))
        cut += 1
    return boxes


def check_order(boxes, place):
    directions = torch.nn.functional.normalize(torch.randn(500, 3), dim=1)
    last = torch.zeros(500)
    for index in front_to_back(boxes, place):
        entry, end = intersect_box(torch.tensor(place).expand(500, 3), directions, boxes[index], 0.0, 100.0)
        hit = end - entry > 1e-5
        assert (entry >= last - 1e-5)[hit].all()
        last = torch.where(hit, entry, last)


@pytest.mark.parametrize("few", [0, 4, block_order._FEW])
@pytest.mark.parametrize("place", [(0.1, 0.2, -0.3), (3.0, 0.5, -0.2), (-0.9, 4.0, 1.7)])
def test_the_order_of_blocks_is_that_of_every_ray(place, few, monkeypatch):
    monkeypatch.setattr(block_order, "_FEW", few)
    boxes = split(24)
    assert sorted(front_to_back(boxes, place)) == list(range(24))
    check_order(boxes, place)


def test_from_above_flat_ground_too():
    flat = [SceneBox((x, y, -1), (x + 1, y + 1, 0)) for x in range(-4, 4) for y in range(-4, 4)]
    check_order(flat, (2.5, 2.5, 0.2))


@pytest.mark.parametrize("place", [(-2.0, -1.0, 0.5), (4.0, 1.2, 0.3), (1.5, 0.5, 4.0)])
def test_boxes_that_every_plane_cuts_have_one(place, monkeypatch):
    monkeypatch.setattr(block_order, "_FEW", 0)
    check_order(PINWHEEL, place)


def test_not_every_two_boxes_of_a_large_city_are_compared(monkeypatch):
    """Pairs of 4,096 boxes take 145 MiB and seconds a picture."""
    compare, compared = block_order._by_pairs, []
    monkeypatch.setattr(block_order, "_by_pairs", lambda *boxes: compared.append(len(boxes[0])) or compare(*boxes))
    assert sorted(front_to_back(split(4096), (0.3, 0.2, 2.0))) == list(range(4096))
    assert sum(compared) == 4096 and max(compared) <= block_order._FEW


def test_boxes_that_hide_each_other_in_a_circle_are_refused():
    bars = [
        SceneBox((0, 0, 1), (3, 1, 2)),
        SceneBox((1, 0, 0), (2, 3, 1)),
        SceneBox((0, 1, 0), (1, 2, 3)),
    ]
    with pytest.raises(InputError, match="3 boxes that hide each other in a circle"):
        front_to_back(bars, (-5.0, -5.0, -5.0))
