"""The images that a dataset names: where they are, and what their frames are called."""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from scene.formats.dataset_format import note_once
from settings.errors import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""Of images, in any case; where a ``file_path`` has none, the first there is."""

_TEACHERS_RENDER = re.compile(r"(.*/)?renders/\d{5}\.png")  # graphdeco's ours_*/renders/00000.png


def slashed(file_path: str) -> str:
    """A ``file_path`` of any system with ``/`` between its parts, without a drive letter or ``./`` before."""
    text = re.sub(r"^[A-Za-z]:(?=[\\/])", "", file_path).replace("\\", "/")
    return posixpath.normpath(text) if text else ""


def find_images(source: Path, file_paths: Sequence[str]) -> tuple[Path | None, ...]:
    """The image file of each frame, None where there is none on disk.

    Paths are relative to the folder of ``source``. Extensions may be absent, doubled, or of another case. Where no
    path leads to an image, as after a move from another machine, their ends are looked for beside the JSON, which is
    said. A teacher's own renders are no images of the dataset: ``gt/`` beside them is taken instead, or none.

    Raises:
        InputError: two frames have one image.
    """
    listing = cache(_listing)
    found = [_at(source.parent / slashed(text), listing) for text in file_paths]
    ends = [] if any(found) else [_by_end(source.parent, text, listing) for text in file_paths]
    moved = [path for path in ends if path]
    # Two frames with one end would both get one image.
    if moved and len(set(moved)) == len(moved):
        first = ends.index(moved[0])
        note_once(
            "warning",
            f"{source}: {len(moved)} of {len(found)} images are not where file_path says, and are taken from beside "
            f"the JSON: '{file_paths[first]}' is {ends[first]}.",
        )
        found = ends
    _refuse_shared(source, file_paths, found)
    return _not_renders(source, found)


def first_sought(source: Path, file_paths: Sequence[str], found: Sequence[Path | None]) -> str:
    """In words, where the first missing image was looked for and what is there instead; empty where none is missing."""
    missing = next((text for text, path in zip(file_paths, found, strict=True) if path is None), None)
    if missing is None:
        return ""
    path = source.parent / slashed(missing)
    words = f"{path}, itself and with {', '.join(EXTENSIONS)} in any case"
    listing = cache(_listing)
    if (render := _at(path, listing)) is not None:  # ``_not_renders`` has left it out
        return f"{render.parent.parent / 'gt' / render.name}, since {render} is a teacher's own render"
    if (plain := source.parent / slashed(unquote(missing))) != path and (there := _at(plain, listing)):
        return f"{words}; {there} is there: write the file_path as the file is named, without %20 and the like"
    if there := _at(_as_spelt(path), listing):
        return f"{words}; {there} is there: folders are told apart by capitals"
    return words


def _as_spelt(path: Path) -> Path:
    """The path with its folders as they are on disk, as far as they are there but for capitals."""
    spelt = Path(path.anchor)
    for part in path.parts[len(path.anchor) > 0 : -1]:
        try:
            names = () if (spelt / part).is_dir() else os.listdir(spelt)
        except (OSError, ValueError):  # ValueError: a null character in the path
            names = ()
        spelt /= next((name for name in sorted(names) if name.lower() == part.lower()), part)
    return spelt / path.name


def frame_names(source: Path, file_paths: Sequence[str]) -> tuple[str, ...]:
    """A unique name of each frame: its file's stem, or where stems repeat as much of its path as it takes.

    Raises:
        InputError: a ``file_path`` is empty, or there more than once.
    """
    paths = [slashed(text).removeprefix("/") for text in file_paths]
    times = Counter(paths)
    repeated = {text: count for text, count in times.items() if count > 1}
    if repeated:
        twin, more = next(iter(repeated)), sum(repeated.values()) - len(repeated)
        found = f"file_path '{twin}' more than once ({more} of {len(paths)} frames repeat one before them)"
        raise InputError(source, "frames", found, "each frame once", "Keep one entry of each.")
    bare = [re.sub(r"^(\.\./)+", "", _without_extension(text)) for text in paths]
    whole = [re.sub(r"^(\.\./)+", "", text).replace(".", "_") for text in paths]
    candidates: tuple[Iterable[str], ...] = (
        (text.rsplit("/", 1)[-1] for text in bare),
        (text.replace("/", "_") for text in bare),
        (text.replace("/", "__") for text in bare),  # a/b_0 and a_b/0
        (text.replace("/", "__") for text in whole),  # r_0.png and r_0.jpg
        (f"{index:05d}_{text.replace('/', '_')}" for index, text in enumerate(bare)),
    )
    names = next(tuple(some) for some in map(list, candidates) if len(set(some)) == len(some))
    if "" in names or "." in names:
        raise InputError(source, "frames", "an empty file_path", "each frame to name its image")
    return names


def _listing(folder: Path) -> dict[str, list[str]]:
    """The image files of a folder by their lower-case names without extension; empty where there is no folder."""
    names: dict[str, list[str]] = {}
    try:
        for name in sorted(os.listdir(folder)):
            names.setdefault(_without_extension(name).lower(), []).append(name)
    except (OSError, ValueError):  # ValueError: a null character in the path
        return {}
    return names


def _at(path: Path, listing: Callable[[Path], dict[str, list[str]]]) -> Path | None:
    """The image at a path, or that of its name with another extension, several or none; None where there is none."""
    if os.path.isfile(path):
        return path
    bare = _without_extension(path.name)

    def order(name: str) -> tuple[bool, bool, int]:
        other_name = not name.lower().startswith(path.name.lower())
        return other_name, not name.startswith(bare), EXTENSIONS.index(os.path.splitext(name)[1].lower())

    names = [name for name in listing(path.parent).get(bare.lower(), ()) if name.lower().endswith(EXTENSIONS)]
    found = (path.with_name(name) for name in sorted(names, key=order))
    return next(filter(os.path.isfile, found), None)


def _by_end(folder: Path, file_path: str, listing: Callable[[Path], dict[str, list[str]]]) -> Path | None:
    """The image at the longest end of a path that leads to one from the folder.

    Of a relative path its last folder stays: ``train/r_0`` must not become another split's ``r_0``.
    """
    path = slashed(file_path)
    parts = [part for part in path.split("/") if part not in ("", "..")]
    is_absolute = path.startswith("/") or ":" in file_path[:2]
    ends = (folder.joinpath(*parts[start:]) for start in range(len(parts) - (0 if is_absolute else 1)))
    return next(filter(None, (_at(end, listing) for end in ends)), None)


def _not_renders(source: Path, found: Sequence[Path | None]) -> tuple[Path | None, ...]:
    """The images, those that are a teacher's renders replaced by ``gt/`` beside them, or by nothing."""
    renders = [i for i, path in enumerate(found) if path and _TEACHERS_RENDER.fullmatch(path.as_posix())]
    images = list(found)
    for i in renders:
        truth = found[i].parent.parent / "gt" / found[i].name
        images[i] = truth if truth.is_file() else None
    if renders:
        truths = sum(images[i] is not None for i in renders)
        instead = f"gt/ beside has {truths} of the images" if truths else "there is no gt/ beside, so no ground truth"
        note_once(
            "warning",
            f"{source}: file_path of {len(renders)} of {len(found)} frames names a teacher's renders "
            f"({found[renders[0]].parent}), which are not the dataset's images: {instead}.",
        )
    return tuple(images)


def _refuse_shared(source: Path, file_paths: Sequence[str], found: Sequence[Path | None]) -> None:
    """InputError where two frames have one image, as where one names a file that is not there beside its namesake."""
    owners: dict[Path, int] = {}
    for index, path in enumerate(found):
        if path is None:
            continue
        first = owners.setdefault(path, index)
        if first != index:
            named = [f"frames[{i}] ('{file_paths[i]}')" for i in (first, index)]
            expected = "an image of its own for each frame"
            hint = "Correct the file_path that is not the file's name, or take that frame out."
            raise InputError(source, "file_path", f"{path} for {' and '.join(named)}", expected, hint)


def _without_extension(text: str) -> str:
    """Without the extensions of images, doubled ones included."""
    while text.lower().endswith(EXTENSIONS):
        text = text[: text.rindex(".")]
    return text
