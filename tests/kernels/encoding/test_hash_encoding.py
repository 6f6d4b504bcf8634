"""The layout and values by hand, then the fast twins against the torch reference."""

import numpy as np
import pytest
import torch

from kernels.encoding.hash_encoding import hash_encode
from kernels.encoding.hash_layout import HashLayout
from tests.kernels.encoding.hash_tables import MIXED, encode, random_points
from tests.triton_device import DEVICE, TRITON, device_of, needs_gpu, needs_triton

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba", TRITON])
TWINS = pytest.mark.parametrize("twin", ["numba", TRITON])
# One dense level of 4**3 vertices: x is at 3 x + 0.5 on the grid.
DENSE = HashLayout(levels=1, features=2, table_size=64, base_resolution=4, finest_resolution=4)
# A grid of eight vertices, and planes of 4**2, which are dense, and of 16**2, which are hashed.
PLANES = HashLayout(levels=1, features=1, table_size=64, base_resolution=2, finest_resolution=2, planes=(4, 16))


def counting_table():
    """Entry i of the dense level holds (i, 1000 - i)."""
    i = torch.arange(64.0)
    return torch.stack([i, 1000 - i], dim=1)


def values(implementation, x, table, layout):
    """Output alone."""
    device = device_of(implementation)
    return hash_encode(x.to(device), table.to(device), layout, implementation=implementation).cpu()


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ((1 / 6, 1 / 2, 5 / 6), 57),  # vertex (1, 2, 3): 1 + 4 * (2 + 4 * 3)
        ((1 / 3, 1 / 3, 1 / 3), 31.5),  # centre of cell (1, 1, 1): 1.5 * (1 + 4 + 16)
        ((1 / 6, 1 / 6, 5 / 12), 33),  # (1, 1, 1.75): 1 + 4 + 16 * 1.75
        ((0, 0, 0), 10.5),  # (0.5, 0.5, 0.5)
        # (3.5, 3.5, 3.5): entries 63, 64, 67, 68, 79, 80, 83, 84, which wrap round at 64 (tiny-cuda-nn).
        ((1, 1, 1), (63 + 0 + 3 + 4 + 15 + 16 + 19 + 20) / 8),
        ((-5, -0.1, 0), 10.5),  # outside: clamped
        ((1.5, 1, 99), 17.5),
    ],
)
def test_dense_value_by_hand(implementation, x, expected):
    out = values(implementation, torch.tensor([x]), counting_table(), DENSE)
    assert out[0].tolist() == pytest.approx([expected, 1000 - expected], abs=1e-3)


@IMPLEMENTATIONS
def test_hashed_value_by_hand(implementation):
    # On the grid of 16 vertices (1, 2, 3) hashes to
    # 1 ^ (2 * 2654435761 mod 2^32 = 1013904226) ^ (3 * 805459861 = 2416379583) = 2892625372, entry 476 of 512.
    layout = HashLayout(levels=1, features=1, table_size=512, base_resolution=16, finest_resolution=16)
    table = torch.zeros(512, 1)
    table[476] = 1
    out = values(implementation, torch.tensor([[1 / 30, 1 / 10, 1 / 6]]), table, layout)
    assert out.item() == pytest.approx(1, abs=1e-5)


@IMPLEMENTATIONS
def test_planes_by_hand(implementation):
    """Place (1, 2, 3) of the grid of 4 vertices, half a cell further along y; entry i of a level holds i."""
    table = torch.cat([torch.arange(float(size)) for size in np.diff(PLANES.offsets)])[:, None]
    out = values(implementation, torch.tensor([[1 / 6, 2 / 3, 5 / 6]]), table, PLANES)[0]
    # Across x (y, z) = (2.5, 3): 2.5 + 4 * 3; across y (x, z) = (1, 3); across z (x, y) = (1, 2.5): 1 + 4 * 2.5.
    assert out[1:4].tolist() == pytest.approx([14.5, 13, 11], abs=1e-5)


