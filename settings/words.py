"""The schema in words: what a key may be, which keys there are, and what is wrong with a value."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

Node = Mapping[str, Any]


class Problem(NamedTuple):
    """What is wrong with a config, in the terms of ``InputError``; ``field`` is dotted."""

    field: str
    found: str
    expected: str
    hint: str


def unknown_key(model: type[BaseModel], data: Mapping[str, Any]) -> Problem | None:
    """The first key of ``data`` that the model does not have, with the nearest one it has."""
    schema = expanded_schema(model)
    for prefix, key, known in _unknown_keys(schema, data):
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        elsewhere = [field for field, _ in fields(schema) if field.rpartition(".")[2] == key and field != prefix + key]
        nearest = [prefix + close[0]] if close else elsewhere[:1]
        hint = f"Did you mean {nearest[0]}?" if nearest else ""
        return Problem(prefix + key, "an unknown key", "one of " + ", ".join(known), hint)
    return None


def explain(model: type[BaseModel], data: Mapping[str, Any], error: ValidationError) -> Problem:
    """The first of pydantic's errors as a field, what was found there and what was expected."""
    entries = error.errors(include_url=False)
    problems = [(_explain(expanded_schema(model), data, entry), entry["type"] == "input") for entry in entries]
    # A union gives an error per member; the one that got farthest into the value tells most, and one of this program's
    # own words more than one of types.
    start = problems[0][0].field
    return max((pair for pair in problems if pair[0].field.startswith(start)), key=_depth)[0]


def _depth(pair: tuple[Problem, bool]) -> tuple[int, bool]:
    problem, is_own = pair
    return problem.field.count("."), is_own


def _explain(node: Node, value: Any, entry: Mapping[str, Any]) -> Problem:
    keys: list[str] = []
    # The location also names union members; only what the schema has as a key is part of the field.
    for part in entry["loc"]:
        nodes = [section[part] for section in _sections(node, value) if part in section]
        if nodes and isinstance(value, Mapping):
            node, value = nodes[0], value.get(part)
            keys.append(part)
    kind, context = entry["type"], entry.get("ctx", {})
    if kind == "input":
        field = ".".join(filter(None, [*keys, context["field"]]))
        return Problem(field, context["found"], context["expected"], context["hint"])
    is_absent = kind == "missing" and isinstance(entry["loc"][-1], str)  # not a list that is too short
    found = "nothing" if is_absent else show(value)
    hint = f"It is: {node['description']}." if "description" in node else ""
    expected = "a finite number" if kind == "finite_number" else in_words(node)
    return Problem(".".join(keys) or "top level", found, expected, hint)


def counted(count: int, noun: str) -> str:
    """``1 frame``, ``12 frames``, ``1,200 frames``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def show(value: object) -> str:
    """A value as it would stand in YAML, shortened."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def fields(schema: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Every dotted key of an expanded schema with its node, sections before their keys."""
    for option in options(schema):
        for key, node in option.get("properties", {}).items():
            yield prefix + key, node
            yield from fields(node, f"{prefix}{key}.")


def _sections(node: Node, value: object) -> list[Mapping[str, Node]]:
    """Keys of the sections that ``value`` may be: of one that comes in kinds, its own; none of a plain value."""
    sections = [option["properties"] for option in options(node) if "properties" in option]
    if "default_kind" not in node or not isinstance(value, Mapping):
        return sections
    kind = value.get("kind", node["default_kind"])
    return [keys for keys in sections if keys["kind"]["const"] == kind]


def _unknown_keys(node: Node, value: object, prefix: str = "") -> Iterator[tuple[str, str, list[str]]]:
    sections = _sections(node, value)
    if not isinstance(value, Mapping) or len(sections) != 1:
        return  # no section, or of no kind there is: pydantic says so
    for key, item in value.items():
        if key not in sections[0]:
            yield prefix, key, list(sections[0])
        else:
            yield from _unknown_keys(sections[0][key], item, f"{prefix}{key}.")


@lru_cache
def expanded_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's JSON schema with every reference replaced by what it refers to."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def expand(node: Any) -> Any:
        if isinstance(node, list):
            return [expand(item) for item in node]
        if not isinstance(node, dict):
            return node
        own = {key: expand(value) for key, value in node.items() if key not in ("$ref", "allOf")}
        for reference in [node, *node.get("allOf", [])]:
            if "$ref" in reference:
                own = expand(definitions[reference["$ref"].rpartition("/")[2]]) | own
        return own

    return expand(schema)


def options(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a schema node: the members of a union, or the node alone."""
    return [leaf for option in node.get("anyOf", node.get("oneOf", ())) for leaf in options(option)] or [node]


def in_words(node: Mapping[str, Any]) -> str:
    """What a value may be, in words: ``"an integer >= 1 or null"``."""
    return " or ".join(_option_in_words(option) for option in options(node))


def _option_in_words(node: Mapping[str, Any]) -> str:
    if "words" in node:
        return node["words"]
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return "one of " + ", ".join(f"`{value}`" for value in node["enum"])
    if "properties" in node:
        return "a section with keys " + ", ".join(node["properties"])
    if node["type"] == "array":
        fixed = node.get("prefixItems")
        if fixed:
            return f"{len(fixed)} values, each {in_words(fixed[0])}"
        few, many = (
            f" of at {word} {node[name]}" if name in node else ""
            for word, name in (("least", "minItems"), ("most", "maxItems"))
        )
        return f"a list{few}{many}, each {in_words(node['items'])}"
    plain = {"integer": "an integer", "number": "a number", "boolean": "true or false", "null": "null"}
    word = plain.get(node["type"], "a path" if node.get("format") == "path" else "text")
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = {
        sign: int(node[name]) if node[name] % 1 == 0 else node[name] for name, sign in signs.items() if name in node
    }
    if bounds.keys() == {">=", "<="}:
        return f"{word} in [{bounds['>=']}, {bounds['<=']}]"
    return f"{word} {' and '.join(f'{sign} {bound}' for sign, bound in bounds.items())}".rstrip()
