"""Figures computed by hand, and equality with scikit-image's formula and the lpips package."""

import math
import sys
import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from distill.evaluation import lpips_weights, metrics
from scene.images import PSNR_CAP_DB


def pictures(seed, height=40, width=36):
    rng = np.random.default_rng(seed)
    reference = gaussian_filter(rng.random((height, width, 3)), (2, 2, 0))
    reference = (reference - reference.min()) / np.ptp(reference)
    image = np.clip(reference + rng.normal(0, 0.1, reference.shape), 0, 1)
    return image.astype(np.float32), reference.astype(np.float32)


def test_psnr_by_hand():
    reference = np.full((2, 2, 3), 0.5, np.float32)
    assert metrics.psnr(reference + np.float32(0.1), reference) == pytest.approx(20.0, abs=1e-5)  # mse 0.01
    image = reference.copy()
    image[0, 0] = 0.7  # one pixel of four off by 0.2: mse 0.01 again
    assert metrics.psnr(image, reference) == pytest.approx(20.0, abs=1e-5)
    assert metrics.psnr(np.ones((2, 2, 3)), np.zeros((2, 2, 3))) == 0.0


def test_identical_pictures_have_the_cap_and_nan_stays_nan():
    image = np.full((2, 2, 3), 0.3, np.float32)
    assert metrics.psnr(image, image) == PSNR_CAP_DB == 100.0
    assert metrics.psnr(image + np.float32(1e-6), image) == 100.0
    assert math.isnan(metrics.psnr(image * np.nan, image))


def test_psnr_keeps_double_precision():
    reference = np.zeros((100, 100, 3), np.float32)
    assert metrics.psnr(reference + np.float32(1e-4), reference) == pytest.approx(80.0, abs=1e-4)


def test_foreground_counts_only_pixels_more_than_half_covered():
    reference, image = np.zeros((1, 4, 3), np.float32), np.zeros((1, 4, 3), np.float32)
    image[0] = np.array([0.1, 0.1, 1.0, 1.0])[:, None]
    coverage = np.array([[1.0, 0.51, 0.5, 0.0]])
    assert metrics.psnr_foreground(image, reference, coverage) == pytest.approx(20.0, abs=1e-5)
    assert metrics.psnr_foreground(image, reference, np.zeros((1, 4))) is None


def test_blank_psnr_by_hand_and_nothing_of_one_colour_beats_it():
    half = np.zeros((4, 4, 3), np.float32)
    half[:2] = 1.0  # best colour 0.5, squared error 0.25 everywhere
    assert metrics.psnr_blank(half) == pytest.approx(10 * math.log10(4), abs=1e-6)
    half[..., 0] = 0.2  # a channel that is one colour already: mean error 0.25 * 2 / 3
    assert metrics.psnr_blank(half) == pytest.approx(10 * math.log10(6), abs=1e-6)

    _, reference = pictures(0)
    best = metrics.psnr_blank(reference)
    mean = np.broadcast_to(reference.mean(axis=(0, 1)), reference.shape)
    assert metrics.psnr(mean, reference) == pytest.approx(best, abs=1e-4)
    rng = np.random.default_rng(1)
    for colour in [np.ones(3), np.zeros(3), reference.mean() * np.ones(3), *rng.random((20, 3))]:
        assert metrics.psnr(np.broadcast_to(colour, reference.shape), reference) < best


@pytest.mark.parametrize(
    ("student", "blank", "collapsed"),
    [(9.61, 9.48, True), (9.98, 9.48, True), (9.99, 9.48, False), (5.0, 9.48, True), (math.nan, 9.48, True)],
)
def test_collapse_is_half_a_decibel_above_blank(student, blank, collapsed):
    assert metrics.is_collapsed(student, blank) is collapsed


