"""Depth files of every kind, read as every kind: only the right reading agrees with the rendered distance."""

from dataclasses import replace

import pytest

from distill.alignment.depth_reading import better_kind, depth_readings
from teacher.depth import DepthKind

FRAMES = (0, 7, 13)


@pytest.mark.parametrize("kind", DepthKind)
def test_with_alpha_the_right_kind_is_named_whatever_it_is_read_as(teacher, stored_depth, kind):
    for read_as in DepthKind:
        readings = depth_readings(teacher, stored_depth(FRAMES, kind, read_as))
        assert [reading.kind for reading in readings] == [*DepthKind]
        assert better_kind(readings, read_as) == (None if read_as == kind else kind)


@pytest.mark.parametrize("kind", DepthKind)
def test_without_alpha_the_quantity_is(teacher, stored_depth, kind):
    for read_as in DepthKind:
        found = better_kind(depth_readings(teacher, stored_depth(FRAMES, kind, read_as, with_alpha=False)), read_as)
        assert (None if found is None else found.quantity) == (
            None if read_as.quantity == kind.quantity else kind.quantity
        )


def test_a_student_that_is_a_little_off_sees_it_too(student, stored_depth):
    readings = depth_readings(student, stored_depth(FRAMES, DepthKind.INVERSE_Z, DepthKind.Z))
    assert better_kind(readings, DepthKind.Z) == DepthKind.INVERSE_Z


def test_nothing_is_said_where_nothing_fits(teacher, stored_depth):
    depth = stored_depth(FRAMES, DepthKind.Z)
    readings = depth_readings(teacher, replace(depth, values=depth.values * 3))
    assert better_kind(readings, DepthKind.Z) is None
    empty = replace(depth, values=depth.values * 0)
    readings = depth_readings(teacher, empty)
    assert all(reading.error is None for reading in readings) and better_kind(readings, DepthKind.Z) is None
