"""A comparison: what is rendered, at which size, against what; and from a run on disk."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.alignment.comparison import (
    StoredDepth,
    chosen_views,
    compare_with,
    load_comparison,
    measure,
    sampled_depth,
    witness_of,
)
from distill.model.model import restore_run
from lego_response_distill import main as train
from scene.rays import pixel_rays
from settings.errors import InputError
from settings.loading import load_config
from teacher.depth import DepthKind
from teacher.sources import load_teacher
from teacher.views.gaussian_views import views_from_gaussians
from tests.toy_scene import block_of_gaussians, mask_toy_scene, ring_of_cameras, write_toy_scene

GREY = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def views():
    names = [f"r_{index}" for index in range(9)]
    return views_from_gaussians(block_of_gaussians(), ring_of_cameras(9, 24, 24), names, holdout_every=2)


def test_held_out_views_are_compared_where_there_are_any(views):
    assert chosen_views(views, 3) == [0, 2, 6] and chosen_views(views, 99) == [0, 2, 4, 6, 8]
    assert chosen_views(replace(views, holdout=torch.zeros(9, dtype=torch.bool)), 3) == [0, 3, 6]


def test_pictures_are_on_the_background_asked_for_if_they_have_alpha(views, teacher):
    comparison = compare_with(views, teacher, GREY, 2)
    assert comparison.has_alpha and comparison.background == GREY
    torch.testing.assert_close(comparison.pictures[4], views.image(4, GREY))
    torch.testing.assert_close(comparison.coverage[4], views.alpha[4].float() / 255)
    opaque = replace(views, alpha=None, background=(1.0, 1.0, 1.0))
    comparison = compare_with(opaque, teacher, GREY, 2)
    assert not comparison.has_alpha and comparison.background == (1.0, 1.0, 1.0)


def test_the_gate_is_that_of_eight_bit_pictures(views, teacher):
    gate = measure(compare_with(views, teacher, GREY, 4))
    assert 50 < gate.psnr < 62, "pictures are stored in 8 bits"
    assert 8 < gate.psnr_blank < 25 and abs(gate.alpha_mean - gate.coverage_mean) < 0.002


def test_shrinking_averages_pictures_and_scales_cameras(views, teacher):
    comparison = compare_with(views, teacher, GREY, 4)
    small = comparison.shrunk(12)
    blocks = comparison.pictures.view(9, 12, 2, 12, 2, 3).mean((2, 4))
    torch.testing.assert_close(small.pictures, blocks)
    assert small.coverage.shape == (9, 12, 12) and small.cameras.fx[0] == comparison.cameras.fx[0] / 2
    assert comparison.shrunk(24) is comparison and comparison.some_frames(2).frames == (0, 4)


@pytest.fixture(scope="module")
def masked(views):
    """Views of which the upper rows do not count, and hold what no scene shows."""
    counted, rgb, alpha = torch.ones(9, 24, 24, dtype=torch.bool), views.rgb.clone(), views.alpha.clone()
    counted[:, :7], rgb[:, :7], alpha[:, :7] = False, torch.tensor([255, 0, 255], dtype=torch.uint8), 255
    return replace(views, rgb=rgb, alpha=alpha, coverage=alpha, counted=counted)


def test_the_gate_is_that_of_pixels_that_count(views, masked, teacher):
    gate, whole = measure(compare_with(masked, teacher, GREY, 4)), measure(compare_with(views, teacher, GREY, 4))
    assert 50 < gate.psnr < 62 and abs(gate.alpha_mean - gate.coverage_mean) < 0.002
    assert gate.alpha_mean > 1.15 * whole.alpha_mean, "the scene is below"


def test_a_small_pixel_counts_if_all_of_it_does_or_most_where_none_does(views, masked, teacher):
    small = compare_with(masked, teacher, GREY, 4).shrunk(12)
    assert not small.counted[:, :4].any() and small.counted[:, 4:].all()
    torch.testing.assert_close(small.pictures[:, 4:], compare_with(views, teacher, GREY, 4).shrunk(12).pictures[:, 4:])
    stripes = masked.counted & (torch.arange(24) % 2 == 0)
    small = compare_with(replace(masked, counted=stripes), teacher, GREY, 4).shrunk(12)
    assert not small.counted[:, :4].any() and small.counted[:, 4:].all()
    assert small.pictures.min() >= 0 and small.pictures.max() <= 1.0001


def test_of_pictures_decoded_on_demand_those_compared_are_taken(tmp_path, teacher):
    path = write_toy_scene(tmp_path, teacher={"kind": "images", "outputs": None, "ply": None})
    box = "data.box={lower: [-0.6, -0.6, -0.6], upper: [0.6, 0.6, 0.6]}"
    lazy, whole = (
        compare_with(load_teacher(load_config(path, [box, *more], tmp_path)).views, teacher, GREY, 3)
        for more in (["data.memory_gib=2e-5"], [])
    )
    assert len(lazy) == 3 and lazy.frames == (0, 1, 2) and len(whole) == 17
    chosen = list(whole.frames)
    assert torch.equal(lazy.pictures, whole.pictures[chosen]) and torch.equal(lazy.coverage, whole.coverage[chosen])
    assert lazy.names == tuple(whole.names[index] for index in chosen)
    assert measure(lazy) == measure(whole)


@pytest.mark.parametrize("width", [4, 8, 9])
def test_sampled_depth_has_the_rays_of_the_pixels_it_took(width):
    cameras = ring_of_cameras(2, 27, 21)
    values = torch.from_numpy(np.random.default_rng(0).random((2, 21, 27), np.float32))
    whole = StoredDepth(values, values, cameras, DepthKind.Z, (0, 1), ("a", "b"), 1.0)
    depth = sampled_depth(whole, width)
    small = depth.cameras
    assert depth.values.shape == (2, small.height, small.width) and depth.kind == DepthKind.Z
    row, col = torch.meshgrid(torch.arange(small.height), torch.arange(small.width), indexing="ij")
    row, col = row.flatten(), col.flatten()
    stride, frame = 27 // width, torch.ones_like(row)
    own = pixel_rays(small, frame, row, col)[1]
    full = pixel_rays(cameras, frame, row * stride + stride // 2, col * stride + stride // 2)[1]
    torch.testing.assert_close(own, full, atol=1e-6, rtol=0)
    torch.testing.assert_close(depth.values[1, 1, 2], values[1, stride + stride // 2, 2 * stride + stride // 2])
    assert torch.equal(depth.values, depth.alpha)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("toy")
    config = write_toy_scene(folder)
    more = ["--output", str(folder), "--max-steps", "5", "--set", "eval.splits=[holdout]"]
    assert train(["--config", str(config), "--assets", str(folder), *more]) in (0, 3)
    return folder


def test_a_run_is_restored_from_its_latest_checkpoint_or_a_named_one(toy):
    config = load_config(toy / "toy.yaml", [], toy)
    run = restore_run(config, toy)
    assert run.step == 5 and run.checkpoint.name == "step_000005.pth" and not run.model.student.training
    named = restore_run(load_config(toy / "toy.yaml", ["run=other"], toy), toy, str(run.checkpoint))
    assert named.checkpoint == run.checkpoint and not named.folder.results.exists()
    for name, value in run.model.student.state_dict().items():
        assert torch.equal(value, named.model.student.state_dict()[name])
    with pytest.raises(InputError, match="Train first"):
        restore_run(load_config(toy / "toy.yaml", ["run=other"], toy), toy)


def test_renders_on_disk_come_with_depth_and_a_witness(toy):
    config = load_config(toy / "toy.yaml", ["data.resolution=12"], toy)
    comparison, witness, is_drawn, strays, outliers = load_comparison(config, restore_run(config, toy), 3)
    assert not is_drawn and strays == outliers == ""
    assert comparison.frames == (0, 4, 12) and len(comparison) == 17 and comparison.cameras.width == 12
    assert comparison.depth.kind == DepthKind.INVERSE_Z and comparison.depth.values.shape == (3, 24, 24)
    assert comparison.depth.frames == (0, 4, 12)
    torch.testing.assert_close(comparison.depth.cameras.c2w, comparison.cameras.c2w)
    own = torch.stack([witness(comparison.cameras, index).over((1.0, 1.0, 1.0)) for index in comparison.frames])
    # Drawn at 24 pixels and reduced, as the pictures were: equal up to their 8 bits.
    torch.testing.assert_close(own, comparison.pictures[list(comparison.frames)], atol=0.01, rtol=0)


def test_depth_is_that_of_the_views_where_others_are_left_out(tmp_path):
    """Those whose images are not on disk: files are of all frames of the dataset."""
    config = load_config(write_toy_scene(tmp_path), [], tmp_path)
    for index in (1, 2, 8):
        (tmp_path / f"data/r_{index}.png").unlink()
    comparison = load_comparison(config, None, 3).comparison
    depth, names = comparison.depth, [comparison.names[index] for index in comparison.frames]
    assert names == ["r_0", "r_4", "r_12"] and [depth.names[index] for index in depth.frames] == names
    torch.testing.assert_close(depth.cameras.c2w, comparison.cameras.c2w)
    stored = [np.load(tmp_path / f"outputs/depth/{int(name[2:]):05d}.npy") for name in names]
    assert np.array_equal(depth.values, np.stack(stored))


def test_depth_is_not_looked_at_where_no_pixel_counts(tmp_path):
    config = load_config(write_toy_scene(tmp_path), ["data.resolution=12"], tmp_path)
    whole = load_comparison(config, None, 3).comparison.depth.values
    mask_toy_scene(tmp_path)
    masked = load_comparison(config, None, 3).comparison.depth.values
    assert not masked[:, :8].any() and torch.equal(masked[:, 8:], whole[:, 8:]) and whole[:, :8].any()


@pytest.mark.parametrize("kind", ["images", "gaussians"])
def test_other_teachers_have_neither(toy, kind):
    config = load_config(toy / "toy.yaml", [f"teacher.kind={kind}"], toy)
    comparison, witness, is_drawn, *_ = load_comparison(config, restore_run(config, toy), 2)
    assert is_drawn == (kind == "gaussians")
    assert comparison.depth is None and witness is None and comparison.has_alpha


def test_depth_that_is_not_wanted_is_not_read(toy):
    config = load_config(toy / "toy.yaml", ["teacher.depth_kind=none"], toy)
    assert load_comparison(config, restore_run(config, toy), 2).comparison.depth is None
    with pytest.raises(InputError, match="--views"):
        load_comparison(config, restore_run(config, toy), 0)


def test_a_witness_leaves_out_what_the_teacher_s_near_plane_leaves_out(tmp_path):
    path, cameras = write_toy_scene(tmp_path), ring_of_cameras(1, 24, 24)
    for plane, shows in ((0.2, True), (2.6, False)):  # before the block, and behind it
        config = load_config(path, [f"teacher.near={plane}"], tmp_path)
        rendering = witness_of(config, load_teacher(config), 48)(cameras, 0)
        assert bool(rendering.alpha.max() > 0.9) == shows and bool(rendering.alpha.max() > 0) == shows
