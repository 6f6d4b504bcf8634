"""From a city's config to its folder: blocks, their Gaussians, cameras and configs, and last the manifest.

city.json, city.yaml             the manifest, and the city's config as resolved
gaussians.ply                    the teacher, where it was no plain PLY before
blocks/b000/gaussians.ply        Gaussians that reach into the block
blocks/b000/transforms.json      cameras that see it, with the lists of those trained from and held out
blocks/b000/config.yaml          its run: the city's settings, but for these
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.city.block_cameras import CityCameras, city_cameras
from distill.city.coverage import cameras_of_blocks, views_of_points
from distill.city.manifest import FORMAT, VERSION, Block, GaussiansFile, Manifest, check_blocks, write_manifest
from distill.city.split import split_box
from machine.files import write_atomically
from machine.memory import MIB
from scene.rays import SceneBox
from settings.config import Config
from settings.data import BoxConfig
from settings.errors import InputError
from settings.loading import to_yaml
from settings.words import counted
from settings.yaml_text import dump_yaml
from teacher.gaussian_files.ply import is_plain_ply, write_ply
from teacher.gaussian_files.ply_rows import PlyRows
from teacher.sources import Source, source_of
from teacher.sources.fitted_width import recorded_width

_log = logging.getLogger(__name__)

CITY_YAML = "city.yaml"
_DEVIATIONS = 3.0  # where a Gaussian ends
_PAIRS = 1 << 26  # of a Gaussian and a block, looked at together: a byte each
_SAMPLE = 1 << 20  # Gaussians that tell where the city is
_BALANCED_BY = 8192  # of them, those that blocks are balanced by
_LEAST_TABLE = 8
_LEAST_FILE = 8192  # bytes of a compact file: header, occupied cells and networks take some 3,000 of a small one


def cut_city(config: Config, folder: Path) -> Manifest:
    """Cuts the teacher of a config into blocks, and writes all that their runs take into a folder.

    Raises:
        InputError: the teacher is not one of Gaussians, the config asks for a far field, an asset is missing or
            damaged, or no camera sees the city.
    """
    source = source_of(config)
    _check_can_be_cut(config, source)
    rows = _rows_of(source, folder)
    cameras = city_cameras(source)
    if config.image_split is not None:
        _log.warning("blocks learn from the Gaussians alone: images (data.ground_truth, --source) have no part in it")
    box, points = _box_and_points(config, source, rows, cameras)
    boxes = split_box(box, points, _weights(config, cameras, points), config.city.blocks)
    names = [f"b{number:03d}" for number in range(len(boxes))]
    trained, measured = _seen_blocks(config, cameras, box, boxes)
    counts = _copy_gaussians(rows, boxes, [folder / _gaussians_of(name) for name in names])
    # Of a file that was copied into the folder the original tells: what lies beside it was not copied.
    fitted = recorded_width(config.teacher.ply or rows.path)
    width = config.teacher.fitted_width or getattr(fitted, "width", None)
    try:
        budgets = _budgets(config.city.budget_mib, np.where(trained.any(axis=0), counts, 0).tolist())
    except InputError:
        for name in names:  # nothing else of a city that was there before
            (folder / _gaussians_of(name)).unlink(missing_ok=True)
        raise
    blocks = []
    for index, (name, part) in enumerate(zip(names, boxes, strict=True)):
        share = counts[index] / max(1, sum(counts))
        seen = trained[:, index].sum(), measured[:, index].sum()
        block = _block(name, part, counts[index], budgets[index], *seen)
        blocks.append(block)
        if block.status == "done":
            continue
        cameras.write(folder / _cameras_of(name), trained[:, index], measured[:, index])
        settings = block_settings(config, block, len(boxes) * share, width)
        write_atomically(folder / block.config, dump_yaml(settings))
    write_atomically(folder / CITY_YAML, to_yaml(config))
    gaussians = GaussiansFile(file=os.path.relpath(rows.path, folder), count=len(rows))
    about = {"format": FORMAT, "version": VERSION, "name": config.scene, "config": CITY_YAML, "far_field": None}
    corners = BoxConfig(lower=box.lower, upper=box.upper)
    manifest = Manifest(**about, box=corners, gaussians=gaussians, blocks=tuple(blocks))
    check_blocks("config", box, blocks)
    return write_manifest(folder, manifest)


def block_settings(config: Config, block: Block, part: float, fitted_width: int | None) -> dict[str, Any]:
    """What a block's config says beside the city's, on which it is built; paths are relative to the city's folder.

    Args:
        part: its Gaussians, in those of an average block.
        fitted_width: ``teacher.fitted_width``, as found for the whole teacher.
    """
    without = dict.fromkeys(("images", "train_transforms", "train_frames", "frames", "dataparser_transforms"))
    corners = {"lower": list(block.lower), "upper": list(block.upper)}
    data = {"transforms": _cameras_of(block.name), "format": "transforms", "applied_transform": "keep", **without}
    data |= {"box": corners, "holdout_every": max(2, config.data.holdout_every), "ground_truth": False}
    teacher = {"kind": "gaussians", "ply": _gaussians_of(block.name), "outputs": None, "clip": True}
    teacher |= {"scale": 1.0, "near": config.teacher.near_plane}  # the block's Gaussians are in the city's units
    settings = {"base": f"../../{CITY_YAML}", "run": block.name, "data": data}
    settings |= {"teacher": teacher | {"fitted_width": fitted_width}, "far_field": {"kind": "none"}}
    if config.render.supersample == "auto":  # one for all blocks, whatever memory has room for when one is trained
        settings["render"] = {"supersample": 1}
    if block.holdout_cameras == 0:
        data["holdout_every"] = 0
        settings["eval"] = {"splits": ["train"]}
    if (entries := getattr(config.student, "table_size", None)) is not None:
        settings["student"] = {"table_size": max(_LEAST_TABLE, 2 ** round(np.log2(entries * part)))}
    if block.budget_mib is not None:
        settings["compact"] = {"target_mib": block.budget_mib}
    return settings


def _check_can_be_cut(config: Config, source: Source) -> None:
    if not source.draws:
        expected = "a teacher of Gaussians: gaussians, or a built-in scene"
        raise InputError("config", "teacher.kind", config.teacher.kind, expected, "Blocks are drawn from Gaussians.")
    if config.far_field.kind != "none":
        hint = "What is around a city is learnt by one more run, see docs/scaling.md."
        raise InputError("config", "far_field.kind", config.far_field.kind, "none, in the config of a city", hint)
    source.check()


def _box_and_points(config: Config, source: Source, rows: PlyRows, cameras: CityCameras) -> tuple[SceneBox, np.ndarray]:
    """The city's box, and the places (N, 3) of some Gaussians in it, which blocks are balanced by."""
    sample = rows.sample(_SAMPLE)
    box, words = source.box(sample, cameras.all)
    if config.data.box == "auto":  # so that what is at the edge is whole in it
        box = _widened(box, _DEVIATIONS * float(sample.scales.amax(dim=1).median()))
    lower, upper = ([round(value, 3) for value in corner] for corner in (box.lower, box.upper))
    _log.info("the city's box: %s to %s, %s", lower, upper, words)
    points = sample.means.double().numpy()
    points = points[((points >= box.lower) & (points <= box.upper)).all(axis=1)]
    return box, points[:: max(1, len(points) // _BALANCED_BY)]


def _seen_blocks(
    config: Config, cameras: CityCameras, box: SceneBox, boxes: Sequence[SceneBox]
) -> tuple[np.ndarray, np.ndarray]:
    """Which cameras see which blocks of the city's box, (cameras, blocks) bool: of those trained from, and of those
    held out.
    """
    looks = config.city.least_share, config.data.nearest(max(box.extent)), config.data.far
    trained, measured = (cameras_of_blocks(part, boxes, *looks) for part in (cameras.train, cameras.holdout))
    if not trained.any():
        found = f"none of {len(cameras.train)} sees enough of a block"
        expected = f"a city between data.near {looks[1]:g} and data.far {looks[2]:g} of them"
        hint = "Leave out data.near and data.far; bring cameras, Gaussians and data.box into one world."
        raise InputError("config", "data.transforms", found, expected, hint)
    return trained, measured


def _rows_of(source: Source, folder: Path) -> PlyRows:
    """The teacher's Gaussians, mapped; of a kind or file of another format written as a PLY first."""
    path, as_stored = source.config.teacher.ply, source.config.teacher.scale == 1
    named = path is not None and any(asset.field == "teacher.ply" for asset in source.assets())
    if named and as_stored and is_plain_ply(path):
        return PlyRows(path, source.config.data.offset)
    folder.mkdir(parents=True, exist_ok=True)
    write_ply(folder / "gaussians.ply", source.gaussians())
    return PlyRows(folder / "gaussians.ply")


def _widened(box: SceneBox, margin: float) -> SceneBox:
    return SceneBox(tuple(low - margin for low in box.lower), tuple(high + margin for high in box.upper))


def _weights(config: Config, cameras: CityCameras, points: np.ndarray) -> np.ndarray:
    """What each point adds to the weight of its block."""
    views, share = views_of_points(cameras.train, points), config.city.coverage_weight
    return (1 - share) / max(1, len(points)) + share * views / max(1, views.sum())


def _copy_gaussians(rows: PlyRows, boxes: tuple[SceneBox, ...], paths: list[Path]) -> list[int]:
    """Each block's Gaussians into its file; says how many are in none."""
    lower, upper = (np.array([getattr(box, side) for box in boxes]) for side in ("lower", "upper"))
    outside = 0

    def chosen() -> Iterator[tuple[slice, np.ndarray]]:
        nonlocal outside
        most = max(1, _PAIRS // len(boxes))
        for part, reach in rows.parts(_DEVIATIONS):
            for start in range(part.start, part.stop, most):
                some = slice(start, min(start + most, part.stop))
                here = slice(some.start - part.start, some.stop - part.start)
                belongs = np.ones((some.stop - some.start, len(boxes)), dtype=bool)
                for axis in range(3):
                    belongs &= reach.lower[here, axis, None] < upper[:, axis]
                    belongs &= reach.upper[here, axis, None] > lower[:, axis]
                outside += int((~belongs.any(axis=1)).sum())
                yield some, belongs

    counts = rows.copy_to(paths, chosen())
    if outside:
        _log.warning(
            "%d of %d Gaussians are outside of the city's box: no block learns them. docs/scaling.md says how a far "
            "field does", outside, len(rows),
        )  # fmt: skip
    return counts


def _budgets(whole: float | None, counts: Sequence[int]) -> list[float | None]:
    """MiB of each block's file: as much for each as a file takes that is nearly empty, the rest by their Gaussians.

    Args:
        counts: Gaussians of each block, 0 of one that no camera sees: it has no file.

    Raises:
        InputError: that is more than there is.
    """
    filled = sum(count > 0 for count in counts)
    if whole is None or not filled:
        return [None] * len(counts)
    least = _LEAST_FILE / MIB
    if whole <= filled * least:
        expected = (
            f"more than {filled * least:.3g}, {_LEAST_FILE:,} bytes for each of the {filled} blocks that are trained"
        )
        raise InputError(
            "config", "city.budget_mib", whole, expected, "Give it more, or cut fewer blocks (city.blocks)."
        )
    rest = (whole - filled * least) / sum(counts)
    return [least + rest * count if count else None for count in counts]


def _block(name: str, box: SceneBox, gaussians: int, budget: float | None, trained: int, measured: int) -> Block:
    """A block that waits for its run; one that has nothing in it, or that nobody sees, is done."""
    runs = gaussians > 0 and trained > 0
    if gaussians and not trained:
        _log.warning("block %s: %s that no camera sees: it stays empty", name, counted(gaussians, "Gaussian"))
    return Block(
        name=name,
        lower=box.lower,
        upper=box.upper,
        gaussians=gaussians,
        train_cameras=int(trained),
        holdout_cameras=int(measured),
        budget_mib=budget,
        config=f"blocks/{name}/config.yaml",
        run=f"blocks/{name}/run",
        students=(),
        status="waiting" if runs else "done",
    )


def _gaussians_of(name: str) -> str:
    return f"blocks/{name}/gaussians.ply"


def _cameras_of(name: str) -> str:
    return f"blocks/{name}/transforms.json"
