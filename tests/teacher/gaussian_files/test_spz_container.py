"""SPZ files are read to the byte: other versions, unpacked, cut short, longer than they say."""

import struct
import sys

import pytest
import zstandard

from settings.errors import InputError
from teacher.gaussian_files.spz import read_spz
from tests.toy_spz import HEADER, arrays, packed, payload, streamed

STREAMS = [zstandard.compress(part) for part in arrays() if part]
SIZES = [18, 2, 6, 6, 8]
AXES = 0xADBE0003  # SPZ_ADOBE_coordinate_system


def record(kind, content):
    """An extension."""
    return struct.pack("<II", kind, len(content)) + content


def read(tmp_path, content):
    path = tmp_path / "cloud.spz"
    path.write_bytes(content)
    return read_spz(path)


def with_first_stream(stream):
    """A file of version 4 whose positions are another stream of as many bytes, as its table has it."""
    return streamed(streams=[stream, *STREAMS[1:]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (payload(), r"an unpacked SPZ.*gzip cloud.spz && mv cloud.spz.gz cloud.spz"),
        (packed(streamed()), r"version 4 inside of gzip.*mv cloud.spz cloud.spz.gz && gunzip cloud.spz.gz"),
        (packed(payload(1)), "SPZ version: found 1, expected 2 to 4.*splat-transform"),
        (streamed(version=5), "SPZ version: found 5, expected 2 to 4.*splat-transform"),
        (packed(payload(degree=4)), "degree of the harmonics: found 4"),
        (streamed(degree=4), "degree of the harmonics: found 4"),
        (packed(payload()[:-1]), "found 39 bytes for 2 Gaussians, expected 40"),
        (packed(payload() + b"\0"), "found 41 bytes for 2 Gaussians, expected 40"),
        (packed(HEADER.pack(b"NGSP", 3, 2**32 - 1, 3, 12, 0, 0)), "found 0 bytes for 4294967295 Gaussians"),
        (packed(payload())[:-4], "unreadable data .it ends early"),
        (packed(payload()) + b"more", "4 bytes come after its end"),
        (packed(payload()[:9]), "unreadable data .it ends early"),
        (packed(payload())[:-8] + bytes(8), "unreadable data .*incorrect data check"),
        (streamed(count=3), r"streams of \[18, 2, 6, 6, 8\] bytes for 3 Gaussians, expected \[27, 3, 9, 9, 12\]"),
        (streamed(sizes=[size * 2**30 for size in SIZES], count=2**31), "not of the 19327352832 bytes"),
        (streamed(streams=STREAMS[:4], sizes=SIZES[:4]), "4 streams, .* at byte 32, expected 5 streams, at byte 32"),
        (streamed(extensions=b"more"), "table at byte 36, expected 5 streams, at byte 32"),
        (streamed(table=31), "table at byte 31, expected 5 streams, at byte 32"),
        (streamed(flags=2, table=2**32 - 1), "unreadable data .it ends early"),
        (streamed() + b"more", "found [0-9]+ bytes, expected [0-9]+, which its header says"),
        (with_first_stream(zstandard.compress(bytes(17))), "a stream is not of the 18 bytes"),
        (with_first_stream(zstandard.compress(bytes(1 << 20))), "a stream is not of the 18 bytes"),
        (with_first_stream(STREAMS[0] + b"more"), "a stream is not of the 18 bytes"),
        (with_first_stream(STREAMS[0][:-1]), "a stream is not of the 18 bytes"),
        (with_first_stream(b""), "a stream is not of the 18 bytes"),
        (with_first_stream(b"nothing that zstd packs"), "unreadable data .*zstd"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, content)


def test_version_4_cut_anywhere_is_refused(tmp_path):
    whole = streamed(degree=1)
    for length in range(len(whole)):
        with pytest.raises(InputError, match="cut short or was altered"):
            read(tmp_path, whole[:length])


def test_version_4_altered_anywhere_is_refused_or_holds_other_values(tmp_path):
    """Streams have no checksum, so that a value may differ: it is never anything but Gaussians or an InputError."""
    whole, read_all_the_same = streamed(), 0
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 0x10
        try:
            read_all_the_same += len(read(tmp_path, altered)) == 2
        except InputError:
            continue
    assert 0 < read_all_the_same < len(whole) / 2


def test_version_4_without_zstandard_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match=r"no package zstandard.*lego-response-distill\[spz\]"):
        read(tmp_path, streamed())
    assert len(read(tmp_path, packed(payload()))) == 2


@pytest.mark.parametrize(
    "content", [packed(payload(flags=2) + b"\1\2"), streamed(flags=2, extensions=b"\1\2")], ids=["gzip", "zstd"]
)
def test_extensions_are_ignored_which_is_said(tmp_path, caplog, content):
    assert len(read(tmp_path, content)) == 2
    assert "2 bytes of extensions are ignored" in caplog.text


@pytest.mark.parametrize("number", [0, 4])
def test_an_extension_may_name_the_axes_of_the_format(tmp_path, number):
    extensions = record(1, b"more") + record(AXES, number.to_bytes(4, "little"))
    for content in (packed(payload(flags=2) + extensions), streamed(flags=2, extensions=extensions)):
        assert read(tmp_path, content).means.tolist() == [[1.0, 2.0, -0.5]] * 2


@pytest.mark.parametrize(("number", "name"), [(2, "RDB"), (8, "RUF"), (12, "RFU"), (16, "RBU"), (17, "number 17")])
def test_an_extension_that_names_left_handed_or_swapped_axes_is_not_ignored(tmp_path, number, name):
    """Else the scene would be another one, mirrored or upside down."""
    extensions = record(1, b"more") + record(AXES, number.to_bytes(4, "little"))
    for content in (packed(payload(flags=2) + extensions), streamed(flags=2, extensions=extensions)):
        with pytest.raises(InputError, match=f"axes: found {name}, .*expected RUB, RDF, LUF or LDB .*splat-transform"):
            read(tmp_path, content)


def test_extensions_longer_than_all_that_is_kept_of_gzip(tmp_path):
    extensions = record(AXES, (4).to_bytes(4, "little"))
    for size, is_read in ((2**20, True), (2**20 + 1, False)):
        content = packed(payload(flags=2) + record(1, bytes(size - len(extensions) - 8)) + extensions)
        if is_read:
            assert len(read(tmp_path, content)) == 2
            continue
        with pytest.raises(InputError, match="found 1048577 bytes of extensions, expected at most 1048576"):
            read(tmp_path, content)


@pytest.mark.parametrize("content", [packed(payload(flags=1)), streamed(flags=1)], ids=["gzip", "zstd"])
def test_antialiasing_is_said(tmp_path, caplog, content):
    assert len(read(tmp_path, content)) == 2
    assert "trained with antialiasing" in caplog.text
