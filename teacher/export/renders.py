"""Renders a teacher's views to disk in graphdeco's layout, so that they can be distilled as ``teacher.kind: views``."""

from __future__ import annotations

import io
import json
import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kernels.threads import available_threads, one_torch_thread
from machine.files import write_atomically
from machine.fingerprints import digest
from machine.telemetry import GpuMonitor, cpu_peak_gib, gpu_mem_gib, reset_gpu_peak, synchronize
from scene.formats.transforms_json import write_transforms
from scene.images import read_image, write_image
from settings.errors import InputError
from teacher.depth import DepthKind
from teacher.export.cameras import ExportViews
from teacher.export.planes import Color, depth_map, picture, view_planes
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer, RasterOutput
from teacher.views.output_folder import shrink_rgba

SETTINGS, STATS, TRANSFORMS = "export_settings.json", "render_stats.json", "transforms.json"
# Views in one call on CUDA: enough to keep a GPU busy, few enough for its memory with millions of Gaussians.
_CUDA_BATCH = 4
# PNG files waiting to be written hold their pictures in memory: this many for each thread.
_PENDING_PER_THREAD = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportFormat:
    """How views are rendered and stored.

    Attributes:
        depth_kind: what ``depth/`` holds; None: no depth.
        background: what RGB pictures are composited on; None writes straight RGBA.
        supersample: renders at this multiple of the size, then averages.
        near: nearest depth drawn, world units.
    """

    depth_kind: DepthKind | None
    background: Color | None
    supersample: int = 1
    near: float = 0.2


class ViewExport:
    """A folder of exported views; what is complete in it is kept.

    Args:
        folder: ``renders/``, ``depth/`` and ``gt/`` go there.
        gaussians: what is rendered.
        rasterizer: of the same Gaussians, its ``near`` that of the format.

    Raises:
        InputError: the folder holds views that were made otherwise, or by another program. Nothing is written yet.
    """

    def __init__(
        self, folder: Path, gaussians: Gaussians, rasterizer: Rasterizer, views: ExportViews, format: ExportFormat
    ) -> None:
        self.folder, self.views, self.format, self._rasterizer = folder, views, format, rasterizer
        self._settings = {
            "gaussians": digest(getattr(gaussians, name) for name in gaussians.__dataclass_fields__),
            "gaussian_count": len(gaussians),
            "cameras": digest(getattr(views.cameras, name) for name in ("c2w", "fx", "fy", "cx", "cy")),
            "frames": list(views.names),
            "resolution": [views.cameras.width, views.cameras.height],
            "depth_kind": None if format.depth_kind is None else format.depth_kind.value,
            "background": None if format.background is None else list(format.background),
            "supersample": format.supersample,
            "near": format.near,
            "rasterizer": rasterizer.implementation,
            "ground_truth": views.has_truth,
        }
        check_settings(folder, SETTINGS, self._settings, ("renders", "depth", "gt"))
        self.todo = [index for index in range(len(views.names)) if not self._is_complete(index)]
        """Frames that are not on disk yet."""

    def run(self, progress: bool = True) -> dict[str, Any] | None:
        """Renders and writes the frames to do.

        Returns:
            Figures of the frames rendered now: ``frames_timed``, ``avg_fps`` and ``seconds_per_frame_median``
            (rendering alone), ``cpu_peak_gib``, ``gpu_peak_gib``, ``power_avg_w`` (None where not measured); None
            when there was nothing to do.

        Raises:
            InputError: the folder cannot be written, or an image of the dataset is damaged.
        """
        device = self._rasterizer.device
        try:
            self._prepare()
            if not self.todo:
                return None
            self._render(self.todo[:1])  # compiles or loads the kernels, which is not counted
            synchronize(device)
            reset_gpu_peak(device)
            seconds: list[float] = []
            with GpuMonitor(device) as monitor, one_torch_thread(), Writers() as writers:
                for index, planes in tqdm(
                    self._rendered(seconds), desc="export", total=len(self.todo), unit="frame", disable=not progress
                ):
                    self._write(writers, index, planes)
        except OSError as error:
            raise InputError(
                self.folder, "output folder", error.strerror or error, "a folder that can be written"
            ) from error
        return {
            "frames_timed": len(seconds),
            "avg_fps": len(seconds) / sum(seconds),
            "seconds_per_frame_median": statistics.median(seconds),
            "cpu_peak_gib": cpu_peak_gib(),
            "gpu_peak_gib": gpu_mem_gib(device),
            "power_avg_w": monitor.mean_power_w(),
        }

    def write_stats(self, stats: dict[str, Any]) -> None:
        """Writes ``render_stats.json``: the given figures after the settings that a reader of the views needs."""
        shown = ("resolution", "rasterizer", "depth_kind", "background", "supersample", "near")
        together = {"frames": len(self.views.names)} | {name: self._settings[name] for name in shown} | stats
        write_json(self.folder / STATS, together)

    def _paths(self, index: int) -> dict[str, Path]:
        paths = {"renders": self.folder / "renders" / f"{index:05d}.png"}
        if self.format.depth_kind is not None:
            paths["depth"] = self.folder / "depth" / f"{index:05d}.npy"
        if self.views.has_truth:
            paths["gt"] = self.folder / "gt" / f"{index:05d}.png"
        return paths

    def _is_complete(self, index: int) -> bool:
        return all(path.is_file() for path in self._paths(index).values())

    def _prepare(self) -> None:
        for path in self._paths(0).values():
            path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / SETTINGS, self._settings)
        write_transforms(self.folder / TRANSFORMS, self.views.cameras, self.views.names)

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
        return rendered_planes(self._rasterizer, self.views, indices, self.format)

    def _write(self, writers: Writers, index: int, planes: torch.Tensor) -> None:
        paths = self._paths(index)
        writers.submit(write_image, paths["renders"], picture(planes, self.format.background))
        if "depth" in paths:
            writers.submit(_write_array, paths["depth"], depth_map(planes, self.format.depth_kind))
        if "gt" in paths:
            cameras = self.views.cameras
            writers.submit(_write_truth, paths["gt"], self.views.images[index], (cameras.width, cameras.height))


