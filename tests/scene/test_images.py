import struct
import zlib

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from scene.images import (
    image_header,
    read_image,
    resize_area,
    resize_known,
    resize_rgba,
    srgb_to_linear,
    write_image,
)
from settings.errors import InputError


@pytest.mark.parametrize("channels", [3, 4])
def test_write_then_read_non_square(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 9, channels), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), image)
    assert image_header(tmp_path / "new" / "a.png").size == (9, 5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"], "no temporary file stays"


def test_float_is_clipped_and_rounded(tmp_path):
    write_image(tmp_path / "a.png", np.array([[[-1, 0.5, 2], [0.0, 0.001, 0.998]]]))
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 128, 255], [0, 0, 254]]]


def deep_tiff(path, *tags):
    """Writes a TIFF of 0, 257 * 9 and 65535 with some tags (tag, value) of its own."""
    Image.fromarray(np.array([[0, 257 * 9, 65535]], np.uint16)).save(path)
    data = bytearray(path.read_bytes())
    for tag, value in tags:
        entry = struct.pack("<HHI", tag, 3, 1)
        if entry in data:
            place = data.index(entry) + len(entry)
            data[place : place + 2] = struct.pack("<H", value)
        else:  # in the place of RowsPerStrip
            place = data.index(struct.pack("<H", 278))
            data[place : place + 12] = entry + struct.pack("<HH", value, 0)
    path.write_bytes(data)


def test_a_16_bit_tiff_in_which_0_is_white_is_no_negative(tmp_path):
    deep_tiff(tmp_path / "plain.tif")
    assert read_image(tmp_path / "plain.tif")[0, :, 0].tolist() == [0, 9, 255]
    deep_tiff(tmp_path / "negative.tif", (262, 0))
    assert read_image(tmp_path / "negative.tif")[0, :, 0].tolist() == [255, 246, 0]


def test_a_signed_16_bit_tiff_is_refused(tmp_path):
    deep_tiff(tmp_path / "signed.tif", (339, 2))
    with pytest.raises(InputError, match="signed.tif: pixels: found signed 16-bit grey, expected .*Save the image as"):
        read_image(tmp_path / "signed.tif")


def test_grey_and_16_bit_become_8_bit_colour(tmp_path):
    iio.imwrite(tmp_path / "grey.png", np.array([[0, 7]], dtype=np.uint8))
    assert read_image(tmp_path / "grey.png").tolist() == [[[0, 0, 0], [7, 7, 7]]]
    iio.imwrite(tmp_path / "deep.png", np.array([[257 * 9, 65535]], dtype=np.uint16))
    assert read_image(tmp_path / "deep.png").tolist() == [[[9, 9, 9], [255, 255, 255]]]
    iio.imwrite(tmp_path / "grey_alpha.png", np.array([[[3, 90]]], dtype=np.uint8), mode="LA")
    assert read_image(tmp_path / "grey_alpha.png").tolist() == [[[3, 3, 3, 90]]]


def corners() -> np.ndarray:
    """(4, 6, 4) that no turn or flip leaves as it is: an opaque red, a green and a blue corner on nothing."""
    image = np.zeros((4, 6, 4), np.uint8)
    image[0, 0], image[0, 5], image[3, 0] = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255)
    return image


def on_white(rgba: np.ndarray) -> np.ndarray:
    return np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_cmyk_becomes_rgb(tmp_path, ending):
    image = on_white(corners()).repeat(8, 0).repeat(8, 1)  # whole blocks of a JPEG
    Image.fromarray(image).convert("CMYK").save(tmp_path / f"a.{ending}", quality=100)
    read = read_image(tmp_path / f"a.{ending}")
    assert read.shape == (32, 48, 3) and np.abs(read.astype(int) - image).max() <= 4
    assert image_header(tmp_path / f"a.{ending}")[-2:] == (False, "CMYK")


