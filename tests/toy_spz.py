"""The bytes of small SPZ files."""

import gzip
import struct

import zstandard

HEADER = struct.Struct("<4sIIBBBB")


def arrays(version=3, count=2, degree=0, rotation=None):
    """Gaussians at (1, -2, 0.5) in SPZ's axes, of opacity 0.8 and scale e^-2, an array after the other."""
    rotation = rotation or (b"\0\0\0\xc0" if version >= 3 else b"\x80\x80\x80")
    position = b"".join(int(value * 4096).to_bytes(3, "little", signed=True) for value in (1, -2, 0.5))
    harmonics = bytes(range(120, 120 + 3 * ((degree + 1) ** 2 - 1)))
    return [part * count for part in (position, b"\xcc", b"\x80\x80\x80", b"\x80\x80\x80", rotation, harmonics)]


def payload(version=3, count=2, degree=0, flags=0, rotation=None):
    """What a file of version 2 or 3 has inside of its gzip stream."""
    header = HEADER.pack(b"NGSP", version, count, degree, 12, flags, 0)
    return header + b"".join(arrays(version, count, degree, rotation))


def packed(data: bytes) -> bytes:
    """Gzip without the time of day, by which names of tests would differ from one process to the next."""
    return gzip.compress(data, mtime=0)


def streamed(degree=0, flags=0, extensions=b"", **changes):
    """A file of version 4.

    Args:
        changes: of ``version``, ``count`` or ``table`` (its place) in the header; ``streams``, packed, and their
            ``sizes`` unpacked.
    """
    parts = [part for part in arrays(4, 2, degree) if part]
    streams = changes.get("streams") or [zstandard.compress(part) for part in parts]
    sizes = changes.get("sizes") or [len(part) for part in parts]
    header = HEADER.pack(
        b"NGSP", changes.get("version", 4), changes.get("count", 2), degree, 12, flags, len(streams)
    ) + struct.pack("<I12x", changes.get("table", 32 + len(extensions)))
    table = b"".join(struct.pack("<QQ", len(stream), size) for stream, size in zip(streams, sizes, strict=True))
    return header + extensions + table + b"".join(streams)
