"""What is made of the weights from before training with rounded ones, where that has not paid off."""

import pytest

from distill.compact.rounded_weights import RoundedWeights
from distill.compression.compress import Wanted, _Search

WANTED_DB = 0.5


class Weights(RoundedWeights):
    """Lose in proportion to the coarseness, half a dB at 1e-5; once they are trained more than is wanted at any."""

    def __init__(self):
        self.coarseness, self.trained = 1e-7, False

    def round(self):
        self.bits = -self.coarseness

    def content(self):
        return []

    def file(self):
        return f"{self.coarseness}".encode()

    def restart(self):
        self.trained = False

    def loss(self):
        return 0.9 if self.trained else WANTED_DB * self.coarseness / 1e-5


def test_a_file_of_the_weights_from_before_training_loses_what_is_allowed():
    weights = Weights()
    search = _Search(weights, Wanted(None, WANTED_DB), lambda: 40 - weights.loss(), 40.0)
    search.begin()
    weights.trained = True
    file, loss = search.end()
    assert not weights.trained and file == weights.file()
    assert 0.9 * WANTED_DB < loss <= WANTED_DB and loss == pytest.approx(weights.loss())
