"""A city in files, rendered with room for all of it and for little."""

import pytest
import torch

from distill.city_rendering.level_of_detail import View, level_for
from distill.city_rendering.streaming import StreamedCity, held_bytes
from machine.memory import MIB
from scene.cameras import area_means
from scene.rays import SceneBox, image_rays, intersect_box
from settings.errors import InputError
from settings.loading import load_config
from tests.toy_city import toy_city


def flight(city, cameras):
    """All frames and what they took."""
    frames, costs = zip(*city.frames(cameras), strict=True)
    return torch.stack([frame.rgb for frame in frames]), costs


@pytest.fixture
def manifest(tmp_path):
    return toy_city(tmp_path, (2, 1, 1))


@pytest.fixture
def config(manifest):
    return load_config(manifest.path(manifest.config))


def test_frames_of_a_small_budget_are_those_of_all_memory_bit_for_bit(manifest, config, look_at):
    cameras = look_at([(2.2, 1.4, 1.1), (-1.8, 1.9, 0.7), (2.2, 1.4, 1.1)])
    everything, free = flight(StreamedCity(manifest, config, None), cameras)
    tight = StreamedCity(manifest, config, None)
    tight.store.limit = 0  # one block at a time
    frames, costs = flight(tight, cameras)
    assert torch.equal(frames, everything)
    assert everything.std() > 0.05
    assert [cost.loads for cost in free] == [2, 0, 0]
    assert [cost.loads for cost in costs] == [2, 1, 1]  # from either side the nearer one was the last before
    assert max(cost.held_mib for cost in costs) * MIB == tight.store.largest
    assert free[-1].held_mib * MIB == pytest.approx(2 * tight.store.largest, rel=0.01)


def test_the_limit_is_what_the_budget_leaves_beside_the_first_picture(manifest, config, look_at):
    city = StreamedCity(manifest, config, 500 * MIB)
    _, costs = flight(city, look_at([(2.2, 1.4, 1.1)]))
    assert city.peak is not None
    assert city.store.limit == pytest.approx(500 * MIB - city.peak + city.store.largest)
    assert costs[0].peak_mib * MIB == city.peak < 100 * MIB


def test_a_budget_that_no_picture_fits_into_is_refused(manifest, config, look_at):
    with pytest.raises(InputError, match="budget: found 0.000954, where .* expected at least [1-9][0-9.]* MiB"):
        flight(StreamedCity(manifest, config, 1000), look_at([(2.2, 1.4, 1.1)], width=64, height=48, focal=80.0))


def test_a_student_that_is_gone_is_named_with_what_brings_it_back(manifest, config, look_at):
    manifest.path(manifest.blocks[1].students[0].file).unlink()
    city = StreamedCity(manifest, config, None, level_of_detail=False)
    with pytest.raises(
        InputError, match=r"blocks.students: found no such file, .*distill_city.py make it again, with --resume"
    ):
        flight(city, look_at([(2.2, 1.4, 1.1)]))


def test_a_student_of_another_block_is_refused(manifest, config, look_at):
    first, second = (manifest.path(block.students[0].file) for block in manifest.blocks)
    second.write_bytes(first.read_bytes())
    city = StreamedCity(manifest, config, None, level_of_detail=False)
    with pytest.raises(InputError, match=r"step_000001.pth: box: found .*, expected .*, that of block b001"):
        flight(city, look_at([(2.2, 1.4, 1.1)]))


def test_only_what_the_level_of_detail_says_is_coarse(manifest, config, look_at):
    """Finer cells are 1/16, coarser ones 1/4."""
    near, far = look_at([(1.5, 1.0, 0.8)], focal=60.0), look_at([(12.0, 12.0, 12.0)], focal=60.0)
    finest = StreamedCity(manifest, config, None, level_of_detail=False)
    for cameras, coarse in ((near, 0), (far, 2)):
        frames, costs = flight(StreamedCity(manifest, config, None), cameras)
        assert (costs[0].blocks, costs[0].coarse) == (2, coarse)
        assert torch.equal(frames, flight(finest, cameras)[0]) == (coarse == 0)


def test_the_coarsest_student_under_a_pixel_is_shown():
    sizes = [0.01, 0.04, 0.16]
    assert [level_for(sizes, footprint) for footprint in (0.0, 0.009, 0.011, 0.04, 0.05, 1.0)] == [0, 0, 0, 0, 1, 2]


def test_a_pixels_footprint_is_that_at_the_nearest_point(look_at):
    view = View(look_at([(4.0, 0.0, 0.0)], focal=50.0), 0)
    assert view.footprint(SceneBox((-1, -1, -1), (1, 1, 1))) == pytest.approx(3 / 50)
    assert view.footprint(SceneBox((3, 3, -1), (5, 6, 1))) == pytest.approx(3 / 50)
    assert view.footprint(SceneBox((3, -1, -1), (5, 1, 1))) == 0


def test_bands_hold_every_pixel_whose_ray_meets_the_box(look_at):
    """Boxes before, about, beside and behind the camera."""
    cameras = look_at([(0.3, -2.0, 0.4)], width=50, height=37, focal=40.0)
    view, seen = View(cameras, 0), 0
    origins, directions = image_rays(cameras, 0)
    for low in torch.rand(60, 3) * 6 - 3:
        box = SceneBox(tuple(low.tolist()), tuple((low + torch.rand(3) + 0.2).tolist()))
        near, far = intersect_box(origins, directions, box, 0.0, 100.0)
        bands = [pixels for pixels, width in view.bands(box) if len(pixels) % width == 0]
        inside = torch.zeros(len(far), dtype=torch.bool)
        if bands:
            inside[torch.cat(bands)] = True
        assert not (far > near)[~inside].any()
        seen += bool(inside.any())
    assert 5 < seen < 40


def test_each_memory_counts_once():
    plane = torch.zeros(10)
    assert held_bytes({"a": plane, "b": [plane[2:], plane.numpy()[1:]]}, torch.zeros(3, dtype=torch.uint8)) == 43


def test_pixels_have_as_many_rays_as_the_config_says(manifest, config, look_at):
    cameras = look_at([(2.2, 1.4, 1.1)])
    one, _ = flight(StreamedCity(manifest, config, None), cameras)
    four, _ = flight(StreamedCity(manifest, config, None), cameras.finer(2))
    as_far_apart = "render.picture_step=0.75"  # as those of one ray a pixel are
    supersampled = load_config(manifest.path(manifest.config), ["render.supersample=2", as_far_apart])
    means, _ = flight(StreamedCity(manifest, supersampled, None), cameras)
    torch.testing.assert_close(means[0], area_means(four[0], 2))
    assert not torch.equal(means, one)


def test_a_block_without_a_student_and_a_damaged_file_are_said(manifest, config, look_at):
    with pytest.raises(InputError, match=r"blocks.students: found none of b001 \(1 of 2 blocks\)"):
        StreamedCity(manifest.with_block("b001", students=(), status="waiting"), config, None)
    empty = StreamedCity(manifest.with_block("b001", students=()), config, None)
    assert len(empty.store.blocks) == 1
    manifest.path(manifest.blocks[1].students[0].file).write_bytes(b"nothing")
    with pytest.raises(InputError, match="b001/checkpoints/step_000001.pth: checkpoint"):
        flight(StreamedCity(manifest, config, None), look_at([(2.2, 1.4, 1.1)]))
