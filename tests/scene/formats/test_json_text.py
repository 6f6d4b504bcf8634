"""JSON as people save it."""

import json

import pytest

from scene.formats.json_text import read_json
from settings.errors import InputError

CONTENT = {"w": 8, "frames": [{"file_path": "ü"}]}


def test_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(CONTENT, ensure_ascii=False), encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", "JSON") == CONTENT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b'{"w": 8,\n "h": [1, 2,\n]}',
            r"at line [23], column \d+: a comma before a closing bracket.*Remove the comma",
        ),
        (b'{"w": 8,\n}', r"at line [12], column \d: a comma before"),
        (b'{\n "w": 8, // wide\n "h": 6}', r"at line 2, column 10: a comment, '// wide'.*JSON has no comments"),
        (b'{"w": 8 /* wide */}', "line 1, column 9: a comment"),
        (b"# made by hand\n{}", "line 1, column 1: a comment"),
        (b'{"w": 8, "frames": [', "the text ends there.*cut short: copy it again"),
        (b'{"w": "8', "the text ends there"),
        (b"{'w': 8}", r"line 1, column 2: Expecting property name .*found ''w': 8}'"),
        (b"[" * 100_000, "JSON: found invalid text"),
        (b'{"w": 8,\n "h": ' + b"9" * 5000 + b"}", "an integer of 5000 digits at line 2, column 7"),
        (json.dumps(CONTENT).encode("utf-32"), "text in UTF-32.*Save it as UTF-8"),
        (json.dumps(CONTENT).encode("utf-16"), "text in UTF-16.*Save it as UTF-8"),
        (json.dumps(CONTENT).encode("utf-16-le"), "text in UTF-16"),
        (json.dumps(CONTENT, ensure_ascii=False).encode("latin-1"), "not UTF-8 .0xfc at 3[0-9].*Save it as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"", "an empty file"),
    ],
)
def test_what_is_no_json_is_named(tmp_path, data, message):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(InputError, match=f"(?s)a.json: .*{message}") as caught:
        read_json(tmp_path / "a.json", "a transforms JSON file")
    assert ("copy it again" in str(caught.value)) == ("cut short" in str(caught.value))


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.yaml", "# A config\nscene: bricks\n", "a YAML file"),
        ("a.yml", "{}}", "a YAML file"),
        ("a.json", "scene: bricks\nrun: a\n", "no JSON, but text that begins with 'scene: bricks'"),
    ],
)
def test_text_that_was_never_json_is_said_to_be_none_with_what_is_wanted(tmp_path, name, text, found):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: file: found {found}, expected a transforms JSON file") as caught:
        read_json(tmp_path / name, "a transforms JSON file")
    assert "Mend" not in str(caught.value) and "comments" not in str(caught.value)
