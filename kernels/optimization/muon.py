"""Muon (Jordan et al. 2024): the momentum of a matrix, orthogonalised, is the step that its weights take.

Of a layer's gradient U S V^T a few combinations of outputs and inputs, with the largest values in S, make up nearly
all; what the layer learns of the others is lost in a step along it, and in Adam's, which scales each weight by itself.
U V^T moves along all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.optimization.muon_numba import muon
from kernels.optimization.updates import Shapes, TouchedRows

# Of x, x^3 and x^5, iteration by iteration: those of "Polar Express" (Amsel et al. 2025), the second of them taken four
# times, so that values down to a hundred-thousandth of the norm end at 1. Gradients of small networks have such values,
# and students learn less where these end below 1, as by the five iterations of Jordan et al.
COEFFICIENTS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    *((4.107059111542203, -2.9478499167379106, 0.5448431082926601),) * 4,
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.875, -1.25, 0.375),
)
MARGIN = 1.01  # by which the norm is taken larger than it is: beyond 1 these polynomials run away
SIZE = 0.2  # of a step's weights, root mean square, at a rate of 1: Adam's, whose rates hold (Liu et al. 2025)
LEAST_NORM = 1e-30
TURNS = 4  # steps in which each of many rows moves once, by as much longer a step: orthogonalising is what takes time
WIDEST = (64, 128)  # shorter and longer side of a matrix that Triton's twin takes: a GPU's 99 KiB hold its squares


def orthogonalised(matrices: Tensor) -> Tensor:
    """U V^T of matrices U S V^T (..., N, K), but for what is below a hundred-thousandth of the norm; zeros of zeros."""
    upright = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if upright else matrices
    wide = wide / (MARGIN * torch.linalg.matrix_norm(wide, keepdim=True)).clamp(min=LEAST_NORM)
    for linear, cubic, quintic in COEFFICIENTS:
        gram = wide @ wide.mT
        wide = linear * wide + (cubic * gram + quintic * gram @ gram) @ wide
    return wide.mT if upright else wide


@torch.no_grad()
def muon_step(
    tensors: Sequence[Tensor],
    shapes: Shapes,
    rate: float | Tensor,
    *,
    step: int | Tensor,
    betas: tuple[float, float],
    eps: float | Tensor,
    weight_decay: float = 0.0,
    touched: TouchedRows | None = None,
    implementation: str = "auto",
) -> None:
    """Updates a parameter's matrices and their moments in place, then zeroes the gradient (and the ``touched`` flags).

    Args:
        tensors: parameter, gradient, first and second moment, float32, contiguous. The moments are Adam's: the first,
            and the gradient once more (Nesterov), is what is orthogonalised; the second is kept for others to read.
        shapes: of the matrices.
        rate: the learning rate. Adam's bias corrections are none of it: a step is as long whatever its momentum.
        step: 1 for the first update: says which of several rows move in this one, see ``turns_of``.
        eps: of a matrix whose momentum is smaller than that, root mean square, the step shrinks with it.
        weight_decay: L2 penalty added to the gradient.
        touched: rows to visit, as of Adam: a matrix whose gradient is zero is left alone. None: all are updated.
        implementation: "auto", "torch" or "numba".
    """
    tensors = [tensor.detach().view(-1) for tensor in tensors]
    if resolve("muon", implementation, tensors[0].device, ("torch", "numba")) == "numba":
        flags = None if touched is None else (touched.flags, touched.rows_per_flag)
        sizes, least = [float(rate) * size_of(shape) for shape in shapes], [least_norm(eps, shape) for shape in shapes]
        turns = int(step), turns_of(len(tensors[0]), shapes)
        muon(tensors, shapes, sizes, least, turns, betas, weight_decay, flags, COEFFICIENTS, MARGIN)
    else:
        _muon_torch(tensors, shapes, rate, step, betas, eps, weight_decay, lazy=touched is not None)
    if touched is not None:
        touched.clear(tensors[0].device)


@torch.no_grad()
def controlled_muon_step(
    tensors: Sequence[Tensor],
    shapes: Shapes,
    controls: Tensor,
    *,
    step: int | Tensor,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    touched: TouchedRows | None = None,
    implementation: str = "auto",
) -> None:
    """As ``muon_step``, with what a step depends on read from ``controls``: nothing waits for it.

    Args:
        controls: as of ``kernels.optimization.adam.controlled_adam_step``, but that the rate is not corrected.
    """
    name = resolve("muon", implementation, controls.device, ("torch", "numba"))
    given = {"step": step, "betas": betas, "weight_decay": weight_decay, "touched": touched, "implementation": name}
    if name == "numba":
        rate, eps, factor, skip = controls.tolist()
        if skip:
            tensors[1].zero_()
            if touched is not None:
                touched.clear(controls.device)
        else:
            tensors[1].mul_(factor)
            muon_step(tensors, shapes, rate, eps=eps, **given)
        return
    rate, eps, factor, skip = controls.unbind()
    changing = [tensors[0].detach(), *tensors[2:]]
    old = [tensor.clone() for tensor in changing]
    tensors[1].mul_(factor)
    muon_step(tensors, shapes, rate, eps=eps, **given)
    for tensor, before in zip(changing, old, strict=True):
        tensor.copy_(torch.where(skip != 0, before, tensor))


def turns_of(values: int, shapes: Shapes) -> int:
    """Updates in which each row of a parameter of so many values moves once.

    Row r does in update n if n + r is a multiple of that, and its step is so many times as long.
    """
    return min(TURNS, values // sum(height * width for height, width in shapes))


def taken_by_triton(shapes: Shapes) -> bool:
    """Whether its twin moves such matrices; others are torch's."""
    return all(min(shape) <= WIDEST[0] and max(shape) <= WIDEST[1] for shape in shapes)


def size_of(shape: tuple[int, int]) -> float:
    """What an orthogonalised matrix is multiplied by at a rate of 1."""
    return SIZE * max(shape) ** 0.5


def least_norm(eps: float | Tensor, shape: tuple[int, int]) -> float | Tensor:
    """Of a matrix's momentum: with a smaller one the step shrinks."""
    return eps * (shape[0] * shape[1]) ** 0.5 + LEAST_NORM


def _muon_torch(tensors, shapes, rate, step, betas, eps, weight_decay, lazy) -> None:
    widths, turns = [height * width for height, width in shapes], turns_of(len(tensors[0]), shapes)
    rows = torch.arange(len(tensors[0]) // sum(widths), device=tensors[0].device)[:, None]
    has_its_turn = (rows + step) % turns == 0
    parts = zip(*(tensor.view(-1, sum(widths)).split(widths, dim=1) for tensor in tensors), strict=True)
    for shape, (parameter, grad, first, second) in zip(shapes, parts, strict=True):
        decayed = grad + weight_decay * parameter
        new_first = torch.lerp(first, decayed, 1 - betas[0])
        new_second = betas[1] * second + (1 - betas[1]) * decayed**2
        ahead = torch.lerp(new_first, decayed, 1 - betas[0])
        norm = ahead.norm(dim=1, keepdim=True)
        shrink = norm / norm.clamp(min=least_norm(eps, shape))
        length = rate * size_of(shape) * turns * shrink
        change = orthogonalised(ahead.unflatten(1, shape)).flatten(1) * length
        moves = (grad != 0).any(dim=1, keepdim=True) if lazy else torch.ones_like(grad[:, :1], dtype=torch.bool)
        first.copy_(torch.where(moves, new_first, first))
        second.copy_(torch.where(moves, new_second, second))
        parameter.sub_(torch.where(moves & has_its_turn, change, 0.0))
    tensors[1].zero_()
