"""Values of Gaussians that cannot be drawn, or mean something else: replaced, left out or refused, and said."""

import logging
import math

import numpy as np
import pytest
import torch

from settings.errors import InputError
from teacher.gaussian_files.checks import checked_gaussians
from teacher.rasterizer import Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras


@pytest.fixture
def arrays():
    gaussians = block_of_gaussians()
    return {name: getattr(gaussians, name).numpy().copy() for name in gaussians.__dataclass_fields__}


def refused(arrays, match):
    with pytest.raises(InputError, match=match):
        checked_gaussians("f.ply", arrays)


def test_good_values_stay_bit_for_bit_and_nothing_is_said(arrays, caplog):
    caplog.set_level(logging.INFO)
    read = checked_gaussians("f.ply", arrays)
    assert read.fingerprint() == block_of_gaussians().fingerprint() and not caplog.records


def test_infinite_opacities_are_the_limits_of_the_sigmoid(arrays, caplog):
    arrays["opacity_logits"][::3] = np.inf
    arrays["opacity_logits"][5] = -np.inf
    read = checked_gaussians("f.ply", arrays)
    assert (read.opacities[::3] == 1).all() and 0 < read.opacities[5] < 1e-8
    assert read.opacity_logits[1] == 3.0
    assert "244 of 729 opacities are infinite logits" in caplog.text


def test_a_scale_of_zero_becomes_thin_but_discs_throughout_are_refused(arrays, caplog):
    arrays["log_scales"][[3, 5], 2] = -np.inf
    assert checked_gaussians("f.ply", arrays).log_scales[3, 2].item() == pytest.approx(math.log(1e-6))
    assert "2 of 2187 scales are 0 or nearly so" in caplog.text
    arrays["log_scales"][:364, 2] = -np.inf
    assert len(checked_gaussians("f.ply", arrays)) == 729
    arrays["log_scales"][364, 2] = -np.inf  # more than half of them
    refused(arrays, "365 of 729 Gaussians with a scale of 0")
    arrays["log_scales"][:, 2] = -np.inf
    refused(arrays, "729 of 729 Gaussians with a scale of 0 .*2DGS.*third scale -14")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("means", np.nan, "3 means NaN or infinite"),
        ("means", 1e300, "3 means NaN or infinite"),
        ("sh", np.inf, "3 sh NaN or infinite"),
        ("opacity_logits", np.nan, "3 opacity_logits NaN"),
        ("rotations", 0.0, "3 rotations of length zero"),
        ("log_scales", 90.0, "3 log_scales beyond 30"),
        ("sh", -1e9, "3 sh beyond 1e+06"),
        ("means", 1e20, "3 means beyond 1e+15"),
    ],
)
def test_a_few_that_cannot_be_drawn_are_left_out_and_many_refused(arrays, caplog, name, value, reason):
    few = [4, 77, 600]
    arrays[name] = arrays[name].astype(np.float64)
    arrays[name][few] = value
    read = checked_gaussians("f.ply", arrays)
    kept = np.setdiff1d(np.arange(729), few)
    assert torch.equal(read.means, block_of_gaussians().means[kept])
    assert f"found 3 of 729 Gaussians that cannot be drawn ({reason}" in caplog.text
    assert "the first is 4" in caplog.text
    arrays[name][:30] = value
    refused(arrays, r"3\d of 729 Gaussians that cannot be drawn .*at most 1%.*export it again")


def test_rows_that_were_never_written(arrays):
    refused({name: np.where(np.arange(729).reshape(-1, *[1] * (values.ndim - 1)) > 0, 0, values)
             for name, values in arrays.items()}, "728 rows of zeros")  # fmt: skip


@pytest.mark.parametrize("lengths", [(1e-3, 1e3), (1e-11, 1e-10), (1e18, 1e19)])
def test_quaternions_of_any_length_are_rotations(arrays, lengths):
    arrays["rotations"] = np.random.default_rng(0).normal(size=(729, 4)).astype(np.float32)
    arrays["log_scales"] += np.random.default_rng(1).uniform(-1, 1, (729, 3)).astype(np.float32)
    covariances = checked_gaussians("f.ply", arrays).covariances()
    scaled = arrays["rotations"] * np.random.default_rng(2).uniform(*lengths, (729, 1)).astype(np.float32)
    read = checked_gaussians("f.ply", arrays | {"rotations": scaled})
    torch.testing.assert_close(read.covariances(), covariances, rtol=1e-4, atol=1e-7)


def test_values_after_exp_and_sigmoid_are_refused(arrays):
    refused(arrays | {"log_scales": np.exp(arrays["log_scales"])}, "scales: found all 2187 positive.*by its log")
    opacities = 1 / (1 + np.exp(-arrays["opacity_logits"]))
    refused(arrays | {"opacity_logits": opacities}, r"opacities: found all 729 in \[0, 1\].*log\(o / \(1 - o\)\)")
    beyond = np.linspace(0, 1.1, 729, dtype=np.float32)  # no opacity is larger than 1
    assert len(checked_gaussians("f.ply", arrays | {"opacity_logits": beyond})) == 729


def test_wide_gaussians_of_a_wide_scene_are_no_mistake(arrays):
    wide = arrays | {"means": arrays["means"] * 1000, "log_scales": arrays["log_scales"] + np.float32(math.log(1000))}
    assert (checked_gaussians("f.ply", wide).log_scales > 0).all()


def test_plain_colours_are_warned_of(arrays, caplog):
    checked_gaussians("f.ply", arrays | {"sh": arrays["sh"] * np.float32(0.282) + np.float32(0.5)})
    assert "all 2187 constant harmonics (f_dc) are in [0, 1]" in caplog.text


def test_giants_are_said_and_their_pictures_are_finite(arrays, caplog):
    arrays["log_scales"][:2] = 9.0
    arrays["log_scales"][2] = 90.0
    read = checked_gaussians("f.ply", arrays)
    assert len(read) == 728 and read.outliers().nonzero()[:, 0].tolist() == [0, 1]
    assert "2 of 728 Gaussians are far wider than the scene (standard deviation up to 8.1e+03), or" in caplog.text
    output = Rasterizer(read).render(ring_of_cameras(), 0)
    assert output.rgb.isfinite().all() and output.alpha.isfinite().all()


def test_a_gaussian_far_away_is_said(arrays, caplog):
    arrays["means"][5] = [0, 1e6, 0]
    assert checked_gaussians("f.ply", arrays).outliers().nonzero()[:, 0].tolist() == [5]
    assert "1 of 729 Gaussians are far wider than the scene (standard deviation up to 0.05), or far away" in caplog.text


def test_one_gaussian_is_no_giant_and_tells_nothing(arrays):
    one = {name: values[:1] for name, values in arrays.items()}
    assert len(checked_gaussians("f.ply", one)) == 1
    one["log_scales"] = np.full((1, 3), 0.5, np.float32)
    one["opacity_logits"] = np.full(1, 0.5, np.float32)
    assert not checked_gaussians("f.ply", one).outliers().any()
