import math
import re
from dataclasses import replace

import pytest
import torch

from scene.rays import SceneBox
from settings.config import Config
from settings.errors import InputError
from settings.far_field import FarFieldConfig
from teacher.bricks.scene import BRICKS_BOX
from teacher.gaussians import Gaussians
from teacher.sources import source_of
from teacher.sources.box import (
    box_of_gaussians,
    box_setting,
    check_box_holds,
    find_strays,
    focused_box,
    scene_box,
    stray_note,
)


def make_gaussians(means, scales=(0.1, 0.1, 0.1), opacity=0.9):
    means = torch.tensor(means)
    count = len(means)
    return Gaussians(
        means=means,
        log_scales=torch.tensor(scales).log().expand(count, 3),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        opacity_logits=torch.logit(torch.as_tensor(opacity)).expand(count),
        sh=torch.zeros(count, 1, 3),
    )


def make_config(box="auto", kind="images"):
    return Config.model_validate(
        {
            "scene": "test",
            "run": "test",
            "data": {"box": box, "resolution": 8, "transforms": "transforms.json"},
            "teacher": {"kind": kind, "ply": "point_cloud.ply", "outputs": "outputs"},
        }
    )


@pytest.mark.parametrize(("opacity", "is_visible"), [(0.12, True), (0.08, False)])
def test_what_has_a_tenth_of_opacity_widens_the_box(opacity, is_visible):
    means = [[-1.0, 0, 0], [1, 1, 0.5], [3.0, 0, 0]]
    box = box_of_gaussians(make_gaussians(means, opacity=torch.tensor([0.9, 0.9, opacity])))
    assert (box.upper[0] > 3) == is_visible


def test_a_configured_box_is_taken_over_all_else():
    config = make_config({"lower": [-1, -2, -3], "upper": [1, 2, 3]}, "bricks")
    box, source = scene_box(config, make_gaussians([[9.0, 9, 9]]), None)
    assert (box.lower, box.upper) == ((-1, -2, -3), (1, 2, 3))
    assert source == "data.box"


def test_the_built_in_scene_has_its_own_box_unless_the_config_has_one():
    assert source_of(make_config(kind="bricks")).box(None, None)[0] == BRICKS_BOX
    configured = make_config({"lower": [-1, -2, -3], "upper": [1, 2, 3]}, "bricks")
    assert source_of(configured).box(None, None)[1] == "data.box"


def test_auto_is_found_from_the_gaussians_rather_than_the_cameras(look_at):
    gaussians = make_gaussians([[-1.0, 0, 0], [1, 1, 0.5]])
    box, source = scene_box(make_config(), gaussians, look_at([(4.0, 0, 0), (0, 4, 0)]))
    assert box == box_of_gaussians(gaussians)
    assert "teacher.ply" in source


def test_auto_is_found_from_what_the_cameras_look_at_when_there_is_no_ply(look_at):
    # 4 units from (1, 2, 3), whose surroundings they see 24 pixels wide at a focal length of 48: 2 units.
    cameras = look_at([(5.0, 2, 3), (1, 6, 3), (1, 2, 7)], target=(1.0, 2.0, 3.0), focal=48.0)
    box, source = scene_box(make_config(), None, cameras)
    assert box.lower == pytest.approx((0, 1, 2), abs=1e-5)
    assert box.upper == pytest.approx((2, 3, 4), abs=1e-5)
    assert "cameras look at" in source


def test_auto_without_anything_to_go_by_is_refused_with_what_to_do(look_at):
    message = r"config: data.box: found auto without a PLY, and .*expected a box. Set e.g. --set"
    with pytest.raises(InputError, match=message):
        scene_box(make_config(), None, None)
    with pytest.raises(InputError, match=message):  # parallel axes
        scene_box(make_config(), None, look_at([(4.0, 0, 0), (5, 0, 0)]))


def test_box_of_two_gaussians_by_hand():
    # Two standard deviations of (0.1, 0.2, 0.05) beyond (-1, 0, 0) and (1, 1, 0.5), and 2 % of the longest side.
    box = box_of_gaussians(make_gaussians([[-1.0, 0, 0], [1, 1, 0.5]], (0.1, 0.2, 0.05)))
    margin = 0.02 * 2.4
    assert box.lower == pytest.approx((-1.2 - margin, -0.4 - margin, -0.1 - margin))
    assert box.upper == pytest.approx((1.2 + margin, 1.4 + margin, 0.6 + margin))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e6])
def test_the_box_is_as_close_in_a_world_of_any_scale(scale):
    places, widths = [[-1.0, 0, 0], [1, 1, 0.5]], (0.1, 0.2, 0.05)
    usual = box_of_gaussians(make_gaussians(places, widths))
    scaled = [[scale * value for value in place] for place in places]
    box = box_of_gaussians(make_gaussians(scaled, tuple(scale * width for width in widths)))
    assert box.extent == pytest.approx([scale * side for side in usual.extent], rel=1e-4)


