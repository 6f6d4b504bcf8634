"""Dataset formats, each in a file of its own, behind one door.

A new format is a module with a ``DatasetFormat`` and one more name in ``FORMATS``.
"""

from __future__ import annotations

from pathlib import Path

from machine.files import contents
from scene.formats.colmap import Colmap
from scene.formats.dataset_format import DatasetFormat, note_once
from scene.formats.graphdeco import Graphdeco
from scene.formats.matrixcity import MatrixCity
from scene.formats.transforms_images import EXTENSIONS
from scene.formats.transforms_json import TransformsJson
from scene.frames import Frames, Size
from settings.data import DataConfig
from settings.errors import InputError

FORMATS: tuple[DatasetFormat, ...] = (Graphdeco(), Colmap(), MatrixCity(), TransformsJson())
"""In the order in which they are asked whether a dataset is theirs."""


def format_of(path: str | Path, name: str = "auto") -> DatasetFormat:
    """The format of a dataset: the one of that name, or the first that recognises it, which is logged for folders.

    A file that none recognises is read as the last, which then says what is missing.

    Raises:
        InputError: a folder that none recognises.
    """
    path = Path(path)
    if name != "auto":
        return next(format for format in FORMATS if format.name == name)
    for format in FORMATS:
        if reason := format.recognises(path):
            if path.is_dir():
                note_once("info", f"{path}: read as {format.name}, since {reason} (data.format: auto).")
            return format
    if path.is_dir():
        expected = "cameras.bin or .txt (there or in sparse/0), cameras.json or transforms.json"
        hint, above = "Name the folder or file that has the cameras.", path.resolve().parent
        # A MatrixCity that is under the folder above is beside this one: another dataset.
        if any(format.recognises(above) for format in FORMATS if not isinstance(format, MatrixCity)):
            hint = f"The cameras are in the folder above: name {above}."
        elif any(part.suffix.lower() in EXTENSIONS for part in path.iterdir()):
            hint += " COLMAP finds those of pictures that have none: `colmap automatic_reconstructor`."
        raise InputError(path, "dataset", contents(path), expected, hint)
    return FORMATS[-1]


def load_frames(path: str | Path, *, data: DataConfig | None = None, image_size: Size | None = None) -> Frames:
    """Cameras, frame names and image paths of a dataset, or of one of its splits.

    Args:
        path: the file or folder that names the frames.
        data: what the config says of how it is read; None: nothing.
        image_size: (width, height), used where the dataset does not say it.

    Raises:
        InputError: missing, damaged, or of a kind that cannot be read.
    """
    data = data or DataConfig()
    format = format_of(path, _name_for(path, data))
    if data.dataparser_transforms is not None and not format.has_worlds:
        expected = f"null, since {path} is of format {format.name}: nerfstudio trains on a JSON or a COLMAP model"
        raise InputError("config", "data.dataparser_transforms", data.dataparser_transforms, expected)
    if data.images is not None and not format.has_picture_folder and Path(path) == data.transforms:
        expected = f"null, since {path} is of format {format.name}, whose file_path says where each picture is"
        raise InputError("config", "data.images", data.images, expected, "Correct file_path, or move the pictures.")
    return format.load(Path(path), image_size, data)


def camera_files(path: Path, data: DataConfig) -> list[Path]:
    """The files that a dataset's cameras are read from."""
    return format_of(path, _name_for(path, data)).files(path)


def split_beside(path: Path, split: str, data: DataConfig) -> Path | None:
    """Where another split of the dataset of ``path`` is; it need not be there. None where there can be none."""
    return format_of(path, _name_for(path, data)).split(path, split)


def other_split(path: Path, split: str) -> Path | None:
    """As ``split_beside``; None where ``path`` is not itself named as a split, so that no other lies beside it."""
    format = format_of(path)
    return format.split(path, split) if format.is_split(path) else None


def _name_for(path: str | Path, data: DataConfig) -> str:
    """``data.format``, which is that of ``data.transforms``; others, as a JSON of a camera path, say it themselves."""
    return data.format if data.transforms is None or Path(path) == data.transforms else "auto"
