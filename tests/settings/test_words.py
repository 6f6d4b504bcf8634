"""The wording of messages."""

import pytest

from settings.words import counted


@pytest.mark.parametrize(("count", "words"), [(0, "0 frames"), (1, "1 frame"), (1200, "1,200 frames")])
def test_one_is_no_plural(count, words):
    assert counted(count, "frame") == words
