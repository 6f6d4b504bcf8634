"""The straight-through step: by hand, and the twin against its reference."""

import pytest
import torch

from kernels.straight_through import rounded, straight_through


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_by_hand(implementation):
    steps, zero = torch.full((1, 4), 0.5), torch.tensor([[False, False, True, False]])
    scaled, pull = torch.tensor([[1.4, -3.0, 2.0, 0.1]]), torch.tensor([[0.0, 0.4, 0.0, 9.0]])
    centre = torch.tensor([0.0, 0.0, 0.0, 10.0])
    parameter = rounded(scaled, steps, zero, centre)
    assert parameter.tolist() == [[0.5, -1.5, 0.0, 10.0]]
    parameter += torch.tensor([[0.1, -0.3, 0.25, 0.0]])
    straight_through(parameter, scaled, steps, zero, pull, torch.tensor(0.5), centre, implementation)
    # Moves in steps; -3.6 is pulled by 0.2, what is nearer to zero than its pull ends there.
    assert scaled[0].tolist() == pytest.approx([1.6, -3.4, 2.5, 0.0], abs=1e-6)
    assert parameter[0].tolist() == pytest.approx([1.0, -1.5, 0.0, 10.0])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (700, 4), (300, 513)])
def test_numba_equals_torch(rows, columns, centred, use_threads):
    use_threads(2)
    generator = torch.Generator().manual_seed(rows)
    draw = lambda: torch.randn(rows, columns, generator=generator)  # noqa: E731
    steps, zero, pull = draw().exp(), draw() < 0, draw().abs()
    centre = draw()[0].clone() if centred else None
    scaled = 3 * draw()
    parameter = rounded(scaled, steps, zero, centre)
    still = draw() < 0.5
    moved, strength = torch.where(still, parameter, parameter + draw()), torch.tensor(0.1)
    unpulled = torch.where(still, 0.0, pull)
    found = {}
    for name in ("torch", "numba"):
        found[name] = moved.clone(), scaled.clone()
        straight_through(found[name][0], found[name][1], steps, zero, unpulled, strength, centre, name)
    for one, other in zip(found["torch"], found["numba"], strict=True):
        assert one.equal(other)
    # What neither step nor pull has moved stays to the last bit.
    assert found["numba"][0][still].equal(parameter[still]) and found["numba"][1][still].equal(scaled[still])
