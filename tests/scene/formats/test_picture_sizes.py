"""The sizes of a dataset's pictures."""

import numpy as np
import pytest
from PIL import Image

from scene.formats.picture_sizes import canvas, picture_sizes
from settings.errors import InputError


def picture(path, width, height, orientation=None):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path, exif=exif)
    return path


def test_sides_that_are_swapped_are_called_so(tmp_path):
    upright, turned = picture(tmp_path / "a.png", 24, 16), picture(tmp_path / "b.png", 16, 24, orientation=6)
    for stated in ((16, 24), (32, 48)):
        with pytest.raises(InputError, match=r"w, h of frames\[0\] .*the image 24x16: the sides are swapped, expected"):
            picture_sizes("t.json", [stated], [upright])
    with pytest.raises(InputError, match="swapped by the EXIF orientation 6 .tag 274.*remove the tag"):
        picture_sizes("t.json", [(16, 24)], [turned])
    with pytest.raises(InputError, match="24x16, the image 16x24: .*EXIF orientation 6 .tag 274.*`mogrify"):
        picture_sizes("sparse/0/images.bin", [(24, 16)], [turned], as_stored=True)
    with pytest.raises(
        InputError, match="found w, h of frames.0. 24x24, the image 24x16, expected images of the shape"
    ):
        picture_sizes("t.json", [(24, 24)], [upright])


def test_orientation_and_scale_are_said(tmp_path, caplog):
    turned = picture(tmp_path / "b.png", 16, 24, orientation=6)
    assert picture_sizes("turned.json", [(24, 16)], [turned]) == ((24, 16),)
    assert "1 of 1 images have an EXIF orientation (6 in b.png): they are turned upright" in caplog.text
    caplog.set_level("INFO")
    assert picture_sizes("stored", [(16, 24)], [turned], as_stored=True) == ((16, 24),)
    assert "stored: 1 of 1 images have an EXIF orientation (6 in b.png): they are taken as stored" in caplog.text
    assert picture_sizes("scaled.json", [(49, 33), None], [turned, None]) == ((24, 16), (24, 16))
    assert "w, h are 49x33 in 1 of 2 frames, the images are 24x16" in caplog.text
    assert picture_sizes("other.json", [None], [None], (8, 6)) == ((8, 6),)
    with pytest.raises(InputError, match="neither w and h nor an image on disk"):
        picture_sizes("none.json", [None], [None])


def test_mixed_sizes_share_the_size_that_holds_them(tmp_path, caplog):
    caplog.set_level("INFO")
    paths = [picture(tmp_path / f"{i}.png", *((16, 24) if i % 2 else (24, 16))) for i in range(5)]
    sizes = picture_sizes("t.json", [None] * 5, paths)
    assert sizes == ((24, 16), (16, 24)) * 2 + ((24, 16),)
    assert canvas("t.json", sizes) == ((24, 24), sizes)
    assert "pictures of 2 sizes, 24x16 (3), 16x24 (2): each lies in the top left corner of 24x24 pixels" in caplog.text
    assert canvas("t.json", sizes[:1] * 3) == ((24, 16), None)


def test_images_of_several_sizes_are_all_named_as_other_than_stated(tmp_path, caplog):
    paths = [picture(tmp_path / f"{index}.png", *size) for index, size in enumerate([(8, 6), (4, 3), (8, 6)])]
    assert picture_sizes("several.json", [(16, 12)] * 3, paths) == ((8, 6), (4, 3), (8, 6))
    assert "w, h are 16x12 in 3 of 3 frames, the images are 8x6 (2), 4x3 (1): fl_x, fl_y, cx, cy are scaled to the" in (
        caplog.text
    )
    assert picture_sizes("one.json", [(16, 12)] * 2, paths[::2]) == ((8, 6),) * 2
    assert "the images are 8x6: fl_x, fl_y, cx, cy are scaled by 0.5 to the images" in caplog.text


def test_an_image_that_is_missing_has_the_size_that_it_would_have(tmp_path):
    paths = [picture(tmp_path / "a.png", 8, 6), None, None, None]
    stated = [(16, 12), (16, 12), (12, 16), None]
    assert picture_sizes("missing.json", stated, paths) == ((8, 6), (8, 6), (6, 8), (8, 6))
    assert picture_sizes("missing.json", stated[:2], [None, None]) == ((16, 12),) * 2
