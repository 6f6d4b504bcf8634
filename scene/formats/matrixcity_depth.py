"""MatrixCity's depth: OpenEXR files, z along the camera's axis in centimetres, in the first channel.

They are in folders of their own, laid out as the pictures' (``small_city_depth_float32``, ``small_city_depth``). Those
of the latter are float16, which ends at 65504: 655 m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from machine.file_kinds import refuse_other_kinds
from scene.cameras import Cameras
from scene.dataset_pictures import padded
from scene.formats.dataset_format import note_once
from scene.frames import Frames, Size
from scene.images import resize_known
from scene.rays import SceneBox
from settings.errors import InputError

_CENTIMETRES = np.float32(0.01)  # in metres
_SATURATED = np.float32(np.finfo(np.float16).max)
_SKY = np.float32(1e6)  # centimetres; nothing of the city is 10 km away
_CHANNELS = ("B", "Z", "Y", "V", "R")  # the first that there is; alpha is none of them
_BLOCKS = ("{}", "{}_depth", "{}/depth")  # folders of a block's depth


def distance_reader(folder: Path, frames: Frames, box: SceneBox | None = None) -> Callable[[int], np.ndarray]:
    """Reads the depth of frame i as distance along the ray: (H, W) float32 at the size of the cameras, metres.

    It is 0 where it is not known: in the sky, beyond what float16 holds, and beyond a picture's own size.

    Args:
        box: the scene box; distances that end outside are not known either. None: all are.

    Raises:
        InputError: a frame has no file; from the reader: see ``read_z``, or it is smaller than its picture or of
            another shape.
    """
    files = [_file_of(folder, frames, index) for index in range(len(frames))]

    def read(index: int) -> np.ndarray:
        size = frames.size_of(index)
        z = _at_size(files[index], read_z(files[index], folder), size)
        rays = _rays_per_z(frames.cameras, index, size)
        if box is not None:
            points = z[..., None] * rays + frames.cameras.centers[index].numpy()
            z = np.where(((points >= box.lower) & (points <= box.upper)).all(axis=-1), z, np.float32(0))
        return padded(z * np.linalg.norm(rays, axis=-1).astype(np.float32), frames)

    return read


def read_z(path: Path, said_of: Path | None = None) -> np.ndarray:
    """One file as (H, W) float32 z in metres, 0 where it is not known.

    Args:
        said_of: what a warning of saturated values names, once for all of its files; None: the file.

    Raises:
        InputError: missing, damaged or no OpenEXR file; no floating channel; the package OpenEXR is not installed.
    """
    depth = _first_channel(path)
    saturated = depth == _SATURATED
    if saturated.any():
        note_once(
            "warning",
            f"{said_of or path}: depth of {_SATURATED:g} cm, where float16 ends: what is 655 m away or more cannot be "
            f"told there and counts as unknown. The float32 files have it.",
        )
    known = np.isfinite(depth) & (depth > 0) & (depth < _SKY) & ~saturated
    return np.where(known, depth * _CENTIMETRES, np.float32(0))


def _rays_per_z(cameras: Cameras, index: int, size: Size) -> np.ndarray:
    """(H, W, 3) world vectors to one unit along the axis, of a camera's top left pixels: threads leave torch alone."""
    fx, fy, cx, cy = (getattr(cameras, name)[index].item() for name in ("fx", "fy", "cx", "cy"))
    x, y = np.meshgrid((np.arange(size[0]) + 0.5 - cx) / fx, (cy - np.arange(size[1]) - 0.5) / fy)
    return np.stack([x, y, np.full_like(x, -1.0)], axis=-1) @ cameras.c2w[index, :3, :3].double().numpy().T


def _first_channel(path: Path) -> np.ndarray:
    """(H, W) float32 as stored."""
    try:
        import OpenEXR
    except ImportError as error:
        hint = 'It is optional: pip install -e ".[exr]".'
        raise InputError(path, "depth", "no package that reads OpenEXR", "the package OpenEXR", hint) from error
    expected = "a whole OpenEXR file"
    if not path.is_file():
        raise InputError(path, "depth", "no such file", expected)
    refuse_other_kinds(path, "depth", expected, "exr")
    try:
        channels = OpenEXR.File(str(path), separate_channels=True).channels()
        # Layers are told by what is before the last dot.
        named = {name.rpartition(".")[2].upper(): channel.pixels for name, channel in reversed(channels.items())}
    except Exception as error:  # RuntimeError, ValueError ... for bad bytes
        raise InputError(path, "depth", f"unreadable data ({error})", expected, "Copy the file again.") from error
    depth = next((named[name] for name in _CHANNELS if name in named), None)
    if depth is None or depth.dtype.kind != "f":
        found = f"channels {', '.join(f'{name} {pixels.dtype}' for name, pixels in named.items()) or 'none'}"
        raise InputError(path, "depth", found, f"depth in one of {', '.join(_CHANNELS)}, as floating point")
    return depth.astype(np.float32)


def _file_of(folder: Path, frames: Frames, index: int) -> Path:
    """The depth of a frame: under the folder, where its picture is under the dataset's, of any length from the end."""
    picture = frames.image_paths[index]
    found = None if picture is None else next(filter(Path.is_file, _candidates(folder, picture.resolve())), None)
    if found is None:
        looked = "" if picture is None else f", e.g. {next(_candidates(folder, picture.resolve()))}"
        expected = f"the .exr of frame {frames.names[index]}{looked}"
        raise InputError(folder, "data.depth", "no such file", expected, "Name the folder that is laid out so.")
    return found


def _candidates(folder: Path, picture: Path) -> Iterator[Path]:
    folders = [part for part in picture.parts[1:-1] if part != "rgb"]
    for start in range(max(0, len(folders) - 4), len(folders)):
        *above, block = folders[start:]
        for name in _BLOCKS:
            yield folder.joinpath(*above, name.format(block), f"{picture.stem}.exr")


def _at_size(path: Path, z: np.ndarray, size: Size) -> np.ndarray:
    """(H, W) z at the size of its picture, which may have been made smaller."""
    height, width = z.shape
    if width < size[0] or height < size[1] or abs(width * size[1] / size[0] - height) > width / size[0]:
        expected = f"at least the {size[0]}x{size[1]} of its picture, and of that shape"
        raise InputError(path, "depth size", f"{width}x{height}", expected)
    return z if (width, height) == size else resize_known(z, *size)
