"""MatrixCity (Li et al. 2023), a city rendered from the air and in its streets, in both of its dialects.

raw: a ``transforms.json`` in the folder of each block, as the engine exported it. ``frames[].rot_mat`` is
camera-to-world, its rotation times 1/100, its position in metres; the image is ``frame_index`` in four digits.
pose: ``pose/<block>/transforms_<split>.json``, the paper's splits. ``transform_matrix`` is rigid, its position in units
of 100 m; ``file_path`` leads from there to the image of the raw block.

Cameras come out in metres. Test frames are those whose images are under ``test`` or in a block ``*_test``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene.cameras import Cameras
from scene.formats.dataset_format import DatasetFormat, note_once
from scene.formats.json_text import read_json
from scene.formats.picture_sizes import canvas, picture_sizes
from scene.formats.transforms_images import find_images, first_sought, frame_names, slashed
from scene.formats.transforms_lens import fields_of_frames, read_intrinsics, stated_size
from scene.formats.transforms_poses import pose_matrices, rigid_poses
from scene.frames import Frames, Size, refuse_leaks
from scene.world_offset import moved_cameras
from settings.data import DataConfig
from settings.errors import InputError
from settings.words import counted

_RAW_SCALE, _SAME = 0.01, 0.02  # of a raw rotation; as a fraction of it
_UNIT = 100.0  # metres in a unit of pose files
_WIDEST = 20_000.0  # metres; the larger of the two cities is 6 km wide
_SIZES = {"aerial": (1920, 1080), "street": (1000, 1000)}
_HEAD = 1 << 16  # bytes of a file that are looked at to recognise it
_DEPTH = 4  # folders under the given one in which blocks are looked for
_RAW_KEY = re.compile(rb'"rot_mat"\s*:')
_POSE_KEY = re.compile(rb'"file_path"\s*:\s*"(\.\./)+(train|test|train_dense)/[^"]*?\d{4,}\.\w+"')


class MatrixCity(DatasetFormat):
    """One file of either dialect, or a folder over several blocks, aerial ones and those of streets together."""

    name = "matrixcity"

    def recognises(self, path: Path) -> str | None:
        if path.suffix.lower() != ".json":
            first = next(_files(path), None) if path.is_dir() else None
            return None if first is None else f"{first.relative_to(path)} has {self.recognises(first)}"
        dialect = _dialect(path)
        return {"raw": "rot_mat in its frames", "pose": "images of a MatrixCity block", None: None}[dialect]

    def load(self, path: Path, image_size: Size | None, data: DataConfig) -> Frames:
        return _load(path, self.files(path), image_size, data)

    def files(self, path: Path) -> list[Path]:
        return list(_files(path)) if path.is_dir() else [path]

    def is_split(self, path: Path) -> bool:
        return re.fullmatch(r"transforms_\w+\.json", path.name) is not None

    def split(self, path: Path, name: str) -> Path | None:
        return path.with_name(f"transforms_{name}.json") if self.is_split(path) else None


@dataclass
class _Block:
    """The frames of one file.

    Attributes:
        places: where the image of each frame is or should be, an absolute path.
        images: that image, None where it is not on disk.
        poses: (N, 4, 4) float64 camera-to-world, metres.
        sizes, intrinsics: (width, height), and (fx, fy, cx, cy) in pixels of it.
        published: (width, height) of its pictures as the file or the dataset's authors say; None: nothing says it.
        scale, unit: what the file's rotations are times, and by which its positions were multiplied.
        sought: as that of ``Frames``.
    """

    places: list[str]
    images: tuple[Path | None, ...]
    poses: Tensor
    sizes: tuple[Size, ...]
    intrinsics: list[tuple[float, float, float, float]]
    published: Size | None
    scale: float
    unit: float
    sought: str


def _files(folder: Path) -> Iterator[Path]:
    """The raw files under a folder, or where there are none the pose files; dense ones only where no others are."""
    found = [file for depth in range(_DEPTH) for file in sorted(folder.glob("*/" * depth + "transforms*.json"))]
    dialects = [(file, _dialect(file)) for file in found if file.name != "transforms_origin.json"]
    for wanted in ("raw", "pose"):
        files = [file for file, dialect in dialects if dialect == wanted]
        usual = [file for file in files if "train_dense" not in file.as_posix()]
        if files:
            yield from usual or files
            return


def _dialect(path: Path) -> str | None:
    """``"raw"``, ``"pose"``, or None for what looks like neither; the file need not be there."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if _RAW_KEY.search(head):
        return "raw"
    return "pose" if path.absolute().parent.parent.name == "pose" and _POSE_KEY.search(head) else None


