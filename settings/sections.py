"""What every section of the schema is made of: its base class, and the types of its values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError


def problem(field: str, found: object, expected: str, hint: str = "") -> PydanticCustomError:
    """The error a validator raises; ``field`` is relative to its section (dotted), empty for the value itself.

    ``settings.loading`` turns it into an ``InputError`` that names the file the field stands in.
    """
    context = {"field": field, "found": str(found), "expected": expected, "hint": hint}
    return PydanticCustomError("input", "found {found}, expected {expected}. {hint}", context)


def text_of(pattern: str, words: str) -> type[str]:
    """A string held to ``pattern``, which error messages and the reference call ``words``."""
    return Annotated[str, Field(pattern=pattern), WithJsonSchema({"type": "string", "words": words})]


def _power_of_two(value: int) -> int:
    if value < 8 or value & (value - 1):
        below = 1 << max(3, max(value, 1).bit_length() - 1)
        raise problem("", value, "a power of two, at least 8", f"The nearest are {below} and {2 * below}.")
    return value


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """A validator: no value twice."""
    if len(set(values)) < len(values):
        raise problem("", list(values), "each name once")
    return values


def _usable_path(value: object) -> object:
    text = str(value)
    if not text.strip():
        raise problem("", "an empty path", "the path of a file or folder", "For none, set it to null.")
    if "\0" in text or any(len(name.encode(errors="replace")) > 255 for name in Path(text).parts):
        shown = text[-50:].replace("\0", "\\0")
        raise problem("", f"'...{shown}'", "a path whose names have at most 255 bytes, none of them 0")
    return value


# File names are of at most 255 bytes, and a run's begin with these.
FolderName = text_of(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$", "at most 200 of A-Z, a-z, 0-9, `.`, `_`, `-`")
Tag = text_of(r"^[A-Za-z0-9_-]{0,100}$", "at most 100 of A-Z, a-z, 0-9, `_`, `-`, or nothing")
Device = text_of(r"^(auto|cpu|cuda(:[0-9]+)?)$", "`auto`, `cpu`, `cuda` or `cuda:N`")
FrameSlice = text_of(r"^(-?[0-9]+)?:(-?[0-9]+)?(:[1-9][0-9]*)?$", "a slice `START:STOP:STEP`")
PowerOfTwo = Annotated[
    int, AfterValidator(_power_of_two), WithJsonSchema({"type": "integer", "words": "a power of two, at least 8"})
]
AssetPath = Annotated[Path, Strict(False), BeforeValidator(_usable_path)]
FromList = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Vector = Annotated[tuple[float, float, float], FromList]
Unit = Annotated[float, Field(ge=0, le=1)]
Background = Literal["white", "black"] | Annotated[tuple[Unit, Unit, Unit], FromList]


Color = tuple[float, float, float]
"""sRGB in [0, 1]."""


def background_rgb(background: Background) -> Color:
    """A configured background as sRGB in [0, 1]."""
    return {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}.get(background, background)


class Section(BaseModel):
    """A part of the config: no unknown keys, no silent conversions, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
