"""Gaussians on disk: graphdeco's PLY, a compressed ``.npz`` of the same arrays, Niantic's ``.spz``."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from dataclasses import replace
from math import frexp
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from kernels.spherical_harmonics import sh_basis
from machine.files import write_atomically
from settings.errors import InputError
from teacher.gaussians import Gaussians, read_ply, write_ply

EXTENSIONS = (".ply", ".npz", ".spz")
NPZ_FORMAT, NPZ_VERSION = "3d-gaussians", 1
_FIELDS = ("means", "log_scales", "rotations", "opacity_logits", "sh")
_NPZ_EXPECTED = f"an .npz of format {NPZ_FORMAT}, version {NPZ_VERSION}"
_DAMAGED = "The file is truncated or was altered: copy it again."
# SPZ positions are signed fixed point of 24 bits; 2^-16 world units are finer than any Gaussian.
_SPZ_POSITION_BITS, _SPZ_MOST_FRACTION = 24, 16
# A half turn about x takes 3DGS's PLY axes (right, down, front) to SPZ's (right, up, back), and back.
_HALF_TURN = (1.0, -1.0, -1.0)


def read_gaussians(path: str | Path) -> Gaussians:
    """Reads Gaussians from ``.ply`` (``read_ply``), ``.npz`` or ``.spz``, chosen by the extension.

    Raises:
        InputError: another extension; the file is missing, damaged or of another kind; it holds no Gaussians,
            values that are not finite or rotations of length zero; ``.spz`` without gsply.
    """
    readers = {".ply": read_ply, ".npz": read_npz, ".spz": read_spz}
    return readers[_extension(path)](path)


def write_gaussians(path: str | Path, gaussians: Gaussians) -> None:
    """Writes ``.ply`` (``write_ply``), ``.npz`` (float16) or ``.spz``, chosen by the extension.

    Raises:
        InputError: another extension, a folder that cannot be written, ``.spz`` without gsply.
    """
    writers = {".ply": write_ply, ".npz": write_npz, ".spz": write_spz}
    writers[_extension(path)](path, gaussians)


def check_gaussians_file(path: str | Path) -> None:
    """InputError when ``write_gaussians`` could not write there: extension, missing folder, missing gsply."""
    path = Path(path)
    if _extension(path) == ".spz":
        _gsply(path)
    if not path.parent.is_dir():
        raise InputError(path, "output file", f"no folder {path.parent}", "an existing folder", "Make it first.")


def write_npz(path: str | Path, gaussians: Gaussians, dtype: type = np.float16) -> None:
    """Writes the arrays of ``Gaussians`` under their names, with ``format`` and ``version``, deflated.

    Args:
        dtype: ``np.float16``, which keeps values to 5e-4 of themselves, or ``np.float32``, which is exact. Means are
            float32 always: half precision would move a Gaussian that is 4 units out by 0.002.

    Raises:
        InputError: a value does not fit float16; the folder is missing or cannot be written.
    """
    arrays = {name: getattr(gaussians, name).detach().cpu().float().numpy() for name in _FIELDS}
    for name in _FIELDS[1:]:
        with np.errstate(over="ignore"):
            arrays[name] = arrays[name].astype(dtype)
        if not np.isfinite(arrays[name]).all():
            raise InputError(path, name, "a value beyond 65504", f"values that fit {np.dtype(dtype).name}", "Use .ply.")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, format=np.array(NPZ_FORMAT), version=np.array(NPZ_VERSION), **arrays)
    _write(path, buffer.getvalue())


def read_npz(path: str | Path) -> Gaussians:
    """Reads what ``write_npz`` wrote, without unpickling anything.

    Raises:
        InputError: see ``read_gaussians``.
    """
    _check_present(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        AttributeError,
        TypeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(path, "npz file", f"unreadable data ({error})", _NPZ_EXPECTED, _DAMAGED) from None
    name, version = (str(arrays[key]) if key in arrays else "none" for key in ("format", "version"))
    if (name, version) != (NPZ_FORMAT, str(NPZ_VERSION)):
        raise InputError(path, "format, version", f"{name}, {version}", f"{NPZ_FORMAT}, {NPZ_VERSION}")
    if missing := [field for field in _FIELDS if field not in arrays]:
        raise InputError(path, "arrays", f"no {', '.join(missing)}", _NPZ_EXPECTED)
    for field in _FIELDS:
        if arrays[field].dtype.kind != "f":
            raise InputError(path, f"array {field}", arrays[field].dtype, "floating point")
    return _checked(path, {field: arrays[field] for field in _FIELDS})


def write_spz(path: str | Path, gaussians: Gaussians) -> None:
    """Writes SPZ version 3 in its axes (right, up, back), taking the Gaussians' to be right, down, front.

    That is what Niantic's converter does with a 3DGS PLY. The format holds 24-bit positions (here to 2^-16 units, or
    to as many bits as the farthest Gaussian leaves), 8-bit opacities, log-scales in steps of 1/16 between -10 and
    5.9, SH in [-1, 1) in steps of 1/128, the constant one in [-3.3, 3.3] in steps of 0.026.

    Raises:
        InputError: gsply is not installed; a mean is beyond what the format holds; the folder cannot be written.
    """
    gsply = _gsply(path)
    farthest = gaussians.means.abs().max().item()
    fraction = min(_SPZ_MOST_FRACTION, _SPZ_POSITION_BITS - 2 - frexp(farthest)[1])
    if fraction < 1:
        expected = f"less than 2^{_SPZ_POSITION_BITS - 2}, the most that SPZ holds"
        raise InputError(path, "means", f"a coordinate of {farthest:g}", expected, "Use .ply or .npz.")
    turned = _half_turned(gaussians)
    parts = {name: getattr(turned, name).detach().cpu().float().contiguous().numpy() for name in _FIELDS}
    data = gsply.GSData(
        means=parts["means"],
        scales=parts["log_scales"],
        quats=parts["rotations"],
        opacities=parts["opacity_logits"],
        sh0=np.ascontiguousarray(parts["sh"][:, 0]),
        shN=np.ascontiguousarray(parts["sh"][:, 1:]) if turned.sh_degree else None,
    )
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.spz")
    try:
        gsply.write_spz(temporary, data, version=3, fractional_bits=fraction)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(path, "output file", error.strerror or error, "a folder that can be written") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_spz(path: str | Path) -> Gaussians:
    """Reads SPZ (versions 1 to 3; 4 where gsply's ``zstandard`` is installed) into the axes of a 3DGS PLY.

    Raises:
        InputError: see ``read_gaussians``.
    """
    _check_present(path)
    gsply = _gsply(path)
    try:
        data = gsply.read_spz(path)
    except Exception as error:  # decoders raise ValueError, OSError, zlib.error, EOFError ... for bad bytes
        raise InputError(path, "spz file", f"unreadable data ({error})", "a whole .spz file", _DAMAGED) from None
    sh = data.sh0[:, None, :]
    if data.shN is not None and data.shN.size:
        sh = np.concatenate([sh, data.shN.reshape(len(sh), -1, 3)], axis=1)
    arrays = (data.means, data.scales, data.quats, data.opacities.reshape(-1), sh)
    return _half_turned(_checked(path, dict(zip(_FIELDS, arrays, strict=True))))


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


def _checked(path: str | Path, arrays: dict[str, np.ndarray]) -> Gaussians:
    """The arrays as Gaussians, held to what ``read_ply`` holds a PLY to."""
    if arrays["means"].ndim == 0 or len(arrays["means"]) == 0:
        raise InputError(path, "means", "0 Gaussians", "at least 1", "Did the teacher's training finish?")
    for name, values in arrays.items():
        if bad := int((~np.isfinite(values)).sum()):
            found = f"{bad} of {values.size} values NaN or infinite"
            raise InputError(path, f"array {name}", found, "finite values", "Use an earlier checkpoint.")
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)) for name, values in arrays.items()
    }
    try:
        gaussians = Gaussians(**tensors)
    except (ValueError, IndexError) as error:
        raise InputError(path, "arrays", error, "arrays of one number of Gaussians") from None
    if zero := int((gaussians.rotations.norm(dim=1) < 1e-12).sum()):
        raise InputError(path, "rotations", f"{zero} of length zero", "non-zero quaternions")
    return gaussians


def _extension(path: str | Path) -> str:
    extension = Path(path).suffix.lower()
    if extension not in EXTENSIONS:
        expected = f"one of {', '.join(EXTENSIONS)}"
        raise InputError(path, "file extension", extension or "none", expected, "The extension says the format.")
    return extension


def _check_present(path: str | Path) -> None:
    if not Path(path).is_file():
        raise InputError(path, "Gaussians", "no such file", "a file of 3D Gaussians", "Check the path.")


def _gsply(path: str | Path) -> ModuleType:
    try:
        import gsply
    except ImportError as error:
        hint = "pip install 'lego-response-distill[spz]', or use .ply or .npz."
        raise InputError(path, "spz file", f"no package gsply ({error})", "gsply, which reads SPZ", hint) from None
    return gsply


def _write(path: str | Path, data: bytes) -> None:
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(path, "output file", f"no folder {path.parent}", "a folder that can be written")
    try:
        write_atomically(path, data)
    except OSError as error:
        raise InputError(path, "output file", error.strerror or error, "a folder that can be written") from error