def test_a_transparent_colour_becomes_alpha(tmp_path):
    rgba = corners()
    rgba[rgba[..., 3] == 0] = (255, 0, 255, 0)  # what shows where transparency is lost
    colour = Image.fromarray(rgba[..., :3].copy())
    colour.save(tmp_path / "rgb.png", transparency=(255, 0, 255))
    palette = colour.quantize(4)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((2, 2)))
    palette.save(tmp_path / "palette.gif", transparency=palette.getpixel((2, 2)))
    half = bytes(128 if index == palette.getpixel((2, 2)) else 255 for index in range(4))
    palette.save(tmp_path / "half.png", transparency=half)
    for name in ("rgb.png", "palette.png", "palette.gif"):
        read = read_image(tmp_path / name)
        np.testing.assert_array_equal(read[..., 3], rgba[..., 3], err_msg=name)
        np.testing.assert_array_equal(on_white(read), on_white(rgba), err_msg=name)
        assert image_header(tmp_path / name).has_alpha
    assert set(read_image(tmp_path / "half.png")[..., 3].ravel()) == {128, 255}


def png(bits: int, kind: int, rows: list[bytes], width: int, clear: tuple[int, ...] = ()) -> bytes:
    """A PNG of pixels of a kind (0 grey, 2 colour, 4 grey and alpha, 6 both), one value declared transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0))]
    parts += [chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear))] if clear else []
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_png(values: np.ndarray, kind: int, clear: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits of (H, W, channels) values."""
    return png(16, kind, [row.astype(">u2").tobytes() for row in values], values.shape[1], clear)


@pytest.mark.parametrize(
    ("bits", "row", "clear", "shades"),
    [
        (1, b"\x40", 1, [0, 255]),
        (2, b"\x60", 2, [85, 170]),
        (4, b"\x3f", 15, [51, 255]),
        (8, b"\x07\x09", 9, [7, 9]),
        (16, b"\x07\x07\x09\x09", 257 * 9, [7, 9]),
    ],
)
def test_a_transparent_grey_of_any_depth_becomes_alpha(tmp_path, bits, row, clear, shades):
    (tmp_path / "a.png").write_bytes(png(bits, 0, [row], 2, (clear,)))
    assert image_header(tmp_path / "a.png").has_alpha
    first, second = shades
    assert read_image(tmp_path / "a.png").tolist() == [[[first] * 3 + [255], [second] * 3 + [0]]]


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path, ending):
    # What a camera stores so that the orientation shows the picture upright.
    turns = {3: "ROTATE_180", 2: "FLIP_LEFT_RIGHT", 6: "ROTATE_90", 8: "ROTATE_270", 5: "TRANSPOSE", 7: "TRANSVERSE"}
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.fromarray(corners()).transpose(Image.Transpose[turn])
        stored.save(tmp_path / f"a.{ending}", exif=exif, lossless=True, exact=True)
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{ending}"), corners(), err_msg=turn)
        as_stored = read_image(tmp_path / f"a.{ending}", upright=False)
        np.testing.assert_array_equal(as_stored, np.asarray(stored), err_msg=turn)
        header = image_header(tmp_path / f"a.{ending}")
        assert (header.size, header.stored_size, header.orientation) == ((6, 4), stored.size, orientation)


@pytest.mark.parametrize(("kind", "channels"), [(2, [0, 1, 2]), (6, [0, 1, 2, 3]), (4, [0, 0, 0, 1])])
def test_colour_of_16_bits_is_rounded_to_8(tmp_path, kind, channels):
    values = np.random.default_rng(0).integers(0, 65536, (6, 9, max(channels) + 1))
    values[0, 0], values[0, 1] = 128, 129  # 0.498 and 0.502 of a level
    (tmp_path / "a.png").write_bytes(deep_png(values, kind))
    read = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read, np.rint(values / 257)[..., channels])
    assert set(read[0, 0]) == {0} and set(read[0, 1]) == {1}


