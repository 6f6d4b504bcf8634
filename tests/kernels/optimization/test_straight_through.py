"""The straight-through step: by hand, and the twin against its reference."""

import pytest
import torch

from kernels.optimization.straight_through import ALL, average_moved, rounded, straight_through
from tests.triton_device import TRITON, device_of

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])


@IMPLEMENTATIONS
def test_by_hand(implementation):
    steps, less = torch.full((1, 5), 0.5), torch.tensor([[0, 1, ALL, 0, 2]], dtype=torch.uint8)
    scaled, pull = torch.tensor([[1.4, -3.9, 600.0, 0.1, -1.2]]), torch.tensor([[0.0, 0.4, 0.0, 9.0, 0.0]])
    parameter = rounded(scaled, steps, less)
    assert parameter.tolist() == [[0.5, -1.5, 0.0, 0.0, 0.0]]
    parameter += torch.tensor([[0.1, -0.3, 0.25, 0.0, -1.1]])
    on = lambda *tensors: [tensor.to(device_of(implementation)) for tensor in tensors]  # noqa: E731
    parameter, scaled, steps, less, pull, strength = on(parameter, scaled, steps, less, pull, torch.tensor(0.5))
    straight_through(parameter, scaled, steps, less, pull, strength, implementation)
    # Moves in steps; -4.5 is pulled by 0.2, what is nearer to zero than its pull ends there.
    assert scaled[0].tolist() == pytest.approx([1.6, -4.3, 600.5, 0.0, -3.4], abs=1e-5)
    assert parameter[0].tolist() == pytest.approx([1.0, -1.5, 0.0, 0.0, -0.5])


@IMPLEMENTATIONS
def test_the_average_of_what_has_not_moved_falls(implementation):
    steps, scaled = torch.full((2, 2), 0.5), torch.tensor([[3.2, -1.0], [0.2, 5.0]])
    less = torch.tensor([[1, 0], [0, ALL]], dtype=torch.uint8)
    parameter = rounded(scaled, steps, less)
    parameter[0] += 0.01
    moment, average = torch.tensor([[9.0, 1.0], [9.0, 9.0]]), torch.ones(2, 2)
    given = [tensor.to(device_of(implementation)) for tensor in (parameter, scaled, steps, less, moment, average)]
    average_moved(*given, 0.25, implementation)
    average = given[-1]
    assert average.tolist() == [[3.0, 1.0], [0.75, 0.75]]


@pytest.mark.parametrize("twin", ["numba", TRITON])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (700, 4), (300, 513)])
def test_a_twin_equals_torch(rows, columns, twin, use_threads):
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
    for name in ("torch", twin):
        given = [tensor.clone().to(device_of(name)) for tensor in (moved, scaled, steps, less, unpulled, strength)]
        straight_through(*given, name)
        found[name] = [tensor.cpu() for tensor in given[:2]]
    for one, other in zip(found["torch"], found[twin], strict=True):
        # A GPU divides nearly, and may round a product and a sum together: an integer may then be the next one.
        assert one.equal(other) if twin == "numba" else (one - other).abs().gt(1e-4 * steps).float().mean() < 1e-3
    # What neither step nor pull has moved stays to the last bit.
    assert found[twin][0][still].equal(parameter[still]) and found[twin][1][still].equal(scaled[still])


@IMPLEMENTATIONS
def test_halves_go_to_the_even_integer_and_what_is_no_number_stays_none(implementation):
    scaled = torch.tensor([[0.5, 1.5, -0.5, -2.5, 8388609.0, -20971520.0, torch.nan, -0.2]])
    ones, less = torch.ones(1, 8), torch.zeros(1, 8, dtype=torch.uint8)
    parameter = rounded(scaled, ones, less)
    given = [tensor.to(device_of(implementation)) for tensor in (parameter, scaled, ones, less, torch.zeros(1, 8))]
    straight_through(*given, torch.tensor(1.0).to(given[0].device), implementation)
    assert given[0].cpu().nan_to_num(7.0).tolist() == [[0.0, 2.0, 0.0, -2.0, 8388609.0, -20971520.0, 7.0, 0.0]]
