"""An export from start to end: cameras, pruning, renders, features, and the figures beside them."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from machine.devices import device_name
from machine.run_folder import RunFolder
from machine.versions import versions
from scene.cameras import Cameras
from settings.config import Config
from settings.errors import InputError
from settings.words import counted
from teacher.depth import DepthKind
from teacher.export.export_cameras import training_cameras, views_to_export
from teacher.export.planes import ExportFormat
from teacher.export.pruning import PruneLimits, prune, psnr_of_pruning
from teacher.export.renders import ViewExport
from teacher.features.channels import select_channels
from teacher.features.volume import FeatureVolume, build_volume
from teacher.features.volume_files import read_features, write_features
from teacher.gaussian_files import check_gaussians_file, write_gaussians
from teacher.gaussian_files.spz import tell_of_clamped
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.sources import Source, source_of

FEATURES = "teacher_features.npz"
_log = logging.getLogger(__name__)


class ExportOptions(NamedTuple):
    """What is exported; None: the default.

    Attributes:
        output: the folder written to; None: the run's ``teacher_views``.
        split, path, orbit, frames, resolution: see ``views_to_export``.
        depth_kind: a ``DepthKind``'s name or ``"none"``; None: the config's, else graphdeco's own, ``inverse_z``.
        rgba: straight RGBA instead of RGB on the teacher's background.
        prune_opacity, prune_contribution: see ``PruneLimits``.
        ply: where the Gaussians rendered are written too.
        features: names of channels or groups, with commas; None: no features.
        features_resolution: cells along the longest side of the box; None: ``occupancy.resolution``.
    """

    output: Path | None
    split: str | None
    path: Path | None
    orbit: int | None
    frames: str | None
    resolution: int | None
    depth_kind: str | None
    rgba: bool
    prune_opacity: float | None
    prune_contribution: float | None
    ply: Path | None
    features: str | None
    features_resolution: int | None


def export(config: Config, options: ExportOptions) -> None:
    """Writes what the options ask for; what is there already is kept.

    Raises:
        InputError: config, assets, options or what is in the output folder do not fit.
    """
    if options.ply is not None:
        _check_target(options.ply, config.teacher.ply)
    source = source_of(config)
    original = gaussians = source.gaussians()
    if gaussians is None:
        hint = "Set teacher.ply, or name them with --splat or --model."
        raise InputError("config", "teacher.ply", "nothing", "the teacher's Gaussians", hint)
    cameras = {name: getattr(options, name) for name in ("split", "path", "orbit", "frames", "resolution")}
    views = views_to_export(config, gaussians, **cameras)
    drawing = source.drawing(gaussians)
    written_as = _format_of(config, options, source, drawing, views.cameras)
    whole = rasterizer = source.rasterizer(gaussians)
    limits, report = PruneLimits(options.prune_opacity, options.prune_contribution), None
    if limits != PruneLimits(None, None):
        gaussians, report = prune(gaussians, whole, *training_cameras(source), limits)
        rasterizer = source.rasterizer(gaussians)
    folder = options.output or RunFolder(config).results / "teacher_views"
    job, features = ViewExport(folder, gaussians, rasterizer, views, written_as), folder / FEATURES
    volume = None if options.features is None else _volume_to_write(features, config, options, source, gaussians)

    _announce(job, gaussians)
    if options.ply is not None:
        _write_gaussians(options.ply, gaussians, drawing.recorded_width, config.teacher.scale)
    figures = job.run()
    if volume is not None:
        write_features(features, volume, gaussians)
    if report is not None:
        report |= _sizes(original, gaussians, options.ply)
        report["psnr"] = psnr_of_pruning(whole, rasterizer, views.cameras, written_as)
        _log.info("%s", _pruning_in_words(report))
    if figures is None:
        are = "the frame is" if len(views.names) == 1 else f"all {len(views.names)} frames are"
        _log.info("nothing to do: %s in %s", are, folder)
        return
    stats = {
        **_file_stats(gaussians, options.ply or (config.teacher.ply if report is None else None)),
        **figures,
        "device": device_name(rasterizer.device),
        "pruning": report,
        "versions": versions(config, rasterizer.device),
    }
    job.write_stats(stats)
    timed = counted(figures["frames_timed"], "frame")
    _log.info("%s rendered at %.1f frames/s, written to %s", timed, figures["avg_fps"], folder)


def _format_of(
    config: Config, options: ExportOptions, source: Source, drawing: Drawing, cameras: Cameras
) -> ExportFormat:
    """How views are written: as the options say, else as the config and graphdeco's program do."""
    given, configured = options.depth_kind, config.teacher.depth_kind
    name = given or (configured if configured not in ("auto", "none") else "inverse_z")
    on_path = options.path is not None and config.data.transforms is not None
    return ExportFormat(
        depth_kind=None if name == "none" else DepthKind(name),
        background=None if options.rgba else config.teacher.background_rgb,
        focal=_focal_of_views(source, drawing, cameras) if on_path else None,
    )


