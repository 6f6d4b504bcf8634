"""Renders a teacher's views to disk in graphdeco's layout, so that they can be distilled as ``teacher.kind: views``."""

from __future__ import annotations

import io
import logging
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kernels.threads import one_torch_thread
from machine.files import output_errors, remove_litter, write_atomically
from machine.fingerprints import digest
from machine.folder_lock import locked
from machine.memory import cpu_peak_gib
from machine.telemetry import GpuMonitor, gpu_mem_gib, reset_gpu_peak, synchronize
from machine.terminal import progress_bar
from scene.dataset_pictures import counted_of, read_picture
from scene.formats.transforms_json import write_transforms
from scene.frames import Frames, Size, spread
from scene.images import psnr, write_image
from settings.sections import Color
from teacher.export.export_cameras import ExportViews
from teacher.export.folder import Writers, check_settings, write_json
from teacher.export.planes import ExportFormat, depth_map, picture, rendered_planes
from teacher.gaussians import Gaussians
from teacher.near_plane import near_plane_advice
from teacher.rasterizer import Rasterizer
from teacher.views.output_folder import shrink_rgba

SETTINGS, STATS, TRANSFORMS = "export_settings.json", "render_stats.json", "transforms.json"
# Views in one call on CUDA: enough to keep a GPU busy, few enough for its memory with millions of Gaussians.
_CUDA_BATCH = 4
# Less coverage than this shows next to nothing; renders less far above a blank picture than this are of something else.
_FAINT_COVERAGE, _ABOVE_BLANK_DB, _COMPARED = 0.002, 2.0, 5
_WHITE = (1.0, 1.0, 1.0)

_log = logging.getLogger(__name__)


