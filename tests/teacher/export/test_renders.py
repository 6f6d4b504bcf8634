"""Exported views read back as the same values, and a folder of them is only ever gone on with as it was begun."""

import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from scene.frames import Frames
from scene.images import read_image, to_uint8, write_image
from scene.rays import distance_per_z
from settings.errors import InputError
from teacher.depth import MIN_ALPHA, DepthKind
from teacher.export.export_cameras import ExportViews
from teacher.export.planes import ExportFormat, picture
from teacher.export.renders import SETTINGS, TRANSFORMS, ViewExport
from teacher.rasterizer import Drawing, Rasterizer
from teacher.views.teacher_views import views_from_outputs
from tests.toy_scene import block_of_gaussians, ring_of_cameras

WHITE = (1.0, 1.0, 1.0)
FRAMES = 4


def make_views(images=None, cameras=None):
    cameras = ring_of_cameras(FRAMES) if cameras is None else cameras
    names = tuple(f"r_{index}" for index in range(len(cameras)))
    own = Frames(cameras.resized(24, 24), names, tuple(images or [None] * len(cameras)), "here")
    return ExportViews(cameras, names, own, "here", {})


def make_export(folder, format=None, views=None, gaussians=None, drawing=None):
    gaussians = gaussians or block_of_gaussians()
    format = format or ExportFormat(DepthKind.INVERSE_Z, WHITE)
    return ViewExport(folder, gaussians, Rasterizer(gaussians, drawing=drawing), views or make_views(), format)


@pytest.fixture
def masked_views(tmp_path):
    """Views of a dataset that keeps the second frame for tests, and of which half of each picture counts."""
    folder, images, masks = tmp_path / "dataset", [], []
    for index in range(FRAMES):
        images.append(folder / f"{index}.png")
        masks.append(folder / f"mask_{index}.png")
        write_image(images[-1], np.full((24, 24, 3), 40 * index, np.uint8))
        counted = np.zeros((24, 24, 3), np.uint8)
        counted[:, : 6 + 6 * (index % 2)] = 255
        write_image(masks[-1], counted)
    views = make_views(images)
    tests = tuple(index == 1 for index in range(FRAMES))
    return replace(views, dataset=replace(views.dataset, masks=tuple(masks), tests=tests))


def test_what_the_dataset_keeps_for_tests_and_masks_goes_with_the_views(tmp_path, masked_views):
    folder = tmp_path / "export"
    make_export(folder, views=masked_views).run()
    options = {"box": None, "background": WHITE, "depth_kind": "none"}
    views = views_from_outputs(folder, folder / TRANSFORMS, holdout_every=8, **options)
    assert views.holdout.tolist() == [False, True, False, False]
    columns = [int(counted.any(0).sum()) for counted in views.counted]
    assert views.rgb.shape[1:3] == (24, 24) and columns == [6, 12, 6, 12]
    assert make_export(folder, views=masked_views).run() is None, "all are there"


