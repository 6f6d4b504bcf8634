import math

import pytest
import torch

from distill.rendering import occupancy
from distill.rendering.occupancy import OccupancyGrid
from scene.rays import SceneBox
from settings.errors import InputError

BOX = SceneBox((-1, -1, -1), (1, 1, 1))
STEP, THRESHOLD = 0.02, 0.01
LEAST_DENSITY = -math.log(1 - THRESHOLD) / STEP  # about 0.5


def make_grid(resolution=10, decay=0.5, box=BOX):
    return OccupancyGrid(box, resolution, STEP, THRESHOLD, decay)


def constant(value):
    return lambda positions: torch.full((len(positions),), float(value))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("upper", "resolution", "cell", "shape"),
    [
        ((2, 1, 0.5), 8, 0.25, (8, 4, 2)),
        ((2, 1, 0.6), 8, 0.25, (8, 4, 3)),  # the last cell sticks out
        ((0.3, 0.1, 0.3), 3, 0.1, (3, 1, 3)),  # 0.1 / (0.3 / 3) is a little more than 1 in floating point
        ((1, 1, 1e-6), 4, 0.25, (4, 4, 1)),
    ],
)
def test_cells_are_cubes_over_the_box(upper, resolution, cell, shape):
    grid = make_grid(resolution, box=SceneBox((0, 0, 0), upper))
    assert grid.cell_size == pytest.approx(cell)
    assert grid.shape == shape
    assert grid.cells.occupied.shape == shape
    assert grid.cells.lower == (0, 0, 0)


def test_places_in_a_cell_that_sticks_out_of_the_box_are_not_sampled():
    grid = make_grid(2, box=SceneBox((0, 0, 0), (1, 1, 0.75)))
    grid.bound_by_teacher(torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 1]]], dtype=torch.uint8))
    places = [[0.2, 0.2, 0.7], [0.2, 0.2, 0.8], [0.2, 0.7, 0.7], [0.7, 0.7, 0.75], [-0.1, 0.2, 0.2], [0.7, 0.7, 0.2]]
    assert grid.occupied_at(torch.tensor(places)).tolist() == [True, False, False, True, False, False]


def test_more_cells_than_fit_are_refused_before_they_are_made():
    with pytest.raises(InputError, match=r"occupancy.resolution: found 1024: 1024x1024x1024 cells that take 8.0 GiB"):
        make_grid(1024)
    assert make_grid(1024, box=SceneBox((0, 0, 0), (1, 0.02, 0.02))).shape == (1024, 21, 21)


def test_a_cell_is_empty_when_its_alpha_over_a_step_is_below_the_threshold(field):
    assert make_grid().density_threshold == pytest.approx(LEAST_DENSITY)
    for factor, fraction in ((1.01, 1.0), (0.99, 0.5)):
        grid = make_grid()
        # Dense on one side, so that the grid is not taken for empty.
        dense = field(lambda p, factor=factor: torch.where(p[:, 0] < 0, 9.0, factor * LEAST_DENSITY))
        grid.refresh(dense, generator())
        assert grid.occupied_fraction == pytest.approx(fraction)


def test_a_refresh_changes_the_cells_where_they_are(field):
    """A recorded CUDA graph reads them there."""
    grid = make_grid()
    cells, place = grid.cells, grid.cells.occupied.data_ptr()
    assert len(cells.places) == 1000 and cells.coarse.all()
    grid.refresh(field(lambda p: 100.0 * (p[:, 0] < -0.6)), generator())
    assert grid.cells is cells and place == cells.occupied.data_ptr()
    assert cells.coarse[0].all() and not cells.coarse[1:].any() and len(cells.places) == 200


def test_refresh_keeps_the_cells_that_are_dense_inside(field):
    grid = make_grid()
    grid.refresh(field(lambda p: 100.0 * (p[:, 0] < 0.2) * (p[:, 2] > -0.6)), generator())
    expected = torch.zeros(10, 10, 10, dtype=torch.uint8)
    expected[:6, :, 2:] = 1  # cells of edge 0.2 from -1
    assert torch.equal(grid.occupied, expected)
    assert torch.equal(grid.cells.occupied, expected)
    assert torch.equal(grid.cells.coarse[:, 0, 0], torch.tensor([1, 1, 0], dtype=torch.uint8))


def test_cells_outside_the_teacher_never_come_back(field):
    grid = make_grid()
    mask = (torch.rand(10, 10, 10) < 0.3).to(torch.uint8)
    grid.bound_by_teacher(mask)
    assert torch.equal(grid.cells.occupied, mask)
    for seed in range(3):
        grid.refresh(field(constant(1000)), generator(seed))
        assert torch.equal(grid.occupied, mask)


