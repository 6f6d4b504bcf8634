"""``--model DIR`` and ``--source DIR``: what a config would say of a trained model's folder, and of a capture."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any

from scene.formats import load_frames
from scene.formats.graphdeco import latest_ply, read_arguments
from settings.data import DataConfig
from settings.errors import InputError
from settings.loading import REPO_ROOT

BASE = REPO_ROOT / "configs" / "base" / "model.yaml"
"""The config of a run that names none."""
_WIDTH = 200  # of BASE


def model_layers(model: Path | None, source: Path | None, has_config: bool) -> list[tuple[str, dict[str, Any]]]:
    """Sections over a config, each with the option that they are of: see ``load_config``.

    Args:
        model: the folder that graphdeco's program trained a model into; its last Gaussians are the teacher.
        source: the capture it was trained on, whose pictures are ground truth; without a model, the dataset itself.
        has_config: a config was given; it says how the run is called, how large its views are and what it trains on.

    Raises:
        InputError: one of them is no such folder.
    """
    for option, folder in (("--model", model), ("--source", source)):
        if folder is not None and not folder.is_dir():
            found = "a file" if folder.exists() else "nothing"
            raise InputError(option, "folder", f"{folder}, {found}", "an existing folder")
    if model is not None:
        return [("--model", _of_model(model.absolute(), source and source.absolute(), has_config))]
    if source is not None:
        return [("--source", _of_source(source.absolute(), has_config))]
    return []


def _of_model(model: Path, source: Path | None, has_config: bool) -> dict[str, Any]:
    arguments = read_arguments(model)
    data: dict[str, Any] = {"transforms": str(model)}
    if source is not None:
        data["images"] = str(source)
    sections: dict[str, Any] = {"data": data, "teacher": {"kind": "gaussians", "ply": str(latest_ply(model))}}
    if not has_config:
        trained_on = PureWindowsPath(str(arguments.get("source_path", ""))).name
        data |= _size(model, DataConfig(images=source))
        background = "white" if arguments.get("white_background") is True else "black"
        sections |= {"scene": _name(trained_on or model.name), "render": {"background": background}}
        sections["teacher"]["background"] = background
    return sections


def _of_source(source: Path, has_config: bool) -> dict[str, Any]:
    data = {"transforms": str(source)}
    if has_config:
        return {"data": data}
    sections = {"scene": _name(source.name), "run": "images", "teacher": {"kind": "images"}}
    return sections | {"data": data | _size(source, DataConfig()), "loss": {"depth": {"weight": 0.0}}}


def _size(dataset: Path, data: DataConfig) -> dict[str, int]:
    """The working width, where the dataset's is less than that of BASE."""
    width = load_frames(dataset, data=data).cameras.width
    return {"resolution": width} if width < _WIDTH else {}


def _name(text: str) -> str:
    """The name as one of a results folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")[:100] or "model"
