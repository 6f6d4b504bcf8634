"""Bars of long work in a terminal and in a log."""

from __future__ import annotations

import logging
import re
import sys
import threading
from contextlib import contextmanager

import pytest

from machine.terminal import late_word, redraw_seconds
from settings.loading import REPO_ROOT, load_config
from teacher.sources import source_of
from tests.toy_scene import SIZE, write_toy_scene
from tests.toy_training import trainer_of


@pytest.mark.parametrize(("is_terminal", "seconds"), [(True, 0.5), (False, 30.0)])
def test_a_log_gets_fewer_drawings_than_a_terminal(monkeypatch, is_terminal, seconds):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    assert redraw_seconds() == seconds


def test_a_run_whose_output_is_kept_does_not_draw_a_bar_for_each_row_of_its_csv(tmp_path, capsys):
    config = write_toy_scene(tmp_path, train={"max_steps": 60, "log_every": 1})
    trainer_of(config).run()
    drawn = [line for line in capsys.readouterr().err.split("\r") if line.startswith("train:")]
    assert 1 < len(drawn) < 10 and "60/60" in drawn[-1]


@pytest.mark.parametrize(
    ("overrides", "bars"),
    [
        (["render.sampling=teacher"], {"teacher's files", "ground truth", "what views see", "pixels worth drawing"}),
        (
            ["render.sampling=teacher", "teacher.kind=gaussians", "teacher.outputs=null"],
            {"teacher", "ground truth", "what views see", "pixels worth drawing"},
        ),
        (["teacher.kind=images", "teacher.ply=null", "teacher.outputs=null"], {"pictures", "empty space"}),
    ],
)
def test_what_a_run_of_many_pictures_waits_for_before_its_first_step_is_shown(
    tmp_path, monkeypatch, capsys, overrides, bars
):
    config = write_toy_scene(tmp_path)
    trainer_of(config, *overrides)
    assert not capsys.readouterr().err, "in a small scene it is over in a moment"
    monkeypatch.setattr("machine.terminal._LATE", 0.0)
    trainer_of(config, *overrides)
    assert {line.partition(":")[0] for line in capsys.readouterr().err.split("\r") if line.strip()} == bars


def test_work_that_takes_long_is_named_while_it_is_done_and_other_work_is_not(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    said = threading.Event()
    monkeypatch.setattr("machine.terminal._log.info", lambda *words: said.set())
    monkeypatch.setattr("machine.terminal._LATE", 0.3)
    with late_word("looking for cameras"):
        pass
    assert not said.wait(0.6), "over before it was late"
    monkeypatch.setattr("machine.terminal._LATE", 0.0)
    with late_word("looking for cameras"):
        assert said.wait(60)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["teacher.kind=gaussians", "teacher.outputs=null"], ["reading ", "finding out at which width"]),
        (["teacher.kind=gaussians", "teacher.outputs=null", "data.transforms=null"], ["reading ", "finding cameras"]),
    ],
)
def test_what_millions_of_gaussians_take_before_their_first_view_is_named(tmp_path, monkeypatch, overrides, words):
    texts = []

    @contextmanager
    def kept(text):
        texts.append(text)
        yield

    for module in ("source", "source_kinds", "fitted_width"):
        monkeypatch.setattr(f"teacher.sources.{module}.late_word", kept)
    path = write_toy_scene(tmp_path)
    source_of(load_config(path, [*overrides, f"data.resolution={SIZE}", "teacher.frames=4"], path.parent)).load()
    assert len(texts) == len(words) and all(map(str.startswith, texts, words))


def test_no_other_bar_is_made_than_those_that_a_log_gets_few_drawings_of():
    made = [
        path.relative_to(REPO_ROOT).as_posix()
        for folder in ("kernels", "machine", "scene", "students", "teacher", "distill", "tools")
        for path in sorted((REPO_ROOT / folder).rglob("*.py"))
        if re.search(r"\btqdm\(", path.read_text(encoding="utf-8"))
    ]
    assert made == ["machine/terminal.py"]
