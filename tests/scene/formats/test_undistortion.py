"""Undoing a lens that bends."""

import numpy as np
import pytest
from PIL import Image

from machine.fingerprints import cache_key
from scene.formats.undistortion import Lens, distort, straightened, undistort
from scene.images import read_image, write_image
from scene.masks import read_mask
from settings.errors import InputError

BENDS = (-0.2, 0.05, 0.002, -0.001, 0.03)


def test_distortion_by_hand():
    x, y, square = 0.3, -0.4, 0.25
    radial = 1 - 0.2 * square + 0.05 * square**2 + 0.03 * square**3
    expected = (
        x * radial + 2 * 0.002 * x * y - 0.001 * (square + 2 * x * x),
        y * radial + 0.002 * (square + 2 * y * y) - 2 * 0.001 * x * y,
    )
    assert distort(np.array([[x, y]]), BENDS)[0] == pytest.approx(expected, abs=1e-15)


def test_undistortion_is_its_inverse():
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (200, 2))
    assert np.abs(undistort(distort(points, BENDS), BENDS) - points).max() < 1e-9


def test_a_place_that_no_point_is_shown_at_has_none():
    # Of k1 = -1, x - x^3 is at most 0.385.
    assert np.isnan(undistort(np.array([[0.5, 0.0]]), (-1.0, 0, 0, 0, 0))).all()


def test_a_straight_picture_shows_what_the_lens_bent(tmp_path, monkeypatch, caplog):
    """A bent picture of a smooth pattern, drawn through the lens, becomes the pattern as a pinhole shows it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caplog.set_level("INFO")
    size, lens = (64, 48), Lens((50.0, 52.0, 31.0, 25.0), BENDS)

    def pattern(points):
        x, y = points.T
        return np.stack([0.5 + 0.4 * np.sin(7 * x), 0.5 + 0.4 * np.cos(6 * y), 0.5 + 0.4 * x * y], axis=1)

    def places(width, height, fx, fy, cx, cy):
        x, y = np.meshgrid((np.arange(width) + 0.5 - cx) / fx, (np.arange(height) + 0.5 - cy) / fy)
        return np.stack([x.ravel(), y.ravel()], axis=1)

    bent = pattern(undistort(places(*size, *lens.intrinsics), BENDS)).reshape(48, 64, 3)
    write_image(tmp_path / "bent.png", bent)
    [frame] = straightened(tmp_path / "cameras.txt", [lens], [size], [tmp_path / "bent.png"])
    assert ": 1 picture undistorted (" in caplog.text
    width, height = frame.size
    assert frame.intrinsics[:2] == (50, 52) and width > 64 and height > 48  # a barrel is stretched
    straight = read_image(frame.path) / 255
    expected = pattern(places(width, height, *frame.intrinsics)).reshape(height, width, 3)
    assert straight.shape == expected.shape and np.abs(straight - expected).max() < 0.012
    assert np.abs(straight - expected).mean() < 0.003


def test_what_was_kept_of_a_lens_before_there_was_k3_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, inside, bends = tmp_path / "bent.png", (50.0, 52.0, 31.0, 25.0), (-0.1, 0.02, 0.001, 0.0)
    write_image(path, np.zeros((48, 64, 3)))

    def kept(k3):
        return straightened(tmp_path / "cameras.txt", [Lens(inside, (*bends, k3))], [(64, 48)], [path])[0].path.name

    file = [str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size]
    assert kept(0.0) == f"bent_{cache_key(file, [*inside, *bends, False], 2)[:20]}.png" != kept(0.01)


def test_pinholes_and_frames_without_a_picture_stay(tmp_path):
    lens, bent = Lens((5.0, 5.0, 4.0, 3.0), (1e-9, 0, 0, 0, 0)), Lens((5.0, 5.0, 4.0, 3.0), BENDS)
    frames = straightened(tmp_path, [lens, bent], [(8, 6)] * 2, [tmp_path / "a.png", None])
    assert [frame[:3] for frame in frames] == [
        (tmp_path / "a.png", (8, 6), lens.intrinsics),
        (None, (8, 6), bent.intrinsics),
    ]


def test_a_lens_that_folds_is_refused(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(
        InputError, match="lens: found k1 -1, k2 0, p1 0, p2 0, expected a lens that can be undone in all"
    ):
        straightened(tmp_path, [Lens((5.0, 5.0, 4.0, 3.0), (-1.0, 0, 0, 0, 0))], [(8, 6)], [tmp_path / "a.png"])


def test_a_lens_that_folds_stays_where_its_pictures_were_taken_out(tmp_path, caplog):
    pinhole, folds = Lens((5.0, 5.0, 4.0, 3.0), (0, 0, 0, 0, 0)), Lens((5.0, 5.0, 4.0, 3.0), (-1.0, 0, 0, 0, 0))
    frames = straightened(tmp_path, [pinhole, folds], [(8, 6)] * 2, [tmp_path / "a.png", None])
    assert frames[1][:3] == (None, (8, 6), folds.intrinsics)
    assert "1 of 2 frames have a lens that distorts and no picture: a pinhole" in caplog.text


def straight_with_mask(tmp_path, monkeypatch, counts, mask, **options):
    """The straight picture, white where ``counts`` (60, 90), else black, and its straight mask."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_image(tmp_path / "a.png", np.dstack([counts * np.uint8(255)] * 3))
    Image.fromarray(counts * np.uint8(255)).save(tmp_path / mask, **options)
    lens = Lens((80.0, 80.0, 45.0, 30.0), (-0.05, 0.02, 0.003, 0, 0))
    [frame] = straightened(tmp_path, [lens], [(90, 60)], [tmp_path / "a.png"], [tmp_path / mask])
    return read_image(frame.path), read_mask(frame.mask)


def test_nothing_that_a_mask_excludes_shows_where_the_straight_one_counts(tmp_path, monkeypatch):
    y, x = np.mgrid[:60, :90]
    counts = (x // 11 + y // 13) % 3 > 0
    picture, counted = straight_with_mask(tmp_path, monkeypatch, counts, "mask.png")
    assert counted.shape == picture.shape[:2] and (picture[counted] == 255).all()
    assert (picture[~counted] < 255).any() and 0.6 * counts.mean() < counted.mean() < counts.mean()


def test_the_ringing_of_a_jpeg_mask_does_not_count_when_it_is_straight(tmp_path, monkeypatch):
    counts = (np.arange(90) < 45)[None].repeat(60, 0)
    picture, counted = straight_with_mask(tmp_path, monkeypatch, counts, "mask.jpg", quality=40)
    assert len(np.unique(read_image(tmp_path / "mask.jpg"))) > 2
    assert (picture[counted] == 255).all() and counted.mean() > 0.4


def test_a_mask_of_another_size_than_its_bent_picture_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_image(tmp_path / "a.png", np.zeros((60, 90, 3), np.uint8))
    write_image(tmp_path / "mask.png", np.full((120, 180), 255, np.uint8))
    lens = Lens((80.0, 80.0, 45.0, 30.0), (-0.12, 0.05, 0.0, 0.0, 0.0))
    with pytest.raises(InputError, match=r"mask.png: mask size: found 180x120, expected 90x60, as its picture"):
        straightened(tmp_path, [lens], [(90, 60)], [tmp_path / "a.png"], [tmp_path / "mask.png"])
