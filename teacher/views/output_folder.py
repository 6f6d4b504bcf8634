"""A teacher's files on disk: finding them, and checking that counts and sizes fit the dataset's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kernels.threads import available_threads
from machine.files import contents
from machine.terminal import late_bar
from scene.cameras import Cameras
from scene.dataset_pictures import read_picture
from scene.formats import load_frames
from scene.formats.dataset_format import note_once
from scene.frames import Frames, Size, frame_slice
from scene.images import image_header, read_image, resize_area, resize_rgba, to_uint8
from settings.data import DataConfig
from settings.errors import InputError
from teacher.depth_files import EmptyValues, read_depth

T = TypeVar("T")
_FILES = ("renders", "depths", "truths")
_POSES_HINT = "data.transforms must be the JSON whose poses the teacher rendered."


@dataclass(frozen=True)
class OutputFiles:
    """Frames of a dataset with the teacher's files for them; all lists have one entry a frame.

    Attributes:
        dataset: the frames, at the dataset's size.
        cameras: their cameras at the size of the renders.
        renders, depths, truths: ``renders/``, ``depth/`` and ``gt/`` files; the last two may be empty.
        has_alpha: whether the renders are RGBA; all are as the first.
        depth_empty: values that say that nothing is there, see ``read_depth``.
    """

    dataset: Frames
    cameras: Cameras
    renders: list[Path]
    depths: list[Path]
    truths: list[Path]
    has_alpha: bool
    depth_empty: EmptyValues | None = None

    def __len__(self) -> int:
        return len(self.renders)

    def __getitem__(self, index: list[int]) -> OutputFiles:
        files = {name: [part[i] for i in index] if (part := getattr(self, name)) else [] for name in _FILES}
        return replace(self, dataset=self.dataset[index], cameras=self.cameras[index], **files)

    def load(self, i: int) -> tuple[np.ndarray, Tensor | None]:
        """Frame i: (H, W, 3 or 4) uint8 render and (H, W) depth as stored; InputError for damaged files."""
        size = (self.cameras.width, self.cameras.height)
        picture = check_picture(self.renders[i], read_image(self.renders[i]), size, self.has_alpha)
        return picture, read_view_depth(self.depths[i], size, self.depth_empty) if self.depths else None


def find_outputs(
    outputs_dir: str | Path,
    transforms: str | Path,
    frames: str | None,
    *,
    depth: bool,
    truth: bool,
    data: DataConfig | None = None,
    depth_empty: EmptyValues | None = None,
) -> OutputFiles:
    """Finds a teacher's files and matches them to the frames of the JSON; see ``views_from_outputs``.

    Args:
        depth: look for ``depth/``, which must be there.
        truth: look for ``gt/``, which may be there.
        data: how the dataset is read, see ``load_frames``.
        depth_empty: see ``read_depth``.
    """
    folder = outputs_folder(Path(outputs_dir))
    renders = numbered_files(folder / "renders", ".png")
    depths = numbered_files(folder / "depth", ".npy", _depth_hint(folder / "depth")) if depth else []
    truths = numbered_files(folder / "gt", ".png") if truth and (folder / "gt").is_dir() else []
    size = image_header(renders[0]).size
    dataset = _without_renders(load_frames(transforms, image_size=size, data=data), renders[0].parent)
    _check_one_camera(dataset)
    for files in filter(None, (renders, depths, truths)):
        check_count(files, dataset)
    chosen = frame_slice(frames, len(dataset))
    dataset, renders = dataset[chosen], renders[chosen]
    cameras = rendered_cameras(dataset, size, renders[0])
    has_alpha = shared_alpha(renders)
    return OutputFiles(dataset, cameras, renders, depths[chosen], truths[chosen], has_alpha, depth_empty)


def _check_one_camera(dataset: Frames) -> None:
    """InputError where a render cannot be of the cameras that the pictures have here."""
    hint = "Render the Gaussians here: teacher.kind: gaussians."
    if dataset.undistorted:
        found = f"{dataset.undistorted} of {len(dataset)} pictures undistorted, which moves their principal points"
        raise InputError(dataset.source, "lens", found, "pinholes, for renders on disk are of cameras as given", hint)
    if dataset.sizes is not None:
        found = f"{len(set(dataset.sizes))} sizes"
        raise InputError(dataset.source, "image size", found, "one, as the renders on disk have", hint)


def _depth_hint(folder: Path) -> str:
    """What to do where there is no depth as it should be."""
    hint = "Set teacher.depth_kind: none to do without depth."
    others = {path.suffix.lower() for path in folder.glob("*")} & {".png", ".tif", ".tiff", ".exr", ".pfm", ".npz"}
    if not others:
        return hint
    save = "np.save('00000.npy', pixels.astype(np.float32) / 1000) does it for 16-bit millimetres"
    return (
        f"Depth in {', '.join(sorted(others))} is not read: save float32 .npy in world units ({save}). Or s{hint[1:]}"
    )


def outputs_folder(folder: Path) -> Path:
    """The folder with ``renders/``: the given one, or the only ``ours_*`` in it.

    Raises:
        InputError: neither, listing what was found.
    """
    if (folder / "renders").is_dir():
        return folder
    rounds = sorted(path for path in folder.glob("ours_*") if (path / "renders").is_dir())
    if len(rounds) == 1:
        return rounds[0]
    found = ", ".join(path.name for path in rounds) or contents(folder)
    hint = "Name one of them in teacher.outputs." if rounds else "Set teacher.outputs to a folder like ours_30000."
    raise InputError(folder, "teacher outputs", found, "renders/, or one ours_* folder with renders/", hint)


def numbered_files(folder: Path, extension: str, hint: str = "") -> list[Path]:
    """``00000<extension>``, ``00001<extension>``, ... in order.

    Raises:
        InputError: no folder, no such files, two of one number, or a gap in the numbers.
    """
    expected = f"00000{extension}, 00001{extension}, ..."
    if not folder.is_dir():
        raise InputError(folder, "folder", "nothing", expected, hint)
    numbered: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == extension and path.stem.isdecimal():
            other = numbered.setdefault(int(path.stem), path)
            if other != path:
                found = f"{other.name} and {path.name}, both number {int(path.stem)}"
                raise InputError(folder, "numbering", found, f"{expected}, each number once", "Remove one of them.")
    if not numbered:
        raise InputError(folder, "files", contents(folder), expected, hint)
    gap = next((number for number in range(len(numbered)) if number not in numbered), None)
    if gap is not None:
        found = f"no {gap:05d}{extension} among {len(numbered)} files up to {numbered[max(numbered)].name}"
        raise InputError(folder, "numbering", found, f"{expected} without a gap")
    return [numbered[number] for number in range(len(numbered))]


def _without_renders(dataset: Frames, folder: Path) -> Frames:
    """The frames less the images that are the teacher's own renders: they would pass for ground truth."""
    own = folder.resolve()
    images = tuple(None if path and path.resolve().parent == own else path for path in dataset.image_paths)
    return replace(dataset, image_paths=images)


