"""What a file is by its first bytes, whatever its name says. Nothing is unpickled or unpacked.

refuse_other_kinds(path, "JSON", "a transforms JSON file", "json")   # InputError: "found a Git LFS pointer, ..."
kind = file_kind(path)   # or ask: kind.key is "html", "zip", ...; None where nothing is recognised
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from settings.errors import InputError


class FileKind(NamedTuple):
    """What a file is: a key to ask for, its name in a message, what to do where something else was wanted."""

    key: str
    name: str
    hint: str = ""


COMPACT_MAGIC = b"\x89LRD\r\n\x1a\n"  # as PNG's: a transfer as text damages it
_HEAD_BYTES = 512
_WORDS = 8  # letters that make a text
_NOT_DOWNLOADED = "The download of the file itself failed: get it again."
_EMPTY = FileKind("empty", "an empty file", "The copy or the download failed: get it again.")
_ZEROS = FileKind("zeros", "nothing but zero bytes at its beginning", _EMPTY.hint)
_UTF16 = FileKind("utf-16", "text in UTF-16", "Save it as UTF-8.")
_UTF32 = FileKind("utf-32", "text in UTF-32", _UTF16.hint)
_TORCH = FileKind("torch", "a PyTorch checkpoint")
_PICKLE = FileKind("pickle", "a Python pickle")
_BY_MAGIC: tuple[tuple[bytes, FileKind], ...] = (
    (
        b"version https://git-lfs",
        FileKind("lfs", "a Git LFS pointer", "Run `git lfs pull` in its repository to get the file itself."),
    ),
    (COMPACT_MAGIC, FileKind("compact", "a compact student", "Name it where a checkpoint is wanted.")),
    (b"ply\n", FileKind("ply", "a PLY")),
    (b"ply\r", FileKind("ply", "a PLY")),
    (b"\x93NUMPY", FileKind("npy", "a NumPy .npy array")),
    (b"NGSP", FileKind("spz", "an SPZ splat")),
    (b"\x89PNG", FileKind("png", "a PNG picture")),
    (b"\xff\xd8\xff", FileKind("jpeg", "a JPEG picture")),
    (b"GIF8", FileKind("gif", "a GIF picture")),
    (b"II*\0", FileKind("tiff", "a TIFF picture")),
    (b"MM\0*", FileKind("tiff", "a TIFF picture")),
    (b"\x76\x2f\x31\x01", FileKind("exr", "an OpenEXR picture")),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9", _TORCH),
    *((bytes([0x80, protocol]), _PICKLE) for protocol in range(2, 6)),
    (b"\x89HDF", FileKind("hdf5", "an HDF5 file")),
    (b"glTF", FileKind("gltf", "a binary glTF model")),
    (b"%PDF", FileKind("pdf", "a PDF document")),
    (b"SQLite format 3", FileKind("sqlite", "an SQLite database")),
    (b"BZh", FileKind("archive", "a bzip2 file", "Unpack it first.")),
    (b"\xfd7zXZ", FileKind("archive", "an xz file", "Unpack it first.")),
    (b"7z\xbc\xaf\x27\x1c", FileKind("archive", "a 7-Zip archive", "Unpack it first.")),
    (b"Rar!", FileKind("archive", "a RAR archive", "Unpack it first.")),
    (b"\x28\xb5\x2f\xfd", FileKind("archive", "a Zstandard file", "Unpack it first.")),
    (b"\xff\xfe\0\0", _UTF32),
    (b"\0\0\xfe\xff", _UTF32),
    (b"\xff\xfe", _UTF16),
    (b"\xfe\xff", _UTF16),
)
_BY_TEXT: tuple[tuple[bytes, FileKind], ...] = (
    (b"<!doctype html", FileKind("html", "an HTML page", _NOT_DOWNLOADED)),
    (b"<html", FileKind("html", "an HTML page", _NOT_DOWNLOADED)),
    (b"<?xml", FileKind("xml", "an XML document", _NOT_DOWNLOADED)),
    (b"{", FileKind("json", "JSON text")),
    (b"[", FileKind("json", "JSON text")),
)


def file_kind(path: str | Path) -> FileKind | None:
    """What the file is; None where its first bytes say nothing, or where it cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return None
    if not head.strip():
        return _EMPTY
    if not head.strip(b"\0"):
        return _ZEROS
    # Before what begins with magic bytes: the first of these are a length, which may be like any of them.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < Path(path).stat().st_size:
        return FileKind("safetensors", "a safetensors file")
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head.startswith(b"\x1f\x8b"):
        return _kind_of_gzip(head)
    for magic, kind in _BY_MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return FileKind("webp", "a WebP picture")
    if head[257:262] == b"ustar":
        return FileKind("archive", "a tar archive", "Unpack it first.")
    # A byte order mark may be missing: every other byte of Latin letters is 0 then.
    if len(head) >= 8 and any(not head[odd::2].strip(b"\0") and 0 not in head[1 - odd :: 2] for odd in (0, 1)):
        return _UTF16
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, kind in _BY_TEXT:
        if text.startswith(beginning):
            return kind
    return None


def is_text(path: str | Path) -> bool:
    """Whether a file begins as text in UTF-8 does; a few bytes may be the beginning of anything."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    text = head.decode("utf-8", errors="replace")[:-1]  # the last letter may be cut
    return (
        len(text) >= _WORDS
        and all(letter.isprintable() or letter.isspace() for letter in text)
        and "\ufffd" not in text
    )


def refuse_other_kinds(path: str | Path, field: str, expected: str, *accepted: str) -> None:
    """InputError where the file is recognised as something whose key is not among ``accepted``.

    What is not recognised, or cannot be read, passes: its reader says what is wrong with it.
    """
    kind = file_kind(path)
    if kind is not None and kind.key not in accepted:
        raise InputError(path, field, kind.name, expected, kind.hint)


def _kind_of_zip(path: str | Path) -> FileKind:
    """A zip archive by its members' names."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return FileKind("zip", "a zip archive that is cut short or damaged", "Copy it again.")
    if any(name.endswith("data.pkl") for name in names):
        return _TORCH
    if names and all(name.endswith(".npy") for name in names):
        return FileKind("npz", f"a NumPy .npz archive of {_some(names)}")
    if "meta.json" in names and any(name.endswith(".webp") for name in names):
        return FileKind("sog", "a SOG splat")
    return FileKind("zip", f"a zip archive of {_some(names) or 'nothing'}", "Unpack it first.")


def _kind_of_gzip(head: bytes) -> FileKind:
    """A gzip file by the first bytes of what is in it."""
    try:
        inside = zlib.decompressobj(wbits=31).decompress(head, 4)
    except zlib.error:
        return FileKind("gzip", "a damaged gzip file", _EMPTY.hint)
    if inside == b"NGSP":
        return FileKind("spz", "an SPZ splat")
    return FileKind("gzip", "a gzip file", "Unpack it first (gunzip).")


def _some(names: list[str]) -> str:
    """The first few names, and how many there are besides."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(name.removesuffix(".npy") for name in names[:4]) + more
