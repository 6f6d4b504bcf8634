"""JSON as people save it: a byte order mark is read; what is no JSON is named, with its line and column."""

from __future__ import annotations

import json
from pathlib import Path

from machine.file_kinds import refuse_other_kinds
from settings.errors import InputError

_MOST_DIGITS = 4000  # Python itself reads no integers of more than 4300


def is_number(value: object) -> bool:
    """Whether a value of a JSON is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_json(path: Path, expected: str) -> object:
    """The content of a UTF-8 file.

    Args:
        expected: what the file should be, for messages.

    Raises:
        InputError: the file is missing, of another kind or encoding, or its text is no JSON.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, "file", error.strerror or error, expected) from error
    refuse_other_kinds(path, "file", expected, "json")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 ({data[error.start]:#04x} at {error.start})"
        raise InputError(path, "text", found, expected, "Save it as UTF-8.") from error
    try:
        return json.loads(text, parse_int=_integer)
    except json.JSONDecodeError as error:
        if (other := _other_text(path, text)) is not None:
            raise InputError(path, "file", other, expected) from error
        what, hint = _mistake(text, error)
        found = f"invalid text at line {error.lineno}, column {error.colno}: {what}"
        raise InputError(path, "JSON", found, "a whole JSON document", hint) from error
    except _TooLong as error:
        before = text[: text.index(error.digits)]
        place = f"line {before.count(chr(10)) + 1}, column {len(before) - before.rfind(chr(10))}"
        raise InputError(path, "JSON", f"{error} at {place}", f"at most {_MOST_DIGITS} digits") from error
    except (ValueError, RecursionError) as error:  # brackets thousands deep
        raise InputError(path, "JSON", f"invalid text ({error})", "a whole JSON document") from error


def _other_text(path: Path, text: str) -> str | None:
    """What a text is that was never meant to be JSON; None where it may have been."""
    if path.suffix.lower() in (".yaml", ".yml"):
        return "a YAML file"
    start = text.lstrip()
    if start[:1] in ("{", "[", '"', "#", "/"):
        return None
    return f"no JSON, but text that begins with '{start.splitlines()[0][:40]}'"


class _TooLong(Exception):
    """A number that no reader of JSON expects."""

    def __init__(self, digits: str) -> None:
        super().__init__(f"an integer of {len(digits)} digits")
        self.digits = digits


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _TooLong(digits)
    return int(digits)


def _mistake(text: str, error: json.JSONDecodeError) -> tuple[str, str]:
    """What is wrong there, and what to do about it."""
    before, after = text[: error.pos].rstrip(), text[error.pos :].lstrip()
    if text.startswith(("# Camera list", "# Image list", "# 3D point list")):
        return "a COLMAP text model", "Export a transforms.json from it, with nerfstudio or instant-ngp."
    # Python before 3.13 stops at the bracket, later ones at the comma.
    if (before.endswith(",") and after[:1] in ("]", "}")) or after[:1] == "," and after[1:].lstrip()[:1] in ("]", "}"):
        return "a comma before a closing bracket", "Remove the comma."
    if after.startswith(("//", "/*", "#")):
        return f"a comment, '{after.splitlines()[0][:40]}'", "JSON has no comments: remove it."
    if not after or error.msg.startswith("Unterminated string"):
        return "the text ends there", "The file is cut short: copy it again."
    return f"{error.msg}, found '{after.splitlines()[0][:40]}'", "Mend the text there."
