"""Pictures a person judges a student by. Inputs are (H, W, 3) float arrays in [0, 1]; outputs are uint8."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scene.images import to_uint8

ERROR_SCALE = 0.25
"""Error that gets the brightest colour: the same in every picture, so that two of them can be compared."""

_SHOWN_SIDE = 400  # small pictures are enlarged to about this
_LONGEST = 480  # large ones of a sheet are reduced to this at most
_GAP, _FONT = 8, 15  # of a line's letters, ascents and descents with them
_PAPER, _INK = (232, 232, 232), (30, 30, 30)  # grey, so that white pictures show where they end


def enlarged(image: np.ndarray) -> np.ndarray:
    """A picture of at most 256 px a side repeated pixel by pixel to about 400 px; larger ones as they are."""
    side = max(image.shape[:2])
    factor = max(1, round(_SHOWN_SIDE / side)) if side <= 256 else 1
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def error_map(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """RMS difference over the channels as (H, W, 3) uint8 colours: ``heat`` from 0 to ``ERROR_SCALE``."""
    return heat(np.sqrt(np.mean(np.square(image - reference), axis=-1)) / ERROR_SCALE)


def heat(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1, clipped there, as uint8 colours with a last axis of 3: matplotlib's inferno."""
    return _colours()[to_uint8(values)]


def triptych(
    reference: np.ndarray,
    render: np.ndarray,
    title: str = "",
    reference_name: str = "teacher",
    render_name: str = "student",
) -> np.ndarray:
    """reference | render | error side by side, named, with the error's colour bar and an optional title line."""
    panels = [to_uint8(reference), to_uint8(render), error_map(render, reference)]
    panels = [enlarged(panel) for panel in panels]
    height, width = panels[0].shape[:2]
    line = _FONT + _GAP
    top = _GAP + line * (2 if title else 1)
    sheet = Image.new("RGB", (3 * width + 4 * _GAP, top + height + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        _text(draw, (_GAP, _GAP), title, sheet.width - 2 * _GAP)
    names = (reference_name, render_name, "error (RMS)")
    for n, (name, panel) in enumerate(zip(names, panels, strict=True)):
        left = _GAP + n * (width + _GAP)
        _text(draw, (left, top - line), name, width)
        sheet.paste(Image.fromarray(panel), (left, top))
    _colour_bar(sheet, draw, left + width, top - line, f"{ERROR_SCALE:g}", width)
    return np.asarray(sheet)


def triptych_panels(sheet: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """reference, render and error cut out of a ``triptych`` with a title, pixels that were repeated taken back.

    Args:
        sheet: (H, W, 3) uint8.

    Raises:
        ValueError: of that size there is no triptych.
    """
    top, width = _GAP + 2 * (_FONT + _GAP), (sheet.shape[1] - 4 * _GAP) // 3
    height = sheet.shape[0] - top - _GAP
    if min(width, height) < 1 or sheet.shape[1] != 3 * width + 4 * _GAP:
        raise ValueError(f"triptych_panels: {sheet.shape[1]}x{sheet.shape[0]} pixels")
    lefts = [_GAP + n * (width + _GAP) for n in range(3)]
    panels = [sheet[top : top + height, left : left + width] for left in lefts]
    for factor in range(_SHOWN_SIDE, 1, -1):
        if width % factor == height % factor == 0 and all(_repeats(panel, factor) for panel in panels):
            return tuple(panel[::factor, ::factor] for panel in panels)
    return tuple(panels)


def _repeats(panel: np.ndarray, factor: int) -> bool:
    """Whether each pixel stands ``factor`` by ``factor`` times; the first two rows of each tell mostly."""
    if (panel[1::factor] != panel[::factor]).any():
        return False
    return bool((panel[::factor, ::factor].repeat(factor, 0).repeat(factor, 1) == panel).all())


def contact_sheet(images: Iterable[np.ndarray], labels: Sequence[str], columns: int) -> np.ndarray:
    """Pictures of one size in rows of ``columns``, each with its label below; they are taken one at a time.

    Raises:
        ValueError: no pictures, or not one label for each.
    """
    tiles = [_fitted(to_uint8(image)) for image in images]
    if not tiles or len(tiles) != len(labels):
        raise ValueError(f"contact_sheet: {len(tiles)} pictures and {len(labels)} labels")
    height, width = tiles[0].shape[:2]
    columns, line = min(columns, len(tiles)), _FONT + _GAP
    rows = -(-len(tiles) // columns)
    size = (_GAP + columns * (width + _GAP), _GAP + rows * (height + line + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for n, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        left = _GAP + n % columns * (width + _GAP)
        top = _GAP + n // columns * (height + line + _GAP)
        sheet.paste(Image.fromarray(tile), (left, top))
        _text(draw, (left, top + height + _GAP // 2), label, width)
    return np.asarray(sheet)


def _fitted(tile: np.ndarray) -> np.ndarray:
    """A small picture enlarged, a large one reduced by area to at most ``_LONGEST`` px."""
    tile = enlarged(tile)
    factor = -(-max(tile.shape[:2]) // _LONGEST)
    return np.asarray(Image.fromarray(tile).reduce(factor)) if factor > 1 else tile


def _colour_bar(sheet: Image.Image, draw: ImageDraw.ImageDraw, right: int, top: int, end: str, width: int) -> None:
    """``0 [gradient] end`` flush right at ``right``; left out where a panel is too narrow for it."""
    font = _font()
    length, after, before = 100, int(font.getlength(end)) + 6, int(font.getlength("0")) + 6
    if width < length + after + before + int(font.getlength("error (RMS)")) + _GAP:
        return
    left = right - after - length
    bar = np.repeat(_colours()[np.linspace(0, 255, length).astype(np.uint8)][None], _FONT - 4, axis=0)
    sheet.paste(Image.fromarray(bar), (left, top + 4))
    draw.text((left - before, top), "0", fill=_INK, font=font)
    draw.text((right - after + 6, top), end, fill=_INK, font=font)


def _text(draw: ImageDraw.ImageDraw, position: tuple[int, int], text: str, width: int) -> None:
    """Draws ``text`` in one line, cut with an ellipsis where it is wider than ``width`` pixels."""
    font = _font()
    if font.getlength(text) > width:
        while text and font.getlength(text + "...") > width:
            text = text[:-1]
        text += "..."
    draw.text(position, text, fill=_INK, font=font)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's: Pillow's own has no letters but English ones, and names of pictures have others."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), _FONT - 2)


@lru_cache(maxsize=1)
def _colours() -> np.ndarray:
    from matplotlib import colormaps

    return to_uint8(colormaps["inferno"](np.arange(256))[:, :3])