def test_ssim_is_wang_et_al_s_formula():
    image, reference = pictures(2)

    def blur(x):  # sigma 1.5, cut at 3.5 sigma: 11 x 11
        return gaussian_filter(x.astype(np.float64), (1.5, 1.5, 0), truncate=3.5)

    mean_x, mean_y = blur(image), blur(reference)
    var_x, var_y = blur(image**2) - mean_x**2, blur(reference**2) - mean_y**2
    covariance = blur(image * reference) - mean_x * mean_y
    score = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    score /= (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
    assert metrics.ssim(image, reference) == pytest.approx(score[5:-5, 5:-5].mean(), abs=1e-4)
    assert metrics.ssim(image, image) == pytest.approx(1.0, abs=1e-6)


def test_ssim_needs_a_window():
    image, reference = pictures(3, 11, 30)
    assert metrics.ssim(image, reference) < 0.99
    assert metrics.ssim(image[:10], reference[:10]) is None


def test_ssim_of_some_pixels_is_the_mean_of_their_windows():
    image, reference = pictures(3, 40, 30)
    counted = np.zeros((40, 30), bool)
    counted[10:30, 12] = counted[2, 7] = True  # the window of the last reaches beyond the picture
    alone = [metrics.ssim(image[y - 5 : y + 6, 7:18], reference[y - 5 : y + 6, 7:18]) for y in range(10, 30)]
    assert metrics.ssim(image, reference, counted) == pytest.approx(np.mean(alone), abs=1e-5)
    assert metrics.ssim(image, reference, np.ones_like(counted)) == pytest.approx(metrics.ssim(image, reference))
    assert metrics.ssim(image, reference, counted & (np.arange(40) < 5)[:, None]) is None


def package_lpips(net, seed):
    """The lpips package built its own way, with random convolutions."""
    import lpips

    torch.manual_seed(seed)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        # Filling the layers that classify, which LPIPS leaves out, takes longer than all else: VGG has 120 million.
        patch.setattr(torch.nn.Linear, "reset_parameters", lambda layer: None)
        patch.setattr(torch.nn.init, "normal_", lambda tensor, *moments: tensor)
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    weights = {f"features.{key.split('.', 1)[1]}": value for key, value in model.net.state_dict().items()}
    return model, weights


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_the_package(net):
    model, weights = package_lpips(net, seed=0)
    assert {name: tuple(value.shape) for name, value in weights.items()} == lpips_weights.BACKBONES[net].shapes()
    ours = metrics.Lpips(net, weights)
    for seed in range(2):
        image, reference = pictures(seed, 64, 48)
        signed = [torch.from_numpy(x).permute(2, 0, 1)[None] * 2 - 1 for x in (image, reference)]
        expected = model(*signed).item()
        assert expected > 1e-3
        assert ours(image, reference) == pytest.approx(expected, abs=1e-4, rel=1e-4)
    assert ours(image, image) == 0.0


def test_lpips_of_some_pixels_is_not_that_of_the_others():
    weights = {name: torch.randn(shape) for name, shape in lpips_weights.BACKBONES["alex"].shapes().items()}
    ours = metrics.Lpips("alex", weights)
    _, reference = pictures(4, 128, 256)
    image = np.where((np.arange(256) < 128)[:, None], 1 - reference, reference)
    left = np.broadcast_to(np.arange(256) < 64, (128, 256))
    whole = ours(image, reference)
    assert ours(image, reference, left) > 1.5 * whole
    assert ours(image, reference, left[:, ::-1]) < 0.1 * whole
    assert ours(image, reference, np.ones_like(left)) == pytest.approx(whole, rel=0.05)
    assert ours(image, reference) == whole


def test_lpips_is_quiet_holds_no_gradients_and_needs_32_pixels(capfd, recwarn):
    weights = {name: torch.randn(shape) for name, shape in lpips_weights.BACKBONES["alex"].shapes().items()}
    ours = metrics.Lpips("alex", weights)
    image, reference = pictures(4, 32, 32)
    assert ours(image, reference) > 0
    assert ours(image[:31], reference[:31]) is None
    assert not any(p.requires_grad or p.is_meta for p in ours.model.parameters())
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_a_package_that_does_not_load_is_none_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(lpips_weights, "backbone_weights", lambda net: {})
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert metrics.Lpips.load("alex") is None
    assert "lpips_alex stays empty" in caplog.text and "torchvision" in caplog.text
    caplog.clear()
    monkeypatch.setattr(lpips_weights, "backbone_weights", lambda net: None)  # which has warned itself
    assert metrics.Lpips.load("alex") is None
    assert not caplog.records


@pytest.mark.parametrize(("net", "turned", "white"), [("vgg", 0.85403, 0.79163), ("alex", 0.44367, 0.81423)])
def test_lpips_with_the_real_weights(net, turned, white):
    """The weights with which alex gives the authors' published 0.722 and 0.138 on their example give these figures."""
    measure = metrics.Lpips.load(net)
    if measure is None:
        pytest.skip(f"LPIPS's weights of {net} are in no cache and cannot be downloaded")
    y, x = np.mgrid[:64, :64] / 64.0
    reference = np.stack([x, y, (np.sin(20 * x * y) + 1) / 2], axis=-1).astype(np.float32)
    assert measure(reference[::-1].copy(), reference) == pytest.approx(turned, abs=1e-4)
    assert measure(np.ones_like(reference), reference) == pytest.approx(white, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_psnr_and_ssim_are_scikit_images(seed):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    image, reference = (np.round(x * 255) / 255 for x in pictures(seed, 61, 47))
    single = image.astype(np.float32), reference.astype(np.float32)
    expected = structural_similarity(
        *(image, reference),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
    )
    assert metrics.ssim(*single) == pytest.approx(expected, abs=1e-5)
    assert metrics.psnr(*single) == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=1.0), abs=1e-5)


