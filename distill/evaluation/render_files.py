"""The files an evaluation makes of renders: every frame, and the few pictures a person looks at."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.evaluation.comparison_pictures import contact_sheet, triptych
from distill.evaluation.frame_metrics import References, Render
from distill.evaluation.results import Row, judged_row
from machine.files import write_atomically
from machine.run_folder import RunFolder
from scene.frames import spread
from scene.images import to_uint8, write_image
from settings.sections import Color

WORST_FRAMES = 3
SHEET_FRAMES = 24


@dataclass(frozen=True)
class RenderFiles:
    """Which files every frame leaves; numbers count the views.

    Args:
        renders: folder of the measured pixels, 8-bit RGB.
        prefix: of their names, ``<prefix>00012.png``.
        save: whether they are kept; where not, those of an earlier evaluation are removed all the same.
        rgba: folder of straight RGBA renders ``00012.png``, or None.
        depth: folder of ``00012.npy``, or None: (H, W) float32 expected distance along the unit ray, divided by
            alpha, world units, 0 where empty (``distance_normalized``).
    """

    renders: Path
    prefix: str = ""
    save: bool = True
    rgba: Path | None = None
    depth: Path | None = None

    @classmethod
    def of_run(cls, folder: RunFolder, step: int, save: bool) -> RenderFiles:
        """A run's own: ``eval/step_020000[_<tag>]_frame_00012.png``."""
        return cls(folder.eval, f"{eval_stem(folder, step)}_frame_", save)

    @classmethod
    def like_a_teacher(cls, folder: RunFolder, step: int, *, rgba: bool, depth: bool) -> RenderFiles:
        """graphdeco's layout in ``eval/step_020000[_<tag>]/``: ``renders/``, and ``rgba/``, ``depth/`` on request."""
        root = folder.eval / eval_stem(folder, step)
        return cls(root / "renders", rgba=root / "rgba" if rgba else None, depth=root / "depth" if depth else None)

    def paths(self, index: int) -> dict[str, Path]:
        """The files of view ``index`` by kind: ``renders``, ``rgba``, ``depth``."""
        named = {"renders": (self.renders if self.save else None, f"{self.prefix}{index:05d}.png")}
        named |= {"rgba": (self.rgba, f"{index:05d}.png"), "depth": (self.depth, f"{index:05d}.npy")}
        return {kind: folder / name for kind, (folder, name) in named.items() if folder is not None}

    def are_complete(self, index: int) -> bool:
        """Whether all of them are on disk."""
        return all(path.is_file() for path in self.paths(index).values())

    def write(self, index: int, render: Render, background: Color) -> None:
        """Writes the files of a frame, each under a temporary name and renamed."""
        paths = self.paths(index)
        if "renders" in paths:
            write_image(paths["renders"], render.image)
        if "rgba" in paths:
            write_image(paths["rgba"], _straight(render, background))
        if "depth" in paths:
            buffer = io.BytesIO()
            np.save(buffer, render.distance)
            write_atomically(paths["depth"], buffer.getvalue())

    def remove_all_but(self, kept: Collection[int]) -> None:
        """Removes the files of other views: an earlier evaluation's may have been others."""
        wanted = {path for index in kept for path in self.paths(index).values()}
        for folder, pattern in (
            (self.renders, f"{self.prefix}*.png"), (self.rgba, "*.png"), (self.depth, "*.npy"),
        ):  # fmt: skip
            for path in folder.glob(pattern) if folder is not None else ():
                if path not in wanted:
                    path.unlink()


def eval_stem(folder: RunFolder, step: int) -> str:
    """``step_020000[_<tag>]``: how the names of an evaluation's pictures begin."""
    return folder.eval_csv(step).stem.removeprefix("eval_")


def write_gallery(
    folder: RunFolder,
    step: int,
    references: References,
    frame_rows: Sequence[Row],
    image_of: Callable[[int], np.ndarray],
    subject: str,
) -> None:
    """The worst and the median view beside their reference, and a contact sheet, in ``folder.eval``.

    Args:
        image_of: the measured render of a view, (H, W, 3) uint8.
        subject: what the pictures call it.
    """
    stem = eval_stem(folder, step)
    for kind in ("worst_*_frame", "median_frame"):
        for stale in folder.eval.glob(f"{stem}_{kind}_*.png"):
            stale.unlink()
    judged = _judged_frames(frame_rows)
    reference = judged[0]["reference"]
    is_taught_by_images = reference == "teacher" and not references.has_teacher
    reference_name = "images" if is_taught_by_images else reference.replace("_", " ")

    def target(row: Row) -> np.ndarray:
        return references.image(row["frame"], reference)

    named = {f"worst_{n + 1}": row for n, row in enumerate(judged[:WORST_FRAMES])}
    named["median"] = judged[len(judged) // 2]
    for name, row in named.items():
        title = f"step {step}, {row['split']} frame {row['frame']} ({row['name']}): PSNR {row['psnr']:.2f} dB"
        render = image_of(row["frame"]) / 255.0
        picture = triptych(target(row), render, title, reference_name, subject)
        write_image(folder.eval / f"{stem}_{name}_frame_{row['frame']:05d}.png", picture)
    shown = sorted(spread(judged, SHEET_FRAMES), key=lambda row: row["frame"])
    pairs = (np.concatenate([target(row), image_of(row["frame"]) / 255.0], axis=1) for row in shown)
    labels = [f"{row['frame']}: {reference_name} | {subject}, {row['psnr']:.2f} dB" for row in shown]
    write_image(folder.eval / f"{stem}_contact_sheet.png", contact_sheet(pairs, labels, columns=3))


def _straight(render: Render, background: Color) -> np.ndarray:
    """(H, W, 4) uint8 straight RGBA of a render on a background."""
    alpha = render.alpha[..., None]
    premultiplied = render.image / np.float32(255) - (1 - alpha) * np.array(background, np.float32)
    return to_uint8(np.concatenate([premultiplied / np.maximum(alpha, 1e-6), alpha], axis=-1))


def _judged_frames(frame_rows: Sequence[Row]) -> list[Row]:
    """The rows pictures are made of, worst first: of holdout frames and the teacher where there are any."""
    first = judged_row(frame_rows)
    chosen = [row for row in frame_rows if all(row[name] == first[name] for name in ("reference", "split"))]
    return sorted(chosen, key=lambda row: row["psnr"])
