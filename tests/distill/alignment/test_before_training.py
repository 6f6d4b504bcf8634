"""What is found out before the first step about a toy scene in which one thing is wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distill.alignment import before_training
from scene.images import read_image, write_image
from settings.errors import InputError
from settings.loading import load_config
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.sources import load_teacher
from tests.distill.alignment.checked_scene import (
    AUTO,
    GAUSSIANS,
    IMAGES,
    NO_DEPTH,
    SMALL,
    change_pictures,
    change_poses,
    mask,
    prepare,
    warnings_of,
)
from tests.toy_scene import FRAMES


def on_black(rgba):
    return rgba[..., :3] / 255 * (rgba[..., 3:] / 255)


def opencv(frame):
    return {"transform_matrix": (np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1])).tolist()}


def inverted(frame):
    return {"transform_matrix": np.linalg.inv(np.array(frame["transform_matrix"])).tolist()}


@pytest.mark.parametrize("overrides", [AUTO, ["teacher.ply=null"], IMAGES, GAUSSIANS, SMALL])
def test_nothing_is_said_of_what_is_right(toy, caplog, overrides):
    assert warnings_of(caplog, toy, *overrides) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (opencv, r"camera axes are OpenCV's.*100% see it.*negate the 2nd and 3rd column"),
        (inverted, r"poses are world-to-camera, 100% see it.*invert each transform_matrix"),
    ],
)
@pytest.mark.parametrize("overrides", [AUTO, NO_DEPTH, GAUSSIANS])
def test_poses_that_look_away_are_refused(toy, change, words, overrides):
    change_poses(toy, change)
    with pytest.raises(InputError, match=f"transform_matrix: found 17 of 17 cameras look away .*{words}"):
        prepare(toy, *overrides)


@pytest.mark.parametrize(("change", "words"), [(opencv, "OpenCV's"), (inverted, "world-to-camera")])
def test_without_gaussians_the_optical_axes_tell(toy, change, words):
    change_poses(toy, change)
    with pytest.raises(
        InputError, match=f"transform_matrix: .*{words}.* they look at one place.*outwards, set data.box"
    ):
        prepare(toy, "teacher.ply=null", *AUTO)


def test_some_cameras_that_look_away_are_a_warning(toy, caplog):
    content = json.loads((toy / "data" / "transforms.json").read_text())
    for frame in content["frames"][:12]:
        frame.update(opencv(frame))
    (toy / "data" / "transforms.json").write_text(json.dumps(content))
    first, *_ = warnings_of(caplog, toy, *GAUSSIANS)
    assert "12 of 17 cameras look away from the scene box" in first


@pytest.mark.parametrize("overrides", [["data.near=5"], ["data.far=0.5"]])
def test_near_and_far_that_leave_no_sample_are_refused(toy, overrides):
    with pytest.raises(InputError, match="data.near: .* no sample in 17 of 17 views, .* the scene box, 1.2"):
        prepare(toy, *overrides)


def test_a_scene_beyond_where_rays_end_by_default_names_the_setting_that_reaches_it(toy):
    def farther(frame):
        pose = np.array(frame["transform_matrix"])
        pose[:3, 3] *= 1e6
        return {"transform_matrix": pose.tolist()}

    change_poses(toy, farther)
    with pytest.raises(InputError, match="data.near: .* no sample .* large for data.far: set it to 6e[+]06"):
        prepare(toy, *GAUSSIANS, "teacher.scale=1e6")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.box={lower: [-1e4, -1e4, -1e4], upper: [1e4, 1e4, 1e4]}", "data.box: found samples 33.8 apart, in a"),
        ("render.step_size=2000", "render.step_size: found samples 2e[+]03 apart, in a scene"),
        (
            "render.step_size=1e-5",
            "render.step_size: found at most 1,024 samples on a ray, 1e-05 apart: 0.0102 in all, in",
        ),
        ("render.max_samples_per_ray=1", "render.max_samples_per_ray: found at most 1 samples on a ray, 0"),
    ],
)
def test_samples_that_cannot_show_the_scene_are_refused(toy, setting, said):
    with pytest.raises(InputError, match=said):
        prepare(toy, setting)


def test_few_samples_across_the_scene_are_a_warning(toy, caplog):
    (said,) = warnings_of(caplog, toy, "render.step_size=0.4")
    assert "render.step_size: found samples 0.4 apart, in a scene 1.04 wide" in said


def test_rays_that_end_early_in_the_scene_are_a_warning(toy, caplog):
    (said,) = warnings_of(caplog, toy, "render.step_size=0.0002")
    assert "found at most 1,024 samples on a ray, 0.0002 apart: 0.205 in all, in a scene 1.04 wide" in said
    assert "Leave out render.step_size, or raise render.max_samples_per_ray." in said


@pytest.mark.parametrize("overrides", [NO_DEPTH, SMALL, GAUSSIANS, IMAGES])
def test_nothing_is_said_of_what_a_mask_leaves_out(toy, caplog, overrides):
    mask(toy)
    assert warnings_of(caplog, toy, *overrides) == []


def test_pictures_of_which_no_pixel_that_counts_shows_a_thing_are_refused(toy):
    mask(toy)
    counted = np.arange(24)[:, None, None] >= 8
    change_pictures(toy / "outputs/renders", lambda image: np.where(counted, np.uint8(255), image))
    with pytest.raises(InputError, match="teacher's views: found 0.000% of the pixels with something in them"):
        prepare(toy, *NO_DEPTH)


def test_what_views_show_is_looked_at_one_at_a_time(toy):
    """As numbers, the coverage of all takes as much memory again as all the pictures do."""

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            result = operator(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                sizes.append(result.numel())
            return result

    sizes, config = [], load_config(toy / "toy.yaml", NO_DEPTH, toy)
    teacher = load_teacher(config)
    with Sizes():
        before_training._check_visible(config, teacher)
    assert max(sizes) == teacher.views.coverage[0].numel()


def test_renders_in_the_order_of_names_are_refused(toy):
    order = sorted(range(FRAMES), key=lambda index: f"r_{index}")
    for folder, end in (("renders", "png"), ("depth", "npy")):
        old = [(toy / "outputs" / folder / f"{index:05d}.{end}").read_bytes() for index in range(FRAMES)]
        for new, index in enumerate(order):
            (toy / "outputs" / folder / f"{new:05d}.{end}").write_bytes(old[index])
    with pytest.raises(InputError, match="frame order: .* sorted by names as text .* List the frames"):
        prepare(toy, *AUTO)


def test_a_principal_point_that_the_renders_ignore_is_refused(toy):
    change_poses(toy, lambda frame: {"cx": 14.0, "cy": 9.0})
    with pytest.raises(InputError, match=r"principal point: .* cx and cy are shifted by \(2, -3\) pixels, they are 6"):
        prepare(toy, *AUTO)


@pytest.mark.parametrize("overrides", [NO_DEPTH, ["teacher.ply=null"]])
def test_renders_on_black_under_a_white_setting_are_a_warning(toy, caplog, overrides):
    for index in range(FRAMES):
        picture = on_black(read_image(toy / "data" / f"r_{index}.png"))
        write_image(toy / "outputs" / "renders" / f"{index:05d}.png", picture)
    (said,) = warnings_of(caplog, toy, *overrides)
    assert said.startswith("the border of the pictures is black, teacher.background is white. Set teacher.background")
    caplog.clear()
    assert warnings_of(caplog, toy, "teacher.background=black", "render.background=black", *overrides) == []


def test_ground_truth_on_black_is_a_warning(toy, caplog):
    change_pictures(toy / "data", on_black)
    (said,) = warnings_of(caplog, toy)
    assert "the border of ground truth is black, render.background is white" in said


def test_premultiplied_images_are_a_warning(toy, caplog):
    change_pictures(toy / "data", lambda rgba: np.dstack([on_black(rgba), rgba[..., 3:] / 255]))
    (said,) = warnings_of(caplog, toy, *IMAGES)
    assert "the alpha of the pictures looks premultiplied" in said and "straight (not premultiplied) alpha" in said
    _, said = warnings_of(caplog, toy, *NO_DEPTH)
    assert "the alpha of ground truth looks premultiplied" in said


def test_renders_of_something_else_than_ground_truth_are_a_warning_where_no_gaussians_speak_for_them(toy, caplog):
    change_pictures(toy / "outputs/renders", lambda image: image[..., ::-1])
    (said,) = warnings_of(caplog, toy, "teacher.ply=null", *NO_DEPTH)
    assert "dB against ground truth, and so show something else" in said and "BGR" in said


def test_nothing_visible_is_refused(toy):
    change_pictures(toy / "outputs/renders", lambda image: np.full_like(image, 255))
    with pytest.raises(InputError, match="teacher's views: found 0.000% of the pixels with something in them"):
        prepare(toy, *NO_DEPTH)


def test_a_scene_of_the_colour_of_its_background_is_a_warning_that_names_another(toy, caplog):
    gaussians = read_ply(toy / "point_cloud.ply")
    white = torch.full_like(gaussians.sh, 0.5 / 0.28209479177387814)
    write_ply(toy / "point_cloud.ply", replace(gaussians, sh=white))
    untruthful = [*GAUSSIANS, "data.ground_truth=false"]
    (warning,) = warnings_of(caplog, toy, *untruthful)
    assert "hardly differs from render.background, white" in warning
    assert "--set render.background=black" in warning
    caplog.clear()
    assert warnings_of(caplog, toy, *untruthful, "render.background=black") == []


def test_of_specks_alone_the_cameras_found_for_them_are_not_blamed(toy, caplog):
    ply = toy / "point_cloud.ply"
    gaussians = read_ply(ply)
    corners = gaussians[torch.tensor([0, len(gaussians) // 2, len(gaussians) - 1])]
    write_ply(ply, replace(corners, log_scales=corners.log_scales - 7))
    splat = ["data.transforms=null", "data.resolution=200", "teacher.frames=4", *GAUSSIANS, *NO_DEPTH]
    (said,) = [text for text in warnings_of(caplog, toy, *splat) if "views that show the scene" in text]
    assert "same world" not in said and "teacher.orbit.distance" in said


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("inverse_z", lambda depth: depth[:, ::-1], "the depth files are mirrored left to right"),
        ("inverse_z", lambda depth: depth * 1.25, "Multiply their values by 0.8."),
        ("distance", lambda depth: np.where(depth > 0.2, 1 / np.maximum(depth, 0.2), 0), "Set teacher.depth_kind: z."),
    ],
)
def test_depth_files_that_the_gaussians_contradict_are_a_warning(toy, caplog, kind, change, words):
    for path in (toy / "outputs" / "depth").glob("*.npy"):
        depth = np.load(path)
        np.save(path, np.where(depth > 0, change(depth), 0).astype(np.float32))
    message = warnings_of(caplog, toy, f"teacher.depth_kind={kind}")[-1]
    assert words in message and str(toy / "outputs" / "depth") in message


def test_a_box_that_holds_little_of_the_pictures_is_a_warning(toy, caplog):
    box = "data.box={lower: [-0.5, -0.4, -0.45], upper: [0.0, 0.4, 0.45]}"
    said = warnings_of(caplog, toy, "teacher.ply=null", *NO_DEPTH, box)
    assert len(said) == 1 and "of what the teacher's pictures show in what the silhouettes" in said[0]


def test_a_range_that_cuts_off_much_of_the_pictures_is_named(toy, caplog):
    first, *_ = warnings_of(caplog, toy, "data.far=1.6")
    assert "data.far: found only" in first and "0.05 (data.near) to 1.6 from the cameras" in first
    assert "Leave out data.near and data.far." in first


def test_other_errors_are_let_through(toy):
    (toy / "outputs" / "renders" / "00003.png").unlink()
    change_poses(toy, opencv)
    with pytest.raises(InputError, match="00003.png"):
        prepare(toy)


def test_alpha_is_not_learnt_from_photographs(toy):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    change_pictures(toy / "data", lambda _: noise)
    prepare(toy, *IMAGES)
    with pytest.raises(InputError, match="loss.alpha.weight: found 0.1, expected 0, since photographs without alpha"):
        prepare(toy, *IMAGES, "loss.alpha.weight=0.1")
