"""``--model DIR``, ``--source DIR`` and ``--splat FILE``: what a config would say of a trained model's folder, of a
capture, and of Gaussians, alone or with the capture that they were trained on.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from machine.run_folder import own_folder
from scene.formats import load_frames, split_beside
from scene.formats.graphdeco import latest_ply, read_arguments
from scene.frames import Frames
from settings.config import Config
from settings.data import DataConfig
from settings.errors import InputError
from settings.loading import REPO_ROOT, run_config, taken_under
from settings.teacher import BUILT_IN

CAPTURE_TEACHER = REPO_ROOT / "configs" / "base" / "capture_teacher.yaml"
_MODEL_CONFIG = REPO_ROOT / "configs" / "base" / "model.yaml"
_SPLAT_CONFIG = REPO_ROOT / "configs" / "splat.yaml"
_WIDTH = 200  # of views in _MODEL_CONFIG
_OF_IMAGES = 16.0  # rays of a capture's images for each of the teacher's

Layers = list[tuple[str, dict[str, Any]]]


def given_scene(arguments: argparse.Namespace) -> tuple[Path, Layers]:
    """The config that options name or imply, and sections over it, each with its option: see ``load_config``.

    Args:
        arguments: config, and where the command has them model, source, splat and up; each may be None. A command that
            has a ``source_config``, that of a source alone, fits Gaussians to pictures, and takes none; where a command
            ``turns``, what is up may be said of any.

    Raises:
        InputError: nothing is given or what does not go together, or a folder is not there.
    """
    config, layers = _named_scene(arguments)
    up = getattr(arguments, "up", None)
    if up is None:
        return config, layers
    splat, source = (getattr(arguments, name, None) for name in ("splat", "source"))
    if (splat is None or source is not None) and not getattr(arguments, "turns", False):
        found = "no --splat" if splat is None else "--source too"
        raise InputError("command line", "--up", found, "--splat FILE alone", "Otherwise cameras are given.")
    return config, [*layers, ("--up", {"teacher": {"orbit": {"up": up}}})]


def _named_scene(arguments: argparse.Namespace) -> tuple[Path, Layers]:
    given = {name: getattr(arguments, name, None) for name in ("model", "source", "splat")}
    config, model, source, splat = arguments.config, given["model"], given["source"], given["splat"]
    source_config = getattr(arguments, "source_config", None)
    if source_config is not None:
        _refuse_gaussians(given)
    if splat is not None:
        if model is not None:
            hint = "The model's folder has Gaussians and cameras of its own."
            raise InputError("command line", "--splat", "--model too", "one of them", hint)
        if splat.is_dir():
            hint = "A folder that a model was trained into is --model DIR; of an unpacked SOG name its meta.json."
            if (own := own_folder(splat)) is not None:
                hint = own[1]
            raise InputError("--splat", "file", f"{splat}, a folder", "a file of Gaussians", hint)
        if source is None:
            return config or _SPLAT_CONFIG, [("--splat", _of_splat(splat))]
    if (assets := getattr(arguments, "assets", None)) is not None:
        model, source = (folder and taken_under(folder, assets) for folder in (model, source))
    for option, folder in (("--model", model), ("--source", source)):
        if folder is not None and not folder.is_dir():
            found, hint = ("a file", "Gaussians alone are --splat FILE.") if folder.exists() else ("nothing", "")
            raise InputError(option, "folder", f"{folder}, {found}", "an existing folder", hint)
    if model is not None:
        with _naming_own_folders("--model", model, "a folder that a 3DGS model was trained into"):
            layers = [("--model", _of_model(model.absolute(), source and source.absolute(), config is not None))]
        return config or _MODEL_CONFIG, layers
    if source is not None:
        otherwise = source_config or _MODEL_CONFIG
        source = Path(os.path.abspath(source))
        with _naming_own_folders("--source", source, "a capture, with cameras and pictures"):
            if splat is None:
                return config or otherwise, [("--source", _of_source(source, config or otherwise))]
            return config or otherwise, [("--splat", _of_both(splat, source, config is not None))]
    if config is None:
        expected = "a YAML config, or " + (
            "--source DIR" if source_config else "--model DIR, --source DIR or --splat FILE"
        )
        hint = "See configs/; a run's own is results/<scene>/<run>/config.yaml."
        raise InputError("command line", "--config", "nothing", expected, hint)
    return config, []


def _refuse_gaussians(given: dict[str, Path | None]) -> None:
    """InputError where a command that fits Gaussians to pictures is given some: to which ones, these do not say."""
    for option in ("model", "splat"):
        if (gaussians := given[option]) is None:
            continue
        capture = "" if given["source"] is None else f" --source {shlex.quote(str(given['source']))}"
        hint = f"`python lego_response_distill.py --{option} {shlex.quote(str(gaussians))}{capture}` distils these. "
        hint += (
            f"To fit others to photographs, give{capture or ' --source DIR'} alone; to what these show, --config FILE"
        )
        hint += " of teacher.kind: gaussians, such as the config.yaml of a run that distils them."
        found = f"Gaussians, {gaussians}"
        raise InputError("command line", f"--{option}", found, "pictures that Gaussians are to be fitted to", hint)


def check_taken(arguments: argparse.Namespace, config: Config) -> None:
    """InputError where a config's teacher is a built-in scene, which knows of no capture that an option names."""
    source = getattr(arguments, "source", None)
    if source is not None and config.teacher.kind in BUILT_IN:
        named, hint = "", "Leave teacher.kind out."
        if arguments.config is not None:
            named, hint = f" in {arguments.config}", "Leave --config out, or add --set teacher.kind=images."
        if getattr(arguments, "source_config", None) is None:
            hint += " Gaussians of the capture are --splat FILE."
        found = f"{source}, which teacher.kind: {config.teacher.kind}{named} takes no part of"
        raise InputError("command line", "--source", found, "a config whose teacher is of a capture", hint)


