"""Files given as Gaussians that are something else: named for what they are, with the way to a PLY."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from machine.file_kinds import FileKind, is_text
from settings.errors import InputError

_EXPECTED = "3D Gaussians as .ply, .npz, .spz, .splat or .sog"
CONVERT = (
    "Convert it with SuperSplat (superspl.at/convert) or `npx @playcanvas/splat-transform {name} point_cloud.ply`."
)
FROM_CHECKPOINT = (
    "Give the PLY that its program exports: graphdeco's point_cloud/iteration_*/point_cloud.ply, nerfstudio's "
    "`ns-export gaussian-splat`, gsplat's export_splats."
)
_EXPORT = "Export the Gaussians as .ply or .sog from the program that wrote it."
_HINTS = {
    "html": f"Its download failed, or it is the page of a viewer. {_EXPORT}",
    "gltf": _EXPORT,
}
_CHECKPOINTS = ("torch", "pickle", "safetensors", "npz", "npy", "hdf5")
_SOG_WORDS = (b'"means"', b'"scales"', b'"quats"', b'"sh0"')
LONGEST_META = 1 << 24
"""Bytes of a SOG's ``meta.json`` at most."""
_KSPLAT_HEADER, _KSPLAT_SECTION = 4096, 1024


def refuse_other_file(path: str | Path, kind: FileKind | None) -> NoReturn:
    """Raises the InputError that says what a file is that holds no Gaussians this program reads.

    Args:
        kind: what its first bytes say, if anything.
    """
    path = Path(path)
    splat = _splat_format(path) if kind is None else None
    if splat is not None:
        raise InputError(path, "Gaussians", f"a {splat} splat", _EXPECTED, CONVERT.format(name=path.name))
    if kind is None:
        with open(path, "rb") as file:
            head = file.read(16)
        if is_text(path):
            line = head.decode("utf-8", errors="ignore").partition("\n")[0].strip()
            raise InputError(path, "Gaussians", f"text that begins '{line}'", _EXPECTED, "Is it the right file?")
        raise InputError(path, "first bytes", f"{head}, which are no known file's", _EXPECTED, "Is it the right file?")
    hint = _HINTS.get(kind.key) or kind.hint
    hint = hint or (FROM_CHECKPOINT if kind.key in _CHECKPOINTS else "Is it the right file?")
    raise InputError(path, "Gaussians", kind.name, _EXPECTED, hint)


def is_sog_json(path: str | Path) -> bool:
    """Whether JSON text is the ``meta.json`` of an unpacked SOG."""
    with open(path, "rb") as file:
        text = file.read(LONGEST_META)
    return all(word in text for word in _SOG_WORDS)


def _splat_format(path: Path) -> str | None:
    """The name of a splat format without magic bytes that is known but not read."""
    with open(path, "rb") as file:
        head = file.read(_KSPLAT_HEADER)
    size = path.stat().st_size
    if head[:2] == b"\0\x01" and len(head) == _KSPLAT_HEADER:
        sections, count = (int.from_bytes(head[place : place + 4], "little") for place in (4, 16))
        if sections > 0 and size >= _KSPLAT_HEADER + sections * _KSPLAT_SECTION and count:
            return ".ksplat (GaussianSplats3D)"
    return f"{path.suffix.lower()} (by its name)" if path.suffix.lower() in (".ksplat", ".sog") else None
