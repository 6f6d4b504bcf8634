"""YAML files and ``--set`` overrides to a checked ``Config``; a problem is an ``InputError`` naming its file."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from settings.config import Config
from settings.errors import InputError
from settings.kinds import STUDENT_KINDS
from settings.losses import INTERNAL_TERMS, PICTURE_TERMS
from settings.sections import AssetPath, Section
from settings.words import explain, show, unknown_key
from settings.yaml_text import dump_yaml, parse_yaml, read_mapping, written_as

REPO_ROOT = Path(__file__).resolve().parent.parent
OVERRIDE = "--set"
Model = TypeVar("Model", bound=BaseModel)
_log = logging.getLogger(__name__)


class Override(str):
    """A text of ``overrides`` that an option of its own stands for, which errors name as their source."""

    def __new__(cls, text: str, option: str = OVERRIDE) -> Override:
        override = super().__new__(cls, text)
        override.option = option
        return override


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    assets: str | Path | None = None,
    layers: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Config:
    """Reads a config with its bases, applies the overrides, checks everything but the existence of the assets.

    Args:
        path: YAML file; its ``base: other.yaml`` (relative to the file) is read first and merged under it:
            sections key by key, lists as a whole.
        overrides: ``"section.key=value"`` texts, the value being YAML; applied last, in order.
        assets: folder that relative asset paths are under; the repository by default.
        layers: further sections merged over the file, in order and before the overrides, each with the name that an
            error gives as its source.

    Raises:
        InputError: unreadable file, invalid YAML, unknown key, wrong type or range, contradicting settings.
    """
    data: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for file, section in _base_chain(Path(path)):
        _merge(data, section, sources, str(file))
    for source, section in layers:
        _merge(data, section, sources, source)
    return _checked(data, sources, overrides, assets, str(path))


def config_from_text(
    text: str | Mapping[str, Any], source: str | Path, overrides: Sequence[str] = (), assets: str | Path | None = None
) -> Config:
    """A config that ``to_yaml`` wrote, as checkpoints carry it, with overrides.

    Args:
        text: it, or what it says.
        source: where the text is from, for messages.
        overrides: as for ``load_config``.
        assets: its paths are absolute; the longest end of one that names something under this folder is taken
            instead, so that a run made elsewhere finds its assets.

    Raises:
        InputError: as ``load_config``.
    """
    data: dict[str, Any] = {}
    sources: dict[str, str] = {}
    stored = parse_yaml(text, str(source)) if isinstance(text, str) else text
    if not isinstance(stored, dict):
        raise InputError(source, "config", show(stored), "the config of its run", "Give one with --config.")
    _merge(data, stored, sources, str(source))
    for field, value, _ in _take_retired(data):
        _tell_retired(str(source), field, show(value))
    if assets is not None:
        _move_assets(data, Path(assets))
    return _checked(data, sources, overrides, assets, str(source))


def run_config(path: Path, overrides: Sequence[str] = (), assets: str | Path | None = None) -> Config:
    """The ``config.yaml`` of a run or the ``city.yaml`` of a city, read as checkpoints are.

    Args:
        overrides, assets: as for ``config_from_text``.

    Raises:
        InputError: as ``load_config``.
    """
    return config_from_text(read_mapping(path), path, overrides, assets)


def validate(model: type[Model], data: dict[str, Any], sources: Mapping[str, str], default_source: str) -> Model:
    """``data`` as ``model``, or an ``InputError``; ``sources`` says which file a dotted key came from.

    Settings that are gone are taken out of ``data``.
    """

    def source_of(field: str) -> str:
        while field and field not in sources:
            field = field.rpartition(".")[0]
        return sources.get(field, default_source)

    for field, value, off in _take_retired(data):
        hint = "This setting is gone, docs/experiments says why; take the key out."
        raise InputError(source_of(field), field, show(value), show(off), hint)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # The schema in words takes a tenth of a second to make: only when something is wrong.
        problem = unknown_key(model, data) or explain(model, data, error)
    raise InputError(source_of(problem.field), problem.field, problem.found, problem.expected, problem.hint)


def to_yaml(config: Config) -> str:
    """The config as YAML that ``load_config`` reads back equal under any assets root (its paths are absolute)."""
    return dump_yaml(config.model_dump(mode="json"))


def _checked(
    data: dict[str, Any], sources: dict[str, str], overrides: Sequence[str], assets: str | Path | None, source: str
) -> Config:
    for override in overrides:
        option = getattr(override, "option", OVERRIDE)
        _merge(data, _parse_override(override, option), sources, option)
    _resolve_assets(data, Path(assets or REPO_ROOT), is_chosen=assets is not None)
    return validate(Config, data, sources, source)


def _base_chain(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The file and its bases with their contents, the remotest base first."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    while True:
        section = read_mapping(path)
        base = section.pop("base", None)
        chain.insert(0, (path, section))
        if base is None:
            return chain
        if not isinstance(base, str):
            raise InputError(path, "base", show(base), "the path of a YAML file, relative to this one")
        above = Path(os.path.normpath(path.parent / base))
        if not above.is_file():
            hint = f"Looked at {above}."
            raise InputError(path, "base", f"'{base}', which is not there", "an existing YAML file", hint)
        if any(above.samefile(file) for file, _ in chain):
            hint = "The circle: " + " -> ".join(map(str, [*(file for file, _ in reversed(chain)), above])) + "."
            raise InputError(path, "base", f"'{base}'", "a file that is not built on this one", hint)
        path = above


def _parse_override(override: str, option: str) -> dict[str, Any]:
    field, equals, text = override.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys):
        raise InputError(option, "argument", f"'{override}'", "section.key=value", "E.g. --set train.lr=5e-3.")
    quoted = shlex.quote(f"{field}={json.dumps(text, ensure_ascii=False)}")
    hint = f"To have it as it is, quote the value for YAML too: {OVERRIDE} {quoted}." if len(quoted) < 300 else ""
    if (misread := written_as(text)) is not None:
        found = f"'{text}', where YAML takes {misread}"
        raise InputError(option, field, found, "a value that YAML reads whole", hint)
    try:
        value = parse_yaml(text, f"{option} {field}")
    except InputError as error:
        raise InputError(error.source, error.field, error.found, error.expected, error.hint or hint) from error
    for key in reversed(keys):
        value = {key: value}
    return value


# Names that others give to a setting.
_OTHER_NAMES = {"data.test_every": "data.holdout_every"}


def _merge(into: dict, new: Mapping[str, Any], sources: dict[str, str], source: str, prefix: str = "") -> None:
    """Puts ``new`` over ``into``, section by section, and notes where each key came from."""
    for key, value in new.items():
        field = _OTHER_NAMES.get(prefix + key, prefix + key)
        key = field.removeprefix(prefix)
        sources[field] = source
        if not isinstance(value, Mapping):
            into[key] = value
            continue
        old = into.get(key)
        # Another kind of student has other keys: the base's are not inherited.
        if not isinstance(old, dict) or (field == "student" and STUDENT_KINDS.are_other(old, value)):
            into[key] = {}
        _merge(into[key], value, sources, source, f"{field}.")


def _asset_fields() -> Iterator[str]:
    for section, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for key, own in field.annotation.model_fields.items():
                if AssetPath in get_args(own.annotation):
                    yield f"{section}.{key}"


ASSETS = tuple(_asset_fields())
"""The settings that hold the path of an asset: all of type ``AssetPath | None``."""


def _asset_paths(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each section and key that hold an asset's path."""
    for section, key in (field.split(".") for field in ASSETS):
        mapping = data.get(section)
        if isinstance(mapping, dict) and isinstance(mapping.get(key), str) and mapping[key].strip():
            yield mapping, key


