"""Pixels of composed pictures, by hand."""

import numpy as np
import pytest

from distill.evaluation import comparison_pictures as pictures


def test_enlarged_repeats_pixels_up_to_256():
    tiny = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    big = pictures.enlarged(tiny)
    assert big.shape == (400, 400, 3)
    assert (big[:200, 200:] == tiny[0, 1]).all()
    assert pictures.enlarged(np.zeros((100, 50, 3))).shape == (400, 200, 3)
    assert pictures.enlarged(np.zeros((256, 256, 3))).shape == (512, 512, 3)
    assert pictures.enlarged(np.zeros((257, 90, 3))).shape == (257, 90, 3)


def test_error_map_is_inferno_of_the_rms_error():
    from matplotlib import colormaps

    reference = np.zeros((1, 3, 3), np.float32)
    image = reference.copy()
    image[0, 1] = [0.125 * 3**0.5, 0.0, 0.0]  # rms 0.125, half of the scale
    image[0, 2] = [1.0, 0.0, 0.0]  # rms 0.577, past the scale
    colours = pictures.error_map(image, reference)[0]
    expected = [colormaps["inferno"](i, bytes=True)[:3] for i in (0, 128, 255)]
    assert np.abs(colours.astype(int) - np.array(expected, int)).max() <= 1


def test_triptych_holds_both_pictures_and_their_difference():
    rng = np.random.default_rng(0)
    teacher, student = rng.random((2, 300, 200, 3))
    sheet = pictures.triptych(teacher, student, "frame 3")
    assert sheet.dtype == np.uint8
    height, width = sheet.shape[:2]
    assert width == 3 * 200 + 4 * 8
    top = height - 300 - 8
    for n, panel in enumerate([np.rint(teacher * 255), np.rint(student * 255), pictures.error_map(student, teacher)]):
        left = 8 + n * 208
        assert np.array_equal(sheet[top : top + 300, left : left + 200], panel.astype(np.uint8))
    untitled = pictures.triptych(teacher, student)
    assert untitled.shape[0] == height - 23
    assert not np.array_equal(sheet, pictures.triptych(teacher, student, "frame 4"))


def test_triptych_shows_its_scale(monkeypatch):
    image = np.zeros((100, 100, 3))
    sheet = pictures.triptych(image, image)
    monkeypatch.setattr(pictures, "ERROR_SCALE", 0.5)
    assert not np.array_equal(sheet, pictures.triptych(image, image))  # another number beside the bar
    bar_end = (sheet == (252, 255, 164)).all(axis=-1)  # inferno's last colour
    rows, columns = np.nonzero(bar_end)
    assert len(rows) and rows.max() < 31
    ramp = sheet[rows[0], columns[0] - 99 : columns[0] + 1].astype(int).sum(axis=-1)
    assert (np.diff(ramp) >= 0).all() and ramp[0] < 10


def test_triptych_of_a_narrow_picture_cuts_its_words():
    image = np.zeros((300, 12, 3))
    sheet = pictures.triptych(image, image, "a title much wider than the sheet", "ground truth")
    assert sheet.shape[1] == 3 * 12 + 4 * 8


def test_letters_of_many_languages_are_told_apart():
    image = np.zeros((64, 64, 3))
    sheets = [pictures.triptych(image, image, title) for title in "äöøñčЖЩλω"]
    assert len({sheet.tobytes() for sheet in sheets}) == len(sheets)  # a box stands for each that a font lacks


def test_contact_sheet_places_pictures_row_by_row():
    images = [np.full((400, 300, 3), value) for value in (0.2, 0.4, 0.6)]
    sheet = pictures.contact_sheet(images, ["a", "b", "c"], columns=2)
    assert sheet.shape == (8 + 2 * (400 + 23 + 8), 8 + 2 * (300 + 8), 3)
    assert (sheet[8:408, 8:308] == 51).all()
    assert (sheet[8:408, 316:616] == 102).all()
    assert (sheet[439:839, 8:308] == 153).all()
    assert pictures.contact_sheet(images[:1], ["a"], columns=5).shape[1] == 316


def test_contact_sheet_shrinks_large_pictures_by_area():
    checks = np.indices((960, 960)).sum(axis=0) % 2
    sheet = pictures.contact_sheet([np.repeat(checks[..., None], 3, axis=2).astype(float)], [""], columns=1)
    assert sheet.shape[1] == 480 + 16
    assert np.isin(sheet[8:488, 8:488], (127, 128)).all()


def test_contact_sheet_refuses_what_does_not_match():
    with pytest.raises(ValueError, match="0 pictures"):
        pictures.contact_sheet([], [], 3)
    with pytest.raises(ValueError, match="1 pictures and 2 labels"):
        pictures.contact_sheet([np.zeros((2, 2, 3))], ["a", "b"], 3)