def test_a_transparent_colour_of_16_bits_becomes_alpha(tmp_path):
    (tmp_path / "a.png").write_bytes(deep_png(np.array([[[1, 2, 3], [1, 2, 4]]]), 2, (1, 2, 3)))
    assert read_image(tmp_path / "a.png").tolist() == [[[0, 0, 0, 0], [0, 0, 0, 255]]]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_tiff_of_16_bits_is_rounded_to_8(tmp_path, order, compression):
    values = np.random.default_rng(0).integers(0, 65536, (40, 30, 3)).astype(np.uint16)
    options = {"byteorder": order, "compression": compression, "rowsperstrip": 7, "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", values, **options, extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.rint(np.rot90(values, -1) / 257))
    # Pillow has no reading of such planes, and gives other pixels without a word.
    tifffile.imwrite(tmp_path / "b.tif", values.transpose(2, 0, 1), **options, planarconfig="separate")
    with pytest.raises(InputError, match="b.tif: pixels: found 16-bit colours in a plane each, expected .*Save the im"):
        read_image(tmp_path / "b.tif")


def test_modes_without_a_reading_are_refused_by_name(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(InputError, match="float.tif: pixels: found pixels of mode F, expected colour or grey of up to"):
        read_image(tmp_path / "float.tif")


def test_other_files_in_place_of_a_picture_are_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    for read in (read_image, image_header):
        with pytest.raises(InputError, match="a.png: image: found a Git LFS pointer, .*git lfs pull"):
            read(path)


def test_a_png_of_damaged_pixels_is_refused(tmp_path):
    """Pillow decodes it to other pixels without a word."""
    path = tmp_path / "a.png"
    write_image(path, np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    whole = path.read_bytes()
    begin = whole.index(b"IDAT")
    damaged = {
        "flipped": whole[: begin + 40] + bytes([whole[begin + 40] ^ 1]) + whole[begin + 41 :],
        "zeroed": whole[: begin + 40] + bytes(20) + whole[begin + 60 :],
        "inserted": whole[: begin + 40] + b"x" + whole[begin + 40 :],
        "cut": whole[:-6],
    }
    for what, data in damaged.items():
        path.write_bytes(data)
        with pytest.raises(InputError, match="a whole"):
            read_image(path)
            pytest.fail(what)
    path.write_bytes(whole + b"trailing")
    assert read_image(path).shape == (24, 24, 3)


def test_missing_truncated_and_not_a_picture(tmp_path):
    with pytest.raises(InputError, match="absent.png: image: found no such file"):
        read_image(tmp_path / "absent.png")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    write_image(tmp_path / "cut.png", noise)
    whole = (tmp_path / "cut.png").read_bytes()
    for length in (10, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.png").write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut.png: image: found (a damaged part 'IDAT'|unreadable data)"):
            read_image(tmp_path / "cut.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match="text.png"):
        read_image(tmp_path / "text.png")
    with pytest.raises(InputError, match="text.png: image: found unreadable data"):
        image_header(tmp_path / "text.png")


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
    faint = np.array([[[200, 100, 0, alpha] for alpha in (1, 1, 1, 0)]], np.uint8)  # 0.75 of 255 on average
    assert resize_rgba(faint, 1, 1).tolist() == [[[200, 100, 0, 1]]]


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_linear_light_by_hand(kind):
    """Straight up to 0.04045, where both ways meet; a middle grey of 0.5 is 21 % of the light."""
    values = srgb_to_linear(kind([0.0, 0.02, 0.2, 0.5, 1.0]))
    assert values.tolist() == pytest.approx([0.0, 0.02 / 12.92, 0.0331048, 0.2140411, 1.0], abs=1e-6)


def test_what_is_known_is_averaged_where_half_of_a_pixel_is():
    thirds = np.array([[2, 0, 0, 4, 6, 0]], np.float32)
    assert resize_known(thirds, 2, 1).tolist() == [[0.0, 5.0]]
    halves = np.array([[3, 0, 0, 0]], np.float32)
    assert resize_known(halves, 2, 1).tolist() == [[3.0, 0.0]]