def test_depth_error_counts_what_is_opaque_and_known_in_both():
    reference = np.array([[2.0, 4.0, 2.0, 2.0, 0.0, 2.0]], np.float32)
    distance = np.array([[2.5, 3.0, 9.0, 9.0, 9.0, 0.0]], np.float32)
    alpha = np.array([[1.0, 0.9, 0.5, 1.0, 1.0, 1.0]], np.float32)
    coverage = np.array([[1.0, 1.0, 1.0, 0.89, 1.0, 1.0]], np.float32)
    error = metrics.depth_error(distance, alpha, reference, coverage)
    assert error.absolute == pytest.approx((0.5 + 1.0) / 2)
    assert error.relative == pytest.approx((0.25 + 0.25) / 2)
    assert metrics.depth_error(distance, alpha * 0, reference, coverage) is None


def test_alpha_iou_by_hand():
    alpha, coverage = np.array([[1.0, 0.6, 0.4, 0.5]]), np.array([[1.0, 0.2, 0.9, 0.5]])
    assert metrics.alpha_iou(alpha, coverage) == pytest.approx(1 / 3)
    assert metrics.alpha_iou(alpha * 0, coverage * 0) is None


def test_flicker_is_change_beyond_the_reference_s():
    _, reference = pictures(5)
    moved = np.roll(reference, 1, axis=1)
    assert metrics.flicker(moved, moved, reference, reference) == 0.0
    assert metrics.flicker(moved + 0.1, moved, reference + 0.1, reference) == pytest.approx(0.0, abs=1e-7)  # stays
    assert metrics.flicker(moved + 0.1, moved, reference - 0.2, reference) == pytest.approx(0.3, abs=1e-6)
    assert metrics.flicker(reference, moved, reference, reference) == pytest.approx(np.abs(moved - reference).mean())


def test_the_silhouette_in_one_colour_by_hand():
    reference = np.ones((2, 2, 3))
    reference[0, 0], reference[0, 1] = 0.2, 0.4
    coverage = np.array([[1.0, 1.0], [0.0, 0.0]])
    error = 2 * 0.1**2 / 4  # both pixels of the object are 0.1 from their mean
    assert metrics.psnr_silhouette(reference, coverage, (1.0, 1.0, 1.0)) == pytest.approx(-10 * math.log10(error))
    half = np.full((1, 1, 3), 0.75)  # a half covered pixel of colour 0.5 on white
    assert metrics.psnr_silhouette(half, np.array([[0.5]]), (1.0, 1.0, 1.0)) == 100
    dark = np.full((1, 1, 3), 0.2)  # darker than half a white pixel: black, which shows 0.5, is the nearest colour
    found = metrics.psnr_silhouette(dark, np.array([[0.5]]), (1.0, 1.0, 1.0))
    assert found == pytest.approx(-10 * math.log10(0.3**2))


@pytest.mark.parametrize(
    ("psnr", "alpha", "collapsed", "far"),
    [
        (12.45, 0.06, True, True),  # fog: 0.57 dB above blank
        (13.5, 0.12, True, True),  # random colours in cells that are known to be occupied
        (16.0, 0.05, True, True),  # hardly anything is there
        (16.0, 0.119, True, True),  # less than half of what there should be
        (14.8, 0.22, True, True),  # half of the squared error of a blank picture, at 14.9 dB, is left
        (15.0, 0.22, False, True),
        (17.8, 0.22, False, True),
        (16.0, 0.22, False, True),
        (19.0, 0.05, False, True),  # better than what needs no learning
        (20.5, 0.22, False, False),
        (float("nan"), 0.22, True, True),
    ],
)
def test_a_student_is_judged_by_what_needs_no_learning(psnr, alpha, collapsed, far):
    assert metrics.is_collapsed(psnr, 11.9, 18.0, alpha, 0.24) is collapsed
    assert metrics.is_far(psnr, 11.9, 18.0) is far


def test_a_student_as_good_as_the_silhouette_is_not_below_it():
    assert not metrics.is_collapsed(14.0, 12.0, 14.0, 0.05, 0.44) and metrics.is_collapsed(13.9, 12.0, 14.0, 0.05, 0.44)


def test_a_tiny_object_needs_more_than_the_background():
    assert metrics.is_collapsed(25.6, 25.0, 33.0, 0.3, 0.01) and metrics.is_far(30.0, 25.0, 33.0)
    # Of a blank picture's squared error a quarter is left 6 dB above it.
    assert metrics.is_far(30.9, 25.0, 45.0) and not metrics.is_far(31.1, 25.0, 45.0)
    assert not metrics.is_far(40.0, 12.0, 45.0), "an object of one colour: the silhouette is hard to beat"
