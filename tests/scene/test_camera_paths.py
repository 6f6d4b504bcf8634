"""The orbit: level, at the cameras' distance and elevation, looking at the centre; the spiral between elevations."""

import math
from dataclasses import replace

import pytest
import torch

from scene.camera_paths import common_up, middle_of, orbit_path, spiral_path, world_up
from scene.rays import SceneBox


def test_a_round_at_the_median_distance_and_elevation(look_at):
    centre = (1.0, 2.0, 0.5)
    positions = [
        [1 + 3 * math.cos(a) * math.cos(0.5), 2 + 3 * math.sin(a) * math.cos(0.5), 0.5 + 3 * math.sin(0.5)]
        for a in (0.3, 1.7, 2.9, 4.4, 5.5)
    ]
    cameras = look_at(positions, target=centre)
    path = orbit_path(cameras, centre, 8)
    assert len(path) == 8 and (path.width, path.height) == (cameras.width, cameras.height)
    offsets = path.centers - torch.tensor(centre)
    torch.testing.assert_close(offsets.norm(dim=1), torch.full((8,), 3.0))
    up = torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(offsets @ up / 3, torch.full((8,), math.sin(0.5)), atol=1e-5, rtol=0)
    # Each looks straight at the centre, level, and turns by an eighth of a round.
    torch.testing.assert_close(-path.c2w[:, :3, 2] * 3, -offsets, atol=1e-5, rtol=1e-5)
    assert (path.c2w[:, :3, 0] @ up).abs().max() < 1e-5 and (path.c2w[:, :3, 1] @ up).min() > 0
    flat = torch.nn.functional.normalize(offsets - (offsets @ up)[:, None] * up, dim=1)
    torch.testing.assert_close((flat * flat.roll(-1, 0)).sum(1), torch.full((8,), math.cos(math.pi / 4)))
    rotations = path.c2w[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(8, 3, 3), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotations).min() > 0.999
    assert path.fx.tolist() == [30.0] * 8


def test_it_starts_at_the_first_camera(look_at):
    positions = [[3.0 * math.cos(a), 3.0 * math.sin(a), 1.0] for a in (0.4, 2.5, 4.6)]
    path = orbit_path(look_at(positions), (0.0, 0.0, 0.0), 4)
    torch.testing.assert_close(path.centers[0], torch.tensor(positions[0]), atol=0.02, rtol=0)


def test_a_round_by_hand(look_at):
    """Counterclockwise seen from above, at the middle one of three distances; from right above 85 degrees up."""
    up = (0.0, 0.0, 1.0)
    level = orbit_path(look_at([[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 9.0, 0.0]]), (0.0, 0.0, 0.0), 4, up)
    expected = [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [-2.0, 0.0, 0.0], [0.0, -2.0, 0.0]]
    torch.testing.assert_close(level.centers, torch.tensor(expected), atol=1e-5, rtol=0)
    above = orbit_path(look_at([[0.001, 0.0, 3.0]]), (0.0, 0.0, 0.0), 1, up)
    steep = [3 * math.cos(math.radians(85)), 0.0, 3 * math.sin(math.radians(85))]
    torch.testing.assert_close(above.centers[0], torch.tensor(steep), atol=1e-3, rtol=0)
    straight = orbit_path(look_at([[0.0, 0.0, 3.0]]), (0.0, 0.0, 0.0), 4, up)  # which has no side to start at
    torch.testing.assert_close(straight.centers.norm(dim=1), torch.full((4,), 3.0))


@pytest.mark.parametrize(("length", "is_common"), [(0.35, True), (0.25, False)])
def test_ups_of_a_mean_of_three_tenths_are_in_common(length, is_common):
    """Two cameras that look the same way, turned to either side of z about it."""
    aside = math.sqrt(1 - length**2)
    poses = torch.eye(4).repeat(2, 1, 1)
    for pose, sign in zip(poses, (1, -1), strict=True):
        pose[:3, 1], pose[:3, 2] = torch.tensor([sign * aside, 0.0, length]), torch.tensor([0.0, -1.0, 0.0])
    up = common_up(poses)
    assert (up.tolist() == pytest.approx([0.0, 0.0, 1.0])) if is_common else up is None


def test_from_straight_above_it_keeps_a_slant(look_at):
    cameras = look_at([[0.0, 0.0, 3.0]])
    path = orbit_path(cameras, (0.0, 0.0, -5.0), 5)
    assert path.c2w.isfinite().all()
    torch.testing.assert_close(path.centers.sub(torch.tensor([0, 0, -5.0])).norm(dim=1), torch.full((5,), 8.0))


