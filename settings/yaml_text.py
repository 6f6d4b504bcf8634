"""YAML by the rules of configs: YAML 1.2's core types, no key twice, and errors that name file and line."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Any

import yaml

from settings.errors import InputError
from settings.words import show


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file's top level by the rules of configs; a fresh mapping.

    Raises:
        InputError: unreadable, no text, invalid YAML, a key given twice, or no mapping.
    """
    try:
        text = _decoded(path.read_bytes())
    except OSError as error:
        raise InputError(path, "file", error.strerror, "a readable YAML file", "Check the path.") from error
    except ValueError as error:
        raise InputError(path, "file", str(error), "a YAML text file", "See configs/quickstart.yaml.") from error
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        found = "an empty file" if data is None else show(data)
        raise InputError(path, "top level", found, "`key: value` lines", "See configs/quickstart.yaml.")
    return data


def _decoded(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 with its mark; ``ValueError`` says what it is instead."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise ValueError("text in UTF-32: save it as UTF-8")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    if data.startswith(b"version https://git-lfs"):
        raise ValueError("a Git LFS pointer: `git lfs pull` gets the file itself")
    if data.lstrip().startswith(b"<"):
        raise ValueError("an HTML or XML page, not what was to be downloaded")
    if b"\0" in data:
        raise ValueError("binary data")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("bytes that are not UTF-8") from error


def written_as(text: str) -> str | None:
    """What YAML would make of a value in a way that nobody means who types one line; None: nothing of the kind."""
    try:
        tokens = list(yaml.scan(text))[:-1]
    except yaml.YAMLError:
        return None
    rest = text[max(token.end_mark.index for token in tokens) :].lstrip()
    if rest.startswith("#"):
        return f"'{rest}' for a comment"
    if any(isinstance(token, yaml.BlockMappingStartToken) for token in tokens):
        return "': ' for a key and its value"
    return None


def parse_yaml(text: str, source: str) -> Any:
    """``text`` as plain values.

    Args:
        source: where it is from, for messages.

    Raises:
        InputError: invalid YAML, or a key given twice.
    """
    try:
        return yaml.load(text, Loader=_FastLoader)
    except Exception:  # the other says what is wrong in one wording, with libyaml or without
        pass
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        found, hint = str(error.problem).removeprefix("found "), ""
        if r"'\t'" in found:
            found, hint = f"a tab at column {error.problem_mark.column + 1}", "Indent with spaces."
        raise InputError(source, f"line {line}", found, "valid YAML with each key once", hint) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(source, "text", " ".join(str(error).split()), "valid YAML") from error
    except (KeyError, IndexError, AttributeError, TypeError) as error:  # PyYAML, of a tag like !!bool and no such value
        raise InputError(source, "text", "a value that its !!tag does not allow", "valid YAML", "No tags.") from error


def dump_yaml(data: Any) -> str:
    """``data`` as YAML text that ``parse_yaml`` reads back equal."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=115)


_MOST_DIGITS = 18  # of an integer that 64 bits hold


class _CoreTypes:
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

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > _MOST_DIGITS:
            problem = f"an integer of {len(node.value)} digits, more than 64 bits hold"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


class _Loader(_CoreTypes, yaml.SafeLoader):
    """In Python."""


class _FastLoader(_CoreTypes, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """By libyaml, where PyYAML has it: a tenth of the time, of which thousands of blocks take much."""


class _Dumper(yaml.SafeDumper):
    """Quotes by the loader's rules, so that what is written reads back equal."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _FastLoader):
    _class.add_constructor("tag:yaml.org,2002:map", _class.construct_mapping)
    _class.add_constructor("tag:yaml.org,2002:int", _class.construct_yaml_int)
_NUMBER = r"(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|True|false|False", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", rf"[-+]?({_NUMBER}|\.inf)|\.nan", list("-+.0123456789")),
):
    for _class in (_Loader, _FastLoader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), _first)
