"""The straight-through step: by hand, and the twin against its reference."""

import pytest
import torch

from kernels.optimization.straight_through import ALL, average_moved, rounded, straight_through


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_by_hand(implementation):
    steps, less = torch.full((1, 5), 0.5), torch.tensor([[0, 1, ALL, 0, 2]], dtype=torch.uint8)
    scaled, pull = torch.tensor([[1.4, -3.9, 600.0, 0.1, -1.2]]), torch.tensor([[0.0, 0.4, 0.0, 9.0, 0.0]])
    parameter = rounded(scaled, steps, less)
    assert parameter.tolist() == [[0.5, -1.5, 0.0, 0.0, 0.0]]
    parameter += torch.tensor([[0.1, -0.3, 0.25, 0.0, -1.1]])
    straight_through(parameter, scaled, steps, less, pull, torch.tensor(0.5), implementation)
    # Moves in steps; -4.5 is pulled by 0.2, what is nearer to zero than its pull ends there.
    assert scaled[0].tolist() == pytest.approx([1.6, -4.3, 600.5, 0.0, -3.4], abs=1e-5)
    assert parameter[0].tolist() == pytest.approx([1.0, -1.5, 0.0, 0.0, -0.5])


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_the_average_of_what_has_not_moved_falls(implementation):
    steps, scaled = torch.full((2, 2), 0.5), torch.tensor([[3.2, -1.0], [0.2, 5.0]])
    less = torch.tensor([[1, 0], [0, ALL]], dtype=torch.uint8)
    parameter = rounded(scaled, steps, less)
    parameter[0] += 0.01
    moment, average = torch.tensor([[9.0, 1.0], [9.0, 9.0]]), torch.ones(2, 2)
    average_moved(parameter, scaled, steps, less, moment, average, 0.25, implementation)
    assert average.tolist() == [[3.0, 1.0], [0.75, 0.75]]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (700, 4), (300, 513)])
def test_numba_equals_torch(rows, columns, use_threads):
    use_threads(2)
    generator = torch.Generator().manual_seed(rows)
    draw = lambda: torch.randn(rows, columns, generator=generator)  # noqa: E731
    steps, less, pull = draw().exp(), (3 * draw().abs()).byte(), draw().abs()
    less[draw() < -1] = ALL
    scaled = 3 * draw()
    parameter = rounded(scaled, steps, less)
    still = draw() < 0.5
    moved, strength = torch.where(still, parameter, parameter + draw()), torch.tensor(0.1)
    unpulled = torch.where(still, 0.0, pull)
    found = {}
    for name in ("torch", "numba"):
        found[name] = moved.clone(), scaled.clone()
        straight_through(found[name][0], found[name][1], steps, less, unpulled, strength, name)
    for one, other in zip(found["torch"], found["numba"], strict=True):
        assert one.equal(other)
    # What neither step nor pull has moved stays to the last bit.
    assert found["numba"][0][still].equal(parameter[still]) and found["numba"][1][still].equal(scaled[still])
