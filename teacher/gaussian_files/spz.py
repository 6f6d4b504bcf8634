"""Niantic's compressed ``.spz``."""

from __future__ import annotations

from dataclasses import replace
from math import frexp
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from kernels.spherical_harmonics import sh_basis
from machine.files import atomic_path, output_errors
from settings.errors import InputError
from teacher.gaussian_files.checks import DAMAGED, FIELDS, check_present, checked_gaussians
from teacher.gaussians import Gaussians

# SPZ positions are signed fixed point of 24 bits; 2^-16 world units are finer than any Gaussian.
_SPZ_POSITION_BITS, _SPZ_MOST_FRACTION = 24, 16
# A half turn about x takes 3DGS's PLY axes (right, down, front) to SPZ's (right, up, back), and back.
_HALF_TURN = (1.0, -1.0, -1.0)


def write_spz(path: str | Path, gaussians: Gaussians) -> None:
    """Writes SPZ version 3 in its axes (right, up, back), taking the Gaussians' to be right, down, front.

    That is what Niantic's converter does with a 3DGS PLY. The format holds 24-bit positions (here to 2^-16 units, or
    to as many bits as the farthest Gaussian leaves), 8-bit opacities, log-scales in steps of 1/16 between -10 and
    5.9, SH in [-1, 1) in steps of 1/128, the constant one in [-3.3, 3.3] in steps of 0.026.

    Raises:
        InputError: gsply is not installed; a mean is beyond what the format holds; the folder cannot be written.
    """
    gsply = import_gsply(path)
    farthest = gaussians.means.abs().max().item()
    fraction = min(_SPZ_MOST_FRACTION, _SPZ_POSITION_BITS - 2 - frexp(farthest)[1])
    if fraction < 1:
        expected = f"less than 2^{_SPZ_POSITION_BITS - 2}, the most that SPZ holds"
        raise InputError(path, "means", f"a coordinate of {farthest:g}", expected, "Use .ply or .npz.")
    turned = _half_turned(gaussians)
    parts = {name: getattr(turned, name).detach().cpu().float().contiguous().numpy() for name in FIELDS}
    data = gsply.GSData(
        means=parts["means"],
        scales=parts["log_scales"],
        quats=parts["rotations"],
        opacities=parts["opacity_logits"],
        sh0=np.ascontiguousarray(parts["sh"][:, 0]),
        shN=np.ascontiguousarray(parts["sh"][:, 1:]) if turned.sh_degree else None,
    )
    with output_errors(path), atomic_path(path) as temporary:
        gsply.write_spz(temporary, data, version=3, fractional_bits=fraction)


def read_spz(path: str | Path) -> Gaussians:
    """Reads SPZ (versions 1 to 3; 4 where gsply's ``zstandard`` is installed) into the axes of a 3DGS PLY.

    Raises:
        InputError: see ``read_gaussians``.
    """
    check_present(path)
    gsply = import_gsply(path)
    try:
        data = gsply.read_spz(path)
    except Exception as error:  # decoders raise ValueError, OSError, zlib.error, EOFError ... for bad bytes
        raise InputError(path, "spz file", f"unreadable data ({error})", "a whole .spz file", DAMAGED) from None
    sh = data.sh0[:, None, :]
    if data.shN is not None and data.shN.size:
        sh = np.concatenate([sh, data.shN.reshape(len(sh), -1, 3)], axis=1)
    arrays = (data.means, data.scales, data.quats, data.opacities.reshape(-1), sh)
    return _half_turned(checked_gaussians(path, dict(zip(FIELDS, arrays, strict=True))))


def _half_turned(gaussians: Gaussians) -> Gaussians:
    """The scene turned by half a turn about x; done twice it is the scene again (rotations up to their sign)."""
    turn = torch.tensor(_HALF_TURN)
    # Every basis function is even or odd under the turn: its sign shows at any direction where none is zero.
    direction = torch.nn.functional.normalize(torch.tensor([0.48, 0.6, 0.64]), dim=0)
    signs = torch.sign(sh_basis(direction * turn, gaussians.sh_degree) * sh_basis(direction, gaussians.sh_degree))
    return replace(
        gaussians,
        means=gaussians.means * turn,
        rotations=gaussians.rotations * torch.tensor([1.0, *_HALF_TURN]),
        sh=gaussians.sh * signs[:, None],
    )


def import_gsply(path: str | Path) -> ModuleType:
    """The package that reads and writes SPZ; InputError where it is not installed."""
    try:
        import gsply
    except ImportError as error:
        hint = "pip install 'lego-response-distill[spz]', or use .ply or .npz."
        raise InputError(path, "spz file", f"no package gsply ({error})", "gsply, which reads SPZ", hint) from None
    return gsply
