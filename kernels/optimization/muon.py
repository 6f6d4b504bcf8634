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
WIDEST = 128  # side of a matrix that Triton's twin takes


def orthogonalised(matrix: Tensor) -> Tensor:
    """U V^T of a matrix U S V^T (N, K), but for what is below a hundred-thousandth of its norm; zeros of zeros."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (MARGIN * wide.norm()).clamp(min=LEAST_NORM)
    for linear, cubic, quintic in COEFFICIENTS:
        gram = wide @ wide.T
        higher = torch.addmm(gram, gram, gram, beta=cubic, alpha=quintic)
        wide = torch.addmm(wide, higher, wide, beta=linear)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


@torch.no_grad()
def muon_step(
    tensors: Sequence[Tensor],
    rate: float | Tensor,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    implementation: str = "auto",
) -> None:
    """Updates a matrix and its moments in place, then zeroes the gradient.

    Args:
        tensors: parameter, gradient, first and second moment, (N, K) float32 each. The moments are Adam's: the first,
            and the gradient once more (Nesterov), is what is orthogonalised; the second is kept for others to read.
        rate: the learning rate. Adam's bias corrections are none of it: a step is as long whatever its momentum.
        weight_decay: L2 penalty added to the gradient.
        implementation: "auto", "torch" or "numba".
    """
    parameter, grad, first, second = tensors = [tensor.detach() for tensor in tensors]
    size = SIZE * max(parameter.shape) ** 0.5
    if resolve("muon", implementation, parameter.device, ("torch", "numba")) == "numba":
        muon(tensors, float(rate) * size, betas, weight_decay, COEFFICIENTS, MARGIN, LEAST_NORM)
        return
    decayed = grad + weight_decay * parameter
    first.lerp_(decayed, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(decayed, decayed, value=1 - betas[1])
    ahead = torch.lerp(first, decayed, 1 - betas[0])
    parameter.sub_(rate * size * orthogonalised(ahead))
    grad.zero_()


@torch.no_grad()
def controlled_muon_step(
    tensors: Sequence[Tensor],
    controls: Tensor,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    implementation: str = "auto",
) -> None:
    """As ``muon_step``, with what a step depends on read from ``controls``: nothing waits for it.

    Args:
        controls: as of ``kernels.optimization.adam.controlled_adam_step``, but that the rate is not corrected.
    """
    rate, _, factor, skip = controls.unbind()
    changing = [tensors[0].detach(), *tensors[2:]]
    old = [tensor.clone() for tensor in changing]
    tensors[1].mul_(factor)
    muon_step(tensors, rate, betas, weight_decay, implementation)
    for tensor, before in zip(changing, old, strict=True):
        tensor.copy_(torch.where(skip != 0, before, tensor))
