"""In place where it can be, else handed to autograd."""

import pytest
import torch

from kernels.added_gradients import room_for_gradient


def test_a_leaf_s_own_gradient_is_added_to():
    leaf = torch.ones(3, 2, requires_grad=True)
    room, returned = room_for_gradient(leaf)
    assert room is leaf.grad and returned is None and not room.any()
    assert room_for_gradient(leaf)[0] is room


@pytest.mark.parametrize(
    "parameter",
    [
        2 * torch.ones(3, 2, requires_grad=True),
        torch.ones(2, 3).t().requires_grad_(),
        torch.ones(3, 2, dtype=torch.float16, requires_grad=True),
    ],
)
def test_what_is_not_added_in_place_is_returned(parameter):
    room, returned = room_for_gradient(parameter)
    assert returned is room and room.is_contiguous() and room.dtype == torch.float32 and not room.any()


def test_a_gradient_of_other_strides_is_left_to_autograd():
    leaf = torch.ones(3, 2, requires_grad=True)
    leaf.grad = torch.ones(2, 3).t()
    room, returned = room_for_gradient(leaf)
    assert returned is room and (leaf.grad == 1).all()


def test_what_nobody_wants_is_not_kept():
    parameter = torch.ones(3, 2)
    room, returned = room_for_gradient(parameter, wanted=False)
    assert room.shape == (3, 2) and returned is None and parameter.grad is None
