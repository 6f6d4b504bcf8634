"""The page: text is text, and in a real browser it sorts, slides and asks for nothing."""

from __future__ import annotations

import json
import re

import pytest

from distill.reports.dashboard.page import dashboard_page
from distill.reports.dashboard.run_files import Problems
from distill.reports.dashboard.run_records import read_runs
from distill.reports.dashboard.stage_tables import stage_tables
from distill.reports.html_page import json_for_html
from tests.distill.reports.dashboard.toy_runs import write_run
from tests.headless_browser import Page, find_browser

EVIL = "<script>window.hacked=1<"  # the folder's name; a slash ends a name
BROWSER = find_browser()
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")


def _page(root) -> str:
    problems = Problems(root)
    runs = read_runs(root, problems)
    return dashboard_page(runs, stage_tables(runs), problems, "<root>", "now")


@pytest.fixture
def toy_page(tmp_path):
    write_run(tmp_path, "low", 20.0, fps=9.0)
    write_run(tmp_path, "high", 30.0, fps=100.0)
    write_run(tmp_path, "blank", 10.2, fps=None)
    write_run(tmp_path, EVIL, 25.0, fps=30.0)
    logs = tmp_path / "logs/toy/high"
    (logs / "eval_step_001000_parity.csv").write_text("subject,fps_median\nstudent,50\nteacher,10\nratio,5\n")
    frames = (logs / "eval_step_001000_frames.csv").read_text().replace("r_0", '<img src=x onerror="window.hacked=2">')
    (logs / "eval_step_001000_frames.csv").write_text(frames)
    file = tmp_path / "dashboard.html"
    file.write_text(_page(tmp_path), encoding="utf-8")
    return file


def test_text_cannot_become_markup(toy_page) -> None:
    text = toy_page.read_text()
    assert EVIL not in text and "<img src=x" not in text and "<root>" not in text
    assert len(re.findall(r"<script\b", text)) == 2  # the data and the program
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert EVIL in [run["name"] for run in data["runs"]]


def test_missing_is_empty_and_never_nought(toy_page) -> None:
    line = re.search(r'<tr data-run="toy/blank".*?</tr>', toy_page.read_text())[0]
    assert line.count('<td class="n"></td>') == 5  # LPIPS, FPS, size, power, gap to teacher
    assert "COLLAPSED" in line and "<b>" not in line


def test_a_note_in_the_data_is_not_a_place_of_the_page(tmp_path) -> None:
    write_run(tmp_path, "<!--script-->", pictures=False)
    assert _page(tmp_path).count("function makeSortable") == 1


def test_json_holds_no_markup() -> None:
    text = {"a": "</script><!--", "b": "&\u2028"}
    found = json_for_html(text)
    assert "<" not in found and "&" not in found and "\u2028" not in found and json.loads(found) == text


def test_no_runs(tmp_path) -> None:
    assert "No runs yet." in _page(tmp_path)


@needs_browser
def test_in_a_browser(toy_page, tmp_path_factory) -> None:
    names = "[...document.querySelectorAll('.stage tbody tr')].map((row) => row.dataset.run.slice(4))"
    fps = ".stage th:nth-child(8) button"
    with Page(BROWSER, toy_page, tmp_path_factory.mktemp("browser")) as page:
        assert page.evaluate("document.querySelector('.stage th:nth-child(8)').textContent") == "FPS"
        assert page.evaluate(names) == ["high", EVIL, "low", "blank"]
        page.click(fps)
        assert page.evaluate(names) == ["high", EVIL, "low", "blank"]
        page.click(fps)
        assert page.evaluate(names) == ["low", EVIL, "high", "blank"]  # what was not measured stays last
        page.click(".stage th:nth-child(1) button")
        assert page.evaluate(names)[1:] == ["blank", "high", "low"]

        page.click(".link[data-run='toy/high']")
        assert page.evaluate("document.querySelector('#detail h3').textContent").startswith("toy/high")
        assert "ratio" in page.evaluate("document.querySelector('#detail').textContent")
        images = "[...document.querySelectorAll('.compare img')].map((image) => image.naturalWidth)"
        assert page.evaluate(images) == [32, 32]
        clip = "document.querySelector('.compare img + img').style.clipPath"
        assert "50%" in page.evaluate(clip)
        page.evaluate("document.querySelector('.compare input').focus()")
        page.press("ArrowRight")
        assert "49.5%" in page.evaluate(clip)
        page.click(".modes + .modes button:nth-child(2)")
        assert "error" in page.evaluate("document.querySelector('.names').textContent")

        assert page.evaluate("document.querySelectorAll('#curves polyline').length") == 4
        assert page.evaluate("document.querySelectorAll('#speed .point').length") == 3
        page.evaluate("byId('search').value = 'low'; byId('search').dispatchEvent(new Event('input'))")
        assert page.evaluate("document.querySelectorAll('#curves polyline').length") == 1
        assert page.evaluate("byId('count').textContent") == "1 of 4 runs"

        paper = "getComputedStyle(document.body).backgroundColor"
        page.prefer("light")
        light = page.evaluate(paper)
        page.prefer("dark")
        assert page.evaluate(paper) != light
        assert page.evaluate("window.hacked") is None
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("data:", toy_page.as_uri()))] == []


@needs_browser
def test_on_a_phone_nothing_is_cut_off_and_plots_have_words_as_large_as_the_page(toy_page, tmp_path) -> None:
    """The widest run's name, and a run whose log has one row: its curve is a dot."""
    write_run(tmp_path, "one_" + 40 * "x", rows=1)
    toy_page.write_text(_page(tmp_path), encoding="utf-8")
    with Page(BROWSER, toy_page, tmp_path / "browser") as page:
        assert page.evaluate("document.querySelectorAll('#curves circle').length") == 1
        for width in (390, 1400):
            page.resize(width, 844)
            drawn = "document.querySelector('#curves svg').viewBox.baseVal.width"
            wanted = "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))"
            page.evaluate(wanted)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            scale = page.evaluate(f"document.querySelector('#curves svg').getBoundingClientRect().width / {drawn}")
            assert scale == pytest.approx(1, abs=0.01), width
        assert page.errors == []


@needs_browser
def test_names_beside_points_do_not_cover_one_another(tmp_path) -> None:
    for n in range(6):
        write_run(tmp_path, f"alike_{n}", 30.0 + 0.01 * n, fps=20.0, pictures=False)
    file = tmp_path / "dashboard.html"
    file.write_text(_page(tmp_path), encoding="utf-8")
    with Page(BROWSER, file, tmp_path / "browser") as page:
        boxes = "[...document.querySelectorAll('#speed .name')].map((name) => name.getBoundingClientRect().toJSON())"
        heights = sorted((box["top"], box["bottom"]) for box in page.evaluate(boxes))
        assert len(heights) >= 3
        assert all(above < below + 0.5 for (_, above), (below, _) in zip(heights, heights[1:], strict=False))
