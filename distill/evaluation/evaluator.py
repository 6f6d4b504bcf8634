"""How good a student is: renders, metrics, frame rate and pictures, and whether it is anything at all.

Metrics are taken on the renders rounded to 8 bits, the very pixels of the PNGs, so that anybody can repeat them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from distill.evaluation import metrics
from distill.evaluation.figure_cache import FigureCache, code_digest
from distill.evaluation.frame_metrics import References, Render, has_neighbour
from distill.evaluation.render_files import RenderFiles, eval_stem, write_gallery
from distill.evaluation.results import (
    EVAL_COLUMNS,
    FRAME_COLUMNS,
    EvaluationResult,
    GpuFigures,
    Row,
    overall_gpu,
    summarize,
    verdict,
)
from distill.evaluation.speed import timed
from kernels.threads import available_threads
from machine import ranks
from machine.files import write_csv
from machine.fingerprints import cache_key
from machine.memory import MIB
from machine.run_folder import RunFolder
from machine.telemetry import GpuMonitor, gpu_mem_gib, reset_gpu_peak
from machine.terminal import progress_bar
from scene.frames import spread
from scene.images import read_image
from settings.config import Config
from settings.errors import InputError
from settings.evaluation import EvalConfig
from settings.sections import Color

if TYPE_CHECKING:
    from distill.rendering.renderer import RenderedFrame
    from teacher.views.teacher_views import TeacherViews

RenderFrame = Callable[[int, Color], "RenderedFrame"]

# Renders in memory at a time: 9 of 800x800. More make no figure steadier.
_CHUNK_BYTES = 64 * MIB
_BYTES_PER_PIXEL = 3 + 4 + 4
_TEACHER_FRAMES = 4
_MOST_AT_A_TIME = 8  # of frames that are measured: LPIPS on a CPU takes a team of threads for each
_log = logging.getLogger(__name__)


def evaluate(
    render_frame: RenderFrame,
    views: TeacherViews,
    config: Config,
    step: int,
    folder: RunFolder,
    device: torch.device,
    *,
    subject: str = "student",
    files: RenderFiles | None = None,
    identity: str | None = None,
    fresh: bool = False,
) -> EvaluationResult:
    """Renders the chosen frames, measures them, writes the pictures and, last, the two CSVs.

    Frames are on ``config.render.background`` where the teacher has alpha, else on the background its images have.
    They are rendered some at a time and then measured: frame rate, memory and power are those of rendering alone,
    after one untimed frame. Several processes share them, and send what they have to rank 0, which writes. Pictures go
    to ``folder.eval`` as ``step_020000[_<tag>]_worst_1_frame_00012.png`` (the number counts ``views``),
    ``..._median_frame_00012.png``, ``..._contact_sheet.png``, and every frame as ``files`` says.

    With an ``identity`` each frame's figures, its time among them, are kept in ``step_020000[_<tag>]_record.jsonl``
    beside the pictures. What is there is not done again if program, libraries, student, references and settings are
    the same and the frame's files are there; the CSVs come out the same, byte for byte.

    Args:
        render_frame: renders view ``i`` of ``views`` on a background.
        folder: prepared (``RunFolder.prepare``).
        device: where ``render_frame`` works; its memory and power are watched.
        subject: what is measured, as the pictures name it.
        files: what to keep of every frame; None: ``RenderFiles.of_run``.
        identity: a digest of all that renders depend on beside the program and the cameras; None keeps no figures.
        fresh: measure again what is there.

    Raises:
        InputError: the config asks for a reference or a split that ``views`` do not have.
    """
    splits = frames_by_split(views, config.eval)
    names = _references(views, config.eval)
    background = background_of(views, config)
    files = files or RenderFiles.of_run(folder, step, config.eval.save_renders)
    frames = measured_frames(views, config.eval)
    nets = {net: metrics.Lpips.load(net, device) for net in config.eval.lpips_nets}
    lpips = {net: model for net, model in nets.items() if model}
    references = References(views, names, background, lpips, has_teacher=not config.taught_by_images)
    job = _Job(render_frame, references, frames, files, device)
    is_kept = identity is not None and ranks.is_first()
    cache = FigureCache(folder.eval / f"{eval_stem(folder, step)}_record.jsonl" if is_kept else None, fresh)
    measured = job.run(cache, identity)
    frame_rows = _frame_rows(step, splits, references, measured)
    if len(splits) > 1:
        splits["all"] = frames
    gpu = overall_gpu([(GpuFigures(*(each["gpu"])), each["seconds"]) for each in measured.values()])
    rows = [summarize(frame_rows, split, name, splits[split], gpu) for split in splits for name in names]
    collapsed, evidence = verdict(rows)
    if ranks.is_first():
        write_gallery(folder, step, references, frame_rows, job.image_of, subject)
        write_csv(folder.eval_frames_csv(step), frame_rows, FRAME_COLUMNS)
        write_csv(folder.eval_csv(step), rows, EVAL_COLUMNS)
    return EvaluationResult(rows, frame_rows, collapsed, evidence)


def check_measurable(views: TeacherViews, settings: EvalConfig) -> None:
    """Refuses before a long run what ``evaluate`` would refuse after it.

    Raises:
        InputError: the config asks for a reference or a split that ``views`` do not have.
    """
    frames_by_split(views, settings)
    _references(views, settings)


def frames_by_split(views: TeacherViews, settings: EvalConfig) -> dict[str, list[int]]:
    """Frame indices of each split that is asked for and has any, in the order asked for.

    Raises:
        InputError: none has any.
    """
    kept_out = {"holdout": views.holdout, "train": ~views.holdout}
    chosen = {name: kept_out[name].nonzero().flatten().tolist() for name in settings.splits}
    if "train" in chosen and settings.max_train_frames is not None:
        chosen["train"] = spread(chosen["train"], settings.max_train_frames)
    chosen = {name: indices for name, indices in chosen.items() if indices}
    if not chosen:
        found = f"{list(settings.splits)}, which have none of the {len(views.names)} frames"
        raise InputError("config", "eval.splits", found, "a split with frames", "Change data.holdout_every.")
    return chosen


def measured_frames(views: TeacherViews, settings: EvalConfig) -> list[int]:
    """Indices of all frames that are measured, of whatever split, in the order of the views.

    Raises:
        InputError: as ``frames_by_split``.
    """
    return sorted(index for indices in frames_by_split(views, settings).values() for index in indices)


def teacher_psnr(views: TeacherViews, config: Config) -> float | None:
    """PSNR in dB of the teacher's own views against ground truth: mean over a few of the frames to be measured.

    None without ground truth, or where the images are the teacher.

    Raises:
        InputError: the config asks for a split that ``views`` do not have.
    """
    if views.ground_truth is None or config.taught_by_images:
        return None
    references = References(views, ("ground_truth",), background_of(views, config), {})
    frames = spread(measured_frames(views, config.eval), _TEACHER_FRAMES)
    return float(np.mean([references.teacher_psnr(index) for index in frames]))


def background_of(views: TeacherViews, config: Config) -> Color:
    """What renders of these views are measured on: the configured colour; without alpha, the one the views have."""
    return config.render.background_rgb if views.alpha is not None else views.background


def _references(views: TeacherViews, settings: EvalConfig) -> tuple[str, ...]:
    if settings.reference == "ground_truth" and views.ground_truth is None:
        expected = "a dataset whose images are there, and no smaller than data.resolution"
        hint = "Set eval.reference to teacher or both."
        raise InputError("config", "eval.reference", "ground_truth", expected, hint)
    wanted = ("teacher", "ground_truth") if settings.reference == "both" else (settings.reference,)
    return tuple(name for name in wanted if name == "teacher" or views.ground_truth is not None)


class _Job:
    """The frames of one evaluation: rendered, measured, their files written, a chunk at a time."""

    def __init__(
        self,
        render_frame: RenderFrame,
        references: References,
        frames: Sequence[int],
        files: RenderFiles,
        device: torch.device,
    ) -> None:
        self._render_frame, self._references, self._frames = render_frame, references, frames
        self._files, self._device = files, device
        members, cameras = set(frames), references.views.cameras
        self._pairs = {index for index in frames if index - 1 in members and has_neighbour(cameras, index)}

    def run(self, cache: FigureCache, identity: str | None) -> dict[int, dict]:
        """Figures by frame: ``seconds``, ``gpu`` (peak, power) and ``metrics`` by reference."""
        keys = self._keys(identity)
        found = {index: cache.get(_name(index), key) for index, key in keys.items()}
        done = {
            index: figures
            for index, figures in found.items()
            if figures is not None and self._files.are_complete(index)
        }
        if done:
            _log.info("%d of %d frames have been measured already", len(done), len(self._frames))
        done = ranks.value_of_first(done)
        todo = [index for index in self._frames if index not in done]
        if ranks.is_first():
            cache.keep([_name(index) for index in done])
            self._files.remove_all_but(done)
        broken, own = 0, todo[ranks.part(len(todo))]
        for index, render, figures in ranks.gathered(self._measured(own), -(-len(todo) // ranks.size())):
            self._files.write(index, render, self._references.background)
            cache.put(_name(index), keys.get(index, ""), figures)
            done[index] = figures
            broken += not render.is_finite
        if broken:
            _log.warning("%d of %d renders have NaN or infinite pixels, measured as black or white.", broken, len(todo))
        done = ranks.value_of_first(done)
        return {index: done[index] for index in self._frames}

    def _measured(self, todo: Sequence[int]) -> Iterator[tuple[int, Render, dict]]:
        """Each of some frames with its render and its figures."""
        images: dict[int, np.ndarray] = {}
        # A frame a thread: most metrics run on one, and a GPU renders hundreds of frames meanwhile.
        with ThreadPoolExecutor(min(available_threads(), _MOST_AT_A_TIME)) as pool:
            for renders, gpu in self._rendered(todo):
                last = [*images.items()][-1:]
                images = dict(last) | {index: render.image for index, render in renders.items()}
                # The others were rendered for the flicker of the next alone.
                wanted = [index for index in todo if index in renders]
                before = [images.get(index - 1) if index in self._pairs else None for index in wanted]
                found = pool.map(self._references.measure, wanted, [renders[index] for index in wanted], before)
                bar = progress_bar(found, total=len(wanted), desc="measure", unit=" frame", leave=False)
                try:
                    for index, figures in zip(wanted, bar, strict=True):
                        seen = {"seconds": renders[index].seconds, "gpu": [gpu.peak_gib, gpu.power_w]}
                        yield index, renders[index], seen | {"metrics": figures}
                finally:
                    found.close()  # where nobody wants the rest, it is not measured

    def image_of(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8 render of a frame: from its file, else rendered again."""
        path = self._files.paths(index).get("renders")
        if path is not None:
            return read_image(path)
        with torch.no_grad():
            return Render.of(self._render_frame(index, self._references.background), 0.0).image

    def _keys(self, identity: str | None) -> dict[int, str]:
        """Of each frame a digest of all its figures depend on; none without an identity."""
        if identity is None:
            return {}
        views = {index: self._references.key(index) for index in self._frames}
        return {
            index: cache_key(code_digest(), identity, views[index], views[index - 1] if index in self._pairs else None)
            for index in self._frames
        }

    def _rendered(self, todo: Sequence[int]) -> Iterator[tuple[dict[int, Render], GpuFigures]]:
        """The frames to do, and those before them that flicker needs, with what the GPU did meanwhile."""
        if not todo:
            return
        wanted = sorted({*todo, *(index - 1 for index in todo if index in self._pairs)})
        cameras = self._references.views.cameras

        def render(index: int) -> RenderedFrame:
            return self._render_frame(index, self._references.background)

        size = max(1, _CHUNK_BYTES // (cameras.width * cameras.height * _BYTES_PER_PIXEL))
        with torch.no_grad(), progress_bar(total=len(wanted), desc="render", unit=" frame", leave=False) as bar:
            timed(render, wanted[0], self._device)
            for start in range(0, len(wanted), size):
                renders = {}
                reset_gpu_peak(self._device)
                with GpuMonitor(self._device) as monitor:
                    for index in wanted[start : start + size]:
                        renders[index] = Render.of(*timed(render, index, self._device))
                        bar.update()
                yield renders, GpuFigures(gpu_mem_gib(self._device), monitor.mean_power_w())


def _frame_rows(
    step: int, splits: dict[str, list[int]], references: References, measured: dict[int, dict]
) -> list[Row]:
    views, split_of = references.views, {index: split for split, indices in splits.items() for index in indices}
    size = {"width": views.cameras.width, "height": views.cameras.height}
    rows: list[Row] = []
    for index, figures in measured.items():
        for name in references.names:
            row: Row = {"step": step, "frame": index, "name": views.names[index], "split": split_of[index]}
            row |= {"reference": name, **figures["metrics"][name], "render_s": figures["seconds"]}
            rows.append(row | {"background": background_name(references.background), **size})
    return rows


def background_name(background: Color) -> str:
    """``white``, ``black`` or ``#rrggbb``."""
    code = "#" + "".join(f"{round(255 * value):02x}" for value in background)
    return {"#ffffff": "white", "#000000": "black"}.get(code, code)


def _name(index: int) -> str:
    return f"frame {index}"