def _load(path: Path, files: list[Path], image_size: Size | None, data: DataConfig) -> Frames:
    if not files:
        raise InputError(path, "dataset", "no transforms file", "the transforms.json of a block, or a file of pose/")
    blocks = _scaled_alike([_read_block(file, image_size) for file in files])
    places = [place for block in blocks for place in block.places]
    poses = torch.cat([block.poses for block in blocks])
    _check_extent(path, poses)
    # Their folders tell the frames of blocks apart, which are numbered alike.
    folders = {os.path.dirname(place) for place in places}
    root = os.path.commonpath([os.path.dirname(folder) if len(folders) == 1 else folder for folder in folders])
    names = frame_names(path, [os.path.relpath(place, root).replace(os.sep, "_") for place in places])
    tests = tuple(_is_test(place) for place in places)
    intrinsics = torch.tensor([values for block in blocks for values in block.intrinsics], dtype=torch.float32)
    size, sizes = canvas(path, [size for block in blocks for size in block.sizes])
    cameras = Cameras(moved_cameras(path, poses, data), *intrinsics.T.contiguous(), *size)
    frames = Frames(
        cameras=cameras,
        names=names,
        image_paths=tuple(image for block in blocks for image in block.images),
        source=path,
        sizes=sizes,
        tests=tests if 0 < sum(tests) < len(tests) else None,
        sought=next((block.sought for block in blocks if block.sought), ""),
    )
    if frames.tests is not None:
        held = torch.tensor(tests)
        refuse_leaks(path, cameras[~held], cameras[held])
    units = sorted({f"positions times {block.unit:g}, as rotations are times {block.scale:.2g}" for block in blocks})
    words = f"{counted(len(files), 'file')} of MatrixCity, {counted(len(names), 'frame')}, {sum(tests)} of them tests"
    note_once("info", f"{path}: {words}; cameras are in metres ({'; '.join(units)}).")
    return frames


def _read_block(path: Path, image_size: Size | None) -> _Block:
    content = read_json(path, "a transforms file of MatrixCity")
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(path, "frames", "none" if frames in (None, []) else repr(frames)[:60], "a list of frames")
    entries = [_entry(path, index, frame) for index, frame in enumerate(frames)]
    paths = [slashed(entry["file_path"]) for entry in entries]
    places = [os.path.normpath(path.absolute().parent / text) for text in paths]
    _check_split(path, places)
    poses = pose_matrices(path, entries)
    scale, unit = _units(path, poses, is_raw="rot_mat" in frames[0])
    poses[:, :3, :3] /= scale
    poses[:, :3, 3] *= unit
    poses = rigid_poses(path, poses, [f"frames[{index}] ({entry['file_path']})" for index, entry in enumerate(entries)])
    # Some unpack pictures and depth side by side.
    beside = [os.path.join(os.path.dirname(text), "rgb", os.path.basename(text)) for text in paths]
    named = beside if (path.parent / beside[0]).parent.is_dir() else paths
    images = find_images(path, named)
    sought = first_sought(path, named, images)
    fields = fields_of_frames(path, content, entries)
    stated = [stated_size(path, index, field) for index, field in enumerate(fields)]
    published = next((size for kind, size in _SIZES.items() if kind in path.absolute().parts), None)
    sizes = picture_sizes(path, stated, images, image_size or published, sought)
    intrinsics = read_intrinsics(path, fields, stated, sizes)
    return _Block(places, images, poses, sizes, intrinsics, stated[0] or published, scale, unit, sought)


