"""Renders the views of a 3DGS teacher to disk in graphdeco's layout, to look at or to distil as teacher.kind: views.

    python tools/export_teacher.py --config configs/lego_response_eighth.yaml [--assets DIR] [--output DIR]

Writes renders/, depth/, gt/ where the dataset has images, transforms.json of the frames, render_stats.json; with
--features also teacher_features.npz (per point and per Gaussian) and ray_features/. Run again, it goes on where it
stopped. Exit status: 0 done, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.runs.command_line import add_config_options, add_device_option, config_of, run_command
from machine.devices import choose_device, device_name
from machine.run_folder import RunFolder, versions
from settings.config import Config
from settings.errors import ExitCode, InputError
from teacher.depth import DepthKind
from teacher.export.cameras import ExportViews, views_to_export
from teacher.export.features import FeatureExport
from teacher.export.pruning import PruneLimits, prune, psnr_of_pruning
from teacher.export.renders import ExportFormat, ViewExport
from teacher.gaussian_files import check_gaussians_file, write_gaussians
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer
from teacher.sources import source_of

_log = logging.getLogger(__name__)


def export(config: Config, chosen: argparse.Namespace) -> dict[str, Any] | None:
    """Does what the command line asks for; figures as ``ViewExport.run``.

    Raises:
        InputError: config, assets, options or what is in the output folder do not fit.
    """
    if chosen.ply is not None:
        check_gaussians_file(chosen.ply)
        if config.teacher.ply is not None and chosen.ply.resolve() == config.teacher.ply.resolve():
            raise InputError("--ply", "file", f"teacher.ply itself, {chosen.ply}", "another file", "Name another one.")
    device = choose_device(config)
    source = source_of(config)
    gaussians = source.gaussians()
    if gaussians is None:
        raise InputError("config", "teacher.ply", "nothing", "the teacher's Gaussians", "Set teacher.ply.")
    views = views_to_export(
        config,
        gaussians,
        split=chosen.split,
        path=chosen.path,
        orbit=chosen.orbit,
        frames=chosen.frames,
        resolution=chosen.resolution,
    )
    format = ExportFormat(
        depth_kind=_depth_kind(config, chosen.depth_kind),
        background=None if chosen.rgba else config.teacher.background_rgb,
        supersample=config.teacher.supersample,
    )
    whole = rasterizer = Rasterizer(gaussians, config.teacher.rasterizer, near=format.near, device=device)
    limits, report = PruneLimits(chosen.prune_opacity, chosen.prune_contribution), None
    original = gaussians
    if limits != PruneLimits(None, None):
        pruned = prune(gaussians, whole, *source.training_frames(), limits, progress=True)
        gaussians, report = pruned.gaussians, pruned.report
        rasterizer = Rasterizer(gaussians, config.teacher.rasterizer, near=format.near, device=device)

    folder = chosen.output or RunFolder(config).results / "teacher_views"
    job = ViewExport(folder, gaussians, rasterizer, views, format)
    features = None
    if chosen.features is not None:
        resolution = chosen.features_resolution or config.occupancy.resolution
        box = source.box(gaussians, None)[0]
        features = FeatureExport(folder, gaussians, rasterizer, views, box, resolution, chosen.features.split(","))
    _announce(job, views, gaussians)
    if chosen.ply is not None:
        write_gaussians(chosen.ply, gaussians)
    figures = job.run()
    if features is not None:
        features.run()
    if report is not None:
        report |= _sizes(original, gaussians, chosen.ply)
        report["psnr"] = psnr_of_pruning(whole, rasterizer, views, format, progress=True)
        _log.info("%s", _pruning_in_words(report))
    if figures is None:
        _log.info("nothing to do: all %d frames are in %s", len(views.names), folder)
        return None
    file = chosen.ply or (config.teacher.ply if report is None else None)
    stats = {
        "num_gaussians": len(gaussians),
        "gaussians_file": None if file is None else str(file),
        "gaussians_bytes": None if file is None else file.stat().st_size,
        **figures,
        "device": device_name(rasterizer.device),
        "pruning": report,
        "versions": versions(config, rasterizer.device),
    }
    job.write_stats(stats)
    _log.info("%d frames rendered at %.1f frames/s, written to %s", figures["frames_timed"], figures["avg_fps"], folder)
    return figures


def _depth_kind(config: Config, name: str | None) -> DepthKind | None:
    """The option's, else the config's, else graphdeco's own."""
    name = name or (config.teacher.depth_kind if config.teacher.depth_kind not in ("auto", "none") else "inverse_z")
    return None if name == "none" else DepthKind(name)


