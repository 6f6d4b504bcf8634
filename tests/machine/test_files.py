"""Files are whole or absent, and CSVs are read as far as they go."""

from __future__ import annotations

import errno
import os

import pytest

from machine.files import (
    CsvLog,
    append_text,
    atomic_path,
    check_output_file,
    output_errors,
    read_csv,
    remove_litter,
    write_atomically,
    write_csv,
)
from settings.errors import InputError

COLUMNS = ("step", "loss", "power_w")


def test_atomic_path_replaces_on_success_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path and temporary.suffix == ".csv"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_whole_file_is_written_with_its_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"
    write_atomically(path, b"\0")
    assert path.read_bytes() == b"\0" and list(path.parent.iterdir()) == [path]


def test_a_name_of_full_length_is_written(tmp_path):
    path = tmp_path / ("ü" * 125 + ".csv")
    write_atomically(path, "a")
    assert path.read_text() == "a" and list(tmp_path.iterdir()) == [path]


def test_errors_of_the_disk_name_the_file_and_not_the_temporary_one(tmp_path):
    path = tmp_path / "a.csv"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.csv'"), output_errors(path), atomic_path(path):
        raise full
    (tmp_path / "link").symlink_to(tmp_path)
    with (
        pytest.raises(OSError, match=r"Read-only file system: '.*/link/a\.csv'"),
        atomic_path(tmp_path / "link/a.csv") as there,
    ):
        raise OSError(errno.EROFS, "Read-only file system", str(there.resolve()))
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        append_text(tmp_path, "x")
    with pytest.raises(InputError, match="a.csv: output file: found Permission denied"), output_errors(path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_what_killed_processes_left_is_deleted_and_nothing_else(tmp_path):
    kept = [f".a.{os.getppid()}.0.tmp.csv", "a.tmp.csv", ".hidden", "b.csv"]
    for name in [
        *kept,
        ".a.4194400.tmp.pth",
        ".a.4194400.3.tmp.pth",
        f".a.{os.getpid()}.2.tmp",
        ".a.99999999999.1.tmp.x",
    ]:
        (tmp_path / name).touch()
    remove_litter(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize(
    ("content", "rows", "problems"),
    [
        (b"step,loss\n1, 0.5\n2,\n", {2: {"step": "1", "loss": "0.5"}, 3: {"step": "2", "loss": None}}, []),
        (b"step\n1,2\n3\n", {3: {"step": "3"}}, [(2, "line 2: 2 cells under a header of 1, left out")]),
        (b"step\n1", {2: {"step": "1"}}, [(2, "line 2: no line end, its last figure may be cut off")]),
        (b"step\n", {}, []),
        (b" \n", {}, [(0, "empty file")]),
        (b"step\n\0\n", {}, [(0, "binary data, not text")]),
        (b"step\n\xe9\n", {2: {"step": "\ufffd"}}, [(0, "not UTF-8 text (byte 5)")]),
    ],
)
def test_a_csv_is_read_as_far_as_it_goes_and_the_rest_is_named(tmp_path, content, rows, problems):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    found = read_csv(path)
    assert (found.rows, found.problems) == (rows, problems)
    assert read_csv(tmp_path / "none.csv").problems == [(0, "cannot be read (No such file or directory)")]


def test_write_csv_leaves_empty_what_is_not_measured(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"step": 1, "loss": 0.1, "power_w": None}, {"step": 2, "loss": 1e-9}], COLUMNS)
    assert path.read_text() == "step,loss,power_w\n1,0.1,\n2,1e-09,\n"
    with pytest.raises(ValueError, match="los_s"):
        write_csv(path, [{"step": 3, "los_s": 1}], COLUMNS)
    assert path.read_text().endswith("2,1e-09,\n")


def test_every_row_is_on_disk_at_once(tmp_path):
    path = tmp_path / "log.csv"
    log = CsvLog(path, COLUMNS)
    assert path.read_text() == "step,loss,power_w\n"
    log.append({"step": 50, "loss": 0.5, "power_w": 71.5})
    assert path.read_text() == "step,loss,power_w\n50,0.5,71.5\n"
    with pytest.raises(ValueError, match="extra"):
        log.append({"step": 100, "extra": 1})
    log.append({"step": 100, "loss": None})
    assert path.read_text() == "step,loss,power_w\n50,0.5,71.5\n100,,\n"
    CsvLog(path, COLUMNS)
    assert path.read_text() == "step,loss,power_w\n"


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ("", "50,0.5,\n100,0.25,7\n"),
        ("150,0.1,\n200,0.05,\n", "50,0.5,\n100,0.25,7\n"),
        ("12", "50,0.5,\n100,0.25,7\n"),  # torn: would pass for a step before 150
        ("120,0.3,9", "50,0.5,\n100,0.25,7\n"),  # torn: the last cell may be cut
        ("120,0.3\n130,0.2,1\n", "50,0.5,\n100,0.25,7\n"),  # damaged: nothing after it is trusted
        ("\0\0\0\n", "50,0.5,\n100,0.25,7\n"),
        ("120,0.3,9\n", "50,0.5,\n100,0.25,7\n120,0.3,9\n"),
    ],
)
def test_resume_keeps_whole_rows_before_the_step(tmp_path, tail, kept):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,power_w\n50,0.5,\n100,0.25,7\n" + tail)
    log = CsvLog(path, COLUMNS, first_step=150)
    assert path.read_text() == "step,loss,power_w\n" + kept
    log.append({"step": 150, "loss": 1.0})
    assert path.read_text() == "step,loss,power_w\n" + kept + "150,1.0,\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [None, "", "step,lo"])
def test_resume_without_a_whole_header_starts_anew(tmp_path, text):
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    CsvLog(path, COLUMNS, first_step=10)
    assert path.read_text() == "step,loss,power_w\n"


@pytest.mark.parametrize("header", ["step,loss,energy", "loss,power_w"])
def test_resume_of_a_file_with_other_columns_is_refused(tmp_path, header):
    path = tmp_path / "log.csv"
    path.write_text(f"{header}\n1,0.5,2\n")
    with pytest.raises(InputError, match=f"header: found {header}, expected step,loss,power_w"):
        CsvLog(path, COLUMNS, first_step=10)
    assert path.read_text() == f"{header}\n1,0.5,2\n"


def test_columns_that_an_earlier_version_did_not_write_are_empty_on_resume(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,0.5\n")
    CsvLog(path, COLUMNS, first_step=10).append({"step": 10, "loss": 0.25, "power_w": 3})
    assert path.read_text() == "step,loss,power_w\n1,0.5,\n10,0.25,3\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("teacher.ply", "--mesh: file: found .*teacher.ply, which is read, expected another file"),
        ("run/../teacher.ply", "which is read"),
        ("folder.ply", "folder.ply, which is a folder, expected a file to write"),
        ("step_000300.pth", "found step_000300.pth, expected a name that ends in .ply or .glb"),
        ("mesh", "expected a name that ends in .ply or .glb"),
    ],
)
def test_a_file_to_write_is_not_one_that_is_read_nor_of_another_kind(tmp_path, name, said):
    (tmp_path / "folder.ply").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "teacher.ply").touch()
    inputs = tmp_path / "teacher.ply", None
    check_output_file("--mesh", tmp_path / "MESH.GLB", (".ply", ".glb"), inputs)
    with pytest.raises(InputError, match=said):
        check_output_file("--mesh", tmp_path / name, (".ply", ".glb"), inputs)