def test_a_box_of_one_place_is_no_point():
    box = box_of_gaussians(make_gaussians([[5.0, 0, 0]], opacity=0.003))  # what is not drawn counts as its centre
    assert box.extent == pytest.approx((0.002,) * 3, rel=1e-3)


def test_a_turned_gaussian_reaches_along_its_own_axes():
    half = math.sqrt(0.5)
    gaussians = make_gaussians([[0.0, 0, 0]], (0.4, 0.1, 0.1))
    turned = Gaussians(
        **{**vars(gaussians), "rotations": torch.tensor([[half, 0, 0, half]])}  # a quarter turn about z
    )
    assert box_of_gaussians(turned).extent == pytest.approx((0.4 + 0.064, 1.6 + 0.064, 0.4 + 0.064), rel=1e-5)


def test_faint_gaussians_do_not_count():
    gaussians = make_gaussians([[0.0, 0, 0], [50, 0, 0]], opacity=[0.9, 0.05])
    assert box_of_gaussians(gaussians).upper[0] < 1


@pytest.mark.parametrize(("opacity", "farthest"), [(0.05, 50.2), (0.19, 50.2), (0.21, 0.2)])
def test_faint_gaussians_count_where_they_are_most_of_the_scene(opacity, farthest):
    """One at the origin, four of 0.05 at x = 50, and one at x = 90 that is too faint to be drawn; each counts with two
    standard deviations of 0.1.
    """
    places = [[0.0, 0, 0], *[[50.0, 0, 0]] * 4, [90.0, 0, 0]]
    box = box_of_gaussians(make_gaussians(places, opacity=[opacity, *[0.05] * 4, 0.003]))
    margin = 0.02 * (farthest + 0.2)
    assert (box.lower[0], box.upper[0]) == pytest.approx((-0.2 - margin, farthest + margin))


def test_a_thousandth_of_outliers_on_each_side_stays_outside():
    means = torch.rand(3000, 3)
    means[:3] += 100
    means[3:5] -= 100
    box = box_of_gaussians(make_gaussians(means.tolist(), (0.001, 0.001, 0.001)))
    assert box.lower[0] > -0.1
    assert box.upper[0] < 1.1
    means[5] += 100  # a fourth one no longer is
    assert box_of_gaussians(make_gaussians(means.tolist(), (0.001, 0.001, 0.001))).upper[0] > 100


def row_of_gaussians(outside, count=100):
    """``count`` Gaussians along x, ``outside`` of them beyond x = 1."""
    x = torch.cat([torch.linspace(-0.9, 0.9, count - outside), torch.linspace(3.0, 5.0, outside)])
    return make_gaussians(torch.stack([x, 0 * x, 0 * x], dim=1).tolist())


UNIT = SceneBox((-1, -1, -1), (1, 1, 1))


@pytest.mark.parametrize("outside", [0, 1])
def test_a_box_that_holds_the_teacher_is_not_mentioned(outside, caplog):
    check_box_holds(UNIT, row_of_gaussians(outside))
    assert not caplog.records


@pytest.mark.parametrize("outside", [2, 50])
def test_a_crop_is_noted_with_what_it_leaves_out(outside, caplog):
    check_box_holds(UNIT, row_of_gaussians(outside))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"outside of which {outside}.0% of the opacity" in record.getMessage()
    # Two standard deviations of 0.1 beyond 5, and 2 % of the whole width of 6.3.
    assert "lower: [-1.226, -0.326, -0.326], upper: [5.326, 0.326, 0.326]" in record.getMessage()


def test_a_box_elsewhere_is_refused_with_the_one_that_holds_the_teacher():
    message = (
        r"data.box: found .*outside of which 51.0% .*at most 50% outside.*auto, or --set 'data.box=\{lower: \[-1.226,"
    )
    with pytest.raises(InputError, match=message):
        check_box_holds(UNIT, row_of_gaussians(51))
    with pytest.raises(InputError, match=r"100.0% of the opacity"):
        check_box_holds(SceneBox((7, 7, 7), (8, 8, 8)), row_of_gaussians(0))


def test_what_is_outside_counts_by_its_opacity(caplog):
    means = [[0.0, 0, 0]] * 10 + [[5.0, 0, 0]] * 10
    check_box_holds(UNIT, make_gaussians(means, opacity=torch.tensor([0.9] * 10 + [0.005] * 10)))
    assert not caplog.records


def test_gaussians_wider_than_the_scene_or_far_away_do_not_widen_its_box():
    means = torch.rand(500, 3).tolist()
    plain = make_gaussians(means)
    log_scales, moved = plain.log_scales.clone(), plain.means.clone()
    log_scales[:2], moved[2, 1] = 9.0, -1e5
    assert box_of_gaussians(replace(plain, log_scales=log_scales, means=moved)) == box_of_gaussians(plain[3:])


