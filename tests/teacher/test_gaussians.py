"""What follows from the arrays of Gaussians, and their shapes."""

import numpy as np
import pytest
import torch

from kernels.gaussians.covariances import rotation_matrices
from teacher.gaussians import Gaussians


def make_gaussians(count=5, degree=3):
    generator = torch.Generator().manual_seed(degree)
    shapes = (3,), (3,), (4,), (), ((degree + 1) ** 2, 3)
    return Gaussians(*(torch.randn(count, *shape, generator=generator) for shape in shapes))


def test_derived_quantities():
    half = 0.5**0.5
    gaussians = Gaussians(
        means=torch.zeros(1, 3),
        log_scales=torch.tensor([[1.0, 2.0, 3.0]]).log(),
        rotations=torch.tensor([[3 * half, 0.0, 0.0, 3 * half]]),  # 90 degrees about z, not unit length
        opacity_logits=torch.tensor([np.log(3.0)]),
        sh=torch.zeros(1, 4, 3),
    )
    torch.testing.assert_close(gaussians.covariances(), torch.diag(torch.tensor([4.0, 1.0, 9.0]))[None])
    torch.testing.assert_close(gaussians.scales, torch.tensor([[1.0, 2.0, 3.0]]))
    assert float(gaussians.opacities) == pytest.approx(0.75)
    x_axis = rotation_matrices(gaussians.rotations)[0] @ torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(x_axis, torch.tensor([0.0, 1.0, 0.0]))


def test_half_axes_are_the_same_however_many_are_looked_at_together(monkeypatch):
    gaussians = make_gaussians(count=5)
    expected = rotation_matrices(gaussians.rotations) * gaussians.scales[:, None, :]
    for rows in (2, 5, 8):
        monkeypatch.setattr("teacher.gaussians._ROWS", rows)
        torch.testing.assert_close(gaussians.half_axes(), expected)
    assert gaussians[:0].half_axes().shape == (0, 3, 3)


def at(places, scales):
    count = len(places)
    means = torch.zeros(count, 3)
    means[:, 0] = torch.tensor(places)
    log_scales = torch.tensor(scales).log()[:, None].expand(count, 3)
    return Gaussians(means, log_scales, torch.eye(4)[:1].expand(count, 4), torch.zeros(count), torch.zeros(count, 1, 3))


def test_giants_and_strays_are_outliers_by_the_width_of_the_middle_of_the_scene():
    """From 0 to 10 and two far away: the middle 96 % are 0.204 to 9.996, 9.792 wide about 5.1."""
    places = [0.1 * k for k in range(101)] + [5.1 + 9700.0, 5.1 + 9900.0]
    scales = [0.01] * 103
    scales[0], scales[1] = 29.0, 30.0  # of 3 x 9.792
    assert at(places, scales).outliers().nonzero()[:, 0].tolist() == [1, 102]


def test_a_scene_in_one_place_is_as_wide_as_its_gaussians():
    assert at([0.0] * 22, [1.0] * 20 + [17.0, 19.0]).outliers().nonzero()[:, 0].tolist() == [21]  # of 3 x 6


def test_a_scaled_scene_is_larger_by_the_factor():
    larger = at([1.0, 2.0], [0.5, 4.0]).scaled(3.0)
    torch.testing.assert_close(larger.means[:, 0], torch.tensor([3.0, 6.0]))
    torch.testing.assert_close(larger.scales[:, 0], torch.tensor([1.5, 12.0]))


def test_without_directions_colours_are_neither_copied_nor_chosen():
    gaussians = make_gaussians()
    colourless = gaussians.colourless()
    assert all(getattr(colourless, name).data_ptr() == value.data_ptr() for name, value in vars(gaussians).items())
    assert colourless[torch.tensor([3, 1])].sh.shape == (2, 1, 3)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"rotations: found shape \(2, 3\), expected \(2, 4\)"):
        Gaussians(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 1, 3))
    with pytest.raises(ValueError, match=r"sh: found shape \(2, 5, 3\)"):
        Gaussians(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, 5, 3))