@IMPLEMENTATIONS
def test_the_very_last_entrys_neighbour_is_the_first(implementation):
    """Place (3.5, 2.75) of 4 x 4 vertices: entries 11 and 12, 15 and 0; the next level's first is another."""
    table = torch.cat([torch.arange(float(size)) + 100 * i for i, size in enumerate(np.diff(PLANES.offsets))])[:, None]
    out = values(implementation, torch.tensor([[1, 0.75, 0.75]]), table, PLANES)[0]
    level = int(np.flatnonzero(PLANES.normals == 2)[0])
    value = 0.25 * (11 + 12) / 2 + 0.75 * (15 + 0) / 2
    assert out[level].item() == pytest.approx(100 * level + value, abs=1e-4)


@IMPLEMENTATIONS
def test_hashed_planes_by_hand(implementation):
    # Vertex (1, 2, 3) of 16: the first axis ^ 2654435761 times the second, of which 6 bits count: 2654435761 is 49
    # then. Across x 2 ^ 3 * 49 = 2 ^ 19, across y 1 ^ 19, across z 1 ^ 2 * 49 = 1 ^ 34.
    table = torch.cat([torch.arange(float(size)) for size in np.diff(PLANES.offsets)])[:, None]
    out = values(implementation, torch.tensor([[0.5 / 15, 1.5 / 15, 2.5 / 15]]), table, PLANES)[0]
    assert out[4:].tolist() == pytest.approx([17, 18, 35], abs=1e-4)


@IMPLEMENTATIONS
def test_a_plane_is_constant_along_its_normal(implementation):
    x, table = random_points(65), torch.randn(PLANES.entries, 1)
    for axis in range(3):
        moved = x.clone()
        moved[:, axis] = torch.rand(65)
        before, after = (values(implementation, points, table, PLANES) for points in (x, moved))
        across = torch.from_numpy(PLANES.normals == axis)
        assert torch.equal(before[:, across], after[:, across])
        assert not torch.isclose(before[:, ~across], after[:, ~across]).all(0).any()


@IMPLEMENTATIONS
def test_levels_read_their_own_part_of_the_table(implementation):
    table = torch.cat([torch.full((int(n), 2), float(i)) for i, n in enumerate(np.diff(MIXED.offsets))])
    out = values(implementation, random_points(65), table, MIXED)
    torch.testing.assert_close(out, torch.tensor([0.0, 0, 1, 1, 2, 2, 3, 3]).expand(65, 8))


@TWINS
@pytest.mark.parametrize(("count", "features"), [(0, 2), (1, 2), (63, 2), (64, 2), (65, 1), (65, 2), (65, 8), (601, 2)])
@pytest.mark.parametrize("planes", [(), (7, 50)])
def test_twins_equal_torch(twin, count, features, planes):
    layout = HashLayout(5, features, table_size=1024, base_resolution=3, finest_resolution=60, planes=planes)
    assert set(layout.kinds) == ({0, 1} if not planes else set(range(8)))
    x, table = random_points(count), torch.randn(layout.entries, features)
    upstream = torch.randn(count, layout.output_width)
    value, grad = encode("torch", x, table, layout, upstream)
    twin_value, twin_grad = encode(twin, x, table, layout, upstream)
    # A position on the finest grid, up to 60, has an absolute rounding error of 4e-6.
    torch.testing.assert_close(twin_value, value, atol=5e-5, rtol=1e-5)
    torch.testing.assert_close(twin_grad, grad, atol=2e-4, rtol=1e-5)


@IMPLEMENTATIONS
def test_gradient_is_the_adjoint(implementation):
    # The encoding is linear in the table, so <encode(d), g> = <d, gradient> for any direction d.
    x, direction, upstream = random_points(201), torch.randn(MIXED.entries, 2), torch.randn(201, 8)
    value, grad = encode(implementation, x, direction, MIXED, upstream)
    expected = (value.double() * upstream).sum().item()
    assert (grad.double() * direction).sum().item() == pytest.approx(expected, rel=1e-4)


