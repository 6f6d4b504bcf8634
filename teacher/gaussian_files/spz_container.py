"""What holds the Gaussians of a ``.spz``: one gzip stream up to version 3, a stream of zstd for each array from 4 on.

The decoder takes all the memory that a header asks for, and tells little of what is wrong. So a file is unpacked in
parts first, and is held to its header.
"""

from __future__ import annotations

import importlib
import logging
import struct
import zlib
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from settings.errors import InputError
from teacher.gaussian_files.checks import DAMAGED, warn_of_antialiasing
from teacher.gaussian_files.other_files import CONVERT

_log = logging.getLogger(__name__)

# Magic, version, Gaussians, degree, bits of a position's fraction, flags, reserved.
_HEADER = struct.Struct("<4sIIBBBB")
# From version 4 on: the same, but how many streams for the reserved byte; where the table of streams begins; reserved.
_STREAMED_HEADER = struct.Struct("<4sIIBBBBI12x")
_STREAM = struct.Struct("<QQ")  # of the table: bytes of a stream packed, and unpacked
_MAGIC, _ZIPPED, _STREAMED, _VERSIONS = b"NGSP", (2, 3), 4, "2 to 4"
_ANTIALIASED, _HAS_EXTENSIONS = 1, 2  # flags
_PART = 1 << 20  # bytes that are unpacked at a time
_ZSTD_PART = 1 << 10  # packed bytes that are unpacked at a time: 4 of zstd's may stand for 128 KiB
_RECORD = struct.Struct("<II")  # of an extension: its type, and how many bytes come after this
_AXES_RECORD = 0xADBE0003
# Where x, y and z look (left or right, down or up, back or front), by that record's number.
_AXES = "RUB LDB RDB LUB RUB LDF RDF LUF RUF LFD RFD LFU RFU LBD RBD LBU RBU".split()  # noqa: SIM905
OWN_AXES = "RUB"
"""Where x, y and z look in SPZ: right, up, back."""
READ_AXES = (OWN_AXES, "RDF", "LUF", "LDB")
"""Those that are the others' by half a turn about one of them."""
_OTHER_HEADER = "Its header is another file's: export it again."


def check_container(path: str | Path) -> str:
    """Checks an SPZ file byte by byte: its kind, its length, the checksum of gzip; warns of what is ignored.

    Returns one of ``READ_AXES``: those that its Gaussians are in.

    Raises:
        InputError: it is not packed, of another version or degree, cut short, altered, or longer than it says; an
            extension says that it is in axes that are not read; version 4 without zstandard.
    """
    axes = OWN_AXES
    data = Path(path).read_bytes()
    if data[:4] == _MAGIC:
        flags, extensions = _check_streams(path, data)
    else:
        flags, extensions = _check_zipped(path, data)
    if extensions:
        axes, ignored = _read_axes(path, extensions)
        if ignored:
            _log.warning("%s: %d bytes of extensions are ignored", path, ignored)
    if flags & _ANTIALIASED:
        warn_of_antialiasing(path, "its header says so")
    return axes


