"""Evaluations that were made before, stopped, or cut into chunks: the same figures, nothing measured twice."""

import gc
from time import sleep

import pytest

from distill.evaluation import evaluator
from distill.evaluation.evaluator import evaluate
from distill.evaluation.frame_metrics import References
from distill.evaluation.render_files import RenderFiles
from distill.evaluation.results import EVAL_COLUMNS
from tests.distill.evaluation.disc import CPU, FRAMES, SIDE, make_views, run, with_noise


def counting(render):
    """The same renders, and the frames that were asked for."""
    asked = []

    def counted(i, background):
        asked.append(i)
        return render(i, background)

    return counted, asked


def test_a_second_run_measures_nothing_and_writes_the_same_bytes(setup):
    views = make_views()
    render, asked = counting(with_noise(views, lambda i: 0.02 * (i + 1)))
    config, folder = setup()
    evaluate(render, views, config, 20000, folder, CPU, identity="one")
    before = {path: path.read_bytes() for path in (*folder.logs.iterdir(), *folder.eval.iterdir())}
    asked.clear()
    evaluate(render, views, config, 20000, folder, CPU, identity="one")
    assert asked == []
    assert {path: path.read_bytes() for path in (*folder.logs.iterdir(), *folder.eval.iterdir())} == before
    evaluate(render, views, config, 20000, folder, CPU, identity="one", fresh=True)
    assert asked == [0, *range(FRAMES)]


@pytest.mark.parametrize("change", ["identity", "program", "reference image", "background", "camera"])
def test_what_was_measured_otherwise_is_measured_again(setup, monkeypatch, change):
    views = make_views()
    render, asked = counting(with_noise(views, lambda i: 0.1))
    config, folder = setup()
    evaluate(render, views, config, 20000, folder, CPU, identity="one")
    asked.clear()
    again = range(FRAMES)
    if change == "program":
        monkeypatch.setattr(evaluator, "code_digest", lambda: "another")
    if change == "background":
        config, _ = setup(background="black")
    if change == "reference image":  # that of frame 3, which has a part in frame 4's flicker
        views.rgb[3] = views.rgb[3].flip(0)
        again = [3, 4]
    if change == "camera":
        views.cameras.fx[9] += 1
        again = [9]
    identity = "two" if change == "identity" else "one"
    evaluate(render, views, config, 20000, folder, CPU, identity=identity)
    # the flicker of the first frame needs the one before, the first of all is the warm-up
    before = [again[0] - 1] if again[0] else []
    assert asked[1:] == [*before, *again]


def test_a_run_that_was_stopped_goes_on(setup):
    views = make_views()
    config, folder = setup()
    whole = with_noise(views, lambda i: 0.02 * (i + 1))
    expected = evaluate(whole, views, config, 20000, folder, CPU).rows

    def stops(i, background):
        if i == 6:
            raise KeyboardInterrupt
        return whole(i, background)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluator, "_CHUNK_BYTES", 2 * SIDE * SIDE * 11)  # two frames at a time
        evaluate(stops, views, config, 20000, folder, CPU, identity="one")
    render, asked = counting(whole)
    rows = evaluate(render, views, config, 20000, folder, CPU, identity="one").rows
    assert asked == [5, 5, 6, 7, 8, 9]  # warm-up, then what flicker needs of frame 5, then the rest
    untimed = set(EVAL_COLUMNS) - {"avg_fps"}
    assert [{name: row[name] for name in untimed} for row in rows] == [
        {name: row[name] for name in untimed} for row in expected
    ]


def test_a_frame_whose_file_is_gone_is_rendered_again(setup):
    views = make_views()
    render, asked = counting(with_noise(views, lambda i: 0.1))
    config, folder = setup(splits=["holdout"])
    evaluate(render, views, config, 20000, folder, CPU, identity="one")
    (folder.eval / "step_020000_frame_00004.png").unlink()
    asked.clear()
    evaluate(render, views, config, 20000, folder, CPU, identity="one")
    assert asked == [4, 4]


def test_chunks_change_no_figure(setup, monkeypatch):
    views = make_views()
    render = with_noise(views, lambda i: 0.02 * (i + 1))
    whole, _ = run(render, views, setup)
    monkeypatch.setattr(evaluator, "_CHUNK_BYTES", 1)
    chunked, _ = run(render, views, setup)
    timed = {"avg_fps", "render_s"}
    for ours, theirs in zip(whole.rows + whole.frame_rows, chunked.rows + chunked.frame_rows, strict=True):
        assert {k: v for k, v in ours.items() if k not in timed} == {k: v for k, v in theirs.items() if k not in timed}


def test_once_stopped_nothing_more_is_measured(setup, monkeypatch):
    views = make_views()
    config, folder = setup()
    measured, real = [], References.measure

    def slowly(self, index, *more):
        measured.append(index)
        sleep(0.05)
        return real(self, index, *more)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(References, "measure", slowly)
    monkeypatch.setattr(RenderFiles, "write", full)
    monkeypatch.setattr(evaluator, "available_threads", lambda: 2)
    with pytest.raises(OSError, match="no space"):
        evaluate(with_noise(views, lambda i: 0.1), views, config, 20000, folder, CPU)
    gc.collect()  # of the error's traceback, which holds the frames
    sleep(0.4)  # ten frames would take 0.25 s
    assert 1 <= len(measured) <= 5 < FRAMES
