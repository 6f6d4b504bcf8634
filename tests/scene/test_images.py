import imageio.v3 as iio
import numpy as np
import pytest

from scene.images import image_size, read_image, resize_area, resize_rgba, write_image
from settings.errors import InputError


@pytest.mark.parametrize("channels", [3, 4])
def test_write_then_read_non_square(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 9, channels), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), image)
    assert image_size(tmp_path / "new" / "a.png") == (9, 5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"], "no temporary file stays"


def test_float_is_clipped_and_rounded(tmp_path):
    write_image(tmp_path / "a.png", np.array([[[-1, 0.5, 2], [0.0, 0.001, 0.998]]]))
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 128, 255], [0, 0, 254]]]


def test_grey_and_16_bit_become_8_bit_colour(tmp_path):
    iio.imwrite(tmp_path / "grey.png", np.array([[0, 7]], dtype=np.uint8))
    assert read_image(tmp_path / "grey.png").tolist() == [[[0, 0, 0], [7, 7, 7]]]
    iio.imwrite(tmp_path / "deep.png", np.array([[257 * 9, 65535]], dtype=np.uint16))
    assert read_image(tmp_path / "deep.png").tolist() == [[[9, 9, 9], [255, 255, 255]]]
    iio.imwrite(tmp_path / "grey_alpha.png", np.array([[[3, 90]]], dtype=np.uint8), mode="LA")
    assert read_image(tmp_path / "grey_alpha.png").tolist() == [[[3, 3, 3, 90]]]


def test_missing_truncated_and_not_a_picture(tmp_path):
    with pytest.raises(InputError, match="absent.png: image: found no such file"):
        read_image(tmp_path / "absent.png")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    write_image(tmp_path / "cut.png", noise)
    whole = (tmp_path / "cut.png").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut.png: image: found unreadable data"):
            read_image(tmp_path / "cut.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match="text.png"):
        read_image(tmp_path / "text.png")
    with pytest.raises(InputError, match="text.png: image header"):
        image_size(tmp_path / "text.png")


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, np.zeros((2, 2, 3), np.uint8))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"found shape \(2, 2, 5\)"):
        write_image(path, np.zeros((2, 2, 5), np.uint8))

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_image(path, np.ones((2, 2, 3), np.uint8))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_resize_area_whole_ratio():
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    assert resize_area(image, 2, 2)[..., 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert resize_area(image, 4, 1)[0, :, 0].tolist() == [6, 7, 8, 9]


def test_resize_area_fractional_ratio():
    # 5 -> 2: each output pixel is 2.5 wide, the middle one is shared: (1 + 2 + 3/2) / 2.5 and (3/2 + 4 + 5) / 2.5.
    row = np.array([[1, 2, 3, 4, 5]], dtype=np.float32)
    np.testing.assert_allclose(resize_area(row, 2, 1), [[1.8, 4.2]], rtol=1e-6)
    # 3 -> 2 down the rows: (6 + 0.5 * 0) / 1.5 and (0.5 * 0 + 3) / 1.5.
    column = np.array([[[6, 60]], [[0, 0]], [[3, 30]]], dtype=np.float32)
    np.testing.assert_allclose(resize_area(column, 1, 2), [[[4, 40]], [[2, 20]]], rtol=1e-6)


def test_resize_area_keeps_the_mean_and_the_size_one_case():
    image = np.random.default_rng(1).random((12, 20, 3), dtype=np.float32)
    np.testing.assert_allclose(resize_area(image, 7, 5).mean((0, 1)), image.mean((0, 1)), rtol=1e-5)
    np.testing.assert_array_equal(resize_area(image, 20, 12), image)
    with pytest.raises(ValueError, match="cannot shrink 20x12 to 21x12"):
        resize_area(image, 21, 12)


def test_resize_rgba_averages_premultiplied():
    # Opaque red, and transparent green whose colour must not leak: red at half alpha.
    pair = np.array([[[255, 0, 0, 255], [0, 255, 0, 0]]], dtype=np.uint8)
    assert resize_rgba(pair, 1, 1).tolist() == [[[255, 0, 0, 128]]]
    # alpha 255 and 51: colour (200 * 255 + 100 * 51) / 306 = 183.3, alpha 153.
    pair = np.array([[[200, 200, 200, 255], [100, 100, 100, 51]]], dtype=np.uint8)
    assert resize_rgba(pair, 1, 1).tolist() == [[[183, 183, 183, 153]]]
    assert resize_rgba(np.full((2, 2, 4), [9, 9, 9, 0], np.uint8), 1, 1).tolist() == [[[0, 0, 0, 0]]]
