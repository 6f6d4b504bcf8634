"""The volume against sums over all Gaussians at a point, where it says that it is right; and what it takes."""

import pytest
import torch

from machine.memory import size_in_words
from scene.rays import SceneBox
from settings.errors import InputError
from settings.words import counted
from teacher.features.channels import gaussian_features
from teacher.features.volume import ChannelStatistics, build_volume, volume_memory
from tests.teacher.feature_scenes import BOX, broad_gaussians, summed_field, thin_gaussians

CHANNELS = ("sh_dc", "opacity", "log_scale")


def points_in(box, count):
    return torch.tensor(box.lower) + torch.rand(count, 3) * torch.tensor(box.extent)


def test_agrees_with_the_sum_over_gaussians_where_confident():
    gaussians = broad_gaussians()
    volume = build_volume(gaussians, BOX, 48, CHANNELS)
    points = points_in(BOX, 3000)
    found = volume.query(points)
    features, density = summed_field(gaussians, gaussian_features(gaussians, CHANNELS), points)
    sure = found.confidence > 0.9
    assert sure.sum() > 1000
    assert (found.density / density - 1)[sure].abs().max() < 0.05
    wrong = volume.statistics.normalize(found.features) - volume.statistics.normalize(features)
    assert wrong.square().mean(1).sqrt()[sure].max() < 0.05


def test_not_confident_where_gaussians_are_much_thinner_than_cells():
    gaussians = thin_gaussians()
    volume = build_volume(gaussians, BOX, 16, CHANNELS)
    found = volume.query(points_in(BOX, 3000))
    assert (found.density > 0).sum() > 300 and found.confidence.max() < 0.9
    _, density = summed_field(gaussians, gaussian_features(gaussians, CHANNELS), gaussians.means)
    at_means = volume.query(gaussians.means)
    assert (at_means.density < 0.5 * density).all(), "a cell's mean is far from the peak of a speck in it"


def test_confidence_grows_with_resolution():
    gaussians, points = broad_gaussians(), points_in(BOX, 500)
    coarse, fine = (build_volume(gaussians, BOX, n, CHANNELS).query(points).confidence for n in (8, 32))
    assert coarse.mean() + 0.1 < fine.mean() and fine.max() <= 1 and coarse.min() >= 0


def test_extinction_is_conserved_from_the_finer_grid():
    gaussians = thin_gaussians()
    coarse, fine = (build_volume(gaussians, BOX, n, ["sh_dc"]) for n in (10, 20))
    for one, other in zip(
        (coarse.table[:, 0].sum() * coarse.cell_size**3, coarse.table[:, :1].T @ coarse.table[:, 2:]),
        (fine.table[:, 0].sum() * fine.cell_size**3, fine.table[:, :1].T @ fine.table[:, 2:] / 8),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=0.02, atol=1e-2)


@pytest.mark.parametrize("channels", [["opacity"], ["all"]])
def test_memory_is_known_before(channels, caplog):
    caplog.set_level("INFO")
    gaussians = broad_gaussians()
    volume = build_volume(gaussians, BOX, 20, channels)
    cells = len(volume.table) - 1
    memory = volume_memory(volume, cells, len(volume.channels), len(gaussians), confidence=True)
    assert memory.kept == volume.nbytes and cells == (volume.index > 0).sum()
    assert memory.building > memory.kept
    assert f": {size_in_words(memory.kept)}, and up to {size_in_words(memory.building)} while" in caplog.text
    channels = counted(len(volume.channels), "channel")
    assert f"20x16x12 cells, {cells:,} touched, {channels}:" in caplog.text


def test_without_confidence_the_same_volume_takes_less():
    gaussians = broad_gaussians()
    measured = build_volume(gaussians, BOX, 48, CHANNELS)
    plain = build_volume(gaussians, BOX, 48, CHANNELS, confidence=False)
    assert torch.equal(plain.index, measured.index)
    # Laid out on a lattice of its own, so not to the last digit.
    weights = measured.table[:, :1]
    for columns in (slice(0, 1), slice(2, None)):
        error = (weights * (plain.table[:, columns] - measured.table[:, columns])).norm()
        assert error < 0.02 * (weights * measured.table[:, columns]).norm()
    assert torch.equal(plain.table[:, 1], (plain.table[:, 0] > 0).float())
    known = (plain, len(plain.table) - 1, len(plain.channels), len(gaussians))
    assert volume_memory(*known, confidence=False).building < volume_memory(*known, confidence=True).building


def test_too_much_memory_is_refused():
    with pytest.raises(InputError, match="memory of the volume: found 20x16x12 cells, .* at most 0.001 GiB"):
        build_volume(broad_gaussians(), BOX, 20, max_gib=1e-3)


def test_cells_that_do_not_fit_by_their_index_alone_are_refused_before_they_are_looked_into(monkeypatch):
    monkeypatch.setattr("teacher.features.volume.touched_cells", None)
    with pytest.raises(InputError, match="even if none of them were touched"):
        build_volume(broad_gaussians(), BOX, 2000)


def test_a_subset_is_what_building_it_alone_gives():
    gaussians, points = broad_gaussians(), points_in(BOX, 100)
    whole, part = (build_volume(gaussians, BOX, 12, names) for names in (["all"], ["opacity", "sh_0_g"]))
    chosen = whole.selected(["opacity", "sh_0_g"])
    assert chosen.channels == part.channels == ("sh_0_g", "opacity")
    torch.testing.assert_close(chosen.query(points).features, part.query(points).features)
    torch.testing.assert_close(chosen.statistics.std, part.statistics.std)
    with pytest.raises(InputError, match="no log_scale_0, log_scale_1, log_scale_2"):
        part.selected(["log_scale"])
    with pytest.raises(InputError, match="found 'nothing'"):
        whole.selected(["nothing"])


def test_an_empty_box_and_no_gaussians():
    far = SceneBox((50.0, 50.0, 50.0), (51.0, 51.0, 52.0))
    for gaussians in (broad_gaussians(), broad_gaussians()[:0]):
        volume = build_volume(gaussians, far, 8, CHANNELS)
        assert volume.table.shape == (1, 9)
        found = volume.query(points_in(far, 20))
        assert all(part.abs().sum() == 0 for part in found) and found.features.shape == (20, 7)
        assert volume.statistics.normalize(found.features).abs().max() == 0


def test_normalisation_by_hand():
    statistics = ChannelStatistics(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
    assert statistics.normalize(torch.tensor([[3.0, 5.0], [1.0, 9.0]])).tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_statistics_are_of_cells_weighted_by_alpha():
    volume = build_volume(broad_gaussians(), BOX, 12, ["sh"])
    weights = 1 - torch.exp(-volume.table[1:, 0].double() * volume.cell_size)
    features = volume.table[1:, 2:].double()
    mean = (weights[:, None] * features).sum(0) / weights.sum()
    variance = (weights[:, None] * (features - mean) ** 2).sum(0) / weights.sum()
    torch.testing.assert_close(volume.statistics.mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(volume.statistics.std.double(), variance.sqrt(), rtol=1e-5, atol=1e-6)
    assert (volume.statistics.std[:12] > 0).all() and (volume.statistics.std[12:] == 0).all()
