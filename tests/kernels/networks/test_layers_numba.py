"""Products and networks in registers against torch."""

import numpy as np
import pytest
import torch

from kernels.networks.layers_numba import pack, run_network, unpack
from kernels.products_numba import padded, product
from kernels.simd import LANES


@pytest.mark.parametrize(("rows", "inner", "vectors"), [(4, 1, 1), (8, 5, 2), (12, 31, 3), (64, 16, 5)])
@pytest.mark.parametrize("start", [0, 1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_products(rows, inner, vectors, start, transposed):
    columns = vectors * LANES
    a, b, c = torch.randn(rows, inner), torch.randn(inner + 1, columns), torch.randn(rows, columns)
    begin = (torch.zeros_like(c), c.clone(), b[-1].expand_as(c))[start]
    flat, strides = (a.t().contiguous(), (1, rows)) if transposed else (a, (inner, 1))
    result = c.flatten().numpy()
    product(rows, inner, flat.flatten().numpy(), *strides, b.flatten().numpy(), columns, start, result)
    torch.testing.assert_close(torch.from_numpy(result).view(rows, columns), begin + a @ b[:-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 64])
@pytest.mark.parametrize(("biased", "slope"), [(False, 0.0), (True, 0.01)])
def test_networks(count, biased, slope):
    """The second of two, its widths no multiples of anything; the last layer is linear."""
    layers = [torch.randn(2, 5 + biased, 13), torch.randn(2, 13 + biased, 20), torch.randn(2, 20 + biased, 3)]
    networks, rows = pack(layers, biased), torch.randn(count, 7)
    source, activations = np.zeros(64 * 7, np.float32), np.zeros((2, 64 * networks.width), np.float32)
    source[: rows.numel()] = rows.flatten().numpy()
    flat = networks.parameters[1].numpy()
    found = run_network(count, source, 7, 1, flat, networks.dims, biased, np.float32(slope), activations)
    expected = rows[:, :5]
    for number, layer in enumerate(layers):
        inputs = torch.cat([expected, torch.ones(count, 1)], 1) if biased else expected
        expected = inputs @ layer[1]
        expected = torch.nn.functional.leaky_relu(expected, slope) if number < 2 else expected
    found = torch.from_numpy(found[: count * padded(3)]).view(count, padded(3))
    torch.testing.assert_close(found[:, :3], expected, rtol=1e-4, atol=1e-4)
    assert not found[:, 3:].any(), "padding"


def test_unpacking_gives_back_what_was_packed():
    layers = [torch.randn(1, 5, 13), torch.randn(1, 13, 3)]
    networks = pack(layers, biased=False)
    parts = unpack(networks.parameters[0], networks, [layer.shape[1:] for layer in layers])
    assert all(torch.equal(part, layer[0]) for part, layer in zip(parts, layers, strict=True))