def test_with_a_far_field_the_box_is_that_of_what_the_cameras_look_at(look_at):
    near, far = [[0.2, 0, 0], [-0.3, 0.1, 0.2]], [[30.0, 5, 1], [-20, 8, -9]]
    cameras, gaussians = look_at([(4.0, 0, 0), (0, 4, 0), (-3, 2, 2)]), make_gaussians(near + far)
    box, words = focused_box(gaussians, cameras)
    assert box == box_of_gaussians(make_gaussians(near))
    assert "50% of the opacity" in words
    config = make_config()
    contracted = config.model_copy(update={"far_field": FarFieldConfig(kind="contracted")})
    assert scene_box(contracted, gaussians, cameras) == (box, words)
    assert scene_box(config, gaussians, cameras)[0] == box_of_gaussians(gaussians)


def test_gaussians_that_reach_out_of_what_the_cameras_look_at_do_not_widen_it(look_at):
    cameras = look_at([(4.0, 0, 0), (0, 4, 0), (-3, 2, 2)])  # 3.2 wide there
    box, _ = focused_box(make_gaussians([[0.0, 0, 0]], scales=(50.0, 0.1, 0.1)), cameras)
    assert max(box.extent) < 4 and box.extent[1] < 0.5


def test_cameras_that_look_apart_leave_the_box_to_all_gaussians(look_at):
    gaussians = make_gaussians([[5.0, 0, 0], [-5, 0, 0]])
    outwards = look_at([(0.0, 0, 0), (0, 0.1, 0)], target=(9.0, 0, 0))
    box, words = focused_box(gaussians, outwards[[0, 0]])
    assert box == box_of_gaussians(gaussians) and "parallel" in words


def with_floaters(count=500, floaters=3, distance=100.0):
    """A unit cube of Gaussians, and some far away on one side."""
    means = torch.rand(count, 3, generator=torch.Generator().manual_seed(0))
    means[:floaters, 0] += distance
    return make_gaussians(means.tolist(), (0.01, 0.01, 0.01))


def test_a_few_gaussians_far_from_all_others_are_strays_and_the_box_of_the_others_is_found():
    gaussians = with_floaters()
    strays = find_strays(gaussians, box_of_gaussians(gaussians))
    assert strays.count == 3 and strays.width > 100
    assert strays.box == box_of_gaussians(gaussians[3:])


@pytest.mark.parametrize(
    "gaussians",
    [
        with_floaters(floaters=0),
        with_floaters(floaters=1, count=3000),  # the box leaves out as many by itself
        with_floaters(distance=3.0),  # of the scene: a thin part that sticks out
        with_floaters(floaters=100),  # surroundings
        make_gaussians([[0.0, 0, 0]]),
        make_gaussians([[0.0, 0, 0], [50, 0, 0]]),
    ],
)
def test_surroundings_are_no_strays(gaussians):
    assert find_strays(gaussians, box_of_gaussians(gaussians)) is None


def test_a_box_widened_by_strays_is_warned_of_once_with_the_settings_that_leave_them_out(caplog):
    config = make_config(kind="gaussians")
    for _ in range(2):
        scene_box(config, with_floaters(), None)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("data.box: auto is 10") and "3 of 500 Gaussians of teacher.ply" in message
    assert "--set 'data.box={lower: [-0.0" in message and "teacher.clip=true" in message
    assert "far_field.kind=contracted" in message


def test_the_note_on_strays_is_for_a_box_that_is_auto():
    gaussians = with_floaters()
    box, given = box_of_gaussians(gaussians), make_config({"lower": [-1, -1, -1], "upper": [1, 1, 1]})
    assert stray_note(make_config(kind="views"), gaussians, box)
    assert stray_note(given, gaussians, box) == stray_note(make_config(), None, box) == ""
    # That of what the cameras look at, with a far field: all else is no part of it.
    assert stray_note(make_config(), gaussians, box_of_gaussians(gaussians[3:])) == ""


def test_a_box_for_the_command_line_is_hardly_wider_than_the_box_however_small_that_is() -> None:
    assert box_setting(SceneBox((-1.00049, 0.2, 0.3), (1.0, 0.4, 0.5))).startswith(
        "'data.box={lower: [-1.001, 0.2, 0.3],"
    )
    for width in (3e-1, 1e-2, 7e-4, 2e-6):
        box = SceneBox((-width / 3,) * 3, (width * 2 / 3,) * 3)
        lower, upper = re.search(r"lower: \[(\S+),.*upper: \[(\S+),", box_setting(box)).groups()
        assert float(lower) <= box.lower[0] and float(upper) >= box.upper[0]
        assert width <= float(upper) - float(lower) < 1.021 * width