def _scaled_alike(blocks: list[_Block]) -> list[_Block]:
    """The blocks, those of which there is no picture as if theirs had been made as much smaller as others of the same
    size.
    """
    factors: dict[Size | None, tuple[float, float]] = {}
    for block in blocks:
        if block.published is not None and (index := _first_picture(block)) is not None:
            x, y = (own / whole for own, whole in zip(block.sizes[index], block.published, strict=True))
            factors.setdefault(block.published, (x, y))

    def scaled(block: _Block) -> _Block:
        if block.sizes[0] not in factors or _first_picture(block) is not None:
            return block
        x, y = factors[block.sizes[0]]
        sizes = tuple((round(width * x), round(height * y)) for width, height in block.sizes)
        return replace(block, sizes=sizes, intrinsics=[(a * x, b * y, c * x, d * y) for a, b, c, d in block.intrinsics])

    return [scaled(block) for block in blocks]


def _first_picture(block: _Block) -> int | None:
    return next((index for index, image in enumerate(block.images) if image is not None), None)


def _entry(path: Path, index: int, frame: dict[str, Any]) -> dict[str, Any]:
    """A frame of either dialect with the keys of a pose file."""
    if "rot_mat" not in frame:
        if isinstance(frame.get("file_path"), str):
            return frame
        found = f"keys {', '.join(list(frame)[:6]) or 'none'}"
        raise InputError(path, f"frames[{index}]", found, "frame_index and rot_mat, or file_path and transform_matrix")
    number = frame.get("frame_index")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise InputError(path, f"frames[{index}] frame_index", repr(number)[:60], "a whole number, at least 0")
    return {"file_path": f"{number:04d}.png", "transform_matrix": frame["rot_mat"]}


def _units(path: Path, poses: Tensor, is_raw: bool) -> tuple[float, float]:
    """The factor in a file's rotations, by which its dialect is told whatever its keys are, and its unit in metres.

    Raises:
        InputError: it is neither dialect, or a raw file's rotations are no longer as exported.
    """
    scale = torch.linalg.det(poses[:, :3, :3]).clamp(min=1e-30).pow(1 / 3).median().item()
    if abs(scale / _RAW_SCALE - 1) < _SAME:
        return _RAW_SCALE, 1.0
    if not is_raw and abs(scale - 1) < _SAME:
        return 1.0, _UNIT
    expected = f"{_RAW_SCALE:g} (raw, in metres)" + ("" if is_raw else f" or 1 (pose file, in units of {_UNIT:g} m)")
    hint = "What unit its positions are in cannot be told: take the file as it was published."
    field = "rot_mat" if is_raw else "transform_matrix"
    raise InputError(path, field, f"rotations scaled by {scale:.4g}", expected, hint)


def _check_split(path: Path, places: list[str]) -> None:
    """InputError where a file named as one split has frames of another."""
    for split, wrong in (("train", _is_test), ("test", lambda place: not _is_test(place))):
        odd = [place for place in places if wrong(place)]
        if odd and re.fullmatch(rf"transforms_{split}(_dense)?\.json", path.name):
            found = (
                f"{len(odd)} of {len(places)} frames of the other split, the first {'/'.join(Path(odd[0]).parts[-3:])}"
            )
            raise InputError(path, "frames", found, f"those of {split} alone", "Take the file as it was published.")


def _is_test(place: str) -> bool:
    """Whether the path of an image, or one of its last folders, is that of a test block."""
    return any(part == "test" or part.endswith("_test") for part in Path(place).parts[-4:-1])


def _check_extent(path: Path, poses: Tensor) -> None:
    positions = poses[:, :3, 3]
    width = (positions.amax(dim=0) - positions.amin(dim=0)).max().item()
    if width > _WIDEST:
        hint = "Are its positions in metres already? data.format: transforms reads the file as it is."
        raise InputError(path, "positions", f"cameras over {width / 1000:.4g} km", "a city of some kilometres", hint)
