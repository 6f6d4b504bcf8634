"""Niantic's compressed ``.spz``."""

from __future__ import annotations

import logging
from dataclasses import replace
from math import frexp
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.threads import one_torch_thread
from machine.files import atomic_path, output_errors
from scene.world_offset import Offset
from settings.errors import InputError
from teacher.gaussian_files.checks import DAMAGED, FIELDS, check_present, checked_gaussians
from teacher.gaussian_files.spz_container import OWN_AXES, check_container, import_package
from teacher.gaussians import Gaussians

_log = logging.getLogger(__name__)

# SPZ positions are signed fixed point of 24 bits; 2^-16 world units are finer than any Gaussian.
_SPZ_POSITION_BITS, _SPZ_MOST_FRACTION = 24, 16
# The limits of log-scales and harmonics that it holds; shares of Gaussians beyond them that are warned of.
_THINNEST, _WIDEST, _MOST_CONSTANT, _NOTED = -10.0, 5.9375, 3.33, 0.01
_PLY_AXES = "RDF"  # where x, y and z look in the PLY of a 3DGS: right, down, front


def write_spz(path: str | Path, gaussians: Gaussians, fitted_width: int | None = None) -> None:
    """Writes SPZ version 3 in its axes (right, up, back), taking the Gaussians' to be right, down, front.

    That is what Niantic's converter does with a 3DGS PLY. The format holds 24-bit positions (here to 2^-16 units, or
    to as many bits as the farthest Gaussian leaves), 8-bit opacities, log-scales in steps of 1/16 between -10 and
    5.9, SH in [-1, 1) in steps of 1/128, the constant one in [-3.3, 3.3] in steps of 0.026. What is beyond becomes the
    nearest that it holds: ``tell_of_clamped`` counts it.

    Args:
        fitted_width: of the pictures that the Gaussians were fitted to, pixels; it has no room for it, which is said.

    Raises:
        InputError: gsply is not installed; a mean is beyond what the format holds; the folder cannot be written.
    """
    gsply = import_gsply(path)
    farthest = gaussians.means.abs().max().item()
    fraction = min(_SPZ_MOST_FRACTION, _SPZ_POSITION_BITS - 2 - frexp(farthest)[1])
    if fraction < 1:
        expected = f"less than 2^{_SPZ_POSITION_BITS - 2}, the most that SPZ holds"
        raise InputError(path, "means", f"a coordinate of {farthest:g}", expected, "Use .ply or .npz.")
    if fitted_width is not None:
        _log.warning("%s: SPZ does not hold that these Gaussians were fitted at %d pixels: %s", path, fitted_width,
                     f"read it with --set teacher.fitted_width={fitted_width}")  # fmt: skip
    turned = _turned(gaussians, OWN_AXES)
    parts = {name: getattr(turned, name).detach().cpu().float().contiguous().numpy() for name in FIELDS}
    data = gsply.GSData(
        means=parts["means"],
        scales=parts["log_scales"],
        quats=parts["rotations"],
        opacities=parts["opacity_logits"],
        sh0=np.ascontiguousarray(parts["sh"][:, 0]),
        shN=np.ascontiguousarray(parts["sh"][:, 1:]) if turned.sh_degree else None,
    )
    # gsply's kernels set how many threads torch has, and that is set back.
    with output_errors(path), atomic_path(path) as temporary, one_torch_thread():
        gsply.write_spz(temporary, data, version=3, fractional_bits=fraction)


def tell_of_clamped(path: str | Path, gaussians: Gaussians) -> None:
    """How many Gaussians have values that the format does not hold; a warning where pictures may show it."""
    scales, constant, rest = gaussians.log_scales, gaussians.sh[:, 0], gaussians.sh[:, 1:]
    beyond = {
        f"scales above e^{_WIDEST:g}": scales > _WIDEST,
        f"scales below e^{_THINNEST:g}": scales < _THINNEST,
        f"constant harmonics beyond {_MOST_CONSTANT:g}": constant.abs() > _MOST_CONSTANT,
        "other harmonics beyond 1": rest.abs() > 1,
    }
    shares = {name: values.flatten(1).any(1).float().mean().item() for name, values in beyond.items() if values.numel()}
    if not any(shares.values()):
        return
    words = ", ".join(f"{share:.2%} with {name}" for name, share in shares.items() if share)
    is_seen = any(share > _NOTED for name, share in shares.items() if "below" not in name)  # thinner is hardly seen
    level = logging.WARNING if is_seen else logging.INFO
    _log.log(level, "%s: SPZ takes the nearest that it holds of Gaussians beyond its limits: %s", path, words)


def read_spz(path: str | Path, offset: Offset | None = None) -> Gaussians:
    """Reads SPZ, versions 2 to 4, into the axes of a 3DGS PLY, from those that it is in (``READ_AXES``).

    Args:
        offset: ``data.offset``, taken off after the turn into those axes: see ``moved_positions``.

    Raises:
        InputError: see ``read_gaussians``.
    """
    check_present(path)
    axes = check_container(path)
    arrays = _decoded(path)
    turned = None if offset is None else tuple(np.multiply(offset, _signs(axes)).tolist())
    return _turned(checked_gaussians(path, arrays, turned), axes)


def _decoded(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of ``Gaussians`` in the file's axes. What the decoder has beside them is gone when they are turned."""
    gsply = import_gsply(path)
    try:
        with one_torch_thread():
            data = gsply.read_spz(path)
    except Exception as error:  # decoders raise ValueError, OSError, zlib.error, EOFError ... for bad bytes
        raise InputError(path, "spz file", f"unreadable data ({error})", "a whole .spz file", DAMAGED) from None
    sh = data.sh0[:, None, :]
    if data.shN is not None and data.shN.size:
        sh = np.concatenate([sh, data.shN.reshape(len(sh), -1, 3)], axis=1)
    arrays = (data.means, data.scales, data.quats, data.opacities.reshape(-1), sh)
    return dict(zip(FIELDS, arrays, strict=True))


def _signs(axes: str) -> tuple[float, float, float]:
    """Of x, y and z between axes of ``READ_AXES`` and those of a PLY: half a turn about one of them, or none."""
    x, y, z = (1.0 if one == own else -1.0 for one, own in zip(axes, _PLY_AXES, strict=True))
    return x, y, z


def _turned(gaussians: Gaussians, axes: str) -> Gaussians:
    """Gaussians in the axes of a PLY as in others, or back: the same, for half a turn undoes itself (rotations up to
    their sign).
    """
    turn = torch.tensor(_signs(axes))
    # Every basis function is even or odd under the turn: its sign shows at any direction where none is zero.
    direction = torch.nn.functional.normalize(torch.tensor([0.48, 0.6, 0.64]), dim=0)
    signs = torch.sign(sh_basis(direction * turn, gaussians.sh_degree) * sh_basis(direction, gaussians.sh_degree))
    return replace(
        gaussians,
        means=gaussians.means * turn,
        rotations=gaussians.rotations * torch.cat([torch.ones(1), turn]),
        sh=gaussians.sh * signs[:, None],
    )


def import_gsply(path: str | Path) -> ModuleType:
    """The package that decodes and writes SPZ; InputError where it is not installed."""
    return import_package(path, "gsply")
