"""Positions far from the origin: moved in double precision, or refused with the offset to set."""

import logging

import numpy as np
import pytest
import torch

from scene.world_offset import moved_cameras, moved_positions
from settings.data import DataConfig
from settings.errors import InputError

UTM = (500000.0, 4649776.0, 120.0)
LOCAL = np.random.default_rng(0).uniform(-0.4, 0.4, (200, 3)).astype(np.float32).astype(np.float64)


def test_far_positions_less_their_offset_are_the_near_ones():
    moved = moved_positions("f", "cameras", LOCAL + UTM, UTM, 0.0)
    assert moved.dtype == np.float32
    # Double precision at 4.6 million steps by 9e-10.
    np.testing.assert_allclose(moved, LOCAL, rtol=0, atol=2e-9)


def test_without_an_offset_far_positions_are_refused_with_the_one_to_set():
    with pytest.raises(InputError) as caught:
        moved_positions("f.json", "cameras", LOCAL + UTM, None, 0.0)
    message = str(caught.value)
    assert "f.json: positions: found cameras about [500000.0, 4649776.0, 120.0]" in message
    assert "steps of 0.5 units" in message and "Set data.offset: [500000.0, 4649776.0, 120.0]" in message
    with pytest.raises(InputError, match="steps of 0.03125 units.*Set data.offset"):
        moved_positions("f", "cameras", LOCAL + UTM, (0.0, UTM[1], UTM[2]), 0.0)
    with pytest.raises(InputError, match="No map reaches as far"):
        moved_positions("f", "cameras", LOCAL + 1e30, None, 1.0)


@pytest.mark.parametrize(("center", "width"), [(0.0, 1e-3), (5.0, 0.1), (300.0, 1.0), (-40.0, 500.0)])
def test_scenes_that_float32_can_hold_stay_as_they_are(center, width):
    positions = (LOCAL * width / 0.8 + center).astype(np.float32)
    assert np.array_equal(moved_positions("f", "cameras", positions, None, 0.0), positions)


def test_an_offset_that_was_taken_off_already_is_not_taken_off_twice(caplog):
    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert np.array_equal(moved_positions("f", "cameras", LOCAL, UTM, 0.0), LOCAL.astype(np.float32))
    assert caplog.text.count("taken off them already") == 1, "said once, however often a run reads its cameras"
    near = moved_positions("f", "cameras", LOCAL + [10, 0, 0], (10.0, 0.0, 0.0), 0.0)
    np.testing.assert_allclose(near, LOCAL, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("center", "offset", "remedy"),
    [
        (0.0, (0.25, 0.0, 0.0), "data.offset: null"),  # shorter than the scene is wide: it may have been taken off
        ((3e6, 0.0, 0.0), UTM, r"data.offset: \[3000000.0, 0.0, 0.0\]"),  # another place on the map
        (0.45 * np.array(UTM), UTM, r"data.offset: \[225000.0, 2092399"),  # midway
        ((0.0, 3.0, 0.0), (10.0, 0.0, 0.0), "data.offset: null"),
    ],
)
def test_positions_about_neither_the_offset_nor_the_origin_are_refused(center, offset, remedy):
    with pytest.raises(InputError, match=rf"cameras about \[.*of data.offset \[.*or of the origin.*Set {remedy}"):
        moved_positions("f", "cameras", LOCAL + center, offset, 0.0)


def test_positions_stored_as_float32_are_rounded_already_and_refused():
    with pytest.raises(InputError, match=r"stored as float32 about .*steps of 0.5 units.*in double precision"):
        moved_positions("f", "Gaussians", (LOCAL + UTM).astype(np.float32), UTM, 0.0)


@pytest.mark.parametrize("offset", [None, UTM])
def test_in_a_world_as_wide_as_a_city_what_is_finer_than_its_steps_is_said_to_be_off(offset, caplog):
    file = f"{offset}.ply"  # a warning is given once for each
    city = (LOCAL * 60_000 + UTM).astype(np.float32)
    moved_positions(file, "Gaussians", city, offset, 1.0, detail=1.0)
    assert not caplog.text
    moved_positions(file, "Gaussians", city, offset, 1.0, detail=0.3)
    assert f"{file}: found Gaussians about [500000.0, " in caplog.text and "steps of 0.5 units" in caplog.text
    assert "at most 0.15" in caplog.text and "set data.offset" in caplog.text
    caplog.clear()
    moved_positions(file, "Gaussians", LOCAL * 60_000 + UTM, UTM, 1.0, detail=0.3)
    assert not caplog.text, "taken off in double precision"


def test_cameras_that_only_turn_and_one_alone_are_as_wide_as_they_are_said_to_be():
    positions = np.full((4, 3), 20.0)
    assert np.array_equal(moved_positions("f", "cameras", positions, None, 1.0), positions.astype(np.float32))
    with pytest.raises(InputError, match="Set data.offset"):
        moved_positions("f", "cameras", np.array([UTM]), None, 1.0)


def pose_at(x: float, y: float, z: float) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64)[None]
    pose[0, :3, 3] = torch.tensor((x, y, z), dtype=torch.float64)
    return pose


def test_how_large_the_scene_is_that_cameras_see_they_need_not_tell():
    one, thrice, far = (pose_at(*place) for place in ((3000.0, 2000.0, 80.0), (9000.0, 6000.0, 240.0), UTM))
    assert torch.equal(moved_cameras("f", one, DataConfig()), one.float())
    small = DataConfig(box={"lower": (2999.0, 1999.0, 79.0), "upper": (3001.0, 2001.0, 81.0)})
    with pytest.raises(InputError, match="cameras about .*in a scene 2 units wide"):
        moved_cameras("f", one, small)
    city = DataConfig(box={"lower": (0.0, 0.0, 0.0), "upper": (4000.0, 4000.0, 200.0)})
    assert moved_cameras("f", thrice, city).dtype == torch.float32
    with pytest.raises(InputError, match="Set data.offset"):
        moved_cameras("f", thrice, DataConfig())
    with pytest.raises(InputError, match="Set data.offset"):
        moved_cameras("f", far, city)


def test_a_lone_outlier_does_not_hide_where_the_scene_is():
    positions = np.concatenate([LOCAL, [[1e7, 0, 0]]])
    assert moved_positions("f", "Gaussians", positions, None, 0.0)[-1, 0] == 1e7
