"""Meshes on disk: PLY (Turk 1994), and binary glTF 2.0 (Khronos, ISO/IEC 12113)."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
from plyfile import PlyData, PlyElement

from distill.export.mesh import Mesh
from machine.files import write_atomically
from scene.images import srgb_to_linear, to_uint8
from scene.rays import Vector

SUFFIXES = (".ply", ".glb")
_FLOAT, _UNSIGNED_SHORT, _UNSIGNED_INT = 5126, 5123, 5125  # glTF's component types
_VERTICES, _INDICES = 34962, 34963  # what a part of its buffer is for
_JSON, _BIN = 0x4E4F534A, 0x004E4942  # kinds of a file's chunks


def write_mesh(path: Path, mesh: Mesh, up: Vector = (0.0, 1.0, 0.0)) -> int:
    """Writes a mesh in the dataset's own world, by the extension; returns the bytes of the file.

    Args:
        up: a unit direction. In a GLB the mesh's node turns it onto +Y, which is up in glTF; a PLY says nothing of it.

    Raises:
        ValueError: another extension than ``SUFFIXES``.
        OSError: it cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"found {path.suffix!r}, expected one of {SUFFIXES}")
    content = _ply_bytes(mesh) if path.suffix.lower() == ".ply" else _glb_bytes(mesh, up)
    write_atomically(path, content)
    return len(content)


def _ply_bytes(mesh: Mesh) -> bytes:
    """Positions, normals and 8-bit sRGB colours of vertices; faces as lists of three."""
    planes = {"": "xyz", "n": "xyz"}
    fields = [(f"{prefix}{axis}", "<f4") for prefix, axes in planes.items() for axis in axes]
    fields += [(name, "u1") for name in ("red", "green", "blue")]
    vertices, faces = np.empty(len(mesh.vertices), fields), np.empty(len(mesh.faces), [("vertex_indices", "<i4", (3,))])
    columns = np.concatenate([mesh.vertices.numpy(), mesh.normals.numpy()], axis=1)
    for (name, _), column in zip(fields, [*columns.T, *to_uint8(mesh.colors.numpy()).T], strict=True):
        vertices[name] = column
    faces["vertex_indices"] = mesh.faces.numpy()
    elements = [PlyElement.describe(vertices, "vertex"), PlyElement.describe(faces, "face")]
    buffer = io.BytesIO()
    PlyData(elements, byte_order="<").write(buffer)
    return buffer.getvalue()


def _glb_bytes(mesh: Mesh, up: Vector) -> bytes:
    """Positions and linear colours, 16 bits each, which glTF asks for; unlit, since the light is in the colours."""
    positions = mesh.vertices.numpy().astype("<f4")
    colors = np.full((len(positions), 4), 65535, "<u2")  # with alpha a vertex keeps to four bytes, as it has to
    colors[:, :3] = np.rint(srgb_to_linear(mesh.colors.numpy()) * 65535)
    parts = positions.tobytes(), colors.tobytes(), mesh.faces.numpy().astype("<u4").tobytes()
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    targets = _VERTICES, _VERTICES, _INDICES
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(part), "target": target}
        for start, part, target in zip(starts, parts, targets, strict=False)
    ]
    low, high = positions.min(0).tolist(), positions.max(0).tolist()
    count = len(positions)
    accessors = [
        {"bufferView": 0, "componentType": _FLOAT, "count": count, "type": "VEC3", "min": low, "max": high},
        {"bufferView": 1, "componentType": _UNSIGNED_SHORT, "normalized": True, "count": count, "type": "VEC4"},
        {"bufferView": 2, "componentType": _UNSIGNED_INT, "count": mesh.faces.numel(), "type": "SCALAR"},
    ]
    primitive = {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}
    content = {
        "asset": {"version": "2.0", "generator": "lego_response_distill"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "student", "matrix": _turned_up(up).T.ravel().tolist()}],  # column by column
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": starts[-1]}],
    }
    chunks = _chunk(_JSON, json.dumps(content, separators=(",", ":")).encode(), b" ")
    chunks += _chunk(_BIN, b"".join(parts), b"\0")
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _turned_up(up: Vector) -> np.ndarray:
    """(4, 4) the smallest rotation that takes a unit direction onto +Y."""
    x, y, z = up
    matrix = np.diag([1.0, -1.0, -1.0, 1.0])  # -Y, from where every way is as far
    if y > -1 + 1e-9:
        across = np.array([[0.0, -x, 0.0], [x, 0.0, z], [0.0, -z, 0.0]])  # by the cross product of up and +Y
        matrix = np.eye(4)
        matrix[:3, :3] += across + across @ across / (1 + y)
    return matrix + 0.0  # no -0.0


def _chunk(kind: int, content: bytes, filling: bytes) -> bytes:
    content += filling * (-len(content) % 4)
    return struct.pack("<II", len(content), kind) + content
