"""Where a table's levels begin, and which of them are hashed or planes, by hand."""

import pytest

from kernels.encoding.hash_layout import HashLayout

# Two dense and two hashed levels.
MIXED = HashLayout(levels=4, features=2, table_size=512, base_resolution=4, finest_resolution=32)
# A grid of eight vertices, and planes of 4**2, which are dense, and of 16**2, which are hashed.
PLANES = HashLayout(levels=1, features=1, table_size=64, base_resolution=2, finest_resolution=2, planes=(4, 16))


def test_layout_by_hand():
    # Growth (32 / 4) ** (1 / 3) = 2; 4**3 = 64 and 8**3 = 512 fit in 512 entries, 16**3 does not.
    assert MIXED.scales.tolist() == [3, 7, 15, 31]
    assert MIXED.resolutions.tolist() == [4, 8, 16, 32]
    assert MIXED.hashed.tolist() == [False, False, True, True]
    assert MIXED.offsets.tolist() == [0, 64, 576, 1088, 1600]
    assert (MIXED.entries, MIXED.output_width) == (1600, 8)


def test_dense_levels_are_rounded_up_to_multiples_of_eight():
    layout = HashLayout(levels=3, features=4, table_size=1024, base_resolution=3, finest_resolution=12)
    assert layout.resolutions.tolist() == [3, 6, 12]
    assert layout.offsets.tolist() == [0, 32, 32 + 216, 32 + 216 + 1024]
    assert layout.hashed.tolist() == [False, False, True]
    assert (layout.entries, layout.output_width) == (1272, 12)


def test_layout_of_a_single_level():
    layout = HashLayout(levels=1, features=1, table_size=8, base_resolution=1, finest_resolution=64)
    assert layout.resolutions.tolist() == [1]
    assert layout.entries == 8


@pytest.mark.parametrize("size", [0, 4, 12, 1000])
def test_table_size_must_be_a_power_of_two(size):
    with pytest.raises(ValueError, match=f"power of two of at least 8, found {size}"):
        HashLayout(1, 2, size, 4, 4)


def test_layout_of_planes_by_hand():
    assert PLANES.scales.tolist() == [1, 3, 3, 3, 15, 15, 15]
    assert PLANES.normals.tolist() == [-1, 0, 1, 2, 0, 1, 2]
    assert PLANES.hashed.tolist() == [False] * 4 + [True] * 3
    assert PLANES.kinds.tolist() == [0, 2, 4, 6, 3, 5, 7]
    assert PLANES.offsets.tolist() == [0, 8, 24, 40, 56, 120, 184, 248]
    assert (PLANES.count, PLANES.entries, PLANES.output_width) == (7, 248, 7)
    assert [PLANES.axes(level) for level in range(4)] == [(0, 1, 2), (1, 2), (0, 2), (0, 1)]