def check_settings(folder: Path, name: str, settings: dict[str, Any], outputs: Sequence[str]) -> None:
    """Checks that what is in an output folder was made with the same settings.

    Args:
        name: of the JSON file in the folder that records them.
        outputs: files and folders that are there only beside such a record.

    Raises:
        InputError: another or no record.
    """
    hint = "Name another --output, or delete this folder to render it again."
    record = folder / name
    if not record.is_file():
        if any((folder / output).exists() for output in outputs):
            raise InputError(folder, "output folder", f"views without {name}", "an empty folder", hint)
        return
    try:
        old = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(record, "settings", f"unreadable text ({error})", "JSON", hint) from error
    old = old if isinstance(old, dict) else {}
    if different := [field for field, value in settings.items() if old.get(field) != value]:
        found = "; ".join(f"{field} {_short(old.get(field))}" for field in different)
        expected = "; ".join(f"{field} {_short(settings[field])}" for field in different)
        raise InputError(folder, "settings of the views in it", found, expected, hint)


def rendered_planes(
    rasterizer: Rasterizer, views: ExportViews, indices: list[int], format: ExportFormat
) -> list[torch.Tensor]:
    """``view_planes`` of those views, rendered in one batch."""
    factor = format.supersample
    cameras = views.cameras[indices]
    cameras = cameras.resized(cameras.width * factor, cameras.height * factor)
    batch = rasterizer.render_batch(cameras)
    single = [RasterOutput(*(plane[index] for plane in batch)) for index in range(len(indices))]
    return [view_planes(output, format.depth_kind, cameras, index, factor) for index, output in enumerate(single)]


class Writers:
    """A pool of threads that write files, only so many of them waiting; leaving it waits for all.

    A file that fails raises its error from the next ``submit``, or on leaving.
    """

    def __init__(self) -> None:
        self._threads = max(2, available_threads())
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Writers:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="write")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        for done in self._pending if kind is None else ():
            done.result()

    def submit(self, write: Callable[..., None], *args: Any) -> None:
        if len(self._pending) >= _PENDING_PER_THREAD * self._threads:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(write, *args))


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_atomically(path, buffer.getvalue())


def _write_truth(path: Path, image: Path, size: tuple[int, int]) -> None:
    """The dataset's image at that size, RGBA if it is."""
    pixels = read_image(image)
    if pixels.shape[1::-1] != size:
        pixels = shrink_rgba(pixels, size)[..., : pixels.shape[2]]
    write_image(path, pixels)


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
