"""How students' parameters are laid out in a compact file: what written files have, by hand."""

import numpy as np
import pytest

from distill.compact.parts import Integers, Part, parts_of, scales_of
from scene.rays import SceneBox
from students import build_student
from students.hash_grid import HashGridSettings
from students.kilo_uniform import KiloUniformSettings

BOX = SceneBox((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def parts_with(settings, cells):
    student = build_student((BOX.lower, BOX.upper), settings)
    return parts_of(student, BOX, cells, len(cells), scales_of(student))


def test_a_levels_neighbours_are_along_its_axes_where_it_is_dense_and_the_next_entries_where_it_is_hashed():
    sizes = {"levels": 2, "table_size": 256, "base_resolution": 4, "finest_resolution": 16, "planes": (8, 64)}
    table, *_ = parts_with(HashGridSettings(**sizes, hidden_width=16), np.ones((4, 4, 4), np.uint8))
    cubes, planes = [(1, 4, 16), (1, 2, 0)], [(1, 8, 0)] * 3 + [(1, 2, 0)] * 3
    assert [block.strides for block in table.blocks] == cubes + planes
    assert [block.last - block.first for block in table.blocks] == [64, 256] + [64] * 3 + [256] * 3


def test_a_networks_neighbours_are_one_z_one_y_and_one_x_away():
    of_cells = parts_with(KiloUniformSettings(grid=(2, 3, 4), hidden_width=16), np.ones((4, 4, 4), np.uint8))
    assert [part.along for part in of_cells] == [(1, 4, 12)] * 2


@pytest.mark.parametrize(
    ("grid", "cell", "stored"),
    [((4, 3, 2), (1, 0, 3), [(0, 0, 1), (1, 0, 1), (2, 0, 1)]), ((2, 1, 1), (2, 2, 2), [(0, 0, 0), (1, 0, 0)])],
)
def test_networks_on_either_side_of_an_occupied_cells_faces_are_stored(grid, cell, stored):
    """A sample that rounding takes across a face, of four cells along each side, finds its network."""
    cells = np.zeros((4, 4, 4), np.uint8)
    cells[cell] = 1
    density, _ = parts_with(KiloUniformSettings(grid=grid, hidden_width=16), cells)
    assert np.argwhere(density.stored.reshape(grid)).tolist() == [list(each) for each in stored]


@pytest.mark.parametrize(
    ("value", "power", "exponent", "refused"),
    [
        (1 << 28, 12, 0, False),  # 2^52: float64 holds the sum
        (1 << 29, 12, 0, True),
        (1 << 2, 12, 8 * 100, False),  # 2^126, which float32 holds
        (1 << 4, 12, 8 * 100, True),
    ],
)
def test_sums_that_could_be_rounded_or_are_beyond_float32_are_refused(value, power, exponent, refused):
    part = Part("cells", np.ones(1, bool), (), np.zeros(1, np.int64), np.zeros(1, np.int64), ((1, 1),))
    one, maps = np.ones((1, 1), np.int32), (np.full((1, 1), 1 << power, np.int32),) * 2
    integers = Integers(one * value, one * exponent, np.zeros(1, np.int32), maps)
    if refused:
        with pytest.raises(ValueError, match="cells: integers of which sums of products are up to"):
            integers.weights(part)
    else:
        assert integers.weights(part).tolist() == [[value * 4.0**power * 2.0 ** (exponent / 8)]]
