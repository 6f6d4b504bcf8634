"""The folder that graphdeco's program trains a model into: its cameras, what it was told, and the Gaussians.

``cameras.json`` has OpenCV's axes and no principal point: the program puts it in the middle of the picture.
"""

from __future__ import annotations

import ast
import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch

from machine.files import contents
from scene.cameras import Cameras
from scene.formats.capture_pictures import find_masks, pair_pictures, picture_folder, picture_sought
from scene.formats.dataset_format import DatasetFormat, note_once
from scene.formats.json_text import read_json
from scene.formats.picture_sizes import canvas, picture_sizes
from scene.formats.transforms_images import frame_names
from scene.formats.transforms_poses import rigid_poses
from scene.frames import Frames, Size
from scene.world_offset import moved_cameras
from settings.data import DataConfig
from settings.errors import InputError
from settings.words import counted

_MOST_ARGUMENTS = 1 << 16  # bytes of cfg_args
_ITERATION = re.compile(r"iteration_(\d+)")
_ASIDE = 0.005  # of a picture's side
_TEST_EVERY = 8  # graphdeco's llffhold
_SINGULAR = 0.05  # determinant of an exposure under which a picture cannot be brought back


class Graphdeco(DatasetFormat):
    """A model's folder, or its ``cameras.json``."""

    name = "graphdeco"
    has_picture_folder = True

    def recognises(self, path: Path) -> str | None:
        if path.name.lower() == "cameras.json":
            return "it is named cameras.json"
        return "cameras.json is there" if (path / "cameras.json").is_file() else None

    def load(self, path: Path, image_size: Size | None, data: DataConfig) -> Frames:
        return _frames(path if path.suffix.lower() == ".json" else path / "cameras.json", data)

    def files(self, path: Path) -> list[Path]:
        folder = path.parent if path.suffix.lower() == ".json" else path
        return [file for file in (folder / "cameras.json", folder / "exposure.json") if file.is_file()]


def latest_ply(model: Path) -> Path:
    """The Gaussians of the last iteration that a model's folder has.

    Raises:
        InputError: it has none.
    """
    clouds = model / "point_cloud"
    rounds = {
        int(match[1]): folder
        for folder in (clouds.iterdir() if clouds.is_dir() else ())
        if (match := _ITERATION.fullmatch(folder.name)) and (folder / "point_cloud.ply").is_file()
    }
    if not rounds:
        expected = "point_cloud/iteration_*/point_cloud.ply, as graphdeco's train.py writes it"
        hint = "Name the folder that it was trained into (-m). Gaussians in a file are --splat FILE, a capture is "
        hint += "--source DIR; both go together."
        if (model / "nerfstudio_models").is_dir():
            world = shlex.quote(f"data.dataparser_transforms={model / 'dataparser_transforms.json'}")
            hint = "nerfstudio trained here: `ns-export gaussian-splat` writes the Gaussians; then --splat FILE "
            hint += f"--source DATA --set {world}"
        raise InputError(model, "model", contents(model), expected, hint)
    return rounds[max(rounds)] / "point_cloud.ply"


def read_arguments(model: Path) -> dict[str, Any]:
    """What ``cfg_args`` says that the program was told: plain values alone, read as text; empty without the file."""
    path = model / "cfg_args"
    try:
        text = path.read_bytes()[:_MOST_ARGUMENTS].decode("utf-8", errors="replace")
        call = ast.parse(text.strip(), mode="eval").body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    keywords = call.keywords if isinstance(call, ast.Call) else []
    return {
        word.arg: word.value.value for word in keywords if word.arg is not None and isinstance(word.value, ast.Constant)
    }


