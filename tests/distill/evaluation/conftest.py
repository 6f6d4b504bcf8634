"""A run folder for the evaluator's tests."""

import pytest

from machine.run_folder import RunFolder
from settings.config import Config
from tests.distill.evaluation.disc import CPU, SIDE


@pytest.fixture
def setup(tmp_path):
    """Makes (config, prepared folder) from evaluation settings."""

    def make(tag="", background="white", **settings):
        settings = {"lpips": False, **settings}
        config = Config.model_validate(
            {
                "scene": "disc",
                "run": "test",
                "tag": tag,
                "teacher": {"kind": "bricks"},
                "data": {"resolution": SIDE},
                "render": {"background": background},
                "eval": settings,
            }
        )
        folder = RunFolder(config, tmp_path)
        folder.prepare(CPU)
        return config, folder

    return make
