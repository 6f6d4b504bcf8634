"""Broken files are read as far as they go, and what is wrong with them is said."""

from __future__ import annotations

import pytest

from distill.reports.dashboard.run_files import Problems, read_mapping, read_rows

EXPECTED = ("step", "psnr")


@pytest.mark.parametrize(
    ("content", "rows", "reason"),
    [
        (b"step,psnr\n1,2.5\n", [{"step": 1.0, "psnr": 2.5}], None),
        (b"\xef\xbb\xbfstep,psnr\r\n1,\r\n", [{"step": 1.0, "psnr": None}], None),
        (b"", [], "empty file"),
        (b" \n\n", [], "empty file"),
        (b"step,psnr\n", [], "no rows"),
        (b"step\n1\n", [{"step": 1.0}], "without the column psnr"),
        (b"a,b\n1,2\n", [], "none of the columns step, psnr"),
        (b"step,psnr\n1,abc\n", [{"step": 1.0, "psnr": None}], "line 2: psnr is 'abc'"),
        (b"step,psnr\n1,nan\n", [{"step": 1.0, "psnr": None}], "not a finite number"),
        (b"step,psnr\n1,2\n3", [{"step": 1.0, "psnr": 2.0}], "line 3: 1 cells under a header of 2"),
        (b"step,psnr\n1,2.", [{"step": 1.0, "psnr": 2.0}], "may be cut off"),
        (b"\x89PNG\0\0\1", [], "binary data"),
        (b"step,psnr\n\xff,2\n", [{"step": None, "psnr": 2.0}], "not UTF-8"),
    ],
)
def test_what_is_read_and_what_is_said(tmp_path, content, rows, reason) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    problems = Problems(tmp_path)
    assert read_rows(path, problems, EXPECTED) == rows
    assert bool(problems.found) == (reason is not None)
    assert all(problem.file == "file.csv" for problem in problems.found)
    assert reason is None or any(reason in problem.reason for problem in problems.found)


def test_many_faults_of_a_file_are_said_in_short(tmp_path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("step,psnr\n" + "1,x\n" * 100)
    problems = Problems(tmp_path)
    assert len(read_rows(path, problems, EXPECTED)) == 100
    assert [problem.reason for problem in problems.found][-1] == "and 97 more of the kind"


def test_an_old_column_name_gives_way_to_the_new(tmp_path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("step,lpips\n1,0.5\n")
    problems = Problems(tmp_path)
    assert read_rows(path, problems, ("lpips_vgg",), {"lpips": "lpips_vgg"}) == [{"step": 1.0, "lpips_vgg": 0.5}]
    path.write_text("lpips,lpips_vgg\n1,0.5\n")
    assert read_rows(path, problems, ("lpips_vgg",), {"lpips": "lpips_vgg"}) == [{"lpips": 1.0, "lpips_vgg": 0.5}]


@pytest.mark.parametrize("content", ["a: [", "- 1", "\t:"])
def test_a_broken_config_is_said(tmp_path, content) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    problems = Problems(tmp_path)
    assert read_mapping(path, problems) == {}
    assert len(problems.found) == 1