def note_off_centre(frames: Frames, ply: Path) -> None:
    """Warns where principal points are off centre, which graphdeco's program ignores, by enough to show."""
    if not any((folder / "cfg_args").is_file() for folder in (ply.parent, *ply.parents[2:3])):
        return
    sizes = np.array([frames.size_of(index) for index in range(len(frames))], np.float64)
    centres = torch.stack([frames.cameras.cx, frames.cameras.cy], dim=1).double().numpy()
    aside = centres - sizes / 2
    share = (np.abs(aside) / sizes).max(axis=1)
    worst = int(share.argmax())
    if share[worst] > _ASIDE:
        x, y = aside[worst]
        note_once(
            "warning",
            f"{frames.source}: the principal point is ({x:.1f}, {y:.1f}) pixels off the centre in frame "
            f"{frames.names[worst]} ({int((share > _ASIDE).sum())} of {len(frames)} frames). graphdeco's program, "
            f"which trained {ply}, takes it for the centre: its pictures are about as far off from these. Undistort "
            "the pictures with COLMAP, or take the cameras of the model's folder (--model).",
        )


def _frames(path: Path, data: DataConfig) -> Frames:
    arguments = read_arguments(path.parent)
    entries, tests = _once_each(path, _entries(path), arguments)
    if tests is None:
        tests = _tests(path, entries, arguments)
    _tell_splits_apart(entries, arguments)
    _refuse_cut_names(path, entries)
    order = sorted(range(len(entries)), key=lambda index: entries[index]["img_name"])
    entries = [entries[index] for index in order]
    names = [entry["img_name"] for entry in entries]
    paths, masks, sought = _pictures(path, names, arguments, data)
    stated = [(entry["width"], entry["height"]) for entry in entries]
    sizes = picture_sizes(path, stated, paths, as_stored=True)
    poses = moved_cameras(path, _poses(path, entries), data)
    scales = np.array(sizes, np.float64) / np.array(stated)
    focal = np.array([(entry["fx"], entry["fy"]) for entry in entries]) * scales
    middle = np.array(sizes, np.float64) / 2
    fx, fy, cx, cy = (torch.from_numpy(values.astype(np.float32)) for values in (*focal.T, *middle.T))
    size, own_sizes = canvas(path, sizes)
    exposures = _exposures(path.parent / "exposure.json", names)
    return Frames(
        cameras=Cameras(poses, fx, fy, cx, cy, *size),
        names=frame_names(path, names),
        image_paths=paths,
        source=path,
        sizes=own_sizes,
        masks=masks,
        tests=None if tests is None else tuple(tests[index] for index in order),
        points=next(filter(Path.is_file, [path.with_name("input.ply")]), None),
        exposures=exposures,
        sought=sought,
        as_stored=True,
    )


def _entries(path: Path) -> list[dict[str, Any]]:
    """The cameras, with the fields that are read; InputError for what is another kind of JSON."""
    content = read_json(path, "graphdeco's cameras.json")
    if not isinstance(content, list) or not content:
        found = "an empty list" if content == [] else type(content).__name__
        raise InputError(path, "JSON", found, "graphdeco's list of cameras")
    for index, entry in enumerate(content):
        if not isinstance(entry, dict) or not isinstance(entry.get("img_name"), str) or not entry["img_name"]:
            raise InputError(path, f"[{index}]", "an entry without img_name", "graphdeco's list of cameras")
        for key, whole in (("width", True), ("height", True), ("fx", False), ("fy", False)):
            value = entry.get(key)
            is_number = type(value) is int or (type(value) is float and math.isfinite(value))
            if not is_number or not 0 < value < 1e6 or (whole and value != int(value)):
                field = f"[{index}] ({entry['img_name']}) {key}"
                raise InputError(path, field, repr(value)[:60], "a positive number of pixels")
        entry["width"], entry["height"] = int(entry["width"]), int(entry["height"])
    return content


def _poses(path: Path, entries: Sequence[dict[str, Any]]) -> torch.Tensor:
    """(N, 4, 4) float64 camera-to-world poses of cameras that look down -Z."""
    poses, fields = [], []
    for index, entry in enumerate(entries):
        field = f"[{index}] ({entry['img_name']}) rotation and position"
        try:
            rotation, position = (torch.tensor(entry.get(key), dtype=torch.float64) for key in ("rotation", "position"))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError(path, field, "values that are no numbers", "3 x 3 and 3 numbers") from error
        if rotation.shape != (3, 3) or position.shape != (3,):
            found = f"shapes {tuple(rotation.shape)} and {tuple(position.shape)}"
            raise InputError(path, field, found, "3 x 3 and 3 numbers")
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3], pose[:3, 3] = rotation * torch.tensor([1.0, -1.0, -1.0]), position
        poses.append(pose)
        fields.append(field)
    return rigid_poses(path, torch.stack(poses), fields)


