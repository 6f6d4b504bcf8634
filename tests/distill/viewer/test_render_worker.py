"""Coarse at once, full at rest, abandoned when the camera moves on: by a clock that the test turns."""

import numpy as np
import pytest
import torch

from distill.viewer.render_worker import COARSE_S, PIECE_S, REST_S, Look, RenderWorker
from distill.viewer.viewpoints import Viewpoint


class Bench:
    """A worker whose drawing costs so many seconds a pixel, and what it has shown."""

    def __init__(self, per_pixel=1e-5):
        self.now, self.per_pixel, self.drawn, self.shown, self.begun = 0.0, per_pixel, [], [], 0
        self.worker = RenderWorker(self.draw, lambda *what: self.shown.append(what), self.begin, lambda: self.now)

    def begin(self):
        self.begun += 1

    def draw(self, mode, cameras):
        self.now += self.per_pixel * cameras.width * cameras.height
        self.drawn.append((cameras.width, cameras.height))
        top = round(cameras.width / 2 - cameras.cy.item())  # of the square picture that it is a part of
        rows = np.arange(top, top + cameras.height, dtype=np.uint8)
        return np.broadcast_to(rows[:, None, None], (cameras.height, cameras.width, 3)), {"student": 1.0}

    def rest(self):
        """Until nothing is left to draw."""
        self.now += REST_S
        while self.worker.turn():
            pass


def look(x=0.0, size=200, mode="student"):
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[0, 3] = x
    return Look(mode, Viewpoint(c2w, 1.0), size, size)


def test_a_coarse_picture_comes_at_once_and_the_full_one_at_rest():
    bench = Bench()
    bench.worker.ask(7, look())
    assert bench.worker.turn() and not bench.worker.turn()  # it has not rested yet
    client, _, picture = bench.shown[0]
    assert client == 7 and not picture.is_full and picture.image.shape == (48, 48, 3)
    bench.rest()
    full = bench.shown[1][2]
    assert len(bench.shown) == 2 and full.is_full and full.image[:, 0, 0].tolist() == list(range(200))
    assert full.parts["student"] == len(bench.drawn) - 1 > 1  # in pieces, whose times are added
    assert bench.begun == 2
    bench.rest()
    assert len(bench.shown) == 2


def test_coarse_pictures_and_pieces_take_what_they_may():
    bench = Bench()
    for step in range(8):
        bench.worker.ask(0, look(step))
        start = bench.now
        bench.worker.turn()
    assert bench.now - start == pytest.approx(COARSE_S, rel=0.1)
    assert bench.drawn[-1] == (70, 70)  # 5,000 pixels at 10 us
    bench.rest()
    pieces = bench.drawn[8:]
    assert sum(rows for _, rows in pieces) == 200
    assert max(rows for _, rows in pieces) * 200 * bench.per_pixel <= PIECE_S * 1.01


def test_a_camera_that_moves_on_waits_for_no_more_than_a_piece():
    bench = Bench()
    bench.worker.ask(0, look(1))
    bench.worker.turn()
    bench.now += REST_S
    bench.worker.turn()  # one piece of the full picture
    bench.worker.ask(0, look(2))
    bench.worker.turn()
    assert [where.viewpoint.c2w[0, 3].item() for _, where, _ in bench.shown] == [1, 2]
    bench.rest()
    assert [picture.is_full for _, _, picture in bench.shown] == [False, False, True]


def test_what_is_cheap_is_full_at_once_and_not_drawn_twice():
    bench = Bench(per_pixel=1e-9)
    for step in range(6):
        bench.worker.ask(0, look(step))
        bench.worker.turn()
    assert bench.shown[-1][2].is_full
    bench.rest()
    bench.worker.ask(0, look(5))  # where it looks already
    assert not bench.worker.turn() and len(bench.drawn) == 6


def test_a_moving_camera_goes_before_anothers_full_picture():
    bench = Bench()
    bench.worker.ask(1, look())
    bench.worker.turn()
    bench.now += REST_S
    bench.worker.turn()
    bench.worker.ask(2, look(3))
    bench.worker.turn()
    assert bench.shown[-1][0] == 2
    bench.worker.forget(2)
    bench.rest()
    assert bench.shown[-1][0] == 1 and bench.shown[-1][2].is_full
    bench.worker.forget(1)
    assert not bench.worker.is_watched and not bench.worker.turn()


def test_a_refresh_draws_full_pictures_again_and_no_coarse_ones():
    bench = Bench()
    bench.worker.ask(0, look())
    bench.worker.turn()
    bench.rest()
    bench.worker.refresh()
    bench.rest()
    assert [picture.is_full for _, _, picture in bench.shown] == [False, True, True]
