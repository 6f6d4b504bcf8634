"""The lens of a transforms file."""

import math

import pytest

from scene.formats.transforms_lens import check_lens, distortion, read_intrinsics, stated_size
from settings.errors import InputError


@pytest.mark.parametrize(
    "fields",
    [
        {"k1": 1e-12, "k2": -3e-13, "p1": 0.0, "p2": 2e-15, "camera_model": "OPENCV"},
        {"camera_model": "SIMPLE_RADIAL", "k1": 0.0},
        {"camera_model": "perspective", "is_fisheye": False, "distortion_params": [0, 0, 0, 0]},
        {"camera_model": None, "k1": None, "distortion": {"radial": [0, 0]}, "lens_model": "pinhole"},
        {"aabb_scale": 16, "scale": 0.3, "offset": [1, 2, 3], "sharpness": 50.0, "colmap_im_id": 3, "camera_id": 1},
    ],
)
def test_a_pinhole_by_any_name(fields, caplog):
    check_lens("pinhole.json", [fields])
    assert not caplog.text


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"is_fisheye": True, "k1": 0, "k2": 0}, "is_fisheye True"),
        ({"camera_model": "OPENCV", "distortion_params": [0.3, -0.1, 0, 0]}, r"distortion_params \[0.3"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model EQUIRECTANGULAR"),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0}, "camera_model OPENCV_FISHEYE"),
        ({"camera_model": "FULL_OPENCV", "k4": 0.05}, "k4 0.05"),
        ({"k1": "0.1"}, "k1 0.1"),
        ({"k_1": 0.1}, "k_1 0.1"),
        ({"k6": 0.1}, "k6 0.1"),
        ({"k1": math.nan}, "k1 nan"),
        ({"dist_coeffs": [[0.1, 0, 0, 0, 0]]}, "dist_coeffs"),
        ({"distortion": {"radial": [0.1, 0]}}, "distortion"),
        ({"lens": "fisheye"}, "lens fisheye"),
        ({"projection": "orthographic"}, "projection orthographic"),
    ],
)
def test_another_lens_is_refused(fields, found):
    with pytest.raises(InputError, match=rf"bent.json: lens: found .*{found}.*2 of 2 frames"):
        check_lens("bent.json", [fields, fields])


def test_panoramas_are_to_be_cut_other_lenses_undistorted():
    with pytest.raises(InputError, match="cut each into perspective pictures"):
        check_lens("panorama.json", [{"camera_model": "EQUIRECTANGULAR"}])
    with pytest.raises(InputError, match="`colmap image_undistorter --image_path images"):
        check_lens("fisheye.json", [{"lens": "equidistant fisheye"}])


def test_the_coefficients_that_are_read():
    fields = {"camera_model": "OPENCV", "k1": 0.1, "k2": -2, "p1": 1e-3, "k3": 0.05, "k4": 0.0}
    check_lens("opencv.json", [fields])
    assert distortion(fields) == (0.1, -2, 1e-3, 0, 0.05) and distortion({"k1": None}) == (0, 0, 0, 0, 0)


def test_the_one_frame_with_distortion_is_named():
    fields = [{"file_path": f"r_{i}", "k4": 0.12 if i == 11 else 0.0} for i in range(17)]
    with pytest.raises(InputError, match=r"frames\[11\] \(r_11\) lens: found k4 0.12 \(1 of 17 frames\)"):
        check_lens("bent.json", fields)


def test_keys_that_sound_of_a_lens_are_named(caplog):
    check_lens("unread.json", [{"focal_length_mm": 35, "fl_x": 5, "K": [[5, 0, 4], [0, 5, 3], [0, 0, 1]], "skewed": 0}])
    assert "'focal_length_mm' (35), 'K' ([[5, 0, 4]" in caplog.text
    assert "may be about a lens, and is not read: fl_x, fl_y, cx, cy" in caplog.text


def test_a_focal_length_against_its_field_of_view(caplog):
    fields = {"fl_x": 50, "camera_angle_x": 1.19214, "camera_angle_y": 2 * math.atan(0.5)}
    [(fx, fy, cx, cy)] = read_intrinsics("contradiction.json", [fields], [(50, 50)], [(50, 50)])
    assert (fx, fy, cx, cy) == (50, pytest.approx(50), 25, 25)
    assert "fl_x is 50 pixels in frames[0], where camera_angle_x 1.19214 makes it 36.8523" in caplog.text


def test_pixels_far_from_square_are_said(caplog):
    fields = {"camera_angle_x": 0.9500215649604797, "camera_angle_y": 0.6605947017669678}
    read_intrinsics("not_square.json", [fields], [(1920, 1080)], [(1920, 1080)])
    assert "the focal lengths of frames[0] are 1866.67 and 1575 pixels" in caplog.text


def test_a_principal_point_at_the_edge(caplog):
    fields = {"fl_x": 60, "cx": 24, "cy": 24}
    with pytest.raises(
        InputError, match=r"principal point: found \(24, 24\) at or outside the edge of 24x24.*add their w"
    ):
        read_intrinsics("edge.json", [fields], [None], [(24, 24)])
    assert read_intrinsics("edge.json", [fields], [(48, 48)], [(24, 24)]) == [(30, 30, 12, 12)]
    assert not caplog.text
    # Where the file says that it is of images of this size it is used: a crop may be so.
    assert read_intrinsics("edge.json", [fields], [(24, 24)], [(24, 24)])[0][2:] == (24, 24)
    assert "the principal point (24, 24) of frames[0] is far from the centre of 24x24 images" in caplog.text


def test_half_a_size_is_refused():
    assert stated_size("t.json", 0, {"w": 8.0, "h": 6}) == (8, 6) and stated_size("t.json", 0, {}) is None
    with pytest.raises(InputError, match=r"frames\[0\] h: found None"):
        stated_size("t.json", 0, {"w": 8})