@TWINS
def test_gradients_add_up_in_place(twin):
    device = device_of(twin)
    x, upstream = random_points(65).to(device), torch.randn(65, 8, device=device)
    table = torch.randn(MIXED.entries, 2, device=device, requires_grad=True)
    hash_encode(x, table, MIXED, implementation=twin).backward(upstream)
    once, buffer = table.grad.clone(), table.grad
    hash_encode(x, table, MIXED, implementation=twin).backward(upstream)
    assert table.grad is buffer
    torch.testing.assert_close(table.grad, 2 * once)


@TWINS
def test_a_fixed_table_gets_no_gradient(twin):
    device = device_of(twin)
    x = torch.rand(9, 3, device=device, requires_grad=True)
    table = torch.randn(MIXED.entries, 2, device=device)
    hash_encode(x, table, MIXED, implementation=twin).sum().backward()
    assert table.grad is None and x.grad is None


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_triton_on_tables_of_half_precision(dtype):
    # The stored values are exact in float32, so the sums are too; only the table's gradient is rounded at the end.
    x, table, upstream = random_points(165), torch.randn(MIXED.entries, 2).to(dtype), torch.randn(165, 8)
    expected, grad = encode("torch", x, table.float(), MIXED, upstream)
    out, twin_grad = encode("triton", x, table, MIXED, upstream)
    assert (out.dtype, twin_grad.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(out, expected, atol=5e-5, rtol=1e-5)
    precision = torch.finfo(dtype).eps
    torch.testing.assert_close(twin_grad.float(), grad, atol=max(2e-4, precision / 8), rtol=max(1e-5, precision))


@TWINS
def test_a_computed_table_gets_its_gradient(twin):
    device = device_of(twin)
    x, upstream = random_points(65), torch.randn(65, 8)
    leaf = torch.randn(MIXED.entries, 2)
    _, expected = encode("torch", x, leaf, MIXED, upstream)
    leaf = leaf.to(device).requires_grad_()
    for table, factor in ((2 * leaf, 2), (leaf.t().contiguous().t(), 1)):
        out = hash_encode(x.to(device), table, MIXED, implementation=twin)
        (grad,) = torch.autograd.grad(out, leaf, upstream.to(device))
        torch.testing.assert_close(grad.cpu(), factor * expected, atol=2e-4, rtol=1e-5)


@TWINS
@pytest.mark.parametrize("features", [1, 2])
def test_a_leaf_that_is_columns_of_another_tensor_is_read_and_gets_its_gradient(twin, features):
    device, layout = device_of(twin), HashLayout(4, features, 64, 3, 20)
    x, upstream = random_points(65), torch.randn(65, layout.output_width)
    leaf = torch.randn(layout.entries, 2 * features, device=device)[:, ::2].requires_grad_()
    out, grad = encode("torch", x, leaf.cpu(), layout, upstream)
    found = hash_encode(x.to(device), leaf, layout, implementation=twin)
    found.backward(upstream.to(device))
    torch.testing.assert_close(found.detach().cpu(), out, atol=2e-4, rtol=1e-5)
    torch.testing.assert_close(leaf.grad.cpu(), grad, atol=2e-4, rtol=1e-5)


@TWINS
def test_points_and_gradients_of_any_strides(twin):
    x, table, upstream = random_points(67), torch.randn(MIXED.entries, 2), torch.randn(67, 8)
    expected = encode(twin, x, table, MIXED, upstream)
    columns = encode(twin, x.t().contiguous().t(), table, MIXED, upstream.t().contiguous().t())
    every_other = torch.zeros(67, 2, 3, 2)
    every_other[:, 1, :, 0] = x
    sparse = encode(twin, every_other[:, 1, :, 0], table, MIXED, torch.ones(1, 8).expand(67, 8))
    for ours, theirs in zip(columns, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    assert torch.equal(sparse[0], expected[0])
    torch.testing.assert_close(sparse[1], encode("torch", x, table, MIXED, torch.ones(67, 8))[1], atol=2e-4, rtol=1e-5)


@TWINS
def test_products_of_the_hash_wrap_round_at_32_bits(twin):
    # Coordinates near 2**20 times the primes fill 52 bits. They are whole numbers and a half on this grid.
    layout = HashLayout(levels=1, features=2, table_size=4096, base_resolution=2**20 + 1, finest_resolution=2**20 + 1)
    assert layout.hashed.all() and layout.scales[0] == 2**20
    x = torch.randint(2**20 - 1000, 2**20, (65, 3)).float() / 2**20
    table, upstream = torch.randn(4096, 2), torch.randn(65, 2)
    reference = encode("torch", x, table, layout, upstream)
    for ours, theirs in zip(encode(twin, x, table, layout, upstream), reference, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_triton_at_a_real_size(dtype):
    layout = HashLayout(levels=16, features=2, table_size=2**19, base_resolution=16, finest_resolution=2048)
    count = 2**18 + 3
    x, upstream = torch.rand(count, 3, device=DEVICE), torch.randn(count, layout.output_width, device=DEVICE)
    outputs, grads = [], []
    for name in ("torch", "triton"):
        table = torch.randn(layout.entries, 2, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(1))
        table = table.to(dtype).float() if name == "torch" else table.to(dtype)
        table.requires_grad_()
        out = hash_encode(x, table, layout, implementation=name)
        out.backward(upstream)
        outputs.append(out.detach())
        grads.append(table.grad.float())
    # At 2048 vertices a position's rounding is 1.2e-4 of a cell.
    torch.testing.assert_close(outputs[1], outputs[0], atol=2e-3, rtol=1e-4)
    torch.testing.assert_close(grads[1], grads[0], atol=2e-2, rtol=max(1e-3, torch.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("x", "entries", "message"), [((4, 2), 64, r"\(N, 3\), found \(4, 2\)"), ((4, 3), 63, r"found \(63, 2\)")]
)
def test_wrong_shapes_are_refused(x, entries, message):
    with pytest.raises(ValueError, match=message):
        hash_encode(torch.zeros(x), torch.zeros(entries, 2), DENSE)


def test_an_implementation_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="hash_encoding: implementation 'fortran'"):
        hash_encode(torch.zeros(1, 3), counting_table(), DENSE, implementation="fortran")


def test_tinycudann_is_for_cuda_alone():
    with pytest.raises(ValueError, match="'tinycudann' cannot run on cpu"):
        hash_encode(torch.rand(3, 3), torch.zeros(MIXED.entries, MIXED.features), MIXED, implementation="tinycudann")


@pytest.mark.parametrize("implementation", ["torch", TRITON])
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_entries_and_result_but_not_the_gradient(implementation, precision):
    device = device_of(implementation)
    x, table = random_points(129), torch.randn(MIXED.entries, 2)
    upstream = torch.randn(129, 8).to(precision)
    expected, grad = encode("torch", x, table.to(precision).float(), MIXED, upstream.float())
    leaf = table.to(device).requires_grad_()
    out = hash_encode(x.to(device), leaf, MIXED, precision=precision, implementation=implementation)
    out.backward(upstream.to(device))
    assert out.dtype == precision and leaf.grad.dtype == torch.float32
    # A value half way between two of the type's may go either way.
    torch.testing.assert_close(out.detach().cpu().float(), expected, atol=1e-5, rtol=torch.finfo(precision).eps)
    torch.testing.assert_close(leaf.grad.cpu(), grad, atol=2e-4, rtol=1e-5)


def test_numba_has_no_half_precision_and_auto_does_without_it():
    x, table = random_points(5), torch.randn(MIXED.entries, 2)
    with pytest.raises(ValueError, match="implementation 'numba' cannot run"):
        hash_encode(x, table, MIXED, precision=torch.float16, implementation="numba")
    assert hash_encode(x, table, MIXED, precision=torch.float16).dtype == torch.float16


@TWINS
def test_points_without_a_gradient_leave_the_tables_as_it_is(twin):
    device = device_of(twin)
    x, table = random_points(70).to(device), torch.randn(MIXED.entries, 2, device=device, requires_grad=True)
    upstream = torch.randn(70, 8, device=device)
    upstream[35:] = 0
    hash_encode(x, table, MIXED, implementation=twin).backward(upstream)
    other = table.detach().clone().requires_grad_()
    hash_encode(x[:35], other, MIXED, implementation=twin).backward(upstream[:35])
    torch.testing.assert_close(table.grad, other.grad)
