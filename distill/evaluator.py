"""How good a student is: renders, metrics, frame rate and pictures, and whether it is anything at all.

Metrics are taken on the renders rounded to 8 bits, the very pixels of the PNGs, so that anybody can repeat them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from distill import metrics, pictures
from distill.run_folder import RunFolder, write_csv
from distill.schema import Config, EvalConfig
from distill.telemetry import GpuMonitor, gpu_mem_gib, reset_gpu_peak, synchronize
from scene.errors import InputError
from scene.images import to_uint8, write_image

if TYPE_CHECKING:
    from distill.renderer import RenderedFrame
    from teacher.views import TeacherViews

METRICS = ("psnr", "ssim", "lpips_vgg", "psnr_foreground", "psnr_blank", "alpha_mean")
EVAL_COLUMNS = (
    *("step", "split", "reference", "frames", *METRICS),
    *("avg_fps", "gpu_peak_gib", "power_avg_w", "collapsed"),
)
FRAME_COLUMNS = ("step", "frame", "name", "split", "reference", *METRICS, "render_s")
COLLAPSED = "COLLAPSED"
WORST_FRAMES = 3
SHEET_FRAMES = 24

Color = tuple[float, float, float]
RenderFrame = Callable[[int, Color], "RenderedFrame"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationResult:
    """What was measured.

    Args:
        rows: a dict of ``EVAL_COLUMNS`` per split and reference; None is not measured.
        frame_rows: a dict of ``FRAME_COLUMNS`` per frame and reference.
        collapsed: whether the student is no better than a blank picture.
        evidence: one sentence with the figures that say so, or say that it is not.
    """

    rows: list[dict[str, object]]
    frame_rows: list[dict[str, object]]
    collapsed: bool
    evidence: str

    def summary_text(self) -> str:
        """A table for the console, what could not be measured as ``-``, and the evidence below it."""
        lines = [_line("split", "reference", "frames", "PSNR", "SSIM", "LPIPS", "PSNR fg", "PSNR blank")]
        for row in self.rows:
            cells = ((".2f", "psnr"), (".4f", "ssim"), (".4f", "lpips_vgg"), (".2f", "psnr_foreground"))
            texts = [_format(row[name], spec) for spec, name in (*cells, (".2f", "psnr_blank"))]
            lines.append(_line(row["split"], row["reference"], row["frames"], *texts) + f"  {row['collapsed'] or ''}")
        last = self.rows[-1]
        speed = f"{last['avg_fps']:.3g} frames/s"
        memory = "" if last["gpu_peak_gib"] is None else f", GPU peak {last['gpu_peak_gib']:.2f} GiB"
        power = "" if last["power_avg_w"] is None else f", mean power {last['power_avg_w']:.0f} W"
        return "\n".join([*(line.rstrip() for line in lines), speed + memory + power, self.evidence])


@dataclass(frozen=True)
class _Render:
    image: np.ndarray  # (H, W, 3) uint8
    alpha_mean: float
    seconds: float


@dataclass(frozen=True)
class _Gpu:
    peak_gib: float | None
    power_w: float | None


def evaluate(
    render_frame: RenderFrame,
    views: TeacherViews,
    config: Config,
    step: int,
    folder: RunFolder,
    device: torch.device,
    *,
    subject: str = "student",
    progress: bool = True,
) -> EvaluationResult:
    """Renders the chosen frames, measures them, writes the pictures and, last, the two CSVs.

    Frames are on ``config.render.background`` where the teacher has alpha, else on the background its images have.
    All are rendered before any is measured: frame rate, memory and power are those of rendering alone, after one
    untimed frame. Pictures go to ``folder.eval`` as ``step_020000[_<tag>]_frame_00012.png`` (the number counts
    ``views``), ``..._worst_1_frame_00012.png``, ``..._median_frame_00012.png`` and ``..._contact_sheet.png``.

    Args:
        render_frame: renders view ``i`` of ``views`` on a background.
        folder: prepared (``RunFolder.prepare``).
        device: where ``render_frame`` works; its memory and power are watched.
        subject: what is measured, as the pictures name it.

    Raises:
        InputError: the config asks for a reference or a split that ``views`` do not have.
    """
    splits = _chosen_frames(views, config.eval)
    references = _references(views, config.eval)
    background = config.render.background_rgb if views.alpha is not None else views.background
    frames = sorted(index for indices in splits.values() for index in indices)
    renders, gpu = _render(render_frame, frames, background, device, progress)
    lpips = metrics.Lpips.load("vgg", device) if config.eval.lpips else None
    frame_rows = []
    for index in tqdm(frames, desc="measure", unit="frame", disable=not progress, leave=False):
        split = next(name for name, indices in splits.items() if index in indices)
        for reference in references:
            row = {
                "step": step,
                "frame": index,
                "name": views.names[index],
                "split": split,
                "reference": reference,
            }
            row |= _measure(renders[index], views, index, reference, background, lpips)
            frame_rows.append(row)
    if len(splits) > 1:
        splits["all"] = frames
    rows = [
        _summary(step, split, reference, splits[split], frame_rows, gpu) for split in splits for reference in references
    ]
    collapsed, evidence = _verdict(rows, float(views.coverage[frames].float().mean()) / 255.0)
    _write_pictures(folder, step, views, renders, frame_rows, background, config.eval.save_renders, subject)
    write_csv(folder.eval_frames_csv(step), frame_rows, FRAME_COLUMNS)
    write_csv(folder.eval_csv(step), rows, EVAL_COLUMNS)
    return EvaluationResult(rows, frame_rows, collapsed, evidence)


def check_measurable(views: TeacherViews, settings: EvalConfig) -> None:
    """Refuses before a long run what ``evaluate`` would refuse after it.

    Raises:
        InputError: the config asks for a reference or a split that ``views`` do not have.
    """
    _chosen_frames(views, settings)
    _references(views, settings)


def _chosen_frames(views: TeacherViews, settings: EvalConfig) -> dict[str, list[int]]:
    """Frame indices of each split that is asked for and has any, in the order asked for."""
    kept_out = {"holdout": views.holdout, "train": ~views.holdout}
    chosen = {name: kept_out[name].nonzero().flatten().tolist() for name in settings.splits}
    train, limit = chosen.get("train", []), settings.max_train_frames
    if limit is not None and len(train) > limit:
        chosen["train"] = [train[n * len(train) // limit] for n in range(limit)]
    chosen = {name: indices for name, indices in chosen.items() if indices}
    if not chosen:
        found = f"{list(settings.splits)}, which have none of the {len(views.names)} frames"
        raise InputError("config", "eval.splits", found, "a split with frames", "Change data.holdout_every.")
    return chosen


def _references(views: TeacherViews, settings: EvalConfig) -> tuple[str, ...]:
    if settings.reference == "ground_truth" and views.ground_truth is None:
        hint = "Set eval.reference to teacher or both."
        raise InputError("config", "eval.reference", "ground_truth", "a dataset whose images are there", hint)
    wanted = ("teacher", "ground_truth") if settings.reference == "both" else (settings.reference,)
    return tuple(name for name in wanted if name == "teacher" or views.ground_truth is not None)


def _render(
    render_frame: RenderFrame, frames: Sequence[int], background: Color, device: torch.device, progress: bool
) -> tuple[dict[int, _Render], _Gpu]:
    renders, broken = {}, 0
    with torch.no_grad():
        render_frame(frames[0], background)
        synchronize(device)
        reset_gpu_peak(device)
        with GpuMonitor(device) as monitor:
            for index in tqdm(frames, desc="render", unit="frame", disable=not progress, leave=False):
                start = time.perf_counter()
                frame = render_frame(index, background)
                synchronize(device)
                seconds = time.perf_counter() - start
                rgb = frame.rgb.float().cpu().numpy()
                broken += not np.isfinite(rgb).all()
                image = to_uint8(np.nan_to_num(rgb, nan=0.0, posinf=1.0, neginf=0.0))
                renders[index] = _Render(image, float(frame.alpha.mean()), seconds)
        gpu = _Gpu(gpu_mem_gib(device), monitor.mean_power_w())
    if broken:
        _log.warning("%d of %d renders have NaN or infinite pixels, measured as black or white.", broken, len(frames))
    return renders, gpu


def _reference_image(views: TeacherViews, index: int, reference: str, background: Color) -> np.ndarray:
    image = views.image if reference == "teacher" else views.ground_truth_image
    return image(index, background).numpy()


def _coverage(views: TeacherViews, index: int, reference: str) -> np.ndarray:
    """(H, W) in [0, 1]: how much of a pixel the object fills; of opaque ground truth the teacher knows better."""
    if reference == "ground_truth" and bool((views.ground_truth[index, ..., 3] < 255).any()):
        return views.ground_truth[index, ..., 3].numpy() / 255.0
    return views.coverage[index].numpy() / 255.0


def _measure(
    render: _Render,
    views: TeacherViews,
    index: int,
    reference: str,
    background: Color,
    lpips: metrics.Lpips | None,
) -> dict[str, object]:
    image = render.image.astype(np.float32) / np.float32(255.0)
    target = _reference_image(views, index, reference, background)
    return {
        "psnr": metrics.psnr(image, target),
        "ssim": metrics.ssim(image, target),
        "lpips_vgg": lpips(image, target) if lpips else None,
        "psnr_foreground": metrics.psnr_foreground(image, target, _coverage(views, index, reference)),
        "psnr_blank": metrics.psnr_blank(target),
        "alpha_mean": render.alpha_mean,
        "render_s": render.seconds,
    }


def _summary(
    step: int,
    split: str,
    reference: str,
    frames: Sequence[int],
    frame_rows: Sequence[dict[str, object]],
    gpu: _Gpu,
) -> dict[str, object]:
    """Means over the frames of the per-frame figures; of those frames that have one."""
    chosen = [row for row in frame_rows if row["reference"] == reference and row["frame"] in frames]
    row: dict[str, object] = {"step": step, "split": split, "reference": reference, "frames": len(chosen)}
    for name in METRICS:
        measured = [frame[name] for frame in chosen if frame[name] is not None]
        row[name] = float(np.mean(measured)) if measured else None
    row["avg_fps"] = len(chosen) / sum(frame["render_s"] for frame in chosen)
    row["gpu_peak_gib"], row["power_avg_w"] = gpu.peak_gib, gpu.power_w
    row["collapsed"] = COLLAPSED if metrics.is_collapsed(row["psnr"], row["psnr_blank"]) else None
    return row


def _verdict(rows: Sequence[dict[str, object]], coverage: float) -> tuple[bool, str]:
    """Decided on the frames never trained on, against the teacher; on the next best where there are none."""
    row = min(rows, key=lambda row: (row["reference"] != "teacher", row["split"] != "holdout"))
    psnr, blank = row["psnr"], row["psnr_blank"]
    of = "the teacher" if row["reference"] == "teacher" else "ground truth"
    figures = f"{row['split']} PSNR {psnr:.2f} dB against {of}"
    alpha = f"mean alpha {row['alpha_mean']:.3f}, the teacher's coverage {coverage:.3f}"
    if row["collapsed"] is None:
        return False, f"{figures}, {psnr - blank:.2f} dB above a blank image ({blank:.2f} dB); {alpha}."
    margin = metrics.COLLAPSE_MARGIN_DB
    place = "below that of" if psnr < blank - margin else f"within {margin} dB of"
    return True, f"{COLLAPSED}: {figures} is {place} a blank image ({blank:.2f} dB); {alpha}."


def _write_pictures(
    folder: RunFolder,
    step: int,
    views: TeacherViews,
    renders: dict[int, _Render],
    frame_rows: Sequence[dict[str, object]],
    background: Color,
    save_renders: bool,
    subject: str,
) -> None:
    stem = folder.eval_csv(step).stem.removeprefix("eval_")
    for kind in ("frame", "worst", "median", "contact"):  # an earlier evaluation's frames may have been others
        for stale in folder.eval.glob(f"{stem}_{kind}_*.png"):
            stale.unlink()
    if save_renders:
        for index, render in renders.items():
            write_image(folder.eval / f"{stem}_frame_{index:05d}.png", render.image)
    judged = _judged_frames(frame_rows)
    reference = judged[0]["reference"]
    reference_name = reference.replace("_", " ")

    def target(row: dict[str, object]) -> np.ndarray:
        return _reference_image(views, row["frame"], reference, background)

    named = {f"worst_{n + 1}": row for n, row in enumerate(judged[:WORST_FRAMES])}
    named["median"] = judged[len(judged) // 2]
    for name, row in named.items():
        title = f"step {step}, {row['split']} frame {row['frame']} ({row['name']}): PSNR {row['psnr']:.2f} dB"
        render = renders[row["frame"]].image / 255.0
        picture = pictures.triptych(target(row), render, title, reference_name, subject)
        write_image(folder.eval / f"{stem}_{name}_frame_{row['frame']:05d}.png", picture)
    count = min(SHEET_FRAMES, len(judged))
    shown = sorted((judged[n * len(judged) // count] for n in range(count)), key=lambda row: row["frame"])
    pairs = [np.concatenate([target(row), renders[row["frame"]].image / 255.0], axis=1) for row in shown]
    labels = [f"{row['frame']}: {reference_name} | {subject}, {row['psnr']:.2f} dB" for row in shown]
    write_image(folder.eval / f"{stem}_contact_sheet.png", pictures.contact_sheet(pairs, labels, columns=3))


def _judged_frames(frame_rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """The rows pictures are made of, worst first: of holdout frames and the teacher where there are any."""
    reference, split = min(
        ((row["reference"], row["split"]) for row in frame_rows),
        key=lambda pair: (pair[0] != "teacher", pair[1] != "holdout"),
    )
    chosen = [row for row in frame_rows if row["reference"] == reference and row["split"] == split]
    return sorted(chosen, key=lambda row: row["psnr"])


def _line(*cells: object) -> str:
    widths = (8, 13, 7, 8, 8, 8, 9, 11)
    return "".join(
        f"{cell!s:{'<' if n < 2 else '>'}{width}}" for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def _format(value: object, spec: str) -> str:
    return "-" if value is None else format(value, spec)
