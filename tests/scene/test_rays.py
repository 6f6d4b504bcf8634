import math

import pytest
import torch

from scene.cameras import Cameras, join_cameras
from scene.rays import (
    Rays,
    SceneBox,
    camera_rays,
    distance_per_z,
    focus,
    focus_box,
    image_rays,
    intersect_box,
    pixel_rays,
    pixel_width,
    project,
)
from tests.launch_count import LaunchCount
from tests.triton_device import GPU, TRITON, device_of, needs_triton

BOX = SceneBox((-1, -1, -1), (1, 2, 1))


def camera(width: int = 6, height: int = 4, focal: float = 2.0) -> Cameras:
    """At (0, 0, 5), looking at the origin down -Z; the second one is turned to look down -X from (9, 0, 0)."""
    first = torch.eye(4)
    first[2, 3] = 5
    second = torch.tensor([[0.0, 0, 1, 9], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
    f = torch.full((2,), focal)
    centre = torch.ones(2)
    return Cameras(torch.stack([first, second]), f, f, centre * width / 2, centre * height / 2, width, height)


def test_pixel_rays_by_hand():
    # Pixel (row 0, col 5): (5.5 - 3) / 2 = 1.25 to the right, (2 - 0.5) / 2 = 0.75 up.
    origins, directions = pixel_rays(camera(), torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([5, 5]))
    length = math.sqrt(1.25**2 + 0.75**2 + 1)
    assert origins.tolist() == [[0, 0, 5], [9, 0, 0]]
    torch.testing.assert_close(directions[0], torch.tensor([1.25, 0.75, -1]) / length)
    # Looking down -X, right is -Z.
    torch.testing.assert_close(directions[1], torch.tensor([-1, 0.75, -1.25]) / length)


def test_projection_by_hand():
    """Of a point close before the camera, and of one behind it."""
    points = torch.tensor([[0.01, 0.02, 4.95], [0.0, 0.0, 6.0]])
    row, col, depth, distance = project(camera(), 0, points)
    assert (row[0].item(), col[0].item()) == pytest.approx((2 - 2 * 0.02 / 0.05, 3 + 2 * 0.01 / 0.05), abs=1e-4)
    assert depth.tolist() == pytest.approx([0.05, -1.0], abs=1e-6)
    assert distance.tolist() == pytest.approx([math.sqrt(0.01**2 + 0.02**2 + 0.05**2), 1.0], abs=1e-6)


def test_a_box_holds_its_faces():
    points = torch.tensor([[-1.0, -1, -1], [1, 2, 1], [0, 2, 0], [0, 2.001, 0], [-1.001, 0, 0]])
    assert BOX.contains(points).tolist() == [True, True, True, False, False]


def test_fractional_pixel_of_the_centre_looks_straight_ahead():
    _, direction = pixel_rays(camera(), torch.tensor([0]), torch.tensor([1.5]), torch.tensor([2.5]))
    assert direction.tolist() == [[0, 0, -1]]


def test_image_rays_are_row_major_pixel_rays():
    cameras = camera()
    row, col = (index.flatten() for index in torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij"))
    expected = pixel_rays(cameras, torch.ones(24, dtype=torch.int64), row, col)
    assert all(map(torch.equal, pixel_rays(cameras, 1, row, col), expected)), "one index stands for all"
    for got, want in zip(image_rays(cameras, 1), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("frame", [0, 1])
@pytest.mark.parametrize(("near", "far"), [(0.1, 100.0), (4.5, 8.5)])
@pytest.mark.parametrize("twin", ["numba", TRITON])
def test_the_twins_rays_of_a_picture_are_torchs(twin, frame, near, far):
    cameras, box = camera(width=7, height=5), SceneBox((-1, -1, -1), (1, 0.4, 1))
    expected = camera_rays(cameras, frame, box, near, far, "torch")
    found = camera_rays(cameras.to(device_of(twin)), frame, box, near, far, twin)
    assert (expected.far > expected.near).any() and (expected.far == expected.near).any()
    for part in ("origins", "directions", "near", "far"):
        torch.testing.assert_close(getattr(found, part).cpu(), getattr(expected, part))


@needs_triton
@pytest.mark.skipif(GPU, reason="what is compiled is counted in the interpreter")
def test_a_frame_is_a_slice_of_all_and_no_frames_rays_are_compiled_anew():
    cameras = camera()
    with LaunchCount() as count:
        for frame in range(2):
            camera_rays(cameras[frame : frame + 1], 0, BOX, 0.1, 100.0, "triton")
    assert len(count.compiled) == 1


def test_distance_per_z_by_hand():
    factor = distance_per_z(camera(), 0)
    assert factor.shape == (4, 6)
    assert factor[0, 5].item() == pytest.approx(math.sqrt(1.25**2 + 0.75**2 + 1))
    assert factor[2, 3].item() == pytest.approx(math.sqrt(0.25**2 + 0.25**2 + 1))


@pytest.mark.parametrize(
    ("origin", "direction", "expected"),
    [
        ((0, 0, 5), (0, 0, -1), (4, 6)),  # head on, two zero components
        ((0, 0, 0), (0, 1, 0), (0.5, 2)),  # from inside: near is the configured one
        ((0, 0, 0.5), (0, 0, 1), (0.5, 0.5)),  # leaves the box just where the range begins
        ((0, 5, 0), (1, 0, 0), (0.5, 0.5)),  # parallel to a slab, outside of it
        ((-3, 2, 0), (1, 0, 0), (2, 4)),  # along a face: 0/0 on that axis
        ((-1, 0, 3), (math.sqrt(0.5), 0, -math.sqrt(0.5)), (0.5, 0.5)),  # touches an edge, of which nothing is within
        ((0, 0, 5), (0, 0, 1), (0.5, 0.5)),  # looks away
        ((0, 0, 50), (0, 0, -1), (0.5, 0.5)),  # beyond the range
        ((0, 0, 9.5), (0, 0, -1), (8.5, 10)),  # far cut by the range
        (
            (3, 0, 3),
            (-math.sqrt(0.5), 0, -math.sqrt(0.5)),
            (2 * math.sqrt(2), 4 * math.sqrt(2)),
        ),  # corner to corner
    ],
)
def test_intersect_box_by_hand(origin, direction, expected):
    near, far = intersect_box(torch.tensor([origin]).float(), torch.tensor([direction]).float(), BOX, 0.5, 10.0)
    assert (near.item(), far.item()) == pytest.approx(expected)


def test_negative_zero_component_is_parallel_too():
    near, far = intersect_box(torch.tensor([[0.0, 0, 5]]), torch.tensor([[-0.0, -0.0, -1]]), BOX, 0.0, 10.0)
    assert (near.item(), far.item()) == (4, 6)


def test_no_rays():
    near, far = intersect_box(torch.zeros(0, 3), torch.zeros(0, 3), BOX, 0.0, 1.0)
    assert near.shape == far.shape == (0,)


def test_camera_inside_the_box_looking_away_is_legal():
    cameras = camera()
    inside = Cameras(torch.eye(4)[None], *(getattr(cameras, name)[:1] for name in ("fx", "fy", "cx", "cy")), 6, 4)
    near, far = intersect_box(*image_rays(inside, 0), BOX, 0.1, 10.0)
    assert (near == 0.1).all() and (far > near).all() and (far < 3).all()


def test_scene_box():
    assert BOX.extent == (2, 3, 2)
    points = torch.tensor([[0.0, 0, 0], [1, 2, 1], [1.01, 0, 0], [0, -1.01, 0]])
    assert BOX.contains(points).tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match="lower < upper"):
        SceneBox((0, 0, 0), (1, 0, 1))
    with pytest.raises(ValueError, match="three finite numbers"):
        SceneBox((0, 0, 0), (1, math.inf, 1))


def test_rays_index_together():
    rays = Rays(torch.zeros(3, 3), torch.eye(3), torch.arange(3.0), torch.arange(3.0) + 1)
    picked = rays[torch.tensor([2, 0])]
    assert len(rays) == 3 and len(picked) == 2
    assert picked.near.tolist() == [2, 0] and picked.far.tolist() == [3, 1]
    assert picked.directions.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_focus_box_by_hand():
    # The axes of the two cameras meet in the origin, 5 and 9 away; 6 px at focal 2 see 3 units per unit of depth.
    both = camera()
    box = focus_box(both[[0, 0, 1]])
    assert box.lower == pytest.approx((-7.5, -7.5, -7.5)) and box.upper == pytest.approx((7.5, 7.5, 7.5))
    with pytest.raises(ValueError, match="parallel"):
        focus_box(both[[0, 0]])
    with pytest.raises(ValueError, match="there is one camera"):
        focus_box(both[0])
    outwards = both.c2w @ torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    for poses in (outwards, torch.cat([both.c2w[[0, 1, 0, 1]], outwards])):  # all of them, a third of them
        each = torch.full((len(poses),), 2.0)
        with pytest.raises(ValueError, match="behind"):
            focus_box(Cameras(poses, each, each, each, each, 6, 4))


def test_cameras_ten_degrees_apart_have_a_focus(look_at):
    angle = math.radians(10)
    box = focus_box(look_at([[0.0, -3.0, 0.0], [3 * math.sin(angle), -3 * math.cos(angle), 0.0]]))
    assert box.centre == pytest.approx((0.0, 0.0, 0.0), abs=1e-4)
    assert box.extent == pytest.approx([3 * 24 / 30] * 3, rel=1e-4)


def test_a_walk_along_a_street_has_no_focus(look_at):
    """To both sides of straight ahead at each place, and a little inwards: the axes have a nearest point far behind the
    wall, which few pictures have.
    """
    aims = [(10.0 * k, 10.0 * k + side + 4.5 - k) for k in range(10) for side in (-3, 3)]
    street = join_cameras(*(look_at([[x, 0.0, 0.0]], (aim, 6.0, 0.0)) for x, aim in aims))
    with pytest.raises(ValueError, match=r"nearest to the cameras' optical axes is in the pictures of \d\d% of them"):
        focus(street)


@pytest.mark.parametrize(("aside", "is_seen"), [(11.0, True), (13.0, False)])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_cameras_look_at_is_in_four_of_five_pictures(look_at, aside, is_seen, axis):
    """Pictures are 24 x 24: of the eight cameras two have their principal point so far off that it lies outside."""
    angles = [math.pi / 4 * k for k in range(8)]
    cameras = look_at([[3 * math.cos(a), 3 * math.sin(a), 1.0] for a in angles], height=24)
    moved = getattr(cameras, "cx" if axis == 0 else "cy")
    moved[0], moved[3] = 12 + aside, 12 - aside
    if is_seen:
        assert focus(cameras)[0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    else:
        with pytest.raises(ValueError, match="in the pictures of 75% of them"):
            focus(cameras)


def test_a_pixel_is_as_wide_as_the_median_camera_has_it_in_the_middle_of_the_box(look_at):
    cameras = look_at([[0.5, 0.5, 2.5], [0.5, 0.5, 3.5], [0.5, 0.5, 9.5]], target=(0.5, 0.5, 0.5), focal=20.0)
    assert pixel_width(cameras, SceneBox((0, 0, 0), (1, 1, 1))) == pytest.approx(3 / 20)
