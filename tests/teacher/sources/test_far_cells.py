"""Which cells of contracted space are outside the box, and which of them Gaussians reach."""

import torch

from kernels.marching.contraction import EDGE, contract
from scene.cells import CellGrid
from scene.rays import SceneBox
from teacher.sources.far_cells import cells_beyond, far_cells_of_gaussians
from tests.teacher.sources.test_box import make_gaussians

CELLS = CellGrid(SceneBox((-EDGE,) * 3, (EDGE,) * 3), 16)
BOX = SceneBox((-1, -2, -2), (3, 2, 1))  # middle (1, 0, -0.5), half of its longest side 2


def cell_of(*position):
    offsets = (torch.tensor(position) - torch.tensor([1.0, 0, -0.5])) / 2
    return tuple(((contract(offsets) + EDGE) / CELLS.cell_size).long().tolist())


def test_cells_inside_the_box_are_left_out_and_so_is_what_is_too_far():
    mask = cells_beyond(BOX, CELLS, reach=1.0)
    assert not mask[4:12, 4:12, 5:11].any()  # within 1 and 0.75 of the middle
    assert mask[3, 8, 8] and mask[8, 8, 4] and mask[8, 8, 11]
    assert not mask[0].any() and mask[1].any()  # 1.75 is 3 half sides behind the box, of 2 and a corner
    assert cells_beyond(BOX, CELLS, reach=64.0)[0].any()


def test_gaussians_mark_the_cells_around_them_near_and_far():
    for position in ([5.0, 1.0, 0.0], [-30.0, 9.0, 4.0], [80.0, -70.0, 2.0]):
        mask = far_cells_of_gaussians(make_gaussians([position], scales=(0.05,) * 3), BOX, CELLS, reach=64.0)
        assert mask[cell_of(*position)]
        assert 8 <= mask.sum() <= 64  # it, and its neighbours


def test_a_wide_gaussian_marks_all_that_it_reaches():
    mask = far_cells_of_gaussians(make_gaussians([[1.0, 0, -20.0]], scales=(30.0, 30, 0.1)), BOX, CELLS, reach=64.0)
    for x in (-60.0, -25.0, 0.0, 33.0):
        assert mask[cell_of(x, 12.0, -20.0)], x
    assert not mask[cell_of(1.0, 0.0, 40.0)]