def _resolve_assets(data: dict[str, Any], root: Path, is_chosen: bool) -> None:
    """Makes paths absolute; one that is so already and not there is looked for under a root that was chosen."""
    for mapping, key in _asset_paths(data):
        given = os.path.expanduser(mapping[key])  # a user may have no home
        path = os.path.abspath(root / given)
        mapping[key] = str(taken_under(path, root) if is_chosen and os.path.isabs(given) else path)


def taken_under(path: str | Path, root: Path) -> Path:
    """A path or, where nothing is there, what its longest end names under the root of assets; this is logged."""
    moved = None if os.path.exists(path) else _under(Path(path), root)
    if moved is None:
        return Path(path)
    _tell_moved(str(path), moved)
    return moved


def _move_assets(data: dict[str, Any], root: Path) -> None:
    """Paths to the same files under another root, as far as they are there; a warning names the others."""
    if not root.is_dir():
        raise InputError("--assets", "folder", f"none at {root}", "the folder that the run's files are in")
    for mapping, key in _asset_paths(data):
        path = Path(mapping[key])
        if (moved := _under(path, root)) is None:
            _log.warning("%s: not found under --assets %s, so this path is used", path, root)
        else:
            if moved != path:
                _tell_moved(str(path), moved)
            mapping[key] = str(moved)


@cache  # a command may read its config more than once
def _tell_moved(path: str, taken: Path) -> None:
    _log.info("%s: %s is used instead (--assets)", path, taken)


def _under(path: Path, root: Path) -> Path | None:
    """What is there under a root by the longest end of a path, absolute; None: nothing."""
    parts = path.parts[path.is_absolute() :]  # earlier versions left some relative
    ends = (Path(os.path.abspath(root), *parts[n:]) for n in range(len(parts)))
    return next(filter(Path.exists, ends), None)


# Settings that are gone, which earlier versions wrote into every resolved config, with the value that meant "off".
# ``...``: any value, since it was of no effect without one of the others.
_RETIRED: dict[str, Any] = {
    "assistant_student": ...,
    "train.assistant": None,
    "train.assistant_share": ...,
    "train.pointwise_share": ...,
    "train.points_per_step": ...,
    "features.level": "sample",
    "features.balance": None,
    "compact.shrink": ...,
    "loss.distortion.weight": 0.0,
    **{f"loss.distortion.{key}": ... for key in ("warmup", "decay_start", "decay_end", "final")},
    "loss.distortion": {},
    **{f"loss.{term}.warmup": 0.0 for term in (*PICTURE_TERMS, *INTERNAL_TERMS)},
    "features.min_confidence": 0.0,
    "features.projector_width": 0,
    "fitting.fade_every": None,
    "student.blend": 0.0,
}


def _take_retired(data: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Takes out the settings that are gone; gives those that were on: the field, its value, and what was off."""
    for field, off in _RETIRED.items():
        *sections, key = field.split(".")
        mapping: Any = data
        for section in sections:
            mapping = mapping.get(section) if isinstance(mapping, dict) else None
        if isinstance(mapping, dict) and key in mapping:
            value = mapping.pop(key)
            if off is not ... and value != off:
                yield field, value, off


@cache  # a command may read its checkpoint more than once
def _tell_retired(source: str, field: str, value: str) -> None:
    _log.warning(
        "%s: trained with %s: %s. This setting no longer exists: training goes on without it.", source, field, value
    )
