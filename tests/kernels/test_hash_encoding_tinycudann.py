"""A table is the parameters of tiny-cuda-nn's hash grid, both ways; with the library itself where it is installed."""

from importlib.util import find_spec

import pytest
import torch

from kernels import hash_encoding
from kernels.hash_encoding import HashLayout, hash_encode, table_from_tinycudann, table_to_tinycudann

LAYOUTS = [HashLayout(4, 2, 512, 4, 32), HashLayout(3, 4, 1024, 3, 12), HashLayout(16, 2, 2**19, 16, 2048)]
needs_tinycudann = pytest.mark.skipif(
    find_spec("tinycudann") is None or not torch.cuda.is_available(),
    reason="tinycudann is not installed, or there is no CUDA device",
)


def place_in_params(layout, level, vertex, feature):
    """Where tiny-cuda-nn keeps a value, by its GridEncoding: the level's offset, then its dense or hashed index.

    Every level has min(resolution^3 rounded up to 8, 2^log2_hashmap_size) entries; those too small are hashed.
    """
    growth = (layout.finest_resolution / layout.base_resolution) ** (1 / (layout.levels - 1))
    offset = 0
    for each in range(level + 1):
        scale = layout.base_resolution * growth**each - 1
        resolution = int(-(-(scale - 1e-5) // 1)) + 1
        size = min(-(-(resolution**3) // 8) * 8, layout.table_size)
        offset += size if each < level else 0
    x, y, z = vertex
    if resolution**3 <= size:
        index = x + resolution * (y + resolution * z)
    else:
        index = (x ^ (y * 2654435761 & 0xFFFFFFFF) ^ (z * 805459861 & 0xFFFFFFFF)) % size
    return (offset + index) * layout.features + feature


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip_changes_nothing(layout):
    table = torch.randn(layout.entries, layout.features)
    params = table_to_tinycudann(table, layout)
    assert params.shape == (layout.entries * layout.features,)
    torch.testing.assert_close(table_from_tinycudann(params, layout), table, rtol=0, atol=0)
    torch.testing.assert_close(table_to_tinycudann(table_from_tinycudann(params, layout), layout), params)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_a_parameter_is_the_vertex_that_tinycudann_keeps_there(layout):
    """One value set where tiny-cuda-nn keeps it shows at its vertex, in its level and feature, and only there."""
    vertex = (1, 2, 1)
    for level in range(layout.levels):
        for feature in range(layout.features):
            params = torch.zeros(layout.entries * layout.features)
            params[place_in_params(layout, level, vertex, feature)] = 1
            x = (torch.tensor([vertex]) - 0.5) / float(layout.scales[level])
            out = hash_encode(x, table_from_tinycudann(params, layout), layout, implementation="torch")
            expected = torch.zeros(layout.output_width)
            expected[level * layout.features + feature] = 1
            torch.testing.assert_close(out[0], expected, rtol=0, atol=1e-4)


def test_a_gradient_comes_back_through_the_conversion():
    layout = LAYOUTS[0]
    table = torch.randn(layout.entries, layout.features, requires_grad=True)
    upstream = torch.randn(layout.entries * layout.features)
    (grad,) = torch.autograd.grad(table_to_tinycudann(table, layout), table, upstream)
    torch.testing.assert_close(grad, table_from_tinycudann(upstream, layout))


def test_other_sizes_are_refused():
    layout = LAYOUTS[0]
    with pytest.raises(ValueError, match=r"table must be \(1600, 2\) for this layout, found \(1600, 4\)"):
        table_to_tinycudann(torch.zeros(1600, 4), layout)
    with pytest.raises(ValueError, match=r"params must be \(3200,\) for this layout, found \(3208,\)"):
        table_from_tinycudann(torch.zeros(3208), layout)


@needs_tinycudann
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tinycudann_reads_our_table_and_we_read_its_parameters(layout):
    device = torch.device("cuda")
    x = torch.rand(1000, 3, device=device)
    theirs = hash_encoding._tinycudann_encoding(layout, device)
    params = torch.rand_like(theirs.params)
    ours = hash_encode(x, table_from_tinycudann(params, layout), layout, implementation="torch")
    theirs.load_state_dict({"params": params})
    torch.testing.assert_close(theirs(x).float(), ours, rtol=1e-2, atol=2e-3)
    table = torch.rand(layout.entries, layout.features, device=device)
    theirs.load_state_dict({"params": table_to_tinycudann(table, layout)})
    expected = hash_encode(x, table, layout, implementation="torch")
    torch.testing.assert_close(theirs(x).float(), expected, rtol=1e-2, atol=2e-3)
