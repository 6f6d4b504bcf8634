"""The pictures of a capture: which folder they are in, and which of them is whose."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scene.formats.dataset_format import note_once
from scene.formats.transforms_images import EXTENSIONS
from settings.errors import InputError

_SMALLER = re.compile(r"images_(\d+)")


def picture_folder(path: Path, model: Path, chosen: Path | None) -> Path | None:
    """The folder of a capture's pictures; None where there is none.

    Args:
        path: the capture's folder, or one in it.
        model: where its cameras are, in that folder or deeper.
        chosen: ``data.images``; None: ``images``, else the largest ``images_N``, in the nearest folder that has one.

    Raises:
        InputError: ``chosen`` is no folder.
    """
    if chosen is not None:
        if not chosen.is_dir():
            raise InputError(chosen, "data.images", "no such folder", "the folder of the capture's pictures")
        return chosen
    for folder in dict.fromkeys((path, model, *model.parents[:3])):
        smaller = [part for part in folder.glob("images_*") if part.is_dir() and _SMALLER.fullmatch(part.name)]
        by_size = sorted(smaller, key=lambda part: int(_SMALLER.fullmatch(part.name)[1]))
        if (found := next(filter(Path.is_dir, [folder / "images", *by_size]), None)) is not None:
            return found
    return None


def pair_pictures(source: Path, folder: Path, names: Sequence[str]) -> tuple[Path | None, ...]:
    """The picture of each name; None where there is none.

    They are found by name, in other folders than ``images`` also with another extension; where names lead to none,
    as after renaming, and there are as many pictures as names, both are paired in order, which is said.

    Args:
        source: the file that has the names, for messages.
        names: sorted, with ``/`` for the folders in ``folder``.

    Raises:
        InputError: they would be paired in order, but the order of their letters and that of their numbers differ.
    """
    found = [folder / name.replace("\\", "/") for name in names]
    if all(path.is_file() for path in found):
        return tuple(found)
    files, own = _pictures_in(folder), set(found)
    by_stem: dict[str, Path] = {}
    for path in files:
        if path in own:  # the picture of another name
            continue
        by_stem.setdefault(path.relative_to(folder).with_suffix("").as_posix().lower(), path)

    def of(name: str) -> Path | None:
        bare = name.replace("\\", "/").lower()  # graphdeco's names have no extension
        stem = os.path.splitext(bare)[0]
        # The folder itself is in the names of a COLMAP run over the capture's folder.
        return by_stem.get(bare) or by_stem.get(stem) or by_stem.get(stem.removeprefix("images/"))

    paths = [path if path.is_file() else of(name) for name, path in zip(names, found, strict=True)]
    present = sum(path is not None for path in paths)
    if not present and len(files) == len(names):
        _check_one_order(source, folder, names, files)
        first, last = (f"'{names[at]}' with '{files[at].relative_to(folder)}'" for at in (0, -1))
        note_once(
            "warning",
            f"{source}: none of its names is in {folder}, which has as many pictures: they are paired in order, "
            f"{first}, {last}.",
        )
        return tuple(files)
    owners = Counter(paths)
    return tuple(path if owners[path] == 1 else None for path in paths)  # of two names by one stem it is neither's


def picture_sought(folder: Path | None, names: Sequence[str], paths: Sequence[Path | None]) -> str:
    """Where the first picture that is not on disk was looked for; empty: all are there, or there is no folder."""
    first = next((name for name, path in zip(names, paths, strict=True) if path is None), None)
    return "" if folder is None or first is None else str(folder / first)


def find_masks(pictures: Path, paths: Sequence[Path | None]) -> tuple[Path | None, ...] | None:
    """The masks of a capture, in ``masks`` beside the folder of its pictures; None where there is no such folder.

    ``a.jpg`` has the mask ``a.jpg.png``, as COLMAP names them, or ``a`` with any extension.
    """
    folder = pictures.with_name("masks")
    if not folder.is_dir():
        return None
    files = {path.relative_to(folder).as_posix().lower(): path for path in _pictures_in(folder)}
    by_stem = {os.path.splitext(name)[0]: path for name, path in files.items()}
    names = [None if path is None else path.relative_to(pictures).as_posix().lower() for path in paths]
    found = tuple(
        None if name is None else files.get(f"{name}.png") or by_stem.get(os.path.splitext(name)[0]) for name in names
    )
    count, pictures_there = (sum(path is not None for path in part) for part in (found, paths))
    if count < pictures_there:
        note_once("warning", f"{folder}: masks for {count} of {pictures_there} pictures; the others are used whole.")
    return found if count else None


def _check_one_order(source: Path, folder: Path, names: Sequence[str], files: Sequence[Path]) -> None:
    """InputError where names and pictures sorted by their numbers (2 before 10) make other pairs than by letter."""
    shown = [path.relative_to(folder).as_posix() for path in files]
    by_number = dict(zip(sorted(names, key=_natural), sorted(shown, key=_natural), strict=True))
    for name, picture in zip(names, shown, strict=True):
        if by_number[name] != picture:
            found = f"'{name}' is '{picture}' by letter, '{by_number[name]}' by number"
            found = f"other names, whose order is not plain: {found}"
            hint = "Rename the pictures as the model names them, or number both with as many digits throughout."
            raise InputError(folder, "pictures", found, f"the names in {source}", hint)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that orders names by the numbers in them where they differ in these."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder and those in it, by name."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
