"""A hash table's layout and points for the tests of its encoding."""

import torch

from kernels.encoding.hash_encoding import hash_encode
from kernels.encoding.hash_layout import HashLayout
from tests.triton_device import device_of

# Two dense and two hashed levels.
MIXED = HashLayout(levels=4, features=2, table_size=512, base_resolution=4, finest_resolution=32)


def random_points(count):
    """Some of them on the faces of the unit cube and outside of it."""
    return torch.where(torch.rand(count, 3) < 0.05, torch.randint(-1, 3, (count, 3)).float(), torch.rand(count, 3))


def encode(implementation, x, table, layout, upstream):
    """Output and the table's gradient."""
    device = device_of(implementation)
    table = table.detach().to(device, copy=True).requires_grad_()
    out = hash_encode(x.to(device), table, layout, implementation=implementation)
    out.backward(upstream.to(device))
    return out.detach().cpu(), table.grad.cpu()
