"""A table is the parameters of tiny-cuda-nn's hash grid, both ways; with the library itself where it is installed."""

import sys
import types
from importlib.util import find_spec

import pytest
import torch

from kernels.encoding.hash_encoding import hash_encode
from kernels.encoding.hash_encoding_tinycudann import encode, encoding_of, table_to_tinycudann, tinycudann_refusal
from kernels.encoding.hash_layout import HashLayout

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
def test_parameters_are_the_tables_rows_one_after_another(layout):
    table = torch.randn(layout.entries, layout.features)
    params = table_to_tinycudann(table, layout)
    assert params.shape == (layout.entries * layout.features,)
    torch.testing.assert_close(params.view(table.shape), table, rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_a_parameter_is_the_vertex_that_tinycudann_keeps_there(layout):
    """One value set where tiny-cuda-nn keeps it shows at its vertex, in its level and feature, and only there."""
    vertex = (1, 2, 1)
    for level in range(layout.levels):
        for feature in range(layout.features):
            params = torch.zeros(layout.entries * layout.features)
            params[place_in_params(layout, level, vertex, feature)] = 1
            x = (torch.tensor([vertex]) - 0.5) / float(layout.scales[level])
            out = hash_encode(x, params.view(-1, layout.features), layout, implementation="torch")
            expected = torch.zeros(layout.output_width)
            expected[level * layout.features + feature] = 1
            torch.testing.assert_close(out[0], expected, rtol=0, atol=1e-4)


def test_a_gradient_comes_back_through_the_conversion():
    layout = LAYOUTS[0]
    table = torch.randn(layout.entries, layout.features, requires_grad=True)
    upstream = torch.randn(layout.entries * layout.features)
    (grad,) = torch.autograd.grad(table_to_tinycudann(table, layout), table, upstream)
    torch.testing.assert_close(grad, upstream.view(table.shape))


def test_other_sizes_are_refused():
    layout = LAYOUTS[0]
    with pytest.raises(ValueError, match=r"table must be \(1600, 2\) for this layout, found \(1600, 4\)"):
        table_to_tinycudann(torch.zeros(1600, 4), layout)


def test_planes_are_refused(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "tinycudann", types.SimpleNamespace(Encoding=_FakeTinycudann, __spec__=object()))
    with pytest.raises(ValueError, match="tinycudann has no planes"):
        encoding_of(HashLayout(2, 2, 512, 4, 8, (16,)), torch.device("cpu"))


class _FakeTinycudann(torch.nn.Module):
    """tiny-cuda-nn's Encoding as its documentation has it: a flat ``params``, the config's names, rows of features."""

    def __init__(self, n_input_dims, encoding_config, seed=1337, dtype=None):
        super().__init__()
        assert (n_input_dims, encoding_config["otype"]) == (3, "HashGrid")
        self.dtype = dtype
        levels, base = encoding_config["n_levels"], encoding_config["base_resolution"]
        finest = round(base * encoding_config["per_level_scale"] ** (levels - 1))
        size = 2 ** encoding_config["log2_hashmap_size"]
        self.layout = HashLayout(levels, encoding_config["n_features_per_level"], size, base, finest)
        self.params = torch.nn.Parameter(torch.zeros(self.layout.entries * self.layout.features))

    def forward(self, x):
        # The parameters are float32; what is computed with has the module's type, and so has the gradient.
        table = self.params.to(self.dtype).view(self.layout.entries, self.layout.features)
        return hash_encode(x, table, self.layout, precision=self.dtype, implementation="torch")


@pytest.fixture
def fresh():
    """Nothing is known of tinycudann yet, nor kept of it."""
    for cached in (tinycudann_refusal, encoding_of):
        cached.cache_clear()
    yield
    for cached in (tinycudann_refusal, encoding_of):
        cached.cache_clear()


@pytest.mark.parametrize(("precision", "close"), [(torch.float32, 1e-6), (torch.float16, 1e-2), (torch.bfloat16, 3e-2)])
def test_tinycudann_is_given_our_table_and_returns_its_gradient(monkeypatch, fresh, precision, close):
    monkeypatch.setitem(sys.modules, "tinycudann", types.SimpleNamespace(Encoding=_FakeTinycudann, __spec__=object()))
    x, upstream = torch.rand(17, 3), torch.randn(17, LAYOUTS[0].output_width)
    table = torch.randn(LAYOUTS[0].entries, LAYOUTS[0].features, requires_grad=True)
    reference = hash_encode(x, table, LAYOUTS[0], precision=precision, implementation="torch")
    (expected,) = torch.autograd.grad(reference, table, upstream.to(precision))
    encoded = encode(x, table, LAYOUTS[0], precision)
    assert encoded.dtype == precision
    torch.testing.assert_close(encoded, reference, rtol=close, atol=close)
    (grad,) = torch.autograd.grad(encoded, table, upstream.to(precision))
    assert grad.dtype == torch.float32
    torch.testing.assert_close(grad, expected, rtol=close, atol=10 * close)
    held = torch.float16 if precision == torch.float16 else torch.float32
    assert encoding_of(LAYOUTS[0], x.device, held).dtype == held


@pytest.mark.parametrize("error", [ImportError("no build for\nthese GPUs"), OSError("no build for"), RuntimeError()])
def test_why_tinycudann_cannot_be_imported_is_one_line(monkeypatch, fresh, error):
    calls = []

    def fails(name):
        calls.append(name)
        raise error

    monkeypatch.setattr("kernels.encoding.hash_encoding_tinycudann.import_module", fails)
    table = torch.zeros(LAYOUTS[0].entries, LAYOUTS[0].features)
    for _ in range(2):
        with pytest.raises(ValueError) as raised:
            encode(torch.rand(3, 3), table, LAYOUTS[0])
        reason = str(error).partition("\n")[0] or "RuntimeError"
        assert str(raised.value) == f"kernel hash_encoding: tinycudann cannot be imported ({reason})"
    assert calls == ["tinycudann"]  # once is enough


@needs_tinycudann
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tinycudann_reads_our_table_and_we_read_its_parameters(layout):
    device = torch.device("cuda")
    x = torch.rand(1000, 3, device=device)
    theirs = encoding_of(layout, device)
    params = torch.rand_like(theirs.params)
    ours = hash_encode(x, params.view(-1, layout.features), layout, implementation="torch")
    theirs.load_state_dict({"params": params})
    torch.testing.assert_close(theirs(x).float(), ours, rtol=1e-2, atol=2e-3)
    table = torch.rand(layout.entries, layout.features, device=device)
    theirs.load_state_dict({"params": table_to_tinycudann(table, layout)})
    expected = hash_encode(x, table, layout, implementation="torch")
    torch.testing.assert_close(theirs(x).float(), expected, rtol=1e-2, atol=2e-3)
