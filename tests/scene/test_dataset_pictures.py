"""A dataset's pictures at the size of its cameras, and which of their pixels count."""

from dataclasses import replace

import numpy as np
import pytest

from scene.dataset_pictures import counted_pixels, read_picture
from scene.frames import Frames
from scene.images import write_image
from settings.errors import InputError


@pytest.fixture
def frames(look_at, tmp_path):
    """Two pictures, 8x4 and 4x6, in cameras of 8x6."""
    shapes = ((4, 8, 3), (6, 4, 3))
    for name, shape in zip("ab", shapes, strict=True):
        write_image(tmp_path / f"{name}.png", np.full(shape, 200, np.uint8))
    cameras = look_at([(3.0, 0, 0), (0, 3, 0)], width=8, height=6)
    paths = tuple(tmp_path / f"{name}.png" for name in "ab")
    return Frames(cameras, ("a", "b"), paths, tmp_path, sizes=((8, 4), (4, 6)))


def test_pictures_lie_in_the_top_left_corner(frames, tmp_path):
    for index, (height, width) in enumerate(((4, 8), (6, 4))):
        picture = read_picture(frames, index)
        assert picture.shape == (6, 8, 3) and (picture[:height, :width] == 200).all()
        assert picture.sum(dtype=int) == 200 * 3 * height * width
    write_image(tmp_path / "a.png", np.zeros((5, 8, 3), np.uint8))
    with pytest.raises(InputError, match="a.png: image size: found 8x5, expected 8x4, as when"):
        read_picture(frames, 0)


def test_pixels_count_that_the_picture_has_all_of(frames):
    full = counted_pixels(frames, (8, 6))
    assert (
        full[0].tolist() == [[True] * 8] * 4 + [[False] * 8] * 2 and full[1].tolist() == [[True] * 4 + [False] * 4] * 6
    )
    # At 5x4, pixels are 1.6 x 1.5 of the full ones: of row 2, half lies beyond row 4.
    small = counted_pixels(frames, (5, 4))
    assert small[0].any(1).tolist() == [True, True, False, False]
    assert small[1].any(0).tolist() == [True, True, False, False, False]
    # At 12x9 a pixel is 2/3 of a full one: rows up to 5 end at row 4, columns up to 5 at column 4.
    large = counted_pixels(frames, (12, 9))
    assert large[0].any(1).tolist() == [True] * 6 + [False] * 3
    assert large[1].any(0).tolist() == [True] * 6 + [False] * 6
    assert counted_pixels(replace(frames, sizes=None), (8, 6)) is None


def test_masks_leave_what_is_not_black(frames, tmp_path):
    mask = np.full((4, 8), 255, np.uint8)
    mask[1, 2] = 0
    mask[2, 3] = 1
    write_image(tmp_path / "mask.png", mask)
    masked = replace(frames, masks=(tmp_path / "mask.png", None))
    counted = counted_pixels(masked, (8, 6))
    assert counted[0].sum() == 31 and not counted[0, 1, 2] and counted[1].sum() == 24
    assert counted_pixels(masked, (4, 3))[0].sum() == 7
    write_image(tmp_path / "mask.png", mask[:, :5])
    with pytest.raises(InputError, match="mask.png: mask size: found 5x4, expected 8x4"):
        counted_pixels(masked, (8, 6))
    write_image(tmp_path / "mask.png", mask * 0)
    with pytest.raises(InputError, match="mask.png: mask: found nothing of frame a at 8x6"):
        counted_pixels(masked, (8, 6))
