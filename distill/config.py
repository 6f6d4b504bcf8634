"""YAML files and ``--set`` overrides to a checked ``Config``; a problem is an ``InputError`` naming its file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from distill.schema import Config
from distill.schema_words import explain, show, unknown_key
from scene.errors import InputError

REPO_ROOT = Path(__file__).resolve().parent.parent
OVERRIDE = "--set"
Model = TypeVar("Model", bound=BaseModel)


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
    for override in overrides:
        _merge(data, _parse_override(override), sources, OVERRIDE)
    _resolve_assets(data, Path(assets or REPO_ROOT))
    return validate(Config, data, sources, str(path))


def config_from_text(
    text: str, source: str | Path, overrides: Sequence[str] = (), assets: str | Path | None = None
) -> Config:
    """A config that ``to_yaml`` wrote, as checkpoints carry it, with overrides.

    Args:
        source: where the text is from, for messages.
        overrides: as for ``load_config``.
        assets: its paths are absolute; the longest end of one that names something under this folder is taken
            instead, so that a run made elsewhere finds its assets.

    Raises:
        InputError: as ``load_config``.
    """
    data: dict[str, Any] = {}
    sources: dict[str, str] = {}
    stored = _parse_yaml(text, str(source)) if isinstance(text, str) else text
    if not isinstance(stored, dict):
        raise InputError(source, "config", show(stored), "the config of its run", "Give one with --config.")
    _merge(data, stored, sources, str(source))
    if assets is not None:
        _move_assets(data, Path(assets))
    for override in overrides:
        _merge(data, _parse_override(override), sources, OVERRIDE)
    _resolve_assets(data, Path(assets or REPO_ROOT))
    return validate(Config, data, sources, str(source))


def validate(model: type[Model], data: Mapping[str, Any], sources: Mapping[str, str], default_source: str) -> Model:
    """``data`` as ``model``, or an ``InputError``; ``sources`` says which file a dotted key came from."""

    def source_of(field: str) -> str:
        while field and field not in sources:
            field = field.rpartition(".")[0]
        return sources.get(field, default_source)

    problem = unknown_key(model, data)
    if problem is None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            problem = explain(model, data, error)
    raise InputError(source_of(problem.field), problem.field, problem.found, problem.expected, problem.hint)


def to_yaml(config: Config) -> str:
    """The config as YAML that ``load_config`` reads back equal under any assets root (its paths are absolute)."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=115)


def check_assets(config: Config) -> None:
    """Checks that the files the teacher's kind needs are there, and that nothing measured is trained on.

    Raises:
        InputError: one is missing, or is a folder where a file is needed or the reverse; the JSON to train on is the
            one that is held out.
    """
    data, teacher = config.data, config.teacher
    measured = "views gaussians" if config.live else "views"
    assets = {
        "data.transforms": (data.transforms, Path.is_file, "a transforms_*.json", "views images gaussians"),
        "data.train_transforms": (config.training_json, Path.is_file, "the JSON of the training poses", "all"),
        "data.ground_truth": (config.image_json, Path.is_file, "the JSON of the split's images", "all"),
        "teacher.outputs": (teacher.outputs, Path.is_dir, "a folder with renders/ and depth/", measured),
        "teacher.ply": (teacher.ply, Path.is_file, "a 3DGS point_cloud.ply", "views gaussians"),
    }
    for field, (path, is_there, expected, kinds) in assets.items():
        if path is None or not (kinds == "all" or teacher.kind in kinds.split()) or is_there(path):
            continue
        hint = f"Put it there, say where it is with `--set {field}=PATH`, or name another root with --assets."
        if field == "data.ground_truth":
            hint = "Name another split, or set data.ground_truth: true to train on the teacher alone."
        if field == "teacher.ply" and teacher.kind == "views":
            hint += f" Or do without: `--set {field}=null` takes the first occupancy from the views."
        if field == "teacher.outputs" and teacher.kind == "gaussians":
            hint += f" Or do without: `--set {field}=null` measures against renders made here."
        found = "something of another type" if path.exists() else "nothing"
        raise InputError(path, field, found, expected, hint)
    if config.training_json is None:
        return
    for field, path in (("data.train_transforms", config.training_json), ("data.ground_truth", config.image_json)):
        if path is not None and path.samefile(data.transforms):
            found, expected = "the file of data.transforms, all of which is held out", "another one"
            raise InputError(path, field, found, expected, "Set data.transforms to the poses to measure on.")


# --- reading -----------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core types: ``1e-3`` is a number, ``on`` and ``1:50:2`` are text; a repeated key is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a key that is not text", problem_mark=key_node.start_mark)
            if key in mapping:
                raise yaml.MarkedYAMLError(problem=f"a second key '{key}'", problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


class _Dumper(yaml.SafeDumper):
    """Quotes by the loader's rules, so that what is written reads back equal."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_mapping)
_NUMBER = r"(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|True|false|False", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", rf"[-+]?({_NUMBER}|\.inf)|\.nan", list("-+.0123456789")),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)


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


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's top level by the rules of configs; a fresh mapping.

    Raises:
        InputError: unreadable, not UTF-8, invalid YAML, a key given twice, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a readable YAML file", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(path, "file", "bytes that are not UTF-8", "a YAML text file") from error
    data = _parse_yaml(text, str(path))
    if not isinstance(data, dict):
        found = "an empty file" if data is None else show(data)
        raise InputError(path, "top level", found, "`key: value` lines", "See configs/quickstart.yaml.")
    return data


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(source, f"line {line}", error.problem, "valid YAML with each key once") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(source, "text", " ".join(str(error).split()), "valid YAML") from error


def _parse_override(override: str) -> dict[str, Any]:
    field, equals, text = override.partition("=")
    keys = field.strip().split(".")
    if not equals or not all(keys):
        raise InputError(OVERRIDE, "argument", f"'{override}'", "section.key=value", "E.g. --set train.lr=5e-3.")
    value = _parse_yaml(text, f"{OVERRIDE} {field}")
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge(into: dict, new: Mapping[str, Any], sources: dict[str, str], source: str, prefix: str = "") -> None:
    """Puts ``new`` over ``into``, section by section, and notes where each key came from."""
    for key, value in new.items():
        field = prefix + key
        sources[field] = source
        if not isinstance(value, Mapping):
            into[key] = value
            continue
        old = into.get(key)
        # another kind of student has other keys: the base's are not inherited
        if not isinstance(old, dict) or (field == "student" and "kind" in value and value["kind"] != old.get("kind")):
            into[key] = {}
        _merge(into[key], value, sources, source, f"{field}.")


_ASSETS = (
    ("data", "transforms"),
    ("data", "train_transforms"),
    ("teacher", "outputs"),
    ("teacher", "ply"),
    ("features", "file"),
)


def _asset_paths(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each section and key that hold an asset's path."""
    for section, key in _ASSETS:
        mapping = data.get(section)
        if isinstance(mapping, dict) and isinstance(mapping.get(key), str):
            yield mapping, key


def _resolve_assets(data: dict[str, Any], root: Path) -> None:
    for mapping, key in _asset_paths(data):
        mapping[key] = os.path.abspath(root / Path(mapping[key]).expanduser())


def _move_assets(data: dict[str, Any], root: Path) -> None:
    """Paths to the same files under another root, as far as they are there."""
    for mapping, key in _asset_paths(data):
        parts = Path(mapping[key]).parts[1:]
        ends = (root.joinpath(*parts[n:]) for n in range(len(parts)))
        mapping[key] = str(next((path for path in ends if path.exists()), mapping[key]))
