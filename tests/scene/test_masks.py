"""Masks: which pixels count, by the values and the alpha of a file."""

import numpy as np
import pytest
from PIL import Image

from scene.masks import check_mask_size, read_mask
from settings.errors import InputError

LEFT = np.arange(32)[None].repeat(32, axis=0) < 13


def counted(path, pixels, mode, **options):
    Image.fromarray(pixels.astype(np.uint8), mode).save(path, **options)
    return read_mask(path)


@pytest.mark.parametrize("white", [1, 60, 255])
def test_all_but_black_counts_where_a_mask_has_two_values(tmp_path, white):
    assert (counted(tmp_path / "a.png", LEFT * white, "L") == LEFT).all()


@pytest.mark.parametrize("most", [2, 200])
def test_numbers_are_labels_that_all_count(tmp_path, most):
    labels = LEFT * most - (np.arange(32) < 5)
    assert (counted(tmp_path / "a.png", labels, "L") == LEFT).all()
    assert (counted(tmp_path / "b.png", LEFT * 1 + (np.arange(32) < 5) * (most - 1), "L") == LEFT).all()


def test_small_labels_of_16_bits_count(tmp_path):
    Image.fromarray((LEFT * 1 + (np.arange(32) < 5) * 256).astype(np.uint16)).save(tmp_path / "a.png")
    assert (read_mask(tmp_path / "a.png") == LEFT).all()


@pytest.mark.parametrize("white", [255, 90])
def test_the_ringing_of_a_jpeg_does_not_count(tmp_path, white):
    path = tmp_path / "a.jpg"
    assert (counted(path, LEFT * white, "L", quality=60) == LEFT).all()
    assert len(np.unique(np.asarray(Image.open(path)))) > 2


def test_of_a_jpeg_that_is_black_nothing_counts(tmp_path):
    assert not counted(tmp_path / "a.jpg", LEFT * 0, "L").any()


@pytest.mark.parametrize("grey", [255, 0])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_the_mask_of_a_picture_of_one_colour(tmp_path, mode, grey):
    channels = [np.full((32, 32), grey)] * (len(mode) - 1) + [LEFT * 255]
    assert (counted(tmp_path / "a.png", np.stack(channels, axis=2), mode) == LEFT).all()


def test_what_is_transparent_or_black_does_not_count_where_both_vary(tmp_path):
    top = np.arange(32)[:, None].repeat(32, axis=1) < 7
    assert (counted(tmp_path / "a.png", np.stack([LEFT * 255, top * 255], axis=2), "LA") == (LEFT & top)).all()


def test_alpha_that_is_the_same_everywhere_says_nothing(tmp_path):
    assert (counted(tmp_path / "a.png", np.stack([LEFT * 255, LEFT * 0], axis=2), "LA") == LEFT).all()


def test_a_mask_of_another_size_is_refused(tmp_path):
    check_mask_size(tmp_path / "a.png", (90, 60), (90, 60))
    with pytest.raises(InputError, match=r"a.png: mask size: found 180x120, expected 90x60, as its picture. Masks are"):
        check_mask_size(tmp_path / "a.png", (180, 120), (90, 60))
