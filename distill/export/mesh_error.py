"""How poor a mesh is: its pictures and distances beside the student's, both against the teacher's held-out views."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.evaluation.comparison_pictures import triptych
from distill.evaluation.evaluator import background_of
from distill.evaluation.frame_metrics import References, Render
from distill.evaluation.metrics import is_collapsed
from distill.evaluation.results import Row, shown
from distill.model.view_renderers import Rendering, RenderView
from distill.rendering.renderer import RenderedFrame
from machine.files import write_csv
from machine.terminal import progress_bar
from scene.frames import spread
from scene.images import write_image
from settings.config import Config
from settings.sections import Color
from settings.words import counted
from teacher.views.teacher_views import TeacherViews

MOST_FRAMES = 24
_LITTLE_DB = 3.0  # above a blank picture: no mesh of such a student can be good
_FIGURES = ("psnr", "psnr_foreground", "psnr_blank", "depth_abs", "depth_rel", "alpha_iou")
_COLUMNS = ("subject", "frame", "name", *_FIGURES)


class MeshError(NamedTuple):
    """A row a frame and subject, ``mesh`` and ``student``, with the figures of an evaluation; and their means.

    held_out: whether the frames are such; False: none is, and any are taken.
    """

    rows: list[Row]
    means: dict[str, Row]
    held_out: bool = True

    def text(self) -> str:
        """Two sentences."""
        mesh, student = self.means["mesh"], self.means["student"]
        frames, view = len(self.rows) // 2, "held-out view" if self.held_out else "view"
        text = (
            f"against the teacher in {counted(frames, view)}: mesh {shown(mesh['psnr'], '.2f')} dB, student "
            f"{shown(student['psnr'], '.2f')} dB, a blank picture {shown(mesh['psnr_blank'], '.2f')} dB"
        )
        if mesh["depth_abs"] is None:
            return f"{text}. The teacher's depth is not known."
        return (
            f"{text}. Distance to the teacher's depth: mesh {mesh['depth_abs']:.4g} ({mesh['depth_rel']:.2%}), "
            f"student {shown(student['depth_abs'], '.4g')} world units; silhouettes overlap by "
            f"{shown(mesh['alpha_iou'], '.3f')}."
        )

    def remark(self, cells: int, density: float | None) -> str:
        """What is to be said of a mesh that shows no more than a blank picture, with what to do; empty: it shows more.

        Args:
            cells: along the longest side of the box.
            density: the one that was asked for at the surface; None: it was found.
        """
        mesh, student = self.means["mesh"]["psnr"], self.means["student"]["psnr"]
        blank = self.means["mesh"]["psnr_blank"]
        if None in (mesh, student, blank) or not is_collapsed(mesh, blank):
            return ""
        words = f"the mesh shows no more than a blank picture ({mesh:.2f} dB, blank {blank:.2f} dB)"
        if is_collapsed(student, blank):
            return f"{words}, and so does its student ({student:.2f} dB): tools/check_alignment.py finds out why"
        if student < blank + _LITTLE_DB:
            return f"{words}, and its student little more ({student:.2f} dB): train it longer, and export it again"
        advice = f"try more cells, --mesh-cells {2 * cells}"
        advice += ", or another --mesh-density" if density is None else ", or leave out --mesh-density"
        return f"{words}, though its student does ({student:.2f} dB): {advice}"


def measure_mesh(config: Config, views: TeacherViews, mesh: RenderView, student: RenderView, stem: Path) -> MeshError:
    """Measures at most 24 of the held-out views, evenly spread (of all, where none is held out), at the views' size.

    Writes ``<stem>_error.csv``, a row a frame and subject and then the means, and ``<stem>_view.png``: teacher, mesh
    and error of the frame in the middle by PSNR.

    Raises:
        OSError: they cannot be written.
    """
    held = views.holdout_frames.tolist()
    background = background_of(views, config)
    references = References(views, ("teacher",), background, {})
    rows: list[Row] = []
    frames = spread(held or range(len(views)), MOST_FRAMES)
    for index in progress_bar(frames, "measure the mesh", unit=" frame", leave=False):
        for subject, render in (("mesh", mesh), ("student", student)):
            frame = _on(render(views.cameras, index), background)
            figures = references.measure(index, frame, None)["teacher"]
            named = {"subject": subject, "frame": index, "name": views.names[index]}
            rows.append(named | {name: figures[name] for name in _FIGURES})
    means = {subject: _mean([row for row in rows if row["subject"] == subject]) for subject in ("mesh", "student")}
    together = [{"subject": subject, "frame": "mean", **figures} for subject, figures in means.items()]
    write_csv(stem.with_name(f"{stem.name}_error.csv"), [*rows, *together], _COLUMNS)
    ours = sorted((row for row in rows if row["subject"] == "mesh"), key=lambda row: row["psnr"])
    middle = ours[len(ours) // 2]
    picture = _on(mesh(views.cameras, middle["frame"]), background).image / np.float32(255)
    title = f"{middle['name']}: mesh {middle['psnr']:.2f} dB"
    sheet = triptych(references.image(middle["frame"], "teacher"), picture, title, render_name="mesh")
    write_image(stem.with_name(f"{stem.name}_view.png"), sheet)
    return MeshError(rows, means, bool(held))


def _on(view: Rendering, background: Color) -> Render:
    return Render.of(RenderedFrame(view.over(background), view.alpha, view.distance), 0.0)


def _mean(rows: list[Row]) -> Row:
    """Of each figure over the frames that have it; None without any."""
    known = {name: [row[name] for row in rows if row[name] is not None] for name in _FIGURES}
    return {name: float(np.mean(values)) if values else None for name, values in known.items()}
