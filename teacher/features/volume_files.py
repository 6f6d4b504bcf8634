"""Teacher features on disk: one deflated ``.npz`` with a JSON header, tied to its Gaussians and to its box.

Arrays: ``header`` (JSON text), ``cells`` (M,) uint32 differences of ascending flat indices of the grid's touched
cells, ``density`` (M,) float32, ``confidence`` (M,) float16 and ``features`` (M, C) float16. Header: format, version,
gaussians (their number), fingerprint (of their values), channels, box, resolution, channel_mean and channel_std.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kernels.gaussians.sparse_volume_numba import FIXED_COLUMNS
from machine.files import output_errors
from scene.cells import CellGrid
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.features.channels import select_channels
from teacher.features.volume import ChannelStatistics, FeatureVolume, cell_index
from teacher.gaussians import Gaussians
from teacher.npz_files import NPZ_ERRORS, load_npz, narrowed, save_npz

FORMAT, VERSION = "teacher-features", 1
_ARRAYS = ("cells", "density", "confidence", "features")
_EXPORT_AGAIN = "Export the features again."
_SAME_BOX = 1e-6  # of its longest side
_TOO_LARGE = "Leave that channel out."  # what to do about a value that float16 does not hold


def write_features(path: str | Path, volume: FeatureVolume, gaussians: Gaussians) -> None:
    """Writes a volume and which Gaussians it was built from; whole or not at all.

    Raises:
        InputError: a feature is beyond what float16 holds; the folder cannot be written.
    """
    cells = torch.nonzero(volume.index[1:-1, 1:-1, 1:-1].reshape(-1))[:, 0].numpy()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "gaussians": len(gaussians),
        "fingerprint": gaussians.fingerprint(),
        "channels": list(volume.channels),
        "box": {"lower": list(volume.box.lower), "upper": list(volume.box.upper)},
        "resolution": volume.resolution,
        "channel_mean": volume.statistics.mean.tolist(),
        "channel_std": volume.statistics.std.tolist(),
    }
    features = volume.table[1:, FIXED_COLUMNS:].numpy()
    with output_errors(path):
        save_npz(
            path,
            header=np.array(json.dumps(header)),
            cells=np.diff(cells, prepend=0).astype(np.uint32),
            density=volume.table[1:, 0].numpy(),
            confidence=volume.table[1:, 1].numpy().astype(np.float16),
            features=narrowed(path, "features", features, np.float16, _TOO_LARGE),
        )


def read_features(
    path: str | Path,
    *,
    gaussians: Gaussians | None = None,
    box: SceneBox | None = None,
    channels: Sequence[str] | None = None,
) -> FeatureVolume:
    """Reads what ``write_features`` wrote, without unpickling anything.

    Args:
        gaussians: the teacher that the features must be of; box: the box they must be in; channels: what must be
            among them and is read (see ``select_channels``). None: whatever there is.

    Raises:
        InputError: the file is missing, damaged or of another kind or version; it is of another scene or another
            box; it lacks a channel.
    """
    header, arrays = _load(path)
    if gaussians is not None:
        found, expected = header["fingerprint"], gaussians.fingerprint()
        if found != expected:
            found = f"{found} of {header['gaussians']} Gaussians"
            expected = f"{expected} of {len(gaussians)}, the teacher's"
            raise InputError(path, "fingerprint of the scene", found, expected, _EXPORT_AGAIN)
    stored = SceneBox(header["box"]["lower"], header["box"]["upper"])
    if box is not None and not _are_same(stored, box):
        found, expected = (f"{list(one.lower)} to {list(one.upper)}" for one in (stored, box))
        raise InputError(path, "box", found, expected, f"Set data.box to the first. Or: {_EXPORT_AGAIN}")
    names = tuple(header["channels"])
    if channels is not None:
        wanted = select_channels(channels)
        if missing := [name for name in wanted if name not in names]:
            raise InputError(path, "channels", f"no {', '.join(missing)}", ", ".join(wanted), _EXPORT_AGAIN)
    volume = _volume(stored, header, names, arrays)
    return volume if channels is None else volume.selected(wanted)


def _are_same(first: SceneBox, second: SceneBox) -> bool:
    """Whether two boxes differ by no more than what writing their corners down leaves out."""
    corners = ([one.lower, one.upper] for one in (first, second))
    return np.allclose(*corners, rtol=0, atol=_SAME_BOX * max(first.extent))


def _load(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays, held to the format and to each other."""
    expected = f"a whole .npz of format {FORMAT}"
    if not Path(path).is_file():
        raise InputError(path, "teacher features", "no such file", expected, _EXPORT_AGAIN)
    try:
        archive = load_npz(path)
        header = json.loads(str(archive["header"]))
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError("the header is of another format")
        if header.get("version") != VERSION:
            raise InputError(path, "version", header.get("version"), VERSION, _EXPORT_AGAIN)
        arrays = {name: archive[name] for name in _ARRAYS}
        _check(header, arrays)
    except NPZ_ERRORS as error:
        raise InputError(path, "teacher features", f"unreadable data ({error})", expected, _EXPORT_AGAIN) from None
    return header, arrays


def _check(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """ValueError, KeyError or TypeError when header and arrays do not make a volume."""
    names = header["channels"]
    if list(_known_channels(names)) != names:
        raise ValueError("the header's channels are not those of this program")
    if type(header["resolution"]) is not int or header["resolution"] < 1:
        raise ValueError("the header's resolution is no positive integer")
    shape = CellGrid(SceneBox(header["box"]["lower"], header["box"]["upper"]), header["resolution"]).shape
    cells = len(arrays["cells"])
    expected = {
        "cells": ((cells,), "u"),
        "density": ((cells,), "f"),
        "confidence": ((cells,), "f"),
        "features": ((cells, len(names)), "f"),
    }
    for name, (size, kind) in expected.items():
        if arrays[name].shape != size or arrays[name].dtype.kind != kind:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {size}")
        if kind == "f" and not _are_finite(arrays[name]):
            raise ValueError(f"{name} has values that are not finite")
    if cells and ((arrays["cells"][1:] == 0).any() or arrays["cells"].sum(dtype=np.int64) >= np.prod(shape)):
        raise ValueError("cells are not ascending indices of the grid")
    for name in ("channel_mean", "channel_std"):
        if np.array(header[name], dtype=float).shape != (len(names),) or not _are_finite(np.array(header[name])):
            raise ValueError(f"the header's {name} is not {len(names)} numbers")


def _are_finite(values: np.ndarray) -> bool:
    """Whether all are finite in float32, as which they are used."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(np.float32)).all())


def _known_channels(names: object) -> tuple[str, ...]:
    """``select_channels``; () for what it refuses."""
    try:
        return select_channels(names)
    except (InputError, TypeError):
        return ()


def _volume(
    box: SceneBox, header: dict[str, Any], names: tuple[str, ...], arrays: dict[str, np.ndarray]
) -> FeatureVolume:
    cells = torch.from_numpy(np.cumsum(arrays["cells"], dtype=np.int64))
    index = cell_index(cells, CellGrid(box, header["resolution"]).shape)
    table = torch.zeros(len(cells) + 1, FIXED_COLUMNS + len(names))
    table[1:, 0] = torch.from_numpy(arrays["density"])
    table[1:, 1] = torch.from_numpy(arrays["confidence"])
    table[1:, FIXED_COLUMNS:] = torch.from_numpy(arrays["features"])
    statistics = ChannelStatistics(torch.tensor(header["channel_mean"]), torch.tensor(header["channel_std"]))
    return FeatureVolume(box, header["resolution"], names, index, table, statistics)