def test_no_common_up(look_at):
    cameras = look_at([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    cameras.c2w[1, :3, :2] *= -1  # upside down
    with pytest.raises(ValueError, match="no up direction in common"):
        orbit_path(cameras, (0.0, 0.0, 0.0), 4)
    for path in (orbit_path, spiral_path):
        assert (path(cameras, (0.0, 0.0, 0.0), 4, (0.0, 0.0, 1.0)).c2w[:, 2, 1] > 0.99).all(), "what is up is said"


def test_a_spiral_rises_from_the_lowest_to_the_highest_camera_and_closes(look_at):
    elevations = (0.2, 0.5, 0.9)
    positions = [
        [3 * math.cos(a) * math.cos(e), 3 * math.sin(a) * math.cos(e), 3 * math.sin(e)]
        for a, e in zip((0.0, 2.1, 4.2), elevations, strict=True)
    ]
    cameras = look_at(positions)
    path = spiral_path(cameras, (0.0, 0.0, 0.0), 12, rounds=2)
    torch.testing.assert_close(path.centers.norm(dim=1), torch.full((12,), 3.0))
    up = torch.tensor([0.0, 0.0, 1.0])
    found = torch.arcsin(path.centers @ up / 3)
    assert found[0].item() == pytest.approx(0.2, abs=1e-5) and found[6].item() == pytest.approx(0.9, abs=1e-5)
    assert (found[:7].diff() > 0).all() and (found[6:].diff() < 0).all()
    torch.testing.assert_close(found[1:6], found[7:].flip(0), atol=1e-5, rtol=0)  # the way down is the way up
    flat = torch.nn.functional.normalize(path.centers - (path.centers @ up)[:, None] * up, dim=1)
    sixth = torch.full((12,), math.cos(2 * 2 * math.pi / 12))
    torch.testing.assert_close((flat * flat.roll(-1, 0)).sum(1), sixth, atol=1e-4, rtol=0)
    torch.testing.assert_close(-path.c2w[:, :3, 2] * 3, -path.centers, atol=1e-5, rtol=1e-5)


def test_a_spiral_needs_a_common_up(look_at):
    cameras = look_at([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    cameras.c2w[1, :3, :2] *= -1
    with pytest.raises(ValueError, match="no up direction in common"):
        spiral_path(cameras, (0.0, 0.0, 0.0), 4)


@pytest.mark.parametrize(
    ("ends", "middle"),
    [
        ((-1.0, 2.2), (0.6, 0.0, 0.0)),  # of the box: what cameras that are 3 away look at is within a fifth of that
        ((-1.0, 2.3), (0.0, 0.0, 0.0)),
        ((0.1, 4.1), (2.1, 0.0, 0.0)),  # they look past it
    ],
)
def test_a_round_goes_about_the_box_or_about_what_cameras_look_at_beside_its_middle(look_at, ends, middle):
    cameras = look_at([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
    box = SceneBox((ends[0], -1.0, -1.0), (ends[1], 1.0, 1.0))
    assert middle_of(cameras, box) == pytest.approx(middle, abs=1e-6)
    ahead = look_at([[3.0, 0.0, 0.0]])
    assert middle_of(ahead, box) == box.centre, "one camera's axis meets no other"


def test_cameras_that_look_past_each_other_look_at_no_one_place(look_at):
    target, box = (1.0, 0.5, -0.5), SceneBox((-9.0, -2.0, -2.0), (3.0, 4.0, 5.0))
    around = look_at([[5.0, 0.5, -0.5], [1.0, 4.5, 0.5], [-3.0, 0.5, 0.0], [1.0, -3.5, -0.5]], target=target)
    assert middle_of(around, box) == pytest.approx(target, abs=1e-4)
    poses = around.c2w.clone()
    poses[:, 2, 3] += torch.tensor([3.0, -3.0, 3.0, -3.0])
    assert middle_of(replace(around, c2w=poses), box) == box.centre


def turned(cameras, degrees):
    """Cameras in a world that is turned about x."""
    angle = math.radians(degrees)
    turn = torch.eye(4)
    turn[1:3, 1:3] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return replace(cameras, c2w=turn @ cameras.c2w), turn[:3, 2].tolist()


@pytest.mark.parametrize("degrees", [0, 10, 50])
def test_cameras_on_one_side_of_a_scene_are_level_in_a_world_that_is_turned(look_at, degrees):
    """All within an eighth of a round look down by 45 degrees: on average their images' up leans as much."""
    positions = [[2 * math.cos(a), 2 * math.sin(a), 2 + 0.1 * a] for a in torch.linspace(0, math.pi / 4, 7).tolist()]
    cameras, up = turned(look_at(positions), degrees)
    assert common_up(cameras.c2w).tolist() == pytest.approx(up, abs=1e-6)
    assert world_up(cameras) == ((0, 0, 1) if degrees == 0 else pytest.approx(up, abs=1e-6))


def test_hands_that_shake_hold_cameras_level_on_average(look_at):
    angles = torch.linspace(0, 2, 40).tolist()
    cameras = look_at([[2 * math.cos(a), 2 * math.sin(a), 1.5] for a in angles])
    roll = torch.randn(40, generator=torch.Generator().manual_seed(0)) * math.radians(3)
    for pose, angle in zip(cameras.c2w, roll.tolist(), strict=True):
        right, up = pose[:3, 0].clone(), pose[:3, 1].clone()
        pose[:3, 0], pose[:3, 1] = (
            right * math.cos(angle) + up * math.sin(angle),
            up * math.cos(angle) - right * math.sin(angle),
        )
    assert common_up(cameras.c2w)[2] > math.cos(math.radians(2)) and world_up(cameras) == (0, 0, 1)


@pytest.mark.parametrize(
    ("aside", "roll", "is_level"),
    # Of images to either side by these degrees, each rolled to both sides: tan(roll)^2 = 0.2 sin(aside)^2 at 12.6.
    [(6.0, 0.0, True), (5.5, 0.0, False), (30.0, 12.0, True), (30.0, 13.2, False)],
)
def test_up_is_told_by_level_cameras_or_else_an_axis_that_their_mean_is_near(look_at, aside, roll, is_level):
    """The world is turned by ten degrees: an axis is near enough for a mean alone."""
    place, roll = math.radians(aside), math.radians(roll)
    cameras = look_at([[3 * math.cos(a), 3 * math.sin(a), 0.0] for a in (place, place, -place, -place)])
    for pose, sign in zip(cameras.c2w, (1, -1, 1, -1), strict=True):
        right, up = pose[:3, 0].clone(), pose[:3, 1].clone()
        pose[:3, 0] = right * math.cos(roll) + sign * up * math.sin(roll)
        pose[:3, 1] = up * math.cos(roll) - sign * right * math.sin(roll)
    cameras, up = turned(cameras, 10)
    assert world_up(cameras) == (pytest.approx(up, abs=1e-6) if is_level else (0, 0, 1))


@pytest.mark.parametrize(("degrees", "is_axis"), [(2.9, True), (3.1, False)])
def test_up_of_level_cameras_is_an_axis_of_the_world_within_three_degrees(look_at, degrees, is_axis):
    cameras, up = turned(look_at([[3.0, 0.0, 1.0], [0.0, 3.0, 1.0], [-3.0, 0.0, 1.0]]), degrees)
    assert world_up(cameras) == ((0, 0, 1) if is_axis else pytest.approx(up, abs=1e-6))


@pytest.mark.parametrize(("height", "is_axis"), [(0.78, True), (0.83, False)])
def test_up_of_one_camera_is_an_axis_of_the_world_within_fifteen_degrees(look_at, height, is_axis):
    """tan(15 degrees) is 0.268."""
    cameras = look_at([[3.0, 0.0, height]])
    leaning = torch.tensor([-height, 0.0, 3.0]) / math.hypot(height, 3.0)
    assert world_up(cameras) == ((0, 0, 1) if is_axis else pytest.approx(leaning.tolist(), abs=1e-6))


def test_cameras_whose_ups_cancel_out_have_none(look_at):
    cameras = look_at([[3.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    cameras.c2w[1, :3, :2] *= -1
    assert common_up(cameras.c2w) is None and world_up(cameras) is None


@pytest.mark.parametrize("sway", [0.0, 0.1])
def test_a_survey_that_looks_straight_down_has_its_up_where_it_looks_from(sway):
    poses = torch.eye(4).repeat(24, 1, 1)  # looks along -Z
    for index, pose in enumerate(poses):
        row, column = divmod(index, 6)
        tilt = torch.tensor([[0.0, -math.pi * (row % 2), sway], [math.pi * (row % 2), 0.0, 0.0], [-sway, 0.0, 0.0]])
        pose[:3, :3] = torch.linalg.matrix_exp(tilt)
        pose[:3, 3] = torch.tensor([10.0 * column, 6.0 * row, 30.0])
    assert common_up(poses)[2] > 0.99
    poses[:, :3, 3] = poses[:1, :3, 3]  # one that turns about its axis where it is tells nothing
    assert common_up(poses) is None


@pytest.mark.parametrize(
    ("sway", "rise", "is_survey"),
    # The mean of what is behind them is as long as the cosine of the sway; they lie four times as wide as high at 4.74.
    [(25.0, 0.0, True), (27.0, 0.0, False), (0.0, 4.6, True), (0.0, 4.9, False)],
)
def test_a_survey_by_hand(sway, rise, is_survey):
    """Flown to and fro, each camera swayed to one side and raised, the next one to the other side and lowered."""
    poses = torch.eye(4).repeat(24, 1, 1)
    for index, pose in enumerate(poses):
        row, column = divmod(index, 6)
        ahead, side = (-1.0) ** row, (-1.0) ** column
        angle = side * math.radians(sway)
        pose[:3, 0] = torch.tensor([ahead * math.cos(angle), 0.0, -math.sin(angle)])
        pose[:3, 1] = torch.tensor([0.0, ahead, 0.0])
        pose[:3, 2] = torch.tensor([ahead * math.sin(angle), 0.0, math.cos(angle)])
        pose[:3, 3] = torch.tensor([10.0 * column, 6.0 * row, 30.0 + side * rise])
    up = common_up(poses)
    assert (up.tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)) if is_survey else up is None
