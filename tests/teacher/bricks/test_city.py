"""The procedural city: the same lots in a city of any extent, closed, lit, and cameras that are in no solid."""

import numpy as np
import pytest
import torch

from scene.formats import load_frames
from settings.loading import load_config
from teacher.bricks.city import City
from teacher.bricks.city_cameras import city_cameras
from teacher.bricks.city_lots import LOT, build_lot
from teacher.gaussian_files.ply import read_ply
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer
from teacher.sources import source_of
from tools.make_city import main

FIELDS = ("means", "log_scales", "rotations", "opacity_logits", "sh")


@pytest.fixture(scope="module")
def lots():
    """The Gaussians of each lot of a city of two by two, by its place."""
    city = City((2, 2))
    return dict(zip(city.places(), city.parts(), strict=True))


def _joined(parts):
    return Gaussians(*(torch.cat([getattr(part, name) for part in parts]) for name in FIELDS))


def test_a_lot_is_the_same_in_a_city_of_any_extent(lots):
    larger, other = City((5, 3)).lot_gaussians(1, 0), City((2, 2), seed=1).lot_gaussians(1, 0)
    assert all(torch.equal(getattr(larger, name), getattr(lots[1, 0], name)) for name in FIELDS)
    assert other.fingerprint() != larger.fingerprint()
    assert build_lot(0, -1, 2).corner == (-LOT, 2 * LOT), "shadows come from lots beyond the end"


def test_it_is_small_closed_and_within_its_box(lots):
    box, counts = City((2, 2)).box, [len(part) for part in lots.values()]
    assert 8_000 < sum(counts) < 20_000 and max(counts) < 5_000
    for (column, row), part in lots.items():
        assert box.contains(part.means).all()
        corner = part.means.new_tensor([column, row]) * LOT
        assert ((part.means[:, :2] >= corner) & (part.means[:, :2] <= corner + LOT)).all()
        color = part.sh[:, 0] * 0.28209479 + 0.5
        assert color.min() > 0 and color.max() < 1
    tallest = max(part.means[:, 2].max().item() for part in lots.values())
    assert 30 < tallest < box.upper[2] < tallest + 3


def test_finer_spacing_means_more_gaussians():
    coarse, fine = (len(City((1, 1), spacing=spacing).lot_gaussians(0, 0)) for spacing in (3.0, 1.5))
    assert 2 < fine / coarse < 4.5


def test_shadows_lie_to_the_north_west_of_what_is_tall():
    # The sun is in the south-east: of the ground at equal distances from a tower, that behind it is darker.
    city = City((2, 2))
    tower = max(city.places(), key=lambda place: build_lot(0, *place).bounds[:, 1, 2].max())
    part = city.lot_gaussians(*tower)
    ground = part.means[:, 2] == 0
    places = part.means[ground, :2] - part.means.new_tensor(tower) * LOT
    brightness = part.sh[ground, 0].mean(dim=1)
    road = (places.min(dim=1).values < 5) | (places.max(dim=1).values > LOT - 5)
    behind, before = ((places - LOT / 2) @ torch.tensor([-1.0, 1.2]) * sign > 30 for sign in (1, -1))
    assert brightness[road & behind].mean() < brightness[road & before].mean() - 0.1


def test_cameras_are_in_no_solid_and_show_the_city(lots):
    city = City((2, 2))
    cameras, names = city_cameras(city, 32, 32, 24)
    assert names[0] == "aerial_00000" and names[24] == "street_00000" and len(set(names)) == len(cameras) == 32
    centers, ahead = cameras.centers.double().numpy(), -cameras.c2w[:, :3, 2]
    assert city.is_free(centers, 0.5).all()
    assert (centers[:24, 2] > 50).all() and (ahead[:24, 2] < -0.5).all()
    np.testing.assert_allclose(centers[24:, 2], 1.7, atol=1e-5)
    assert (ahead[24:, 2].abs() < 0.25).all() and (cameras.c2w[:, 2, 1] > 0).all()
    on_street = np.abs(centers[24:, :2] - LOT).min(axis=1)
    assert (on_street < 0.51).all()
    rasterizer = Rasterizer(_joined(lots.values()))
    for index in (0, 11, 26, 31):
        assert rasterizer.render(cameras, index).alpha.mean() > 0.2
    bottom = rasterizer.render(cameras, 26).alpha[-1]
    assert bottom.min() > 0.97, "the road is closed"


def test_a_point_in_a_house_is_not_free():
    city = City((2, 2))
    bounds = build_lot(0, 0, 1).bounds[0]
    inside, over = bounds.mean(axis=0), bounds.mean(axis=0) + (0, 0, 200.0)
    assert city.is_free(np.stack([inside, over, (LOT, LOT, 0.2)]), 0.5).tolist() == [False, True, False]


def test_it_is_a_teacher(tmp_path):
    path = tmp_path / "city.yaml"
    path.write_text(
        "scene: c\nrun: r\ndata: {resolution: 16}\nteacher: {kind: city, frames: 4, city: {lots: [1, 1]}}\n"
    )
    source = source_of(load_config(path))
    gaussians = source.gaussians()
    frames, _ = source.frames()
    assert frames.names == ("aerial_00000", "aerial_00001", "aerial_00002", "street_00000")
    assert torch.equal(gaussians.means, City((1, 1)).lot_gaussians(0, 0).means)
    assert source.box(gaussians, None)[0] == City((1, 1)).box


def test_the_tool_writes_gaussians_and_cameras(tmp_path, capsys):
    assert main(["--lots", "2x1", "--frames", "12", "--size", "40x30", "--output", str(tmp_path / "made")]) == 0
    gaussians = read_ply(tmp_path / "made/city.ply")
    assert f"{len(gaussians):,} Gaussians" in capsys.readouterr().out
    assert torch.equal(gaussians.sh[: len(first := City((2, 1)).lot_gaussians(0, 0))], first.sh)
    frames = load_frames(tmp_path / "made/transforms.json")
    assert frames.size_of(0) == (40, 30) and sum(frames.tests) == 3 and frames.tests[0] and frames.tests[9]
    for arguments, message in (
        (["--spacing", "0"], "--spacing: spacing: found 0.0"),
        (["--frames", "1"], "--frames: number: found 1"),
        (["--lots", "2000x1"], "--lots: lots: found"),
    ):
        assert main([*arguments, "--output", str(tmp_path / "none")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