def import_package(path: str | Path, package: str) -> ModuleType:
    """A package that reads SPZ; InputError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        hint = "pip install 'lego-response-distill[spz]', or use .ply or .npz."
        found = f"no package {package} ({error})"
        raise InputError(path, "spz file", found, f"{package}, which reads SPZ", hint) from None


def _check_zipped(path: str | Path, data: bytes) -> tuple[int, bytes]:
    """Flags and extensions of a file of version 2 or 3."""
    name = Path(path).name
    try:
        header, held, last = _unzipped(data)
    except (zlib.error, EOFError) as error:
        _refuse_damaged(path, error)
    magic, version, count, degree, _, flags, _ = _HEADER.unpack(header)
    if magic == _MAGIC and version == _STREAMED:
        hint = f"Unpack it: mv {name} {name}.gz && gunzip {name}.gz"
        raise InputError(path, "spz file", f"version {version} inside of gzip", "that version as it is", hint)
    if magic != _MAGIC or version not in _ZIPPED:
        raise InputError(path, "SPZ version", version, _VERSIONS, CONVERT.format(name=name))
    size = sum(_sizes(path, version, count, degree))
    if held < size or (held > size and not flags & _HAS_EXTENSIONS):
        raise InputError(path, "spz file", f"{held} bytes for {count} Gaussians", f"{size} bytes", _OTHER_HEADER)
    if (extensions := held - size) > _PART:
        raise InputError(
            path, "spz file", f"{extensions} bytes of extensions", f"at most {_PART}", "Export it without them."
        )
    return flags, last[len(last) - extensions :]


def _check_streams(path: str | Path, data: bytes) -> tuple[int, bytes]:
    """Flags and extensions of a file of version 4."""
    name, version = Path(path).name, int.from_bytes(data[4:8], "little")
    if len(data) >= _HEADER.size and version < _STREAMED:
        hint = f"Pack it: gzip {name} && mv {name}.gz {name}"
        raise InputError(path, "spz file", "an unpacked SPZ", "a gzip-compressed one", hint)
    if len(data) < _STREAMED_HEADER.size:
        _refuse_damaged(path, "it ends early")
    if version > _STREAMED:
        raise InputError(path, "SPZ version", version, _VERSIONS, CONVERT.format(name=name))
    *_, count, degree, _, flags, streams, table = _STREAMED_HEADER.unpack_from(data)
    sizes = _sizes(path, version, count, degree)
    extensions, start = table - _STREAMED_HEADER.size, table + streams * _STREAM.size
    if streams != len(sizes) or extensions < 0 or (extensions and not flags & _HAS_EXTENSIONS):
        found = f"{streams} streams, with their table at byte {table}"
        raise InputError(
            path, "spz file", found, f"{len(sizes)} streams, at byte {_STREAMED_HEADER.size}", _OTHER_HEADER
        )
    if start > len(data):
        _refuse_damaged(path, "it ends early")
    entries = list(_STREAM.iter_unpack(data[table:start]))
    if (unpacked := [size for _, size in entries]) != sizes:
        raise InputError(
            path, "spz file", f"streams of {unpacked} bytes for {count} Gaussians", f"{sizes} bytes", _OTHER_HEADER
        )
    end = start + sum(packed for packed, _ in entries)
    if end != len(data):
        raise InputError(path, "spz file", f"{len(data)} bytes", f"{end}, which its header says", DAMAGED)
    zstandard = import_package(path, "zstandard")
    for packed, size in entries:
        try:
            _check_stream(zstandard, memoryview(data)[start : start + packed], size)
        except (zstandard.ZstdError, EOFError) as error:
            _refuse_damaged(path, error)
        start += packed
    return flags, data[_STREAMED_HEADER.size : table]


def _sizes(path: str | Path, version: int, count: int, degree: int) -> list[int]:
    """Bytes of positions, opacities, colours, scales, rotations and harmonics, less those that have none."""
    if degree > 3:
        raise InputError(path, "degree of the harmonics", degree, "0 to 3", "Export it with a degree of at most 3.")
    each = 9, 1, 3, 3, 3 + (version >= 3), 3 * ((degree + 1) ** 2 - 1)
    return [size * count for size in each if size * count]


def _unzipped(data: bytes) -> tuple[bytes, int, bytes]:
    """Header of a gzip stream, how many bytes of it come after that, and the last of them (``_PART`` or more).

    Raises:
        zlib.error, EOFError: the stream is altered, cut short, or not all of the file.
    """
    unpack = zlib.decompressobj(wbits=31)
    header, held, last = unpack.decompress(data, _HEADER.size), 0, []
    while not unpack.eof and (part := unpack.decompress(unpack.unconsumed_tail, _PART)):
        held += len(part)
        last = [*last[-1:], part]
    if not unpack.eof or len(header) < _HEADER.size:
        raise EOFError("it ends early")
    if unpack.unused_data:
        raise EOFError(f"{len(unpack.unused_data)} bytes come after its end")
    return header, held, b"".join(last)


def _read_axes(path: str | Path, extensions: bytes) -> tuple[str, int]:
    """The axes that an extension, SPZ_ADOBE_coordinate_system, names, else SPZ's own; and bytes of other extensions.

    Raises:
        InputError: they are not read.
    """
    axes, place, ignored = OWN_AXES, 0, len(extensions)
    while place + _RECORD.size <= len(extensions):
        kind, length = _RECORD.unpack_from(extensions, place)
        place += _RECORD.size
        if kind == _AXES_RECORD and length == 4:
            number = int.from_bytes(extensions[place : place + length], "little")
            axes = _AXES[number] if number < len(_AXES) else f"number {number}"
            if axes not in READ_AXES:
                found = f"{axes}, as its extension SPZ_ADOBE_coordinate_system says"
                expected = f"{', '.join(READ_AXES[:-1])} or {READ_AXES[-1]} (right or left, up or down, back or front)"
                raise InputError(path, "axes", found, expected, CONVERT.format(name=Path(path).name))
            ignored -= _RECORD.size + length
        place += length
    return axes, ignored


def _check_stream(zstandard: ModuleType, left: memoryview, size: int) -> None:
    """Raises ZstdError or EOFError where a stream of zstd is not whole, not all of the data, or not of that size."""
    unpack, held = zstandard.ZstdDecompressor().decompressobj(), 0
    while left and not unpack.eof and held <= size:
        held += len(unpack.decompress(left[:_ZSTD_PART]))
        left = left[_ZSTD_PART:]
    if left or unpack.unused_data or not unpack.eof or held != size:
        raise EOFError(f"a stream is not of the {size} bytes that its header says")


def _refuse_damaged(path: str | Path, why: object) -> NoReturn:
    raise InputError(path, "spz file", f"unreadable data ({why})", "a whole .spz file", DAMAGED) from None
