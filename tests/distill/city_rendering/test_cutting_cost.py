"""What the blocks of a toy city are taught, against its whole teacher."""

import pytest

from distill.city.block_runs import open_city
from distill.city_rendering.cutting_cost import taught_psnr
from settings.errors import InputError
from settings.loading import load_config
from tests.toy_scene import BOTH_SPLITS, write_toy_scene


def toy(root, **sections):
    teacher = {"kind": "gaussians", "outputs": None, "fitted_width": 24}
    path = write_toy_scene(root, teacher=teacher, city={"blocks": [2, 1, 1]}, **sections)
    return load_config(path, assets=root)


def test_shares_of_gaussians_make_up_the_whole_and_whole_ones_in_two_blocks_do_not(tmp_path):
    config = toy(tmp_path)
    clipped, whole = taught_psnr(open_city(config, tmp_path / "city", resume=False), config)
    assert clipped > whole + 6 > 36


def test_one_block_is_the_whole_but_for_its_far_rims(tmp_path):
    config = toy(tmp_path)
    config = config.model_copy(update={"city": config.city.model_copy(update={"blocks": 1})})
    clipped, whole = taught_psnr(open_city(config, tmp_path / "city", resume=False), config)
    assert whole > 90 and clipped > 45


def test_without_held_out_frames_nothing_is_measured(tmp_path):
    config = toy(tmp_path, data={"holdout_every": 0}, eval=BOTH_SPLITS)
    with pytest.raises(InputError, match="data.holdout_every: found no frame held out"):
        taught_psnr(open_city(config, tmp_path / "city", resume=False), config)
