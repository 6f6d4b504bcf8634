"""Weights pulled to zero: by hand, the twin against its reference, and what it does beside Adam."""

import pytest
import torch

from kernels.optimization.adam import adam_step
from kernels.optimization.shrinkage import shrink, typical_gradient


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_by_hand(implementation):
    weights = torch.tensor([[1.0, -1.0, 0.05], [0.3, -0.2, torch.nan]])
    moments = torch.tensor([[4.0, 0.25, 1.0], [0.0, 1.0, 1.0]])
    shrink(weights, moments, torch.tensor(0.1), implementation)
    # By 0.1 / 2, 0.1 / 0.5; all of it where that is less, or where no gradient has been.
    assert weights[0].tolist() == pytest.approx([0.95, -0.8, 0.0])
    assert weights[1, :2].tolist() == pytest.approx([0.0, -0.1]) and weights[1, 2].isnan()
    faint = torch.tensor([1.0])  # however faint its gradients are: by 1e-6 / 1e-5
    shrink(faint, torch.tensor([1e-10]), torch.tensor(1e-6), implementation)
    assert faint.item() == pytest.approx(0.9)


@pytest.mark.parametrize("shape", [(2, 8), (700, 4), (300, 513)])
def test_numba_equals_torch(shape, use_threads):
    use_threads(2)
    generator = torch.Generator().manual_seed(shape[0])
    weights, moments = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator) ** 2
    expected = weights.clone()
    shrink(expected, moments, torch.tensor(0.3), "torch")
    shrink(weights, moments, torch.tensor(0.3), "numba")
    torch.testing.assert_close(weights, expected)
    assert 0 < (weights == 0).float().mean() < 1


def test_a_typical_gradient_is_the_median_of_those_there_are():
    moments = torch.tensor([[0.0, 1.0, 4.0], [9.0, 0.0, 0.0]])
    assert typical_gradient(moments) == 2
    assert typical_gradient(torch.zeros(2, 3)) == 0
    assert typical_gradient(torch.tensor([[0.0, 0.0], [0.0, 25.0]])) == 5
    assert typical_gradient(torch.tensor([4.0, 0.0, 16.0])) == 2  # of two in the middle the lower one
    columns = torch.tensor([1.0, 1.0, 9.0, 100.0]).repeat(102_400, 1)  # every 101st is looked at, in all columns
    columns[::2, 0] = 0
    assert typical_gradient(columns) == 3


def test_what_the_loss_needs_less_than_the_penalty_takes_ends_at_zero():
    weights, moments = torch.full((2,), 0.5), (torch.zeros(2), torch.zeros(2))
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 2001):
        noise = torch.randn(2, generator=generator)
        grad = torch.tensor([1.0, 0.01]) * (weights - 0.4) + 0.1 * noise  # both are wanted at 0.4, one hardly
        adam_step(weights, grad, *moments, step=step, lr=0.01, betas=(0.9, 0.99), eps=1e-15)
        shrink(weights, moments[1], torch.tensor(0.01) * 0.2 * typical_gradient(moments[1]))
    assert weights[0] > 0.3 and abs(weights[1]) < 0.05
