"""Adam (Kingma & Ba 2015) in one pass over the parameters, in place, optionally for touched rows only.

A lazy update leaves a row whose gradient is zero exactly as it is, moments included (tiny-cuda-nn's rule for hash
tables); its cost follows the rows a step touched instead of the table's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.optimization import adam_numba
from kernels.optimization.muon import controlled_muon_step, taken_by_triton
from kernels.optimization.updates import TouchedRows, Update

BETAS = (0.9, 0.99)  # of students: Müller et al. 2022


def adam_step(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float = 0.0,
    touched: TouchedRows | None = None,
    implementation: str = "auto",
) -> None:
    """Updates ``parameter`` and its moments in place, then zeroes ``grad`` (and the ``touched`` flags).

    Args:
        parameter, grad, first_moment, second_moment: same shape, float32, contiguous.
        step: 1 for the first update (bias correction).
        weight_decay: L2 penalty added to the gradient.
        touched: rows to visit; in them, elements of zero gradient are left alone. None: every element is updated.
            Only numba reads the flags; torch and triton find by the gradients what to leave alone.
        implementation: "auto", "torch", "numba" or "triton".
    """
    rate, eps = corrected(step, lr, betas, eps)
    name = resolve("adam", implementation, parameter.device, ("torch", "numba", "triton"))
    tensors = [tensor.detach().view(-1) for tensor in (parameter, grad, first_moment, second_moment)]
    if name == "numba":
        adam_numba.adam(tensors, (rate, *betas, eps, weight_decay), *_flags(parameter, touched))
        return
    if name == "triton":
        from kernels.optimization import adam_triton

        adam_triton.adam(tensors, rate, betas, eps, weight_decay, lazy=touched is not None)
    else:
        _adam_torch(tensors, rate, betas, eps, weight_decay, lazy=touched is not None)
    if touched is not None:
        touched.clear(parameter.device)


def controlled_adam_step(
    parameter: Tensor,
    grad: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    controls: Tensor,
    *,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    touched: TouchedRows | None = None,
    implementation: str = "auto",
) -> None:
    """As ``adam_step``, with what a step depends on read from the parameter's device: nothing waits for it.

    Args:
        controls: (4,) float32: learning rate and epsilon, both from ``corrected``; factor on the gradient (1 / loss
            scale); not 0 where the step must not be taken: then only ``grad`` is zeroed, whatever it holds.
    """
    name = resolve("adam", implementation, parameter.device, ("torch", "numba", "triton"))
    tensors = [tensor.detach().view(-1) for tensor in (parameter, grad, first_moment, second_moment)]
    if name == "numba":
        rate, eps, factor, skip = controls.numpy()
        if skip:
            grad.zero_()
        else:
            grad.mul_(float(factor))
            adam_numba.adam(tensors, (rate, *betas, eps, weight_decay), *_flags(parameter, touched))
    elif name == "triton":
        from kernels.optimization import adam_triton

        adam_triton.controlled_adam(tensors, controls, betas, weight_decay, lazy=touched is not None)
    else:
        rate, eps, factor, skip = controls.unbind()
        old = [tensor.clone() for tensor in (tensors[0], *tensors[2:])]
        tensors[1].mul_(factor)
        _adam_torch(tensors, rate, betas, eps, weight_decay, lazy=touched is not None)
        for tensor, before in zip((tensors[0], *tensors[2:]), old, strict=True):
            tensor.copy_(torch.where(skip != 0, before, tensor))
    if touched is not None:
        touched.clear(parameter.device)


def controlled_adam_steps(
    updates: Sequence[Update], controls: Tensor, *, betas: tuple[float, float], implementation: str = "auto"
) -> None:
    """``controlled_adam_step`` for several parameters; Triton takes those without ``touched`` in one launch, and the
    matrices in another.

    These have no gradient afterwards, so that a backward pass hands over its own instead of adding to one of zeros.

    Args:
        controls: (P, 4) float32, contiguous, a row for each.
    """
    name = resolve("adam", implementation, controls.device, ("torch", "numba", "triton"))
    together = _update_together(updates, controls, betas) if name == "triton" else ()
    for place, entry in enumerate(updates):
        if place in together:
            entry.parameter.grad = None
        elif entry.matrices:
            controlled_muon_step(
                entry[:4], entry.matrices, controls[place], step=1 if entry.number is None else entry.number,
                betas=betas, weight_decay=entry.weight_decay, touched=entry.touched, implementation=name,
            )  # fmt: skip
        else:
            controlled_adam_step(
                *entry[:4], controls[place], betas=betas, weight_decay=entry.weight_decay, touched=entry.touched,
                implementation=name,
            )  # fmt: skip


def _update_together(updates: Sequence[Update], controls: Tensor, betas: tuple[float, float]) -> set[int]:
    """Updates by Triton what it takes in one launch, and says which these are."""
    plain = [place for place, entry in enumerate(updates) if entry.touched is None and not entry.matrices]
    if plain:
        from kernels.optimization import adam_several_triton

        tensors = [tuple(tensor.detach().view(-1) for tensor in updates[place][:4]) for place in plain]
        decays = [updates[place].weight_decay for place in plain]
        adam_several_triton.controlled_adam(tensors, controls, plain, betas, decays)
    matrices = [place for place, entry in enumerate(updates) if entry.matrices and taken_by_triton(entry.matrices)]
    if matrices:
        from kernels.optimization import muon_triton

        muon_triton.controlled_muon({place: updates[place] for place in matrices}, controls, betas)
        for place in matrices:
            if updates[place].touched is not None:
                updates[place].touched.clear(controls.device)
    return {*plain, *matrices}


def corrected(step, lr, betas: tuple[float, float], eps: float):
    """Learning rate and epsilon with Adam's bias corrections in them, of numbers or tensors ``step`` and ``lr``."""
    correction1, correction2 = 1 - betas[0] ** step, 1 - betas[1] ** step
    return lr * correction2**0.5 / correction1, eps * correction2**0.5


def _flags(parameter: Tensor, touched: TouchedRows | None) -> tuple[Tensor | None, int]:
    """The flags, and how many of the parameter's values share one."""
    if touched is None:
        return None, 0
    return touched.flags, touched.rows_per_flag * max(1, parameter.numel() // max(1, len(parameter)))


def _adam_torch(tensors, rate, betas, eps, weight_decay, lazy) -> None:
    parameter, grad, first_moment, second_moment = tensors
    touched = grad != 0 if lazy else torch.ones_like(grad, dtype=torch.bool)
    decayed = grad + weight_decay * parameter
    first = betas[0] * first_moment + (1 - betas[0]) * decayed
    second = betas[1] * second_moment + (1 - betas[1]) * decayed**2
    first_moment.copy_(torch.where(touched, first, first_moment))
    second_moment.copy_(torch.where(touched, second, second_moment))
    parameter.sub_(torch.where(touched, rate * first / (second.sqrt() + eps), 0.0))
    grad.zero_()