def _once_each(
    path: Path, entries: list[dict[str, Any]], arguments: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[bool] | None]:
    """The cameras, each once, and which of them are for tests; all, and None, where none is there twice by intention.

    With ``--eval --train_test_exp`` those kept for tests come first, and again among all that are trained on: their
    exposure is learnt from the left half of their pictures.
    """
    if arguments.get("eval") is not True or arguments.get("train_test_exp") is not True:
        return entries, None
    again = Counter(map(_view, entries))
    once = list({_view(entry): entry for entry in entries}.values())
    tests = [again[_view(entry)] == 2 for entry in once]
    if max(again.values()) > 2 or len(set(tests)) < 2:
        return entries, None
    note_once(
        "warning",
        f"{path}: its teacher was trained on the left half of each of the {sum(tests)} pictures that are held out "
        "(train_test_exp=True): against ground truth its figures, and its student's, are somewhat better than on "
        "pictures it has not seen.",
    )
    return once, tests


def _view(entry: dict[str, Any]) -> tuple[str, str]:
    """What tells a camera from another of its name."""
    return entry["img_name"], repr((entry.get("rotation"), entry.get("position")))


def _tests(path: Path, entries: Sequence[dict[str, Any]], arguments: dict[str, Any]) -> list[bool] | None:
    """Which cameras the teacher was not trained on; None where it was trained on all, or after a note if unclear.

    With ``--eval`` the program writes the test cameras first. Of a capture both parts are in the order of their names,
    and every eighth of all is a test; of NeRF-synthetic data they are in that of their JSONs.
    """
    names = [entry["img_name"] for entry in entries]
    if arguments.get("eval") is True:
        in_order = sorted(names)
        eighths = in_order[::_TEST_EVERY]
        ends = [index for index in range(1, len(names)) if names[index] < names[index - 1]]
        if (repeat := _first_repeat(entries)) is not None:
            count = repeat
        elif eighths + [name for at, name in enumerate(in_order) if at % _TEST_EVERY] == names:
            count = len(eighths)
        elif len(ends) == 1:
            count = ends[0]
        else:
            note_once(
                "warning",
                f"{path}: which of its {len(names)} frames its teacher was not trained on (eval=True) cannot be told: "
                "those held out are others (data.holdout_every, data.train_transforms), and it has seen most of them. "
                "Against ground truth its figures, and its student's, are better than on frames it has not seen.",
            )
            return None
        return [index < count for index in range(len(names))]
    if arguments.get("eval") is False:
        note_once(
            "warning",
            f"{path.with_name('cfg_args')}: its teacher was trained on all {len(names)} frames (eval=False): "
            "against ground truth that one's figures, and its student's, are better than on frames it has not seen.",
        )
    return None


def _first_repeat(entries: Sequence[dict[str, Any]]) -> int | None:
    """Where the second of two parts that share camera names begins; None where the entries are not two such parts."""
    cameras: dict[str, list[Any]] = {}
    repeat = None
    for index, entry in enumerate(entries):
        alike = cameras.setdefault(entry["img_name"], [])
        pose = entry.get("rotation"), entry.get("position")
        if len(alike) == 2 or pose in alike:
            return None
        alike.append(pose)
        repeat = index if repeat is None and len(alike) == 2 else repeat
    return repeat


def _tell_splits_apart(entries: Sequence[dict[str, Any]], arguments: dict[str, Any]) -> None:
    """Prefixes names that both splits have, as NeRF-synthetic data's r_0, with their split, which is their folder."""
    second = _first_repeat(entries)
    if second is not None:
        splits = ("test", "train") if arguments.get("eval") is True else ("train", "test")
        for index, entry in enumerate(entries):
            entry["img_name"] = f"{splits[index >= second]}/{entry['img_name']}"


