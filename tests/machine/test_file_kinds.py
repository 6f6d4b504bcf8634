"""Files are told by their first bytes, whatever they are called."""

import gzip
import json
import pickle
import struct

import numpy as np
import pytest
import torch

from machine.file_kinds import file_kind, is_text, refuse_other_kinds
from settings.errors import InputError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ae1d\nsize 134\n"
BYTES = {
    "lfs": LFS,
    "html": b"\n <!DOCTYPE html><html><head>",
    "xml": b"<?xml version='1.0'?><Error>",
    "json": b'\xef\xbb\xbf {"frames": []}',
    "utf-16": '{"frames": []}'.encode("utf-16-le"),
    "utf-32": '{"frames": []}'.encode("utf-32"),
    "gzip": gzip.compress(b"hello", mtime=0),
    "spz": gzip.compress(b"NGSP" + bytes(12), mtime=0),
    "pickle": pickle.dumps({"a": 1}),
    "ply": b"ply\r\nformat ascii 1.0\r\n",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF\x10\0\0\0WEBPVP8 ",
    "safetensors": struct.pack("<Q", 2) + b"{}" + bytes(8),
    "empty": b"  \n",
    "zeros": bytes(700),
    "zip": b"PK\x03\x04 and then no more",
}


@pytest.mark.parametrize("key", BYTES)
def test_first_bytes(tmp_path, key):
    path = tmp_path / "point_cloud.ply"
    path.write_bytes(BYTES[key])
    assert file_kind(path).key == key


@pytest.mark.parametrize("length", [0x280, 0x580, 0x8B1F])
def test_a_safetensors_header_may_be_as_long_as_a_pickle_or_gzip_begins(tmp_path, length):
    path = tmp_path / "student.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}".ljust(length) + bytes(8))
    assert file_kind(path).key == "safetensors"


def test_utf_16_with_its_mark_and_archives_by_what_is_in_them(tmp_path):
    path = tmp_path / "file"
    path.write_text("{}", encoding="utf-16")
    assert file_kind(path).key == "utf-16"
    torch.save({"step": torch.zeros(3)}, path)
    assert file_kind(path).key == "torch"
    torch.save({"step": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    assert file_kind(path).key == "torch"
    with open(path, "wb") as file:
        np.savez(file, means=np.zeros(3), scales=np.zeros(3))
    assert file_kind(path) == ("npz", "a NumPy .npz archive of means, scales", "")


def test_what_says_nothing_has_no_kind(tmp_path):
    (tmp_path / "text").write_text("hello\nworld\n")
    (tmp_path / "numbers").write_bytes(np.linspace(1, 2, 96, dtype=np.float32).tobytes())
    assert file_kind(tmp_path / "text") is None and file_kind(tmp_path / "numbers") is None
    assert file_kind(tmp_path / "nowhere") is None and file_kind(tmp_path) is None


def test_another_kind_is_refused_with_the_way_on(tmp_path):
    path = tmp_path / "transforms.json"
    path.write_bytes(LFS)
    with pytest.raises(InputError, match="JSON: found a Git LFS pointer, expected a transforms file.*git lfs pull"):
        refuse_other_kinds(path, "JSON", "a transforms file", "json")
    path.write_text(json.dumps({}))
    refuse_other_kinds(path, "JSON", "a transforms file", "json")
    refuse_other_kinds(tmp_path / "nowhere", "JSON", "a transforms file", "json")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"scene: toy\n\trun: \xc3\xa9", True), (b"PK\x03", False), (b"a\x00b", False), (b"\xff\xfea", False)],
)
def test_text_is_told_from_bytes(tmp_path, content, text):
    (tmp_path / "file").write_bytes(content)
    assert is_text(tmp_path / "file") == text
