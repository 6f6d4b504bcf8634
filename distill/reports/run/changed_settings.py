"""What a run's config says that the schema's defaults do not.

Not its difference to a ``base:`` file: that file may have changed since the run, a resolved config does not name it,
and two runs of different bases could not be compared. The defaults are the same for all runs of a version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticUndefined

from settings.config import Config
from settings.sections import Section

REQUIRED = PydanticUndefined
"""In place of the default of a setting that has none."""
KEYS_BELOW = object()
"""In place of the value of a setting that is a section here and a plain value by default: its keys follow."""


def changed_settings(config: Config) -> list[tuple[str, Any, Any]]:
    """Dotted key, the run's value (or ``KEYS_BELOW``) and the default (or ``REQUIRED``), in the schema's order.

    A section of another kind than the default's is compared with the defaults of its own kind.
    """
    return list(_changed(config, None, ""))


def _changed(section: Section, default: Section | None, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        usual = field.get_default(call_default_factory=True) if default is None else getattr(default, name)
        if not isinstance(value, Section):
            if value != usual:
                yield prefix + name, value, usual
            continue
        same_kind = type(value) is type(usual)
        if not same_kind and usual is not REQUIRED:
            kind = ".kind" if isinstance(usual, Section) else ""
            yield f"{prefix}{name}{kind}", getattr(value, "kind", KEYS_BELOW), getattr(usual, "kind", usual)
        yield from _changed(value, usual if same_kind else None, f"{prefix}{name}.")
