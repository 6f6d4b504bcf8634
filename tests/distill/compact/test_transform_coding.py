"""A table's features in other coordinates: the same student, whose features are told apart."""

from __future__ import annotations

import torch

from distill.compact.transform_coding import decorrelate_features
from students import build_student
from tests.distill.compact.students_at_hand import BOX, HASH


def mixed(entries: int, spread: tuple[float, ...]) -> torch.Tensor:
    """(entries, features) with correlated columns."""
    samples = torch.randn(entries, len(spread)) * torch.tensor(spread)
    return samples @ torch.linalg.qr(torch.randn(len(spread), len(spread))).Q


def student_with_moments():
    torch.manual_seed(0)
    student = build_student((BOX.lower, BOX.upper), HASH.model_copy(update={"features": 4}), "torch")
    matrix, entries = student.density_weights[0], len(student.table)
    with torch.no_grad():
        student.table.copy_(mixed(entries, (1.0, 0.3, 0.1, 0.02)))
    moments = {
        each: {"first_moment": torch.randn_like(each), "second_moment": torch.rand_like(each)}
        for each in (student.table, matrix)
    }
    moments[student.table]["first_moment"] = mixed(entries, (3.0, 1.0, 0.5, 0.1))
    return student, moments, torch.rand(entries) < 0.8


def products(rows: torch.Tensor) -> torch.Tensor:
    return rows.double().T @ rows.double() / len(rows)


def test_the_student_is_the_same_and_so_is_the_gradients_pull_on_it():
    student, moments, stored = student_with_moments()
    places = torch.rand(50, 3) * 2 - 1
    density, table, matrix = student.density(places), student.table.detach().clone(), student.density_weights[0]
    pull = (moments[student.table]["first_moment"] * table).sum()
    other = (moments[matrix]["first_moment"] * matrix).sum()
    decorrelate_features(student, moments, stored)
    assert (student.table - table).abs().max() > 0.1
    torch.testing.assert_close(student.density(places), density, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        (moments[student.table]["first_moment"] * student.table).sum(), pull, rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close((moments[matrix]["first_moment"] * matrix).sum(), other, rtol=1e-4, atol=1e-3)
    assert all((state["second_moment"] >= 0).all() for state in moments.values())


def test_features_are_uncorrelated_and_errors_in_them_cost_alike():
    student, moments, stored = student_with_moments()
    before = student.table.detach().clone()
    decorrelate_features(student, moments, stored)
    for first, last in zip(student.layout.offsets[:-1], student.layout.offsets[1:], strict=True):
        used = stored[first:last]
        weights = products(student.table.detach()[first:last][used])
        cost = products(moments[student.table]["first_moment"][first:last][used])
        variances = weights.diagonal()
        assert (variances[:-1] >= variances[1:]).all() and variances[0] > 50 * variances[-1]
        # Neither larger nor smaller on the whole: learning rates hold.
        room = torch.linalg.det(products(before[first:last][used]))
        torch.testing.assert_close(torch.linalg.det(weights), room, rtol=1e-3, atol=0)
        scale = variances.sqrt()
        off = weights / scale / scale[:, None] - torch.eye(4)
        assert off.abs().max() < 1e-3
        torch.testing.assert_close(cost / cost.diagonal().mean(), torch.eye(4).double(), atol=1e-3, rtol=0)


def test_a_level_without_entries_or_gradients_stays_in_shape():
    student, moments, stored = student_with_moments()
    moments[student.table]["first_moment"].zero_()
    stored[: student.layout.offsets[1]] = False
    decorrelate_features(student, moments, stored)
    assert student.table.isfinite().all() and student.density_weights[0].isfinite().all()
