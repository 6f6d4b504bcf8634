"""The student beside its teacher: speed, memory, power, size, measured on the same cameras by the same clock."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import torch

from distill.evaluation.evaluator import background_of, measured_frames
from distill.evaluation.figure_cache import FigureCache, code_digest
from distill.evaluation.frame_metrics import camera_values
from distill.evaluation.render_files import eval_stem
from distill.evaluation.results import Row, shown
from distill.evaluation.speed import BURN_IN, TIMED_FRAMES, Speed, measure_speed
from distill.model.model import Model
from machine.devices import device_name
from machine.files import write_csv
from machine.fingerprints import cache_key
from machine.memory import GIB, MIB
from machine.run_folder import RunFolder
from machine.telemetry import gpu_allocated_gib
from scene.cameras import Cameras
from scene.frames import spread
from settings.config import Config
from teacher.gaussian_files import write_gaussians
from teacher.gaussians import Gaussians
from teacher.rasterizer import picture_renderer, raster_implementation
from teacher.sources import Teacher
from teacher.views.output_folder import outputs_folder

STATS = "render_stats.json"

# The figures, and how the printed table calls them and writes them.
FIGURES = {
    "fps_median": ("frames/s, median", ".4g"),
    "fps_iqr": ("frames/s, interquartile", ".3g"),
    "gpu_peak_gib": ("GPU peak, GiB", ".3f"),
    "power_avg_w": ("GPU power, W", ".1f"),
    "power_idle_w": ("GPU power idle, W", ".1f"),
    "energy_per_frame_j": ("GPU energy a frame, J", ".4g"),
    "cpu_package_power_avg_w": ("CPU package power, W", ".1f"),
    "cpu_package_power_idle_w": ("CPU package power idle, W", ".1f"),
    "cpu_package_energy_per_frame_j": ("CPU package energy a frame, J", ".4g"),
    "parameters": ("parameters", ",d"),
    "size_mib": ("size on disk, MiB", ".3f"),
    "size_fp16_mib": ("size as float16, MiB", ".3f"),
}
PARITY_COLUMNS = ("step", "subject", "source", "width", "height", "frames", *FIGURES)
# A spread, or the power of an idle machine, is better neither high nor low.
_NO_RATIO = ("fps_iqr", "power_idle_w", "cpu_package_power_idle_w")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parity:
    """The three rows of ``PARITY_COLUMNS``: ``student``, ``teacher``, and ``ratio``, student / teacher."""

    rows: list[Row]

    def table(self) -> str:
        """student | teacher | ratio, a line for each figure that either has; what was not measured as ``-``."""
        student, teacher, ratio = self.rows
        lines = [("", "student", "teacher", "ratio")]
        for name, (label, spec) in FIGURES.items():
            if student[name] is None and teacher[name] is None:
                continue
            cells = (shown(student[name], spec), shown(teacher[name], spec), shown(ratio[name], ".3g"))
            lines.append((label, *cells))
        widths = [max(len(line[n]) for line in lines) for n in range(4)]
        text = [f"{line[0]:<{widths[0]}}" + "".join(f" | {line[n]:>{widths[n]}}" for n in (1, 2, 3)) for line in lines]
        return "\n".join([*text, f"student: {student['source']}; teacher: {teacher['source'] or 'not measured'}"])


def measure_parity(
    config: Config,
    teacher: Teacher,
    model: Model,
    step: int,
    folder: RunFolder,
    device: torch.device,
    *,
    identity: str,
    burn_in: int = BURN_IN,
    fresh: bool = False,
    speed: Callable[..., Speed] = measure_speed,
) -> Parity:
    """Measures student and teacher on the same views and writes ``eval_step_020000[_<tag>]_parity.csv``.

    At most 24 of the frames that are evaluated, evenly spread, are rendered; fewer where 30 s are over. The teacher is
    rendered here where its Gaussians are known, a pixel for each of the student's rays (see ``render.supersample``),
    however finely its own pictures were drawn: where that differs, the row names both sizes. Else speed, memory and
    power come from the ``render_stats.json`` of an export in ``teacher.outputs`` (energy is power / frames a second),
    if its views have that many pixels; else they stay empty.
    A student's size is that of its compact file if it is from one, else of its weights as ``torch.save`` writes them,
    in float32 and float16; a teacher's that of its file, of the built-in scene as a PLY.
    ``size_fp16_mib``'s ratio is to the teacher's file. What is recorded of the same student, teacher, cameras and
    program is not measured again, as in ``evaluate``.

    Args:
        identity: digest of the student, as for ``evaluate``.
        burn_in: untimed renders before the timed ones.
        fresh: measure again what is there.
        speed: the clock.
    """
    cameras = teacher.views.cameras
    frames = spread(measured_frames(teacher.views, config.eval), TIMED_FRAMES)
    views = [value for index in frames for value in camera_values(cameras, index)]
    conditions = (code_digest(), device_name(device), burn_in, frames, *views)
    cache = FigureCache(folder.eval / f"{eval_stem(folder, step)}_parity.jsonl", fresh)
    timing = _Timing(frames, burn_in, speed, cache, conditions)
    student = _student_row(model, teacher, config, device, timing, identity)
    other = _teacher_row(teacher, model, config, device, timing)
    cache.keep(("student", "teacher"))
    size = {"width": cameras.width, "height": cameras.height}
    rows = [{"step": step, **size, **dict.fromkeys(FIGURES), "frames": None, **row} for row in (student, other)]
    rows.append({"step": step, "subject": "ratio", **size, **ratios(*rows)})
    write_csv(parity_csv(folder, step), rows, PARITY_COLUMNS)
    return Parity(rows)


def parity_csv(folder: RunFolder, step: int) -> Path:
    """``eval_step_020000[_<tag>]_parity.csv``."""
    summary = folder.eval_csv(step)
    return summary.with_name(f"{summary.stem}_parity.csv")


def ratios(student: Row, teacher: Row) -> Row:
    """student / teacher of every figure that both have and that compares."""
    found: Row = dict.fromkeys(FIGURES)
    for name in FIGURES:
        mine, theirs = student[name], teacher["size_mib" if name == "size_fp16_mib" else name]
        if name not in _NO_RATIO and mine is not None and theirs:
            found[name] = mine / theirs
    return found


def student_size(model: Model) -> Row:
    """Parameters, and MiB of the weights on disk in float32 and float16; of a compact file, of the file alone."""
    if model.compact_bytes is not None:
        sizes = {"size_mib": model.compact_bytes / MIB, "size_fp16_mib": None}
        return {"parameters": model.parameter_count(), **sizes}
    named = [*model.student.named_parameters()]
    if model.far_field is not None:
        named += [(f"far_field.{name}", value) for name, value in model.far_field.named_parameters()]
    weights = {name: value.detach().cpu() for name, value in named}
    sizes = []
    for dtype in (torch.float32, torch.float16):
        buffer = io.BytesIO()
        torch.save({name: value.to(dtype) for name, value in weights.items()}, buffer)
        sizes.append(buffer.tell() / MIB)
    return {"parameters": model.parameter_count(), "size_mib": sizes[0], "size_fp16_mib": sizes[1]}


def gaussians_size(gaussians: Gaussians, file: Path | None) -> Row:
    """Values that were fitted, and MiB of their file; of a PLY where they come from none."""
    values = sum(getattr(gaussians, field.name).numel() for field in fields(gaussians))
    if file is not None:
        return {"parameters": values, "size_mib": file.stat().st_size / MIB}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "point_cloud.ply"
        write_gaussians(path, gaussians)
        return {"parameters": values, "size_mib": path.stat().st_size / MIB}


def exported_figures(outputs: Path | None, width: int) -> Row:
    """What ``render_stats.json`` in a teacher's folder says, as far as it holds for views of that width.

    Nothing, after a warning in the log, where the folder is missing or the file not what tools/export_teacher.py
    writes.
    """
    if outputs is None:
        return {}
    if not outputs.is_dir():  # the pictures may come from elsewhere
        _log.warning("teacher.outputs: %s is no folder: the teacher's speed and size are not known", outputs)
        return {}
    path = outputs_folder(outputs) / STATS
    if not path.is_file():
        return {}
    try:
        stats = json.loads(path.read_text(encoding="utf-8"))
        rendered, rate = stats["resolution"], stats["seconds_per_frame_median"]
        size, power, peak = stats["gaussians_bytes"], stats["power_avg_w"], stats["gpu_peak_gib"]
        frames, average, device = stats["frames_timed"], stats["avg_fps"], stats["device"]
        if not (isinstance(rendered, list) and all(value > 0 for value in (rate, average, frames))):
            raise ValueError("times that are not above 0")
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("%s is not what tools/export_teacher.py writes (%r): nothing is taken from it", path, error)
        return {}
    found: Row = {"size_mib": None if size is None else size / MIB}
    if rendered[0] != width:
        _log.warning("%s is of %dx%d: the teacher's speed at %d pixels is not known", path, *rendered, width)
        return found | {"source": f"{STATS}, size alone"}
    found |= {"source": f"{STATS}, {device}", "frames": frames, "fps_median": 1 / rate, "gpu_peak_gib": peak}
    return found | {"power_avg_w": power, "energy_per_frame_j": None if power is None else power / average}


class _ToTime(NamedTuple):
    """What draws a frame, where, and the GiB on that GPU that are not its own."""

    render: Callable[[int], object]
    device: torch.device
    others_gib: float | None


class _Timing(NamedTuple):
    """How both are timed; what ``cache`` has of the same conditions is not timed again."""

    frames: list[int]
    burn_in: int
    clock: Callable[..., Speed]
    cache: FigureCache
    conditions: tuple[object, ...]

    def figures(self, subject: str, identity: Sequence[object], prepare: Callable[[], _ToTime]) -> Row:
        """Speed, memory and power of a subject.

        Args:
            identity: what its figures depend on beside the conditions.
            prepare: called where they are not recorded.
        """
        key = cache_key(*identity, *self.conditions)
        row = self.cache.get(subject, key)
        if row is None:
            render, device, others_gib = prepare()
            speed = self.clock(torch.no_grad()(render), self.frames, device, burn_in=self.burn_in)
            row = asdict(_without(others_gib, speed))
            self.cache.put(subject, key, row)
        return row


def _student_row(
    model: Model, teacher: Teacher, config: Config, device: torch.device, timing: _Timing, identity: str
) -> Row:
    def prepare() -> _ToTime:
        cameras, background = teacher.views.cameras.to(device), background_of(teacher.views, config)
        renderer = model.renderer()
        return _ToTime(lambda index: renderer.render(cameras, index, background), device, _others_gib(device, model))

    figures = timing.figures("student", (identity,), prepare)
    source = f"measured on {device_name(device)}"
    return {"subject": "student", "source": source, **figures, **student_size(model)}


def _teacher_row(teacher: Teacher, model: Model, config: Config, device: torch.device, timing: _Timing) -> Row:
    gaussians, fine = teacher.gaussians, teacher.views.cameras.finer(model.settings.supersample)
    row: Row = {"subject": "teacher", "source": None}
    if gaussians is None:
        return row | exported_figures(config.teacher.outputs, fine.width)
    implementation, near = raster_implementation(config.teacher.rasterizer, device), config.teacher.near_plane
    drawn_on = device if implementation == "gsplat" else torch.device("cpu")

    def prepare() -> _ToTime:
        others_gib = gpu_allocated_gib(device)  # before its own are there
        return _ToTime(picture_renderer(gaussians, implementation, fine, device, near), drawn_on, others_gib)

    identity = (implementation, *(getattr(gaussians, field.name) for field in fields(gaussians)), fine.width, near)
    row |= {"source": f"measured on {device_name(drawn_on)}{_sizes(teacher, fine)}"}
    return row | timing.figures("teacher", identity, prepare) | gaussians_size(gaussians, config.teacher.ply)


def _sizes(teacher: Teacher, timed: Cameras) -> str:
    """In words, the size of what is timed of a teacher, and of what its views were averaged from: where not theirs."""
    own, words = teacher.views.cameras, ""
    if timed.width != own.width:
        words = f", timed at {timed.width}x{timed.height}"
    if teacher.drawing is not None and (drawn := teacher.drawing.fine(own)).width != timed.width:
        words += f"; its pictures are drawn at {drawn.width}x{drawn.height}"
    return words


def _others_gib(device: torch.device, model: Model) -> float | None:
    """GiB on the GPU that are not the student's."""
    allocated = gpu_allocated_gib(device)
    far = {} if model.far_field is None else model.far_field.state_dict()
    held = *model.student.state_dict().values(), model.grid.occupied, *far.values()
    own = sum(tensor.nbytes for tensor in held) / GIB
    return None if allocated is None else allocated - own


def _without(others_gib: float | None, speed: Speed) -> Speed:
    """The peak less what was on the GPU before and belongs to others."""
    if speed.gpu_peak_gib is None or others_gib is None:
        return speed
    return replace(speed, gpu_peak_gib=speed.gpu_peak_gib - others_gib)