def _refuse_cut_names(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """InputError where several cameras have one name: which picture is whose, nothing tells then."""
    views: dict[str, set[tuple[str, str]]] = {}
    for entry in entries:
        views.setdefault(entry["img_name"], set()).add(_view(entry))
    name = max(views, key=lambda key: len(views[key]))
    if len(views[name]) > 1:
        found = f"'{name}' for {len(views[name])} of {len(entries)} cameras, of different poses"
        hint = "Older versions of graphdeco's program cut names at their first dot and leave folders out. Take the "
        hint += "cameras of the capture: --splat point_cloud.ply --source CAPTURE."
        raise InputError(path, "img_name", found, "a name for each", hint)


def _pictures(
    path: Path, names: Sequence[str], arguments: dict[str, Any], data: DataConfig
) -> tuple[tuple[Path | None, ...], tuple[Path | None, ...] | None, str]:
    """The pictures and masks of the cameras: of ``data.images``, else of the capture that ``cfg_args`` names; and where
    the first that is missing was looked for.
    """
    named = PureWindowsPath(str(arguments.get("images", "images"))).name or "images"
    source = Path(str(arguments.get("source_path", "")))
    if data.images is not None:
        folder = picture_folder(path, path.parent, data.images)
        # The folder of the capture will do.
        folder = next(filter(Path.is_dir, (folder / named, folder / "images")), folder)
    else:
        inside = [source / named] if source.is_absolute() else []
        if source.is_absolute() and (source / "transforms_train.json").is_file():  # NeRF-synthetic data
            inside.append(source)
        folder = next(filter(Path.is_dir, inside), None) or picture_folder(path.parent, path.parent, None)
    if folder is None:
        note_once(
            "info",
            f"{path}: {counted(len(names), 'camera')}, and no pictures of theirs (data.images or --source names them).",
        )
        return (None,) * len(names), None, ""
    paths = pair_pictures(path, folder, names)
    found = sum(picture is not None for picture in paths)
    cameras, pictures = counted(len(names), "camera"), counted(found, "picture")
    note_once("info", f"{path}: {cameras}, in the order of their names, with {pictures} of {folder}.")
    return paths, find_masks(folder, paths), picture_sought(folder, names, paths)


def _exposures(path: Path, names: Sequence[str]) -> tuple[np.ndarray | None, ...] | None:
    """(3, 4) float64 of each frame, which takes the teacher's colours to its picture's; None where it learnt none."""
    if not path.is_file():
        return None
    content = read_json(path, "graphdeco's exposure.json")
    if not isinstance(content, dict):
        raise InputError(path, "JSON", type(content).__name__, "an object with 3 x 4 numbers for each picture")
    by_name = {key: _exposure(path, key, value) for key, value in content.items()}
    by_stem = {Path(key).stem: value for key, value in by_name.items()}
    found = tuple(by_name.get(name, by_stem.get(Path(name).stem)) for name in names)
    count = sum(exposure is not None for exposure in found)
    note_once("info", f"{path}: the exposures of {count} of {len(names)} pictures are undone.")
    return found if count else None


def _exposure(path: Path, name: str, value: object) -> np.ndarray:
    try:
        exposure = np.array(value, np.float64)
    except (TypeError, ValueError):
        exposure = np.empty(0)
    if exposure.shape != (3, 4) or not np.isfinite(exposure).all():
        raise InputError(path, f"'{name[:80]}'", repr(value)[:60], "3 x 4 finite numbers")
    if not abs(np.linalg.det(exposure[:, :3])) >= _SINGULAR:
        found = f"a matrix of determinant {np.linalg.det(exposure[:, :3]):.3g}"
        raise InputError(path, f"'{name[:80]}'", found, f"one that can be undone, {_SINGULAR:g} at least")
    return exposure
