"""A run that is looked at: the same bits, little time, and one message where viser is missing."""

import sys

import pytest
import torch

from distill.viewer.render_worker import Look, RenderWorker
from distill.viewer.subjects import training_subject
from distill.viewer.training_view import REFRESH_SHARE, BetweenSteps, check_view
from settings.errors import InputError
from settings.loading import load_config
from teacher.sources import load_teacher
from tests.distill.viewer.test_render_worker import Bench, look
from tests.toy_configs import BRICKS
from tests.toy_scene import write_toy_scene
from tests.toy_training import CPU, trainer_of


def test_nobody_looks_and_nothing_is_drawn():
    bench = Bench()
    between = BetweenSteps(bench.worker, lambda: pytest.fail("not even the clock is asked"))
    assert between() == 0 and not bench.drawn


def test_a_resting_picture_is_drawn_anew_for_a_small_share_of_the_time():
    bench = Bench()
    between, step_s = BetweenSteps(bench.worker, lambda: bench.now), 0.02
    bench.worker.ask(0, look())
    spent = trained = 0.0
    for _ in range(3000):
        bench.now += step_s
        trained += step_s
        spent += between()
    full = sum(picture.is_full for _, _, picture in bench.shown)
    assert full > 4 and bench.begun == full + 1  # each from the weights of then
    assert spent / (spent + trained) <= REFRESH_SHARE * 1.2
    bench.worker.ask(0, look(1))
    assert between() > 0 and not bench.shown[-1][2].is_full  # a camera that moves need not wait for that


def test_a_picture_that_fails_does_not_end_the_run(caplog):
    worker = RenderWorker(lambda mode, cameras: (_ for _ in ()).throw(RuntimeError("out of memory")), lambda *_: None)
    between = BetweenSteps(worker)
    worker.ask(0, look())
    assert between() > 0 and between() == 0
    assert "goes on" in caplog.text and "out of memory" in caplog.text


def test_training_gives_the_same_bits_when_it_is_looked_at(tmp_path):
    path = write_toy_scene(tmp_path)
    weights, shown = [], []
    for watched in (False, True):
        trainer = trainer_of(path, "train.max_steps=20", "occupancy.warmup_steps=2")
        if watched:
            config = load_config(path, [], path.parent)
            subject = training_subject(config, load_teacher(config), trainer.model, trainer.folder, CPU)
            assert [camera.held_out for camera in subject.cameras[:5]] == [True, False, False, False, True]
            worker = RenderWorker(subject.pictures, lambda *what: shown.append(what), subject.pictures.renew)
            view = subject.start()

            def between_steps(worker=worker, view=view, modes=subject.pictures.modes, trainer=trainer):
                step = trainer.progress.step
                worker.ask(0, Look(modes[step % len(modes)], view, 16, 12))
                worker.turn()
                return 1000.0  # does not count as training time

            trainer.between_steps = between_steps
        trainer.run(show_progress=False)
        weights.append(torch.cat([part.flatten() for part in trainer.model.student.state_dict().values()]))
        assert trainer.progress.seconds < 500
    assert torch.equal(*weights) and len({asked.mode for _, asked, _ in shown}) == 8
    first, second = (picture.image for _, asked, picture in shown if asked.mode == "student")
    assert (first != second).any()  # of other weights


def test_without_viser_a_run_says_how_to_get_it(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    config = load_config(write(BRICKS), ["logging.view=true"])
    with pytest.raises(InputError, match="logging.view.*pip install"):
        check_view(config)
    check_view(load_config(write(BRICKS)))
