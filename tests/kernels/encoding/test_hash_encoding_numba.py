"""Which of a table's rows the CPU's gradients touch, and that they do not depend on threads."""

import torch

from kernels.encoding.hash_encoding import hash_encode
from kernels.encoding.hash_layout import HashLayout
from kernels.optimization.updates import ROWS_PER_FLAG, TouchedRows
from tests.kernels.encoding.hash_tables import MIXED, encode, random_points


def test_same_bits_for_any_number_of_threads(use_threads):
    x, table = random_points(9001), torch.randn(MIXED.entries, 2)
    upstream = torch.randn(9001, 8)
    use_threads(1)
    single = encode("numba", x, table, MIXED, upstream)
    use_threads(2)
    for one, two in zip(single, encode("numba", x, table, MIXED, upstream), strict=True):
        assert torch.equal(one, two)


def test_touched_flags_mark_the_blocks_that_received_a_gradient():
    touched = TouchedRows(MIXED.entries)
    table = torch.zeros(MIXED.entries, 2, requires_grad=True)
    x = torch.rand(5, 3) * 0.1 + 0.45
    hash_encode(x, table, MIXED, touched=touched, implementation="numba").backward(torch.ones(5, 8))
    changed = torch.nn.functional.pad((table.grad != 0).any(1), (0, -MIXED.entries % ROWS_PER_FLAG))
    blocks = changed.view(-1, ROWS_PER_FLAG).any(1)
    assert touched.flags.bool()[: len(blocks)].equal(blocks)
    assert 0 < touched.flags.sum() < len(touched.flags) / 2


def test_flags_of_neighbours_on_both_sides_of_a_block():
    layout = HashLayout(levels=1, features=2, table_size=512, base_resolution=8, finest_resolution=8)
    touched, table = TouchedRows(512), torch.zeros(512, 2, requires_grad=True)
    x = torch.tensor([[1.0, 0, 0]])  # (7.5, 0.5, 0.5): entries 7 and 8, 15 and 16, 71 and 72, 79 and 80
    hash_encode(x, table, layout, touched=touched, implementation="numba").backward(torch.ones(1, 2))
    assert touched.flags.nonzero().flatten().tolist() == [0, 1, 2, 8, 9, 10]


def test_flags_of_a_forward_pass_alone_stay_clear():
    touched = TouchedRows(MIXED.entries)
    hash_encode(torch.rand(9, 3), torch.zeros(MIXED.entries, 2), MIXED, touched=touched, implementation="numba")
    assert not touched.flags.any()


def test_rows_that_nobody_kept_account_of_are_all_marked():
    x, table = random_points(5), torch.randn(MIXED.entries, 2)
    touched = TouchedRows(MIXED.entries)
    hash_encode(x, table, MIXED, touched=touched, implementation="torch")
    assert touched.flags.all()


def test_numba_does_not_visit_points_without_a_gradient():
    x, table = random_points(300), torch.randn(MIXED.entries, 2, requires_grad=True)
    upstream = torch.zeros(300, 8)
    upstream[:3, 5], upstream[100] = 1, 1
    visited, asked = TouchedRows(MIXED.entries), TouchedRows(MIXED.entries)
    hash_encode(x, table, MIXED, touched=visited, implementation="numba").backward(upstream)
    some = torch.tensor([0, 1, 2, 100])
    hash_encode(x[some], table, MIXED, touched=asked, implementation="numba").backward(upstream[some])
    assert torch.equal(visited.flags, asked.flags) and 0 < asked.flags.float().mean() < 0.9


def test_numba_finds_the_points_with_a_gradient_wherever_they_are():
    """Of three parts that threads look through, the second has none."""
    x, table, upstream = random_points(9001), torch.randn(MIXED.entries, 2), torch.randn(9001, 8)
    upstream *= torch.rand(9001, 1) < 0.3
    upstream[4096:8192] = 0
    expected, found = (encode(name, x, table, MIXED, upstream)[1] for name in ("torch", "numba"))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-5)