class ViewExport:
    """A folder of exported views; what is complete in it is kept.

    Args:
        folder: ``renders/``, ``depth/`` and ``gt/`` go there.
        gaussians: what is rendered.
        rasterizer: of the same Gaussians.

    Attributes:
        todo: frames that are not on disk yet.

    Raises:
        InputError: the folder holds views that were made otherwise, or by another program. Nothing is written yet.
    """

    def __init__(
        self, folder: Path, gaussians: Gaussians, rasterizer: Rasterizer, views: ExportViews, format: ExportFormat
    ) -> None:
        self.folder, self.views, self.format = folder, views, format
        self._rasterizer, self._gaussians, drawing = rasterizer, gaussians, rasterizer.drawing
        if format.focal is not None:  # in pixels of these views, for whoever draws between them
            drawing = drawing.of_lens(views.cameras, 0, format.focal)
        self._settings = {
            "gaussians": gaussians.fingerprint(),
            "gaussian_count": len(gaussians),
            "cameras": digest(views.cameras.tensors().values()),
            "frames": list(views.names),
            "resolution": [views.cameras.width, views.cameras.height],
            "depth_kind": None if format.depth_kind is None else format.depth_kind.value,
            "background": None if format.background is None else list(format.background),
            "supersample": drawing.multiple(views.cameras.width),
            "fitted_width": drawing.fitted_width and round(drawing.fitted_width),
            "near": drawing.near,
            "rasterizer": rasterizer.implementation,
            "ground_truth": views.has_truth,
        }
        if views.has_masks:
            self._settings["masks"] = True
        if format.focal is not None:
            self._settings["focal"] = format.focal
        check_settings(folder, SETTINGS, self._settings, ("renders", "depth", "gt", "masks"))
        frames = range(len(views.names))
        self.todo = [i for i in frames if not all(path.is_file() for path in self._paths(i).values())]

    def run(self) -> dict[str, Any] | None:
        """Renders and writes the frames to do.

        Returns:
            Figures of the frames rendered now: ``frames_timed``, ``avg_fps`` and ``seconds_per_frame_median``
            (rendering alone), ``cpu_peak_gib``, ``gpu_peak_gib``, ``power_avg_w`` (None where not measured); None
            when there was nothing to do.

        Raises:
            InputError: the folder cannot be written, or another process writes to it; an image of the dataset is
                damaged.
        """
        device = self._rasterizer.device
        with output_errors(self.folder, "output folder"), locked(self.folder):
            remove_litter(self.folder)
            write_json(self.folder / SETTINGS, self._settings)
            for path in self._paths(0).values():
                path.parent.mkdir(parents=True, exist_ok=True)
            self._write_transforms()
            if not self.todo:
                return None
            self._check()  # renders a few frames, so that loading kernels is not counted
            synchronize(device)
            reset_gpu_peak(device)
            seconds: list[float] = []
            bar = progress_bar(self._rendered(seconds), "export", len(self.todo), unit=" frame")
            with GpuMonitor(device) as monitor, one_torch_thread(), Writers() as writers:
                for index, planes in bar:
                    self._write(writers, index, planes)
        return {
            "frames_timed": len(seconds),
            "avg_fps": len(seconds) / sum(seconds),
            "seconds_per_frame_median": statistics.median(seconds),
            "cpu_peak_gib": cpu_peak_gib(),
            "gpu_peak_gib": gpu_mem_gib(device),
            "power_avg_w": monitor.mean_power_w(),
        }

    def _write_transforms(self) -> None:
        """The cameras, with what the dataset says of its pictures: which are kept for tests, and what counts."""
        views, tests, masks = self.views, self.views.dataset.tests, None
        if tests is not None and len(set(tests)) == 1:  # of one kind: nothing to tell apart
            tests = None
        if views.has_masks:
            paths = (self._paths(index)["masks"] for index in range(len(views.names)))
            masks = [path.relative_to(self.folder).as_posix() for path in paths]
        write_transforms(
            self.folder / TRANSFORMS, views.cameras, views.names, tests=tests, fields=views.world, masks=masks
        )

    def _check(self) -> None:
        """Looks at a few frames before all are rendered; this also compiles or loads the kernels.

        Warns of views that show nothing, or not what the dataset's images show: Gaussians of another world.

        Raises:
            InputError: an image of the dataset is damaged.
        """
        size = (self.views.cameras.width, self.views.cameras.height)
        covered, figures = [], []
        for index in spread(self.todo, _COMPARED):
            (planes,) = self._render([index])
            covered.append(planes[..., 3].mean().item())
            if self.views.has_truth:
                own = _composite(picture(planes, self.format.background), self.format.background)
                truth = _composite(_truth(self.views.dataset, index, size), self.format.background)
                if self.views.has_masks:
                    counted = counted_of(self.views.dataset, index, size)
                    own, truth = own[counted][None], truth[counted][None]
                figures.append((psnr(own, truth), psnr(truth.mean((0, 1)), truth)))
        if (mean := statistics.fmean(covered)) < _FAINT_COVERAGE:
            words = "the Gaussians fill %.3f%% of the pixels of %d views, %.3f%% at most%s"
            near = near_plane_advice(self._gaussians, self.views.cameras, self._rasterizer.drawing.near)
            _log.warning(words, 100 * mean, len(covered), 100 * max(covered), f": {near}" if near else "")
        if not figures:
            return
        teacher, blank = np.median(figures, axis=0)
        words = "%.2f dB between renders and the dataset's images (median of %d frames; a blank picture: %.2f dB)"
        if teacher >= blank + _ABOVE_BLANK_DB:
            _log.info(words, teacher, len(figures), blank)
            return
        words += ", the Gaussians filling %.1f%% of the pixels: poses and PLY may be of two worlds, or of two scenes"
        _log.warning(words, teacher, len(figures), blank, 100 * mean)

    def write_stats(self, stats: dict[str, Any]) -> None:
        """Writes ``render_stats.json``: the given figures after the settings that a reader of the views needs."""
        shown = ("resolution", "rasterizer", "depth_kind", "background", "supersample", "fitted_width", "near")
        together = {"frames": len(self.views.names)} | {name: self._settings[name] for name in shown} | stats
        write_json(self.folder / STATS, together)

    def _paths(self, index: int) -> dict[str, Path]:
        """The files of a frame, by what they hold."""
        paths = {"renders": self.folder / "renders" / f"{index:05d}.png"}
        if self.format.depth_kind is not None:
            paths["depth"] = self.folder / "depth" / f"{index:05d}.npy"
        if self.views.has_truth:
            paths["gt"] = self.folder / "gt" / f"{index:05d}.png"
        if self.views.has_masks:
            paths["masks"] = self.folder / "masks" / f"{index:05d}.png"
        return paths

    def _rendered(self, seconds: list[float]) -> Iterator[tuple[int, torch.Tensor]]:
        """Each frame's planes; the time that rendering a frame took goes to ``seconds``."""
        size = _CUDA_BATCH if self._rasterizer.device.type == "cuda" else 1
        for start in range(0, len(self.todo), size):
            chunk = self.todo[start : start + size]
            begin = time.perf_counter()
            planes = self._render(chunk)
            synchronize(self._rasterizer.device)
            seconds += [(time.perf_counter() - begin) / len(chunk)] * len(chunk)
            yield from zip(chunk, planes, strict=True)

    @torch.no_grad()
    def _render(self, indices: list[int]) -> list[torch.Tensor]:
        return rendered_planes(self._rasterizer, self.views.cameras[indices], self.format)

    def _write(self, writers: Writers, index: int, planes: torch.Tensor) -> None:
        paths, size = self._paths(index), (self.views.cameras.width, self.views.cameras.height)
        writers.submit(write_image, paths["renders"], picture(planes, self.format.background))
        if "depth" in paths:
            writers.submit(_write_array, paths["depth"], depth_map(planes, self.format.depth_kind))
        if "gt" in paths:
            writers.submit(_write_truth, paths["gt"], self.views.dataset, index, size)
        if "masks" in paths:
            writers.submit(_write_mask, paths["masks"], self.views.dataset, index, size)


def _composite(pixels: np.ndarray, background: Color | None) -> np.ndarray:
    """(H, W, 3) float64 in [0, 1]: a uint8 picture on the background, on white without one."""
    image = pixels / 255
    alpha = image[..., 3:] if image.shape[2] == 4 else 1.0
    return image[..., :3] * alpha + (1 - alpha) * np.array(background or _WHITE)


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())


def _write_truth(path: Path, dataset: Frames, index: int, size: Size) -> None:
    write_image(path, _truth(dataset, index, size))


def _write_mask(path: Path, dataset: Frames, index: int, size: Size) -> None:
    """White where a pixel counts, else black."""
    counted = counted_of(dataset, index, size)
    write_image(path, np.repeat(counted[..., None] * np.uint8(255), 3, axis=2))


def _truth(dataset: Frames, index: int, size: Size) -> np.ndarray:
    """The dataset's image at that size, (H, W, 3) uint8, or (H, W, 4) if it has alpha."""
    pixels = read_picture(dataset, index)
    return pixels if pixels.shape[1::-1] == size else shrink_rgba(pixels, size)[..., : pixels.shape[2]]