def check_count(files: Sequence[Path], dataset: Frames) -> None:
    """InputError unless there is one file for each frame of the JSON."""
    if len(files) != len(dataset):
        found = f"{len(files)} files for the {len(dataset)} frames of {dataset.source}"
        raise InputError(files[0].parent, "number of files", found, "one for each frame", _POSES_HINT)


def rendered_cameras(dataset: Frames, size: Size, render: Path) -> Cameras:
    """The dataset's cameras at the size of the renders, which must be a scaled one (graphdeco's ``-r``).

    Raises:
        InputError: the renders are of another shape.
    """
    cameras = dataset.cameras
    if abs(size[0] * cameras.height / cameras.width - size[1]) > 1:
        found = f"{size[0]}x{size[1]}"
        expected = f"the shape of the dataset's {cameras.width}x{cameras.height} ({dataset.source})"
        raise InputError(render, "image size", found, expected, _POSES_HINT)
    return cameras.resized(*size)


def check_picture(path: Path, picture: np.ndarray, size: Size, has_alpha: bool) -> np.ndarray:
    """The (H, W, 3 or 4) uint8 picture of a file, which is of that size and kind, else InputError."""
    if picture.shape[1::-1] != size:
        raise InputError(path, "image size", _shape(picture), f"{size[0]}x{size[1]} as the first image")
    if (picture.shape[2] == 4) != has_alpha:
        found = "RGBA" if not has_alpha else "RGB"
        raise InputError(path, "channels", found, f"{'RGBA' if has_alpha else 'RGB'} as the first image")
    return picture


def shared_alpha(paths: Sequence[Path]) -> bool:
    """Whether all images have alpha, by their headers; InputError naming the first that differs from the first."""
    error = _mixed_alpha(paths)
    if error is not None:
        raise error
    return image_header(paths[0]).has_alpha