def _announce(job: ViewExport, views: ExportViews, gaussians: Gaussians) -> None:
    size = f"{views.cameras.width}x{views.cameras.height}"
    _log.info("%d frames of %s at %s, %d Gaussians", len(views.names), views.source, size, len(gaussians))
    if len(job.todo) < len(views.names):
        _log.info("going on: %d of %d frames are there", len(views.names) - len(job.todo), len(views.names))
    if not views.has_truth and any(views.images):
        _log.warning("no gt/: some frames have no image, or the images are smaller than %s", size)


def _sizes(whole: Gaussians, pruned: Gaussians, file: Path | None) -> dict[str, int]:
    """Bytes before and after, in the format of ``file``, as PLY without it."""
    suffix = ".ply" if file is None else file.suffix
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, gaussians in (("bytes_before", whole), ("bytes_after", pruned)):
            path = Path(folder) / f"{name}{suffix}"
            write_gaussians(path, gaussians)
            sizes[name] = path.stat().st_size
    return sizes


def _pruning_in_words(report: dict[str, Any]) -> str:
    removed, before = report["gaussians_removed"], report["gaussians_before"]
    weight = report["weight_removed_fraction"]
    smaller = 1 - report["bytes_after"] / report["bytes_before"]
    return (
        f"pruned {removed:,} of {before:,} Gaussians ({removed / before:.1%}), "
        + ("" if weight is None else f"{weight:.3%} of the weight in {report['measured_views']} training views, ")
        + f"{smaller:.1%} of the file; {report['psnr']:.2f} dB between renders with and without them"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {value}, expected at least 1")
    return value


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Render a 3DGS teacher's views to disk in graphdeco's layout.",
        epilog="Exit status: 0 done, 2 bad input, 130 interrupted (run it again to go on).",
    )
    add_config_options(parser)
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where to write (default: results/<scene>/<run>/teacher_views)"
    )
    cameras = parser.add_mutually_exclusive_group()
    cameras.add_argument("--split", metavar="NAME", help="transforms_NAME.json beside data.transforms")
    cameras.add_argument("--path", type=Path, metavar="FILE", help="a transforms JSON of the poses to render")
    cameras.add_argument("--orbit", type=int, metavar="N", help="N frames of one round about the scene")
    parser.add_argument("--frames", metavar="START:STOP:STEP", help="only those frames, as a Python slice")
    parser.add_argument("--resolution", type=int, metavar="N", help="width in pixels (default: the dataset's)")
    kinds = ["none", *(kind.value for kind in DepthKind)]
    parser.add_argument("--depth-kind", choices=kinds, help="what depth/ holds (default: the config's, or inverse_z)")
    parser.add_argument("--rgba", action="store_true", help="straight RGBA pictures instead of RGB on a background")
    parser.add_argument("--prune-opacity", type=float, metavar="X", help="drop Gaussians of less opacity")
    parser.add_argument(
        "--prune-contribution", type=float, metavar="X",
        help="drop Gaussians that fill less than X pixels of the training view that shows most of them",
    )  # fmt: skip
    parser.add_argument(
        "--ply", type=Path, metavar="FILE", help="also write the Gaussians rendered, as .ply, .npz or .spz"
    )
    parser.add_argument(
        "--features", nargs="?", const="all", metavar="NAMES",
        help="also write teacher features: all, or names or groups with commas (sh, sh_dc, opacity, log_scale)",
    )  # fmt: skip
    parser.add_argument(
        "--features-resolution", type=_positive, metavar="N",
        help="cells of the feature volume along the longest side of the box (default: occupancy.resolution)",
    )  # fmt: skip
    add_device_option(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)

    def work() -> int:
        export(config_of(chosen), chosen)
        return ExitCode.DONE

    return run_command(work, chosen.debug, "interrupted; run it again to go on")


if __name__ == "__main__":
    sys.exit(main())