def test_a_student_that_is_empty_everywhere_does_not_empty_the_grid(field):
    grid = make_grid()
    mask = (torch.rand(10, 10, 10) < 0.3).to(torch.uint8)
    grid.bound_by_teacher(mask)
    for refusals in (1, 2):
        grid.refresh(field(constant(0)), generator())
        assert torch.equal(grid.occupied, mask)
        assert grid.refusals == refusals


@pytest.mark.parametrize(("left", "occupied", "refusals"), [(9, 1000, 1), (10, 10, 0)])
def test_the_guard_is_at_one_percent_of_the_teachers_cells(field, left, occupied, refusals):
    grid = make_grid()
    # The first cells of one row of ten.
    row = field(lambda p: 99.0 * (p[:, 0] < -0.8) * (p[:, 1] < -0.8) * (p[:, 2] < -1 + 0.2 * left))
    grid.refresh(row, generator())
    assert grid.refusals == refusals
    assert grid.occupied.sum() == occupied


def test_density_is_remembered_and_decays(field):
    grid = make_grid(decay=0.5)
    background = 9.0  # of one half, so that the guard stays out of it
    spike = field(lambda p: torch.where(p[:, 0] < 0, background, 5.0 * LEAST_DENSITY))
    calm = field(lambda p: torch.where(p[:, 0] < 0, background, 0.0))
    grid.refresh(spike, generator())
    fractions = []
    for _ in range(4):
        grid.refresh(calm, generator())
        fractions.append(round(grid.occupied_fraction, 3))
    # 5 -> 2.5 -> 1.25 -> 0.625 thresholds.
    assert fractions == [1.0, 1.0, 0.5, 0.5]
    grid.refresh(spike, generator())
    assert grid.occupied_fraction == 1.0


def test_cells_are_asked_at_random_places_inside_them(field):
    grid, asked = make_grid(), []

    def record(positions):
        asked.append(positions.clone())
        return constant(9)(positions)

    for seed in (0, 0, 1):
        grid.refresh(field(record), generator(seed))
    place = (asked[0] + 1) / 0.2
    assert torch.equal(place.floor().long(), (torch.cartesian_prod(*[torch.arange(10)] * 3)))
    assert (place % 1).mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(asked[0], asked[1])
    assert not torch.equal(asked[0], asked[2])


def test_a_large_grid_is_looked_into_part_by_part(field, monkeypatch):
    monkeypatch.setattr(occupancy, "MAX_REFRESHED_CELLS", 100)
    grid, student = make_grid(), field(lambda p: 9.0 * (p[:, 0] < 0))
    rounds = torch.Generator().manual_seed(0)
    grid.refresh(student, rounds)
    # At most 100 of 1000 cells can have been found empty.
    assert 0.9 <= grid.occupied_fraction < 1.0
    assert (grid.occupied[:5] == 1).all()
    for _ in range(120):
        grid.refresh(student, rounds)
    # However long the others had to wait for their turn, dense cells were not forgotten.
    assert (grid.occupied[:5] == 1).all()
    assert (grid.occupied[5:] == 0).all()


def test_a_cell_picked_twice_keeps_the_larger_density(field, monkeypatch):
    monkeypatch.setattr(occupancy, "MAX_REFRESHED_CELLS", 7)
    grid = make_grid(resolution=2)
    grid.refresh(field(lambda p: torch.arange(1.0, 1.0 + len(p))), generator(1))
    pick = torch.randint(8, (7,), generator=generator(1)).tolist()
    assert len(set(pick)) < 7
    latest = {cell: 1.0 + order for order, cell in enumerate(pick)}
    assert {cell: grid.remembered.view(-1)[cell].item() for cell in latest} == latest


def test_state_is_restored_with_its_cells(field):
    grid, twin = make_grid(), make_grid()
    grid.bound_by_teacher((torch.rand(10, 10, 10) < 0.5).to(torch.uint8))
    grid.refresh(field(lambda p: 9.0 * (p[:, 1] > 0)), generator())
    assert twin.cells.occupied.all()
    twin.load_state_dict(grid.state_dict())
    assert torch.equal(twin.cells.occupied, grid.occupied)
    for one in (grid, twin):
        one.refresh(field(lambda p: 9.0 * (p[:, 1] > 0.5)), generator(5))
    assert torch.equal(grid.occupied, twin.occupied)
    assert torch.equal(grid.remembered, twin.remembered)


def test_cells_follow_the_grid_to_another_device():
    grid = make_grid()
    assert grid.cells.occupied.device.type == "cpu"
    moved = grid.to("meta")
    assert moved.cells.occupied.device.type == moved.cells.coarse.device.type == "meta"
