"""Colours of whole rays: numba's twin against torch."""

from __future__ import annotations

import pytest
import torch

from kernels.dispatch import chosen_implementations
from kernels.networks import deferred_numba, grouped_mlp, radiance_mlp
from tests.kernels.networks.deferred_cases import assert_close, run_colors

KINDS = pytest.mark.parametrize("kind", [radiance_mlp, grouped_mlp], ids=["one_network", "cells"])


@KINDS
@pytest.mark.parametrize("count", [0, 1, 33, 64, 1300])
def test_colors_of_rays_and_their_gradients(kind, count):
    found = run_colors(kind, "numba", count)
    assert chosen_implementations()["color_of_rays[cpu]"] == "numba"
    assert_close(found, run_colors(kind, "torch", count), 1e-5)


@KINDS
def test_threads_do_not_change_a_bit(kind, monkeypatch):
    outputs, grads = run_colors(kind, "numba", 1300)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    alone = run_colors(kind, "numba", 1300)
    assert all(torch.equal(one, two) for one, two in zip(outputs + grads, alone[0] + alone[1], strict=True))


def test_a_network_without_hidden_layers_by_hand():
    """Mean feature 1 / 0.5 = 2, direction 3: logits 2 - 3, 0, 2 + 3."""
    matrix = torch.tensor([[1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])
    leaves = [torch.tensor([[1.0]]), torch.tensor([0.5]), matrix]
    feature, alpha, matrix = (leaf.requires_grad_() for leaf in leaves)
    rgb = deferred_numba.ShadeNumba.apply(feature, alpha, torch.tensor([[3.0]]), 0.0, 1, matrix)
    color = torch.tensor([-1.0, 0.0, 5.0]).sigmoid()
    assert torch.allclose(rgb, 0.5 * color)
    rgb[0, 2].backward()
    slope = (color[2] * (1 - color[2])).item()
    assert feature.grad.item() == pytest.approx(slope)  # 0.5 * slope * 1 / 0.5
    assert alpha.grad.item() == pytest.approx(color[2].item() - 2 * slope)
    assert torch.allclose(matrix.grad, 0.5 * slope * torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 3.0]]))
