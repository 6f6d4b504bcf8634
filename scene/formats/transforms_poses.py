"""The poses of a transforms file: rigid camera-to-world matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene.formats.dataset_format import note_once
from settings.errors import InputError

# Entries rounded to three decimals leave |R^T R - I| under 2e-3; a turn of 0.1 degrees is of that size.
_RIGID = 1e-2
_EXACT = 1e-5  # float32 arithmetic alone leaves less
_LAST_ROW = 1e-3


def read_poses(path: Path, entries: Sequence[dict[str, Any]]) -> Tensor:
    """(N, 4, 4) float64 camera-to-world poses of the frames; 3 x 4 numbers have the last row 0 0 0 1.

    Rotations that are slightly off, as rounded numbers are, become the nearest rotation, which is said.

    Raises:
        InputError: a pose is missing, not finite in float32, or not rigid.
    """
    fields = [_field(index, entry) for index, entry in enumerate(entries)]
    return rigid_poses(path, pose_matrices(path, entries), fields)


def pose_matrices(path: Path, entries: Sequence[dict[str, Any]]) -> Tensor:
    """(N, 4, 4) float64 ``transform_matrix`` of the frames, rigid or not; 3 x 4 numbers have the last row 0 0 0 1.

    Raises:
        InputError: one is missing, or of another shape.
    """
    return torch.stack([_matrix(path, index, entry) for index, entry in enumerate(entries)])


def rigid_poses(path: Path, poses: Tensor, fields: Sequence[str]) -> Tensor:
    """(N, 4, 4) float64 poses, their rotations the nearest ones where they are slightly off, which is said.

    Args:
        fields: what names each of them in a message.

    Raises:
        InputError: one is not finite in float32, or not rigid.
    """
    for field, pose in zip(fields, poses, strict=True):
        if not pose.float().isfinite().all():
            raise InputError(path, field, "a non-finite number, or one beyond float32", "finite numbers")
    rotations = poses[:, :3, :3]
    skew = _off_orthonormal(rotations)
    _refuse_not_rigid(path, fields, poses, skew)
    rounded = skew > _EXACT
    if rounded.any():
        left, _, right = torch.linalg.svd(rotations[rounded])
        poses[rounded, :3, :3] = left @ right
        found = f"{int(rounded.sum())} of {len(poses)} rotations are inexact (|R^T R - I| up to {skew.max():.1g})"
        note_once("info", f"{path}: {found}: the nearest rotations are used.")
    return poses


def _matrix(path: Path, index: int, entry: dict[str, Any]) -> Tensor:
    """(4, 4) float64."""
    field, found = _field(index, entry), entry.get("transform_matrix")
    try:
        pose = torch.tensor(found, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        found = "nothing" if found is None else f"'{str(found)[:60]}'"
        raise InputError(path, field, found, "4 x 4 numbers") from error
    if pose.shape == (3, 4):
        pose = torch.cat([pose, pose.new_tensor([[0, 0, 0, 1]])])
    if pose.shape != (4, 4):
        raise InputError(path, field, f"shape {tuple(pose.shape)}", "4 x 4 or 3 x 4 numbers")
    return pose


def _field(index: int, entry: dict[str, Any]) -> str:
    return f"frames[{index}] ({entry['file_path']}) transform_matrix"


def _off_orthonormal(rotations: Tensor) -> Tensor:
    """(N,) the largest entry of |R^T R - I|."""
    return (rotations.mT @ rotations - torch.eye(3, dtype=rotations.dtype)).abs().amax((1, 2))


def _refuse_not_rigid(path: Path, fields: Sequence[str], poses: Tensor, skew: Tensor) -> None:
    """InputError naming a factor that scales all rotations, else the first pose that is not rigid."""
    rotations, count = poses[:, :3, :3], len(poses)
    determinant = torch.linalg.det(rotations)
    last_row = (poses[:, 3] - poses.new_tensor([0, 0, 0, 1])).abs().amax(1)
    bad = (skew > _RIGID) | (determinant < 0) | (last_row > _LAST_ROW)
    if not bad.any():
        return
    turned = bad & (_off_orthonormal(rotations) <= _RIGID) & (poses[:, :3, 3].abs().amax(1) <= _LAST_ROW)
    if turned.any():
        index = int(turned.nonzero()[0])
        values = [round(value, 6) for value in poses[index, 3].tolist()]
        found = f"a last row {values} and a last column 0 0 0, in {int(turned.sum())} of {count} frames"
        expected = "a rotation with its translation in the last column, last row 0 0 0 1"
        hint = "The matrices are transposed (column by column, as OpenGL keeps them): transpose each."
        raise InputError(path, fields[index], found, expected, hint)
    factor = determinant.clamp(min=1e-30) ** (1 / 3)
    scaled = (determinant > 0) & (_off_orthonormal(rotations / factor[:, None, None]) <= _RIGID)
    expected = f"a rotation and a translation: R^T R = I to {_RIGID:g}, determinant 1, last row 0 0 0 1"
    mean = factor.mean().item()
    if count > 1 and (skew > _RIGID).all() and scaled.all() and (factor / mean - 1).abs().max() <= _RIGID:
        found = f"rotations scaled by {mean:.4g} (1/{1 / mean:.4g}) in all {count} frames"
        hint = "Divide the rotations by it (0.01: MatrixCity's raw export?); positions must be in the teacher's world."
        raise InputError(path, "transform_matrix", found, expected, hint)
    index, hint = int(bad.nonzero()[0]), "Write camera-to-world matrices whose last row is 0 0 0 1."
    if skew[index] > _RIGID:
        hint = "Scale the scene, not the camera matrix."
    elif determinant[index] < 0:
        hint = "The rotation is mirrored, which no camera is: negate one of its columns, or mirror the scene too."
    figures = f"|R^T R - I| up to {skew[index]:.3g}, determinant {determinant[index]:.4g}"
    if scaled[index] and skew[index] > _RIGID:
        figures += f": axes scaled by {factor[index]:.4g}"
    figures += f", last row {[round(value, 6) for value in poses[index, 3].tolist()]}"
    found = f"a pose that is not rigid ({figures}), {int(bad.sum())} of {count} frames"
    raise InputError(path, fields[index], found, expected, hint)