def _volume_to_write(
    file: Path, config: Config, options: ExportOptions, source: Source, gaussians: Gaussians
) -> FeatureVolume | None:
    """The teacher's features; None where the file holds them.

    Raises:
        InputError: it holds others, or is damaged; a channel is unknown; too much memory would be needed.
    """
    resolution = options.features_resolution or config.occupancy.resolution
    channels = select_channels(options.features.split(","), "--features")
    box = source.box(gaussians, None)[0]
    if not file.is_file():
        return build_volume(gaussians, box, resolution, channels)
    stored = read_features(file, gaussians=gaussians, box=box)
    if (stored.channels, stored.resolution) != (channels, resolution):
        found, expected = (
            f"{', '.join(names)} in {cells} cells along the box"
            for names, cells in ((stored.channels, stored.resolution), (channels, resolution))
        )
        raise InputError(file, "features", found, expected, "Name another --output, or delete this file.")
    return None


def _check_target(file: Path, teacher: Path | None) -> None:
    """Checks that Gaussians can be written to a file, and that it is not the teacher's own."""
    check_gaussians_file(file)
    if teacher is not None and file.resolve() == teacher.resolve():
        raise InputError("--ply", "file", f"teacher.ply itself, {file}", "another file", "Name another one.")


def _write_gaussians(file: Path, gaussians: Gaussians, recorded_width: int | None, scale: float) -> None:
    write_gaussians(file, gaussians, recorded_width)
    if file.suffix.lower() == ".spz":
        tell_of_clamped(file, gaussians)
    if scale != 1:
        words = "%s: the Gaussians are written as teacher.scale %g makes them: with this file leave it out"
        _log.warning(words, file, scale)


def _file_stats(gaussians: Gaussians, file: Path | None) -> dict[str, Any]:
    name, size = (None, None) if file is None else (str(file), file.stat().st_size)
    return {"num_gaussians": len(gaussians), "gaussians_file": name, "gaussians_bytes": size}


def _focal_of_views(source: Source, drawing: Drawing, cameras: Cameras) -> float | None:
    """``ExportFormat.focal`` of the dataset that Gaussians were fitted to, where a path sees more or less at once."""
    focal = source.focal()
    if focal is None or drawing.fitted_width is None:
        return None
    as_wide = drawing.of_part(cameras.width, cameras.width)
    is_like = all(drawing.of_lens(cameras, index, focal) == as_wide for index in range(len(cameras)))
    return None if is_like else focal


def _announce(job: ViewExport, gaussians: Gaussians) -> None:
    views = job.views
    size = f"{views.cameras.width}x{views.cameras.height}"
    frames, drawn = counted(len(views.names), "frame"), counted(len(gaussians), "Gaussian")
    _log.info("%s of %s at %s, %s", frames, views.source, size, drawn)
    if len(job.todo) < len(views.names):
        _log.info("going on: %d of %d frames are there", len(views.names) - len(job.todo), len(views.names))
    if not views.has_truth and any(views.dataset.image_paths):
        _log.warning("no gt/: some frames have no image, or the images are smaller than %s", size)


def _sizes(whole: Gaussians, pruned: Gaussians, file: Path | None) -> dict[str, int]:
    """Bytes before and after, in the format of ``file``, which holds the pruned ones; as PLY without it."""
    suffix = ".ply" if file is None else file.suffix
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, gaussians in (("bytes_before", whole), ("bytes_after", pruned)):
            path = Path(folder) / f"{name}{suffix}"
            write_gaussians(path, gaussians)
            sizes[name] = path.stat().st_size
    return sizes if file is None else sizes | {"bytes_after": file.stat().st_size}


def _pruning_in_words(report: dict[str, Any]) -> str:
    removed, before = report["gaussians_removed"], report["gaussians_before"]
    weight = report["weight_removed_fraction"]
    smaller = 1 - report["bytes_after"] / report["bytes_before"]
    return (
        f"pruned {removed:,} of {before:,} Gaussians ({removed / before:.1%}), "
        + ("" if weight is None else f"{weight:.3%} of the weight in {report['measured_views']} training views, ")
        + f"{smaller:.1%} of the file; {report['psnr']:.2f} dB between renders with and without them"
    )
