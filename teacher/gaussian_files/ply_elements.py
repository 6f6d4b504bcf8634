"""The elements of a PLY, whatever they mean: its header, then the data with every byte accounted for.

Turk 1994: a text header of elements and their properties, then the rows of each element in turn, binary or text.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from settings.errors import InputError
from teacher.gaussian_files.checks import DAMAGED

_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
_TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
_TYPES |= {"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"}
_BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 20
_MOST_BLANK = 4


@dataclass
class Element:
    """An element as the header announces it.

    Attributes:
        types: property -> its type as numpy knows it, without byte order.
        lists: properties that are lists.
    """

    name: str
    count: int
    types: dict[str, str] = field(default_factory=dict)
    lists: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Header:
    """What a PLY announces.

    Attributes:
        form: "ascii", "binary_little_endian" or "binary_big_endian".
        elements: by name, in the file's order.
        comments: what stands after ``comment`` and ``obj_info``.
        size: bytes of the header.
    """

    form: str
    elements: dict[str, Element]
    comments: tuple[str, ...]
    size: int


def read_header(path: str | Path) -> Header:
    """The header of a PLY, its lines ended in any way; InputError where it is none, with its line."""
    with open(path, "rb") as file:
        head = file.read(_LONGEST_HEADER)
    if head[:4] not in (b"ply\n", b"ply\r"):
        raise InputError(path, "first bytes", head[:4], "b'ply\\n'", "This is not a PLY file.")
    # A line feed after a carriage return is a first byte of data where carriage returns alone end the lines.
    line_end = rb"\r" if re.match(rb"ply\r(?!\n)", head) else rb"\r?\n"
    end = re.search(rb"[\r\n]end_header[ \t]*" + line_end, head)
    if end is None:
        raise InputError(path, "PLY header", "no line end_header", "a whole header", DAMAGED)
    lines = re.split(r"\r\n|\n|\r", head[: end.start()].decode("utf-8", errors="replace"))
    forms: list[str] = []
    elements: dict[str, Element] = {}
    comments: list[str] = []
    for number, line in enumerate(lines[1:], 2):
        if not _understand(line, forms, elements, comments):
            expected = "format, element NAME COUNT or property TYPE NAME of PLY 1.0, each name once"
            match line.split():
                case ["property", kind, _] if kind not in _TYPES:
                    hint = f"PLY 1.0 has no type {kind[:20]}: export the file with floats."
                case _:
                    hint = DAMAGED
            raise InputError(path, "PLY header", f"line {number}: '{line[:80]}'", expected, hint)
    if len(forms) != 1:
        raise InputError(path, "PLY header", f"{len(forms)} lines format", "one", DAMAGED)
    return Header(forms[0], elements, tuple(comments), end.end())


def _understand(line: str, forms: list[str], elements: dict[str, Element], comments: list[str]) -> bool:
    """Adds what a line of a header says; whether it says anything."""
    match line.split():
        case []:
            return True
        case ["comment" | "obj_info", *_]:
            comments.append(line.strip().partition(" ")[2])
        case ["format", form, "1.0"] if form in _BYTE_ORDERS:
            forms.append(form)
        case ["element", name, count] if name not in elements and re.fullmatch("[0-9]{1,18}", count):
            elements[name] = Element(name, int(count))
        case ["property", *kinds, name] if elements:
            element = next(reversed(elements.values()))
            if name in element.types or name in element.lists:
                return False
            match kinds:
                case [kind] if kind in _TYPES:
                    element.types[name] = _TYPES[kind]
                case ["list", length, kind] if length in _TYPES and kind in _TYPES:
                    element.lists.append(name)
                case _:
                    return False
        case _:
            return False
    return True


def read_elements(path: str | Path, header: Header) -> dict[str, np.ndarray]:
    """The rows of the elements as structured arrays: of a binary file mapped, not read, of a text all float64.

    Elements that hold lists, and what comes after them, are left out: they are as long as they say themselves.

    Raises:
        InputError: the file holds fewer or more rows than its header announces.
    """
    elements = [element for element in header.elements.values() if element.count]
    of_lists = next((i for i, element in enumerate(elements) if element.lists), len(elements))
    fixed, is_whole = elements[:of_lists], of_lists == len(elements)
    text = _numbers(path, header) if header.form == "ascii" else None
    order, rows = _BYTE_ORDERS[header.form], {}
    for element in fixed:
        names = element.types.items()
        rows[element.name] = np.dtype([(name, "f8" if text is not None else order + kind) for name, kind in names])
    sizes = [element.count * rows[element.name].itemsize for element in fixed]
    held = Path(path).stat().st_size - header.size if text is None else text.nbytes
    more = held - sum(sizes)
    if more < 0 or (more > 0 and is_whole and not (text is None and _ends_blank(path, more))):
        _refuse_amount(path, fixed, sizes, more)
    start, elements_read = 0, {}
    for element, size in zip(fixed, sizes, strict=True):
        if size and text is None:
            place = header.size + start
            elements_read[element.name] = np.memmap(path, rows[element.name], "r", place, (element.count,))
        elif size:
            elements_read[element.name] = text[start // 8 : (start + size) // 8].view(rows[element.name])
        start += size
    return elements_read


def _numbers(path: str | Path, header: Header) -> np.ndarray:
    """The numbers of a text PLY, float64."""
    text = Path(path).read_bytes()[header.size :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns of words that are no numbers
        try:
            return np.fromstring(text, dtype=np.float64, sep=" ") if text.strip() else np.empty(0)
        except (DeprecationWarning, ValueError):
            raise InputError(path, "PLY data", "words that are no numbers", "numbers", DAMAGED) from None


def _ends_blank(path: str | Path, count: int) -> bool:
    """Whether the last few bytes of a file are line ends, as an editor leaves them."""
    with open(path, "rb") as file:
        file.seek(-count, os.SEEK_END)
        return count <= _MOST_BLANK and not file.read(count).strip()


def _refuse_amount(path: str | Path, elements: list[Element], sizes: list[int], more: int) -> NoReturn:
    """Raises the InputError that the data are more bytes than the elements announce, or fewer (``more`` below 0)."""
    if not elements:
        raise InputError(path, "PLY data", f"{more} bytes left over", "none, since no element has rows", DAMAGED)
    size, element = max(zip(sizes, elements, strict=True), key=lambda pair: pair[0])
    row = size // element.count
    announced = f"{element.count} rows of {row} bytes announced for element {element.name}"
    rows = f"({abs(more) / max(row, 1):.4g} rows)"
    if more < 0:
        found = f"{announced}, and an early end: {-more} bytes are missing {rows}"
        raise InputError(path, "PLY data", found, "a complete PLY file", DAMAGED)
    hint = "The header belongs to other data, or rows were added without counting them: export it again."
    raise InputError(path, "PLY data", f"{announced}, and {more} bytes left over {rows}", "nothing left over", hint)