@contextmanager
def _naming_own_folders(option: str, folder: Path, expected: str) -> Iterator[None]:
    """Where a folder has nothing of what is wanted: says what it is, if this program wrote it."""
    try:
        yield
    except InputError as error:
        if error.field not in ("model", "dataset") or (own := own_folder(folder)) is None:
            raise
        found, hint = own
        raise InputError(option, "folder", f"{folder}, {found}", expected, hint) from error


def direction(text: str) -> list[float]:
    """An axis, ``-y``, or three numbers, ``0,-1,0``."""
    sign, axis = (-1.0, text[1:]) if text[:1] == "-" else (1.0, text.removeprefix("+"))
    if axis in ("x", "y", "z"):
        return [sign * (axis == name) for name in "xyz"]
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not any(values):
        raise argparse.ArgumentTypeError(f"found '{text}', expected x, y, z, -x, -y, -z or three numbers: 0,-1,0.1")
    return values


def _of_splat(path: Path) -> dict[str, Any]:
    """The scene is called like the file or the folder of its model."""
    path = Path(os.path.abspath(path))
    names = [path.name.partition(".")[0], *(folder.name for folder in path.parents)]
    name = next((name for name in names if name and not re.fullmatch(r"point_cloud|iteration_\d+", name)), "splat")
    teacher = {"kind": "gaussians", "ply": str(path), "outputs": None}
    return {"scene": _name(name), "data": {"transforms": None, "train_transforms": None}, "teacher": teacher}


def _of_model(model: Path, source: Path | None, has_config: bool) -> dict[str, Any]:
    if (model / "config.yaml").is_file() and not (model / "cameras.json").is_file():
        return _of_fit(model, source, has_config)
    arguments = read_arguments(model)
    data: dict[str, Any] = {"transforms": str(model), "train_transforms": None}
    if source is not None:
        data["images"] = str(source)
    sections: dict[str, Any] = {"data": data, "teacher": {"kind": "gaussians", "ply": str(latest_ply(model))}}
    if not has_config:
        trained_on = PureWindowsPath(str(arguments.get("source_path", ""))).name
        frames = load_frames(model, data=DataConfig(images=source))
        data |= _size(frames) | _images(model, frames)
        background = "white" if arguments.get("white_background") is True else "black"
        sections |= {"scene": _name(trained_on or model.name), "render": {"background": background}}
        sections["teacher"]["background"] = background
    return sections


def _of_fit(results: Path, source: Path | None, has_config: bool) -> dict[str, Any]:
    """Of what ``tools/train_teacher.py`` has written: its Gaussians, the dataset they were fitted to, and its size."""
    teacher: dict[str, Any] = {"kind": "gaussians", "ply": str(latest_ply(results))}
    fit = run_config(results / "config.yaml")
    if fit.teacher.near is not None:
        teacher["near"] = fit.teacher.near
    transforms = source or fit.data.transforms
    fitted_to = {name: getattr(fit.data, name) for name in ("transforms", "train_transforms", "images")}
    named = {name: None if path is None else str(path) for name, path in fitted_to.items()}
    if source is not None:
        named = _dataset(source)
    if has_config:
        return {"data": named, "teacher": teacher}
    data = fit.data.model_dump(mode="json") | named
    if transforms is not None and named["train_transforms"] is None and fit.data.ground_truth is True:
        data |= _images(transforms, load_frames(transforms, data=DataConfig(**data)))
    teacher["background"], render = fit.teacher.background, {"background": fit.teacher.background}
    return {"scene": fit.scene, "data": data, "teacher": teacher, "render": render}


def _of_source(source: Path, config: Path) -> dict[str, Any]:
    data = _dataset(source)
    if config not in (_MODEL_CONFIG, CAPTURE_TEACHER):
        return {"data": data}
    sections = {"scene": _capture_name(source), "data": data | _size(load_frames(source, data=DataConfig()))}
    if config == CAPTURE_TEACHER:
        return sections
    return sections | {"run": "images", "teacher": {"kind": "images"}, "loss": {"depth": {"weight": 0.0}}}


def _of_both(splat: Path, source: Path, has_config: bool) -> dict[str, Any]:
    """Gaussians, and the capture that they were trained on."""
    data, teacher = _dataset(source), _of_splat(splat)["teacher"]
    if has_config:
        return {"data": data, "teacher": teacher}
    frames = load_frames(source, data=DataConfig())
    data |= _size(frames) | _images(source, frames)
    return {"scene": _capture_name(source), "data": data, "teacher": teacher}


def _dataset(source: Path) -> dict[str, Any]:
    """A capture as all of the dataset: what a config says of another one's training frames and pictures is left out."""
    return {"transforms": str(source), "train_transforms": None, "images": None}


def _capture_name(source: Path) -> str:
    """The name of a capture's scene: its folder's."""
    inner = re.compile(r"colmap|sparse|\d+")  # where a capture has its model
    return _name(next((one.name for one in (source, *source.parents) if not inner.fullmatch(one.name)), ""))


def _size(frames: Frames) -> dict[str, int]:
    """The working width, where the dataset's is less than that of the model's config."""
    width = frames.cameras.width
    return {"resolution": width} if width < _WIDTH else {}


def _images(dataset: Path, frames: Frames) -> dict[str, Any]:
    """The images as a second source of rays, where a capture keeps no splits apart and has some."""
    if not any(frames.image_paths) or split_beside(dataset, "train", DataConfig()) is not None:
        return {}
    return {"ground_truth": {"split": "train", "weight": _OF_IMAGES}}


def _name(text: str) -> str:
    """The name as one of a results folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")[:100] or "model"
