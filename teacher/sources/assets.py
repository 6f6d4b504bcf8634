"""The files and folders that a teacher is made of: whether they are there, and what tells them from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from machine.fingerprints import files_digest
from scene.formats import camera_files, load_frames
from settings.config import Config
from settings.errors import InputError
from teacher.views.missing_pictures import images_among_missing


class Asset(NamedTuple):
    """A file or folder that a config names: its field, its path (None: not used), what it should be, what to do."""

    field: str
    path: Path | None
    is_there: Callable[[Path], bool]
    expected: str
    hint: str = ""


def asset(field: str, path: Path | None, is_there: Callable[[Path], bool], expected: str, otherwise: str = "") -> Asset:
    """An asset that the user can put elsewhere; ``otherwise``: or what else they can do."""
    hint = f"Put it there, say where it is with `--set {field}=PATH`, or name another root with --assets. {otherwise}"
    return Asset(field, path, is_there, expected, hint.rstrip())


def check_there(assets: Sequence[Asset]) -> None:
    """Checks that the assets are there.

    Raises:
        InputError: one is missing, or is a folder where a file is needed or the reverse.
    """
    for field, path, is_there, expected, hint in assets:
        if path is not None and not is_there(path):
            found = "a folder" if path.is_dir() else "no folder" if path.exists() else "nothing"
            raise InputError(path, field, found, expected, hint)


def asset_digests(config: Config, assets: Sequence[Asset], trained_images: Sequence[Path]) -> dict[str, str]:
    """A digest of the contents of each asset that shapes what is trained, by the setting that names it.

    Args:
        trained_images: the JSONs whose images are trained on.

    Raises:
        InputError: one of these is damaged.
    """
    files = {asset.field: _files_of(asset, config) for asset in assets if asset.path is not None}
    for json in trained_images:
        frames = load_frames(json, data=config.data)
        pictures = (*frames.image_paths, *(frames.masks or ()))
        files[f"images of {json.name}"] = [path for path in pictures if path is not None]
    if config.features.file is not None:
        files["features.file"] = [config.features.file]
    return {field: files_digest(paths) for field, paths in files.items()}


def _files_of(asset: Asset, config: Config) -> list[Path]:
    """The file itself; those with a dataset's cameras; of a folder of a teacher's outputs those trained on."""
    path = asset.path
    if asset.field == "data.depth":
        return sorted(path.rglob("*.exr"))
    if asset.field.startswith("data."):
        return [*camera_files(path, config.data), *_images_that_choose_frames(asset, config)]
    if path.is_file():
        return [path]
    return [file for part in ("renders", "depth") for file in sorted((path / part).rglob("*")) if file.is_file()]


def _images_that_choose_frames(asset: Asset, config: Config) -> list[Path]:
    """Images of a dataset of which some are missing, whose frames are left out; cameras alone leave none out."""
    data = config.data
    chosen = {"data.transforms": data.frames}
    if not config.live:
        chosen["data.train_transforms"] = data.train_frames
    return images_among_missing(asset.path, chosen[asset.field], data) if asset.field in chosen else []
