"""Dataset formats, each in a file of its own, behind one door.

A new format is a module with a ``DatasetFormat`` and one more name in ``FORMATS``.
"""

from __future__ import annotations

from pathlib import Path

from scene.formats.dataset_format import DatasetFormat
from scene.formats.transforms_json import TransformsJson
from scene.frames import Frames
from scene.world_offset import Offset

FORMATS: tuple[DatasetFormat, ...] = (TransformsJson(),)


def format_of(path: str | Path) -> DatasetFormat:
    """The format of a dataset; what none recognises is read as the first, which then says what is missing."""
    return next((format for format in FORMATS if format.recognises(Path(path))), FORMATS[0])


def load_frames(path: str | Path, *, image_size: tuple[int, int] | None = None, offset: Offset | None = None) -> Frames:
    """Cameras, frame names and image paths of a dataset, or of one of its splits.

    Args:
        path: the file or folder that names the frames.
        image_size: (width, height), used where the dataset does not say it.
        offset: ``data.offset``, taken off the cameras' positions.

    Raises:
        InputError: missing, damaged, or of a kind that cannot be read.
    """
    return format_of(path).load(Path(path), image_size, offset)


def split_beside(path: Path, split: str) -> Path:
    """Where another split of the dataset of ``path`` is; it need not be there."""
    return format_of(path).split(path, split)


def other_split(path: Path, split: str) -> Path | None:
    """As ``split_beside``; None where ``path`` is not itself named as a split, so that no other lies beside it."""
    format = format_of(path)
    return format.split(path, split) if format.is_split(path) else None
