"""Networks' weights in other coordinates: the same networks, whose errors cost alike."""

from __future__ import annotations

import numpy as np
import torch

from distill.compact.network_transforms import GradientProducts, NetworkMaps

MATRICES = ((5, 4), (3, 2))
CPU = torch.device("cpu")


def gradients_and_weights(cells=400):
    """Both of matrices whose inputs, and outputs, go together."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    found = []
    for _ in range(2):
        rows = []
        for height, width in MATRICES:
            left, right = draw(height, height), draw(width, width)
            rows.append((left @ draw(cells, height, width) @ right).flatten(1))
        found.append(torch.cat(rows, 1))
    return found


def maps_of(gradients, weights, matrices=MATRICES):
    products = GradientProducts(matrices, CPU)
    products.add(gradients, torch.ones(len(gradients), len(matrices)))
    return products.maps(weights)


def test_coordinates_lead_back_and_a_slope_by_them_is_the_weights():
    gradients, weights = gradients_and_weights()
    maps = maps_of(gradients, weights)
    coordinates = maps.coordinates(weights)
    torch.testing.assert_close(maps.weights(coordinates), weights, rtol=1e-3, atol=1e-3)
    pull = (gradients * weights).sum()
    torch.testing.assert_close((maps.slopes(gradients) * coordinates).sum(), pull, rtol=1e-3, atol=1e-2)


def test_errors_cost_alike_along_all_coordinates_and_these_fall_from_row_to_row():
    gradients, weights = gradients_and_weights()
    maps = maps_of(gradients, weights)
    slopes, coordinates, start = maps.slopes(gradients), maps.coordinates(weights), 0
    for height, width in MATRICES:
        place = slice(start, start + height * width)
        shaped, by_weights = (rows[:, place].unflatten(1, (height, width)) for rows in (slopes, gradients))
        costs, before = shaped.square().mean((0, 2)), by_weights.square().mean((0, 2))
        assert costs.max() / costs.min() < 2 < before.max() / before.min()
        sizes = coordinates[:, place].unflatten(1, (height, width)).square().mean((0, 2))
        assert (sizes[:-1] > 0.8 * sizes[1:]).all() and sizes[0] > 3 * sizes[-1]
        start = place.stop


def test_maps_are_small_integers_but_for_a_power_of_two_of_each_column():
    maps = maps_of(*gradients_and_weights())
    for each in maps.integers:
        lowest = np.bitwise_or.reduce(each, axis=0)
        assert lowest.all() and (np.abs(each) // (lowest & -lowest)).max() <= 15


def test_rows_of_which_errors_cost_very_differently_are_all_in_the_map():
    """Errors of the first cost 64 times as much as of the last: its column is the smallest by as much."""
    sizes = torch.tensor([64.0, 16.0, 4.0, 1.0])
    maps = maps_of(torch.diag(sizes), torch.diag(1 / sizes), ((4, 1),))
    costs = maps.slopes(torch.diag(sizes)).square().sum(0)
    assert costs.max() / costs.min() < 1.2


def test_a_map_of_few_bits_that_could_not_be_undone_leaves_weights_as_they_are():
    """Errors along (1, 1) cost next to nothing: both columns of the map lie along it, and differ by less than a bit."""
    across, along = torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0])
    weights = torch.stack([0.68 * across + 103.8 * along, -0.367 * across + 48 * along])
    (rows, _) = maps_of(across[None], weights, ((2, 1),)).integers
    assert rows.tolist() == [[1, 0], [0, 1]]


def test_where_nothing_is_known_weights_stay_in_shape():
    nothing = torch.zeros(3, 26)
    maps = maps_of(nothing, nothing)
    weights = torch.randn(3, 26)
    torch.testing.assert_close(maps.weights(maps.coordinates(weights)), weights)


def test_a_step_along_the_weights_slope_moves_coordinates_by_their_speeds():
    gradients, weights = gradients_and_weights()
    maps = maps_of(gradients, weights)
    slope = torch.zeros(1, 26)
    slope[0, 2] = slope[0, 21] = 1.0
    # By weights the slope is what the maps back, transposed, take it from.
    forth = NetworkMaps(MATRICES, maps.integers, CPU)
    by_weights = torch.zeros(1, 26)
    for k in (2, 21):
        unit = torch.zeros(1, 26)
        unit[0, k] = 1.0
        by_weights += torch.autograd.functional.vjp(forth.coordinates, torch.zeros(1, 26), unit)[1]
    moved = maps.coordinates(by_weights)
    speeds = torch.cat(maps.speeds())
    torch.testing.assert_close(moved[0, [2, 21]], speeds[[2, 21]], rtol=1e-3, atol=1e-4)


def test_the_speed_of_a_coordinate_by_hand():
    """Weights (w, v) = (2 a + b, b): a is (w - v) / 2, which moves by 1/4 + 1/4 for a slope of 1, b is v."""
    maps = NetworkMaps(((2, 1),), [np.array([[2, 1], [0, 1]]), np.array([[1]])], CPU)
    (speeds,) = maps.speeds()
    assert speeds.tolist() == [0.5, 1.0]
    slopes = torch.tensor([[1.0, 0.0]])  # by the weights, for a slope of (2, 1) by the coordinates
    assert maps.slopes(slopes).tolist() == [[2.0, 1.0]]
