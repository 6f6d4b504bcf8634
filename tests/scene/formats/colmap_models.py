"""Small COLMAP models, written in binary and as text by the format's description."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from scene.formats.colmap_records import CAMERA_MODELS, ColmapCamera, ColmapImage
from scene.images import write_image

PINHOLE = ColmapCamera(1, "PINHOLE", 16, 12, (20.0, 22.0, 7.5, 6.25))
TURN = (0.5, 0.5, 0.5, 0.5)  # x to y, y to z, z to x


def images(*names: str, camera: int = 1) -> list[ColmapImage]:
    """Registered images, each a little aside of the last, in the order of their ids."""
    return [ColmapImage(7 + i, TURN, (0.1 * i, -0.2, 4.0), camera, name) for i, name in enumerate(names)]


def write_text(folder: Path, cameras: list[ColmapCamera], images: list[ColmapImage], points: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Camera list", f"# Number of cameras: {len(cameras)}"]
    for key, model, width, height, parameters in cameras:
        lines.append(f"{key} {model} {width} {height} {' '.join(map(repr, parameters))}")
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Image list", f"# Number of images: {len(images)}, mean observations per image: 1"]
    for key, rotation, translation, camera, name in images:
        lines += [f"{key} {' '.join(map(repr, (*rotation, *translation)))} {camera} {name}", "1.5 2.5 -1 3.5 4.5 1"]
    (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [f"{i + 1} {i}.25 -1 0.5 {i} 128 255 0.7 7 0 8 1" for i in range(points)]
    (folder / "points3D.txt").write_text("# 3D point list\n" + "\n".join(lines) + "\n")
    return folder


def write_binary(folder: Path, cameras: list[ColmapCamera], images: list[ColmapImage], points: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    data = struct.pack("<Q", len(cameras))
    for key, model, width, height, parameters in cameras:
        number, count = CAMERA_MODELS[model]
        data += struct.pack(f"<IiQQ{count}d", key, number, width, height, *parameters)
    (folder / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(images))
    for key, rotation, translation, camera, name in images:
        data += struct.pack("<I7dI", key, *rotation, *translation, camera) + name.encode() + b"\0"
        data += struct.pack("<QddqddQ", 2, 1.5, 2.5, -1, 3.5, 4.5, 1)
    (folder / "images.bin").write_bytes(data)
    data = struct.pack("<Q", points)
    for i in range(points):
        data += struct.pack("<Q3d3BdQ4I", i + 1, i + 0.25, -1, 0.5, i, 128, 255, 0.7, 2, 7, 0, 8, 1)
    (folder / "points3D.bin").write_bytes(data)
    return folder


def write_pictures(folder: Path, *names: str, size: tuple[int, int] = (16, 12), shade: int = 90) -> None:
    for name in names:
        write_image((folder / name).with_suffix(".png"), np.full((size[1], size[0], 3), shade, np.uint8))
        (folder / name).with_suffix(".png").rename(folder / name)


def gradient(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of that (height, width), which no turn leaves as it is."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([4 * x, 4 * y, x + y], axis=2).astype(np.uint8)


def tagged(path: Path, size: tuple[int, int], orientation: int) -> None:
    """Writes that picture as stored, with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(gradient(size)).save(path, exif=exif)
