"""Sections that come in kinds, each defined beside what it configures, on a floor above this one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from settings.sections import Section, problem
from settings.words import expanded_schema


class Kinds:
    """The sections that a key of the config may hold, told apart by their ``kind``; annotates the key's field.

    They are looked up when a config is read, not when the schema is made: each joins as its module is imported.

    Args:
        package: what to import so that all have joined, for the message where none has.
        default: the kind of a section that names none.
    """

    def __init__(self, package: str, default: str) -> None:
        self._package, self._default = package, default
        self._sections: dict[str, type[Section]] = {}

    def add(self, section: type[Section]) -> None:
        """Lets configs name the section by the default of its ``kind``, a literal."""
        self._sections[section.model_fields["kind"].default] = section
        expanded_schema.cache_clear()

    def make_default(self) -> Section:
        """The section of a config that does not have it."""
        return self._known()[self._default]()

    def are_other(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Whether what is put over a section names another kind than it has."""
        return "kind" in new and new["kind"] != old.get("kind", self._default)

    def _known(self) -> dict[str, type[Section]]:
        if not self._sections:
            raise RuntimeError(f"import {self._package} first: it says what a config may hold here")
        return self._sections

    def _read(self, value: Any) -> Section:
        known = self._known()
        read = value.get if isinstance(value, Mapping) else partial(getattr, value)
        kind = read("kind", self._default)
        if not isinstance(kind, str) or kind not in known:
            raise problem("kind", kind, "one of " + ", ".join(known))
        # A ValidationError of the section's becomes part of the whole config's, with the key before its location.
        return known[kind].model_validate(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        sections = [handler(section.__pydantic_core_schema__) for section in self._known().values()]
        return {"oneOf": sections, "default_kind": self._default}


STUDENT_KINDS = Kinds(package="students", default="hash_grid")
StudentSection = Annotated[Section, STUDENT_KINDS]
"""What is distilled into: the section of one kind of student, each defined with its student in ``students``."""