def _mixed_alpha(paths: Sequence[Path]) -> InputError | None:
    """What to say where some images have alpha and others none, by their headers."""
    alpha = [image_header(path).has_alpha for path in paths]
    if alpha.count(alpha[0]) == len(alpha):
        return None
    odd, kinds = alpha.index(not alpha[0]), {True: "alpha", False: "no alpha"}
    found = f"{kinds[alpha[odd]]} ({sum(alpha)} of {len(alpha)} images have alpha)"
    hint = "Save all as RGBA, or all as RGB on one background."
    return InputError(paths[odd], "channels", found, f"{kinds[alpha[0]]} as {paths[0].name}, the first image", hint)


def read_view_depth(path: Path, size: Size, empty: EmptyValues | None) -> Tensor:
    """(H, W) float32 depth of that size, else InputError; ``empty`` as for ``read_depth``."""
    depth = read_depth(path, empty)
    if depth.shape[::-1] != size:
        raise InputError(path, "depth size", _shape(depth), f"{size[0]}x{size[1]} as the renders")
    return depth


def load_ground_truth(dataset: Frames, size: Size) -> Tensor | None:
    """The dataset's images as (N, H, W, 4) uint8 straight RGBA of that size; None when no frame has one.

    Args:
        dataset: all of its frames have one, or none.

    Raises:
        InputError: an image is unreadable, smaller, or of another shape.
    """
    load = ground_truth_reader(dataset, size)
    if load is None:
        return None
    pictures = np.empty((len(dataset), size[1], size[0], 4), np.uint8)
    loaded = late_bar(parallel_map(load, len(dataset)), "ground truth", len(dataset), " picture")
    for i, picture in enumerate(loaded):
        pictures[i] = picture
    return torch.from_numpy(pictures)


def ground_truth_reader(dataset: Frames, size: Size) -> Callable[[int], np.ndarray] | None:
    """Reads the dataset's image i as (H, W, 4) uint8 straight RGBA of that size; None when no frame has one.

    A warning says where some have alpha and others none: these are opaque, on whatever they were saved on.

    Args:
        dataset: all of its frames have one, or none.

    Raises:
        InputError: from the reader: an image is unreadable, smaller, or of another shape.
    """
    if not any(dataset.image_paths):
        note_once(
            "warning",
            f"{dataset.source}: no ground truth found: none of the {len(dataset)} frames has an image on disk, so "
            "figures are against the teacher alone (data.ground_truth: false says that this is meant).",
        )
        return None
    mixed = _mixed_alpha(dataset.image_paths)
    if mixed is not None:
        consequence = "As ground truth only those with alpha are put on the background of the renders."
        note_once("warning", f"{mixed} {consequence}")

    def load(i: int) -> np.ndarray:
        picture = read_picture(dataset, i)
        height, width = picture.shape[:2]
        if width < size[0] or height < size[1] or abs(width * size[1] / size[0] - height) > width / size[0]:
            expected = f"at least {size[0]}x{size[1]} and of that shape"
            hint = "Set data.ground_truth: false to do without."
            raise InputError(dataset.image_paths[i], "ground truth size", _shape(picture), expected, hint)
        return shrink_rgba(picture, size)

    return load


def parallel_map(load: Callable[[int], T], count: int, most: int | None = None) -> Iterator[T]:
    """``load(0), ..., load(count - 1)`` in order, by a thread for each CPU, working only a few items ahead.

    ``most`` is how many are under way at a time at most.

    ``load`` should leave torch alone, and its caller be under ``one_torch_thread``. The first exception in order is
    raised. What has not begun when that, or a signal, ends it, is given up.
    """
    threads = min(available_threads(), most or count or 1)
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(load, i) for i in range(min(4 * threads, count)))
        try:
            for i in range(len(ahead), count + len(ahead)):
                done = ahead.popleft().result()
                if i < count:
                    ahead.append(pool.submit(load, i))
                yield done
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def shrink_rgba(picture: np.ndarray, size: Size) -> np.ndarray:
    """uint8 RGB or RGBA -> (H, W, 4) uint8 straight RGBA of that size, by area; alpha is 255 for RGB."""
    if picture.shape[2] == 4:
        return resize_rgba(picture, *size)
    rgb = picture if picture.shape[1::-1] == size else to_uint8(resize_area(picture / np.float32(255), *size))
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])


def _shape(picture: np.ndarray | Tensor) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
