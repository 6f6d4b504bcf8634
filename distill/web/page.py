"""The page of a student: its picture, turned by hand, and below it what was measured and what it is."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from distill.evaluation.results import shown
from distill.model.model import Model
from distill.reports.html_page import html_page, json_for_html
from distill.web.packing import packed_student
from machine.files import CsvRow
from scene.camera_paths import orbit_path
from scene.cameras import Cameras
from scene.rays import Vector

FINE = 3
"""Pixels where the student was trained on one, along a side: the mean of several rays shows no more there than one."""
_SCRIPTS = ("renderer.js", "orbit.js", "main.js")
_QUARTERS = 4
_MOST_RAYS = 2  # along a pixel's side: WebGL averages 2 x 2 pixels by itself
_COLUMNS = {
    "psnr": ("PSNR, dB", ".2f"),
    "psnr_blank": ("blank, dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "lpips_vgg": ("LPIPS (VGG)", ".4f"),
    "frames": ("frames", ".0f"),
}


@dataclass(frozen=True)
class StartView:
    """Where the camera begins.

    Attributes:
        eye, target: in world units.
        up: a direction, of any length.
        focal: (2,) focal lengths in widths and in heights of a picture.
        width: of the pictures that the student was trained on, pixels.
        background: (3,) behind the scene, sRGB in [0, 1].
    """

    eye: Vector
    target: Vector
    up: Vector
    focal: tuple[float, float]
    width: int
    background: Vector

    @classmethod
    def of(
        cls, cameras: Cameras, target: Vector, width: int, background: Vector, up: Vector | None = None
    ) -> StartView:
        """At the cameras' median distance and elevation, on the side of the first; ``up`` as ``orbit_path``.

        Raises:
            ValueError: as ``orbit_path``.
        """
        path = orbit_path(cameras, target, _QUARTERS, up)
        focal = (path.fx[0] / path.width).item(), (path.fy[0] / path.height).item()
        # What leans inwards in a round's images cancels out.
        up = path.c2w[:, :3, 1].mean(0)
        return cls(tuple(path.centers[0].tolist()), target, tuple(up.tolist()), focal, width, background)


def web_page(
    model: Model, path: Path, title: str, start: StartView, facts: Mapping[str, str], rows: Sequence[CsvRow]
) -> str:
    """The page's HTML.

    Args:
        path: the student's file, for messages.
        start: where its camera begins.
        facts: what it says of the student, by name.
        rows: of the CSV of its evaluation; none: it was not measured.

    Raises:
        InputError: a page cannot express the student.
    """
    packed = packed_student(model, path)
    data = {"start": vars(start), "textures": packed.textures, "rays": rays_of(model), "fine": FINE}
    fields = {
        "title": escape(title),
        "figures": _figures(rows),
        "facts": "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()),
        "data": json_for_html(data),
        "shader": packed.shader,
        "content": base64.b64encode(packed.content).decode(),
    }
    return html_page(__package__, _SCRIPTS, fields)


def rays_of(model: Model) -> int:
    """Rays along a side of each pixel that the page's pictures show the mean of."""
    return min(model.settings.supersample, _MOST_RAYS)


def _figures(rows: Sequence[CsvRow]) -> str:
    """A table of what was measured; words where nothing was."""
    if not rows:
        return "<p>It was not measured: no evaluation of it was found when this page was made.</p>"
    titles = ["frames of", "against", *(title for title, _ in _COLUMNS.values()), ""]
    lines = [_line("th", titles), *(_line("td", _cells(row)) for row in rows)]
    note = "Frames of holdout were not trained on. Blank is the best picture of one colour, which needs no learning."
    return f'<div class="scroll"><table>{"".join(lines)}</table></div><p class="hint">{note}</p>'


def _cells(row: CsvRow) -> list[str]:
    """A row of the table, what was not measured as a dash."""
    figures = [_figure(row.get(name), spec) for name, (_, spec) in _COLUMNS.items()]
    words = [(row.get(name) or "").replace("_", " ") for name in ("split", "reference")]
    return [*words, *figures, (row.get("verdict") or "").partition(":")[0]]


def _figure(cell: str | None, spec: str) -> str:
    try:
        return shown(None if cell is None else float(cell), spec)
    except ValueError:  # of a damaged CSV
        return "-"


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
