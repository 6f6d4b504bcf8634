"""Grids and rays to march along, and marching brought back to the CPU."""

import pytest
import torch
from torch.nn.functional import normalize

from kernels.marching.ray_marching import march
from kernels.marching.ray_samples import Cells, Samples
from tests.triton_device import TRITON, device_of

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])


def row_of_cells(*occupied):
    """Unit cells along x, from the origin."""
    return Cells((0.0, 0.0, 0.0), 1.0, torch.tensor(occupied, dtype=torch.uint8).view(-1, 1, 1))


def along_x(near=1.0, far=5.0, y=0.5):
    """A ray that enters the row of cells at t = 1."""
    return torch.tensor([[-1.0, y, 0.5]]), torch.tensor([[1.0, 0, 0]]), torch.tensor([near]), torch.tensor([far])


def random_cells(shape=(13, 7, 21), fraction=0.2, size=0.1):
    return Cells((-0.4, -0.3, -1.1), size, (torch.rand(shape) < fraction).to(torch.uint8))


def random_rays(count):
    """From around and inside ``random_cells``, a third of them along an axis or a diagonal of an axis plane."""
    origins = torch.rand(count, 3) * torch.tensor([4.0, 4, 4]) - 2
    targets = torch.rand(count, 3) * torch.tensor([1.3, 0.7, 2.1]) + torch.tensor([-0.4, -0.3, -1.1])
    directions = normalize(targets - origins, dim=1)
    kind = torch.arange(count) % 6
    directions[kind == 1] = torch.tensor([0.0, 0, -1])
    directions[kind == 2] = normalize(torch.tensor([1.0, 0, 1]), dim=0)
    origins[kind == 1, :2] = targets[kind == 1, :2]
    near = 0.1 + 0.3 * torch.rand(count)
    far = torch.where(kind == 3, near - 0.1, near + 4 * torch.rand(count))
    return origins, directions, near, far


def run(implementation, rays, cells, step=0.02, limit=1000, seed=None, first_bin=None, capacity=None):
    """The samples, brought back to the CPU."""
    device = device_of(implementation)
    samples = march(
        *(part.to(device) for part in rays),
        Cells(cells.lower, cells.size, cells.occupied.to(device)),
        step=step,
        limit=limit,
        seed=seed,
        first_bin=None if first_bin is None else first_bin.to(device),
        capacity=capacity,
        implementation=implementation,
    )
    return Samples(*(None if part is None else part.cpu() for part in samples))