@pytest.mark.parametrize("resolution", [24, 12])
def test_images_of_several_sizes_are_stored_in_the_corner_of_one_that_holds_them_all(tmp_path, caplog, resolution):
    sizes, images = [(24, 16), (12, 24), (24, 24), (16, 16)], []
    for index, (width, height) in enumerate(sizes):
        images.append(tmp_path / "dataset" / f"{index}.png")
        write_image(images[-1], np.full((height, width, 3), 40 + index, np.uint8))
    views = make_views(images, ring_of_cameras(FRAMES).resized(resolution, resolution))
    views = replace(views, dataset=replace(views.dataset, sizes=tuple(sizes)))
    folder, scale = tmp_path / "export", 24 // resolution
    make_export(folder, views=views).run()
    options = {"box": None, "background": WHITE, "depth_kind": "none"}
    read = views_from_outputs(folder, folder / TRANSFORMS, holdout_every=8, **options)
    for index, (width, height) in enumerate(sizes):
        counted = torch.zeros(resolution, resolution, dtype=torch.bool)
        counted[: height // scale, : width // scale] = True
        assert torch.equal(read.counted[index], counted)
        assert (read.ground_truth[index][counted] == torch.tensor([40 + index] * 3 + [255])).all()


def test_renders_are_compared_where_pixels_count(tmp_path, caplog, masked_views):
    caplog.set_level(logging.INFO)
    export = make_export(tmp_path / "export", views=masked_views)
    for index, path in enumerate(masked_views.dataset.image_paths):
        (planes,) = export._render([index])
        image = picture(planes, WHITE).copy()
        image[:, 6 + 6 * (index % 2) :] = 77  # what masks hide
        write_image(path, image)
    export.run()
    decibels = float(re.search(r"([\d.]+) dB between renders and the dataset's images", caplog.text)[1])
    assert decibels > 40


def test_frames_of_one_kind_are_not_told_apart(tmp_path, masked_views):
    rest = replace(masked_views.dataset, tests=(False,) * FRAMES, masks=None)
    make_export(tmp_path / "export", views=replace(masked_views, dataset=rest)).run()
    content = json.loads((tmp_path / "export" / TRANSFORMS).read_text())
    assert "test_filenames" not in content and "mask_path" not in content["frames"][0]


@pytest.mark.parametrize("kind", list(DepthKind))
@pytest.mark.parametrize("background", [WHITE, (0.2, 0.4, 0.6), None])
def test_read_back_as_the_same_values(tmp_path, kind, background):
    make_export(tmp_path, ExportFormat(kind, background)).run()
    views = views_from_outputs(
        tmp_path,
        tmp_path / TRANSFORMS,
        box=None,
        background=background or WHITE,
        depth_kind=kind.value,
        holdout_every=0,
    )
    assert views.names == make_views().names and views.ground_truth is None
    assert torch.equal(views.cameras.c2w, ring_of_cameras(FRAMES).c2w)
    rasterizer = Rasterizer(block_of_gaussians())
    for index in range(FRAMES):
        out = rasterizer.render(ring_of_cameras(FRAMES), index)
        alpha = out.alpha[..., None]
        if background is None:
            assert np.array_equal(views.alpha[index].numpy(), to_uint8(out.alpha.numpy()))
            straight = to_uint8((out.rgb / alpha.clamp(min=1e-6)).numpy())
            # Reading premultiplies and divides again, which costs a level where there is next to no alpha.
            levels = np.abs(views.rgb[index].numpy().astype(int) - straight)
            assert levels[views.alpha[index].numpy() > 0].max() <= 1
        else:
            assert views.alpha is None and views.background == background
            composite = out.rgb + (1 - alpha) * torch.tensor(background)
            assert np.array_equal(views.rgb[index].numpy(), to_uint8(composite.numpy()))
        stored = torch.from_numpy(np.load(tmp_path / "depth" / f"{index:05d}.npy"))
        assert stored.dtype == torch.float32
        per_z = distance_per_z(ring_of_cameras(FRAMES), index)
        value = {"z": out.z, "distance": out.z * per_z, "inverse_z": out.inverse_z}[kind.quantity]
        value = value / out.alpha.clamp(min=1e-12) if kind.normalized else value
        torch.testing.assert_close(stored, value, rtol=1e-6, atol=0)
        if background is None:
            # Distance: exact but for the 8 bits of the alpha that an accumulated kind is divided by.
            solid = out.alpha > MIN_ALPHA + 1 / 255
            expected = per_z / out.inverse_z * out.alpha if kind.quantity == "inverse_z" else out.z / out.alpha * per_z
            tolerance = 1e-5 if kind.normalized else 0.5 / 255 / MIN_ALPHA + 1e-4
            torch.testing.assert_close(views.distance[index][solid], expected[solid], rtol=tolerance, atol=0)
            assert solid.sum() > 50


def test_ground_truth_is_stored_at_the_size_of_the_renders(tmp_path):
    images = [tmp_path / f"r_{index}.png" for index in range(FRAMES)]
    for index, path in enumerate(images):
        write_image(path, np.full((24, 24, 4), (10 * index, 20, 30, 255), np.uint8))
    views = make_views(images, ring_of_cameras(FRAMES).resized(12, 12))
    assert views.has_truth
    make_export(tmp_path / "out", views=views).run()
    for index in range(FRAMES):
        truth = read_image(tmp_path / "out" / "gt" / f"{index:05d}.png")
        assert truth.shape == (12, 12, 4) and truth[5, 5].tolist() == [10 * index, 20, 30, 255]
    read = views_from_outputs(
        tmp_path / "out", tmp_path / "out" / TRANSFORMS, box=None, background=WHITE, depth_kind="inverse_z",
        holdout_every=0,
    )  # fmt: skip
    assert read.ground_truth[2, 0, 0].tolist() == [20, 20, 30, 255]


def test_ground_truth_is_in_the_teachers_own_exposure_as_a_runs(tmp_path):
    images = [tmp_path / f"r_{index}.png" for index in range(FRAMES)]
    for path in images:
        write_image(path, np.full((24, 24, 3), 102, np.uint8))
    views = make_views(images)
    twice = np.diag([2.0, 2.0, 2.0, 1.0])[:3]
    views = replace(views, dataset=replace(views.dataset, exposures=(twice, *[None] * (FRAMES - 1))))
    make_export(tmp_path / "out", views=views).run()
    assert [read_image(tmp_path / f"out/gt/{index:05d}.png")[5, 5].tolist() for index in (0, 1)] == [
        [51] * 3,
        [102] * 3,
    ]


def test_without_depth_there_is_no_depth_folder(tmp_path):
    make_export(tmp_path, ExportFormat(None, WHITE)).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == [SETTINGS, "renders", TRANSFORMS]


def test_supersampled_renders_are_averages(tmp_path):
    make_export(tmp_path, ExportFormat(DepthKind.Z, WHITE), drawing=Drawing(supersample=2)).run()
    fine = Rasterizer(block_of_gaussians()).render(ring_of_cameras(FRAMES).resized(48, 48), 1)
    composite = fine.rgb + 1 - fine.alpha[..., None]
    expected = composite.reshape(24, 2, 24, 2, 3).mean((1, 3))
    assert np.array_equal(read_image(tmp_path / "renders" / "00001.png"), to_uint8(expected.numpy()))
    z = fine.z.reshape(24, 2, 24, 2).mean((1, 3))
    np.testing.assert_allclose(np.load(tmp_path / "depth" / "00001.npy"), z, rtol=1e-5, atol=1e-6)


def test_an_interrupt_leaves_whole_files_to_go_on_from(tmp_path, monkeypatch):
    export, render, calls = make_export(tmp_path), Rasterizer.render_batch, []

    def interrupted(self, cameras, channels=None):
        calls.append(len(cameras))
        if len(calls) == 4:  # one warms up, two are frames
            raise KeyboardInterrupt
        return render(self, cameras, channels)

    monkeypatch.setattr(Rasterizer, "render_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export.run()
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    again = make_export(tmp_path)
    assert {2, 3} <= set(again.todo), "what was rendered may or may not have been written"
    again.run()
    assert make_export(tmp_path).todo == []


def test_figures_are_of_what_was_rendered(tmp_path):
    figures = make_export(tmp_path).run()
    assert figures["frames_timed"] == FRAMES and figures["avg_fps"] > 0
    assert figures["seconds_per_frame_median"] > 0 and figures["cpu_peak_gib"] > 0
    assert figures["gpu_peak_gib"] is None and figures["power_avg_w"] is None


def test_going_on_renders_only_what_is_missing(tmp_path):
    make_export(tmp_path).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "renders" / "00001.png").unlink()
    (tmp_path / "depth" / "00003.npy").unlink()
    kept = (tmp_path / "renders" / "00002.png").stat().st_mtime_ns
    again = make_export(tmp_path)
    assert again.todo == [1, 3]
    assert again.run()["frames_timed"] == 2
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (tmp_path / "renders" / "00002.png").stat().st_mtime_ns == kept
    assert make_export(tmp_path).run() is None


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"format": ExportFormat(DepthKind.Z, WHITE)}, 'depth_kind "inverse_z", expected depth_kind "z"'),
        ({"format": ExportFormat(DepthKind.INVERSE_Z, None)}, "background [1.0, 1.0, 1.0], expected background null"),
        ({"drawing": Drawing(near=0.1)}, "near 0.2, expected near 0.1"),
        ({"drawing": Drawing(24)}, "fitted_width null, expected fitted_width 24"),
        ({"gaussians": block_of_gaussians()[:-1]}, "gaussian_count 729, expected"),
        ({"views": make_views(cameras=ring_of_cameras(FRAMES, 30, 30))}, "resolution [24, 24]"),
        ({"views": make_views(cameras=ring_of_cameras(FRAMES + 1))}, "frames ["),
    ],
)
def test_other_settings_are_refused(tmp_path, different, said):
    make_export(tmp_path).run()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError) as caught:
        make_export(tmp_path, **different)
    assert said in str(caught.value) and "Name another --output" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_views_of_another_program_are_left_alone(tmp_path):
    (tmp_path / "renders").mkdir()
    with pytest.raises(InputError, match="views without export_settings.json"):
        make_export(tmp_path)
    (tmp_path / SETTINGS).write_text("{")
    with pytest.raises(InputError, match="unreadable text"):
        make_export(tmp_path)
    (tmp_path / SETTINGS).write_text("[]")
    with pytest.raises(InputError, match="settings of the views"):
        make_export(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    with pytest.raises(InputError, match="output folder: found"):
        make_export(tmp_path / "out").run()


def test_a_damaged_image_of_the_dataset_is_named(tmp_path):
    images = [tmp_path / f"r_{index}.png" for index in range(FRAMES)]
    for path in images:
        write_image(path, np.zeros((24, 24, 3), np.uint8))
    images[2].write_bytes(b"no picture")
    with pytest.raises(InputError, match="r_2.png: image: found unreadable"):
        make_export(tmp_path / "out", views=make_views(images)).run()


def test_stats_have_the_settings_and_the_figures(tmp_path):
    export = make_export(tmp_path)
    export.run()
    export.write_stats({"avg_fps": 2.5, "power_avg_w": None})
    stats = json.loads((tmp_path / "render_stats.json").read_text())
    assert stats["depth_kind"] == "inverse_z" and stats["resolution"] == [24, 24] and stats["near"] == 0.2
    assert stats["frames"] == FRAMES and stats["avg_fps"] == 2.5 and stats["power_avg_w"] is None


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (0.0, "100.00 dB between renders and the dataset's images"),
        (0.6, "filling .*% of the pixels: poses and PLY"),
    ],
)
def test_renders_are_compared_with_the_datasets_images(tmp_path, caplog, moved, words):
    first = make_export(tmp_path / "first", ExportFormat(None, None))
    first.run()
    views = make_views([tmp_path / "first" / "renders" / f"{index:05d}.png" for index in range(FRAMES)])
    block = block_of_gaussians()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        other = replace(block, means=0.2 * block.means + moved) if moved else block
        make_export(tmp_path / "second", ExportFormat(None, None), views, other).run()
    (record,) = caplog.records
    assert re.search(words, record.getMessage()) and (record.levelname == "WARNING") == bool(moved)


def test_views_that_show_nothing_are_a_warning_before_they_are_written(tmp_path, caplog, monkeypatch):
    told = []
    monkeypatch.setattr(ViewExport, "_write", lambda *_: told.append(caplog.text))
    block = block_of_gaussians()
    make_export(tmp_path, gaussians=replace(block, means=block.means + 50)).run()
    assert len(told) == FRAMES and "the Gaussians fill 0.000% of the pixels" in told[0]
