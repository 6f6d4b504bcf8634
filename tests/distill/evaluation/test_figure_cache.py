"""Figures that are found again only under the same key."""

import pytest

from distill.evaluation import figure_cache
from distill.evaluation.figure_cache import FigureCache, code_digest


def test_figures_come_back_exactly_and_only_under_their_key(tmp_path):
    path = tmp_path / "record.jsonl"
    figures = {"psnr": 0.1 + 0.2, "none": None, "nested": {"a": [1, 2.5]}}
    FigureCache(path).put("frame 3", "key", figures)
    again = FigureCache(path)
    assert again.get("frame 3", "key") == figures
    assert again.get("frame 3", "other") is None and again.get("frame 4", "key") is None
    assert FigureCache(path, fresh=True).get("frame 3", "key") is None
    assert not path.exists()


def test_a_torn_line_is_no_record(tmp_path):
    path = tmp_path / "record.jsonl"
    first = FigureCache(path)
    first.put("a", "k", 1)
    first.put("b", "k", 2)
    first.put("a", "k", 3)
    path.write_text("[]\nnonsense\n" + path.read_text()[:-5])
    again = FigureCache(path)
    assert (again.get("a", "k"), again.get("b", "k")) == (1, 2)  # the last line, a = 3, was torn
    again.put("c", "k", 4)
    again.keep(["c"])
    assert FigureCache(path).get("c", "k") == 4 and FigureCache(path).get("a", "k") is None


def test_without_a_file_nothing_is_kept():
    nowhere = FigureCache(None)
    nowhere.put("a", "k", 1)
    nowhere.keep(["a"])
    assert nowhere.get("a", "k") is None


def test_another_program_has_another_digest(tmp_path, monkeypatch):
    (tmp_path / "distill").mkdir()
    source = tmp_path / "distill" / "a.py"
    source.write_text("x = 1\n")
    monkeypatch.setattr(figure_cache, "_SOURCE", tmp_path)
    first = code_digest.__wrapped__()
    source.write_text("x = 2\n")
    second = code_digest.__wrapped__()
    monkeypatch.setattr(figure_cache, "_version", lambda library: "0")
    assert len({first, second, code_digest.__wrapped__()}) == 3


@pytest.mark.parametrize("library", ["torch", "no-such-library-at-all"])
def test_versions(library):
    assert (figure_cache._version(library) is None) == (library != "torch")
