"""The page's pictures: triptychs cut in three, reduced, as data URIs that together keep to a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from distill.evaluation.comparison_pictures import triptych_panels
from distill.reports.dashboard.run_files import Problems
from distill.reports.dashboard.run_records import Picture
from scene.images import read_image
from settings.errors import InputError

BUDGET_BYTES = 7_000_000
"""Of all data URIs together; the page's limit, 10 MB, leaves the rest to the figures."""

_MOST_BYTES = 40_000  # of one data URI: beyond it nobody sees a difference
_SIZES = ((400, 85), (360, 78), (300, 72), (240, 68), (180, 60), (120, 50), (80, 40))  # longest side, WebP quality
_BYTES_PER_PIXEL = 0.1  # of a data URI; pictures that take less are rare, so larger ones need no try
_THREADS = 4


@dataclass(frozen=True)
class Panels:
    """reference, render and error of one frame, as data URIs, and the width of the pictures as rendered, pixels."""

    uris: tuple[str, str, str]
    width: int


def encode_pictures(pictures: Sequence[Picture], problems: Problems) -> list[Panels | None]:
    """The panels of each triptych, None for one that cannot be read; all together at most ``BUDGET_BYTES``.

    A budget that does not reach for the smallest size (some 800 triptychs) is overrun.
    """
    limit = min(_MOST_BYTES, BUDGET_BYTES // max(1, 3 * len(pictures)))
    with ThreadPoolExecutor(_THREADS) as pool:
        results = list(pool.map(lambda picture: _panels(picture, limit), pictures))
    for picture, result in zip(pictures, results, strict=True):
        if isinstance(result, str):
            problems.add(picture.path, result)
    return [result if isinstance(result, Panels) else None for result in results]


def _panels(picture: Picture, limit: int) -> Panels | str:
    """The panels, or what is wrong with the file."""
    try:
        panels = triptych_panels(read_image(picture.path)[..., :3])
    except InputError as error:
        return f"{error.field}: {error.found}"
    except ValueError:
        return "not reference, render and error side by side"
    return Panels(tuple(_data_uri(panel, limit) for panel in panels), panels[0].shape[1])


def _data_uri(pixels: np.ndarray, limit: int) -> str:
    """WebP of the first size that takes no more than ``limit`` bytes as a data URI, else of the last."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    tried = None
    for side, quality in _SIZES:
        reduced = image.copy()
        reduced.thumbnail((side, side), Image.Resampling.BOX)
        hopeless = reduced.width * reduced.height * _BYTES_PER_PIXEL > limit and (side, quality) != _SIZES[-1]
        if hopeless or reduced.size == tried:
            continue
        tried = reduced.size
        buffer = io.BytesIO()
        reduced.save(buffer, "WEBP", quality=quality, method=2)
        uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        if len(uri) <= limit:
            break
    return uri
