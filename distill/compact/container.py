"""The compact file: magic, header, sections, seal. Read as data only, and bounded before anything is made room for.

Bytes: 8 magic; 4 length of the header, little-endian; the header, JSON in UTF-8, deflated (zlib); the sections, whose
lengths the header gives, one after another; 32 SHA-256 of all before.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine.file_kinds import COMPACT_MAGIC, file_kind
from machine.memory import MIB
from settings.errors import InputError

FIELD, EXPECTED = "compact file", "a whole compact file of this program"
_SEAL = hashlib.sha256().digest_size
_HEADER_LENGTH = struct.Struct("<I")
_LARGEST_HEADER = 1 << 20  # bytes, unpacked
_DAMAGED = "It was cut short or damaged after it was written; use another one."


def is_compact(path: str | Path) -> bool:
    """Whether a file is a compact one by its first bytes."""
    kind = file_kind(path)
    return kind is not None and kind.key == "compact"


def check_size(source: str, field: str, most_mib: float, taken: float) -> None:
    """InputError where a file of so many MiB has no room for weights beside the bytes that all else takes."""
    if int(most_mib * MIB) <= taken:
        hint = "Header and occupied cells alone take that much; a smaller occupancy.resolution takes less."
        raise InputError(source, field, f"{most_mib:g} MiB", f"more than {taken / MIB:.4f} MiB", hint)


def packed_container(header: Mapping[str, Any], sections: Mapping[str, bytes]) -> bytes:
    """The bytes of a file.

    Args:
        header: plain values; ``sections``, the length of each, is added.
    """
    lengths = {name: len(section) for name, section in sections.items()}
    text = json.dumps({**header, "sections": lengths}, separators=(",", ":")).encode()
    packed = zlib.compress(text, 9)
    content = b"".join([COMPACT_MAGIC, _HEADER_LENGTH.pack(len(packed)), packed, *sections.values()])
    return content + hashlib.sha256(content).digest()


def read_container(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The header, and the sections, by name.

    Raises:
        InputError: cut short, damaged, or of another kind.
    """
    content = path.read_bytes()
    start = len(COMPACT_MAGIC) + _HEADER_LENGTH.size
    if len(content) < start + _SEAL or not content.startswith(COMPACT_MAGIC):
        raise InputError(path, FIELD, f"{len(content)} bytes without its parts", EXPECTED, _DAMAGED)
    if hashlib.sha256(content[:-_SEAL]).digest() != content[-_SEAL:]:
        raise InputError(path, FIELD, "bytes that do not match its checksum", EXPECTED, _DAMAGED)
    (length,) = _HEADER_LENGTH.unpack_from(content, len(COMPACT_MAGIC))
    body = content[start + length : -_SEAL]
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(content[start : min(start + length, len(content) - _SEAL)], _LARGEST_HEADER)
        if not unpacker.eof or unpacker.unused_data:
            raise ValueError(f"of more than {_LARGEST_HEADER} bytes, or cut short")
        header = json.loads(text)
        lengths = header.pop("sections")
        if not all(type(each) is int and each >= 0 for each in lengths.values()) or sum(lengths.values()) != len(body):
            raise ValueError(f"sections of {lengths} bytes, where {len(body)} follow")
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        found = f"something unreadable ({type(error).__name__}: {str(error)[:100]})"
        raise InputError(path, "header", found, "a header of this program", "Use another file.") from error
    sections, place = {}, 0
    for name, size in lengths.items():
        sections[name] = body[place : place + size]
        place += size
    return header, sections
