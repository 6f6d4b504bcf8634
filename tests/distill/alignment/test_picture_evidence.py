"""What pictures say of themselves, without any student."""

import pytest
import torch

from distill.alignment.picture_evidence import colour_name, other_border, premultiplied_evidence
from teacher.views.photographs import border_colour

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def disc(size=24, soft=4.0):
    """Alpha (3, H, W) of a disc with a soft edge."""
    place = torch.arange(size) - size / 2 + 0.5
    alpha = ((size / 3 - (place[:, None] ** 2 + place**2).sqrt()) / soft + 0.5).clamp(0, 1)
    return alpha.expand(3, size, size)


def over(rgb, alpha, background):
    return rgb * alpha[..., None] + (1 - alpha[..., None]) * torch.tensor(background)


def test_a_border_of_one_colour():
    pictures = over(torch.tensor([0.8, 0.4, 0.1]), disc(), BLACK)
    assert border_colour(pictures) == BLACK and other_border(pictures, WHITE) == BLACK
    assert other_border(pictures, BLACK) is None
    pictures[0, 0, :6] = 1.0  # something reaches into one
    assert other_border(pictures, WHITE) == BLACK


def test_a_border_of_many_colours_says_nothing():
    noise = torch.rand(3, 24, 24, 3, generator=torch.Generator().manual_seed(0))
    assert border_colour(noise) is None
    one_of_each = torch.linspace(0, 1, 3)[:, None, None, None].expand(3, 24, 24, 3)
    assert border_colour(one_of_each) is None, "each picture has another one"


def test_names_of_colours():
    assert colour_name(WHITE) == "white" and colour_name((0.01, 0, 0)) == "black"
    assert colour_name((0.2, 0.4, 0.8)) == "[0.2, 0.4, 0.8]"


@pytest.mark.parametrize("background", [WHITE, BLACK, (0.2, 0.4, 0.8)])
def test_premultiplied_colours_show_where_pictures_are_partly_clear(background):
    alpha, color = disc(), torch.tensor([0.8, 0.4, 0.1])
    evidence = premultiplied_evidence(over(color * alpha[..., None], alpha, background), alpha, background)
    assert "multiplied by alpha" in evidence
    assert premultiplied_evidence(over(color, alpha, background), alpha, background) is None
    hard = (alpha > 0.5).float()
    assert premultiplied_evidence(over(color, hard, background), hard, background) is None, "nothing to judge by"
