"""Cubic cells over a box: how many there are along each side."""

from scene.cells import CellGrid
from scene.rays import SceneBox


def test_shape_of_a_box():
    box = SceneBox((-0.5, -0.4, -0.3), (0.5, 0.4, 0.3))
    assert CellGrid(box, 10).shape == (10, 8, 6)
    assert CellGrid(SceneBox((0, 0, 0), (1, 1e-3, 0.11)), 10).shape == (10, 1, 2)
