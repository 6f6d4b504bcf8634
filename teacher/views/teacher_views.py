"""The teacher as pictures: colour, alpha and distance of every training view, at the working resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels.threads import one_torch_thread
from machine.memory import GIB, check_pictures_fit
from machine.terminal import late_bar
from scene.cameras import Cameras
from scene.dataset_pictures import all_count, counted_of, counted_pixels, read_picture
from scene.formats import load_frames
from scene.formats.matrixcity_depth import distance_reader
from scene.frames import Frames, Size, chosen_frames, held_out, working_size
from scene.rays import SceneBox
from settings.data import DataConfig
from settings.sections import Color
from teacher.depth import DepthKind
from teacher.depth_files import EmptyValues
from teacher.depth_inference import DepthReport
from teacher.views.lazy_pictures import LazyPlane, Picture, PictureStore, rgba_plane
from teacher.views.missing_pictures import WITHOUT_TRUTH, frames_with_pictures
from teacher.views.output_folder import (
    check_picture,
    find_outputs,
    load_ground_truth,
    parallel_map,
    shared_alpha,
)
from teacher.views.photographs import has_silhouettes, photograph_view, picture_view
from teacher.views.rasterized import View, collect_views
from teacher.views.stored_depth import DepthReader

STORED_SHARE = 0.25
"""Of ``data.memory_gib``, for pictures looked at now and then; those that rays are drawn from have the rest."""
TRUTH_BYTES = 4
"""Of a pixel of ground truth."""
_HALF = 128  # coverage, uint8
_IMAGE_BYTES = 3 + 1  # of a pixel of the dataset's images: colour, coverage; as ground truth they are the same


@dataclass(frozen=True)
class TeacherViews:
    """N teacher views of one size (H, W).

    Attributes:
        cameras: N cameras at this size.
        names: N unique frame names.
        rgb: (N, H, W, 3) uint8 sRGB; straight colour where alpha is known, else composited on ``background``.
        alpha: (N, H, W) uint8, or None where the teacher's renders have none.
        coverage: (N, H, W) uint8, the part of the pixel the scene covers: alpha if known, else the area with
            depth that is not far beyond the scene box, else the area that differs from the background.
        distance: (N, H, W) float32 expected distance along the unit ray, world units, 0 where unknown; or None.
        background: sRGB in [0, 1] that ``rgb`` is composited on; set exactly when alpha is None.
        ground_truth: (N, H, W, 4) uint8 straight RGBA of the dataset's own images (alpha 255 if they are RGB).
        holdout: (N,) bool, frames kept out of training.
        depth_report: how the depth kind was inferred; None when it was given or there is no depth.
        depth_kind: what the depth files were read as; None without depth files.
        counted: (N, H, W) bool, pixels that are trained on and measured: the others are beyond a picture's own size, or
            masked; None: all are.
        silhouettes: whether ``coverage`` tells the scene from what is behind it; photographs are covered all over.
        store: decodes or draws the pictures when they are asked for; the planes are ``LazyPlane`` then. None: all are
            in memory, but for a ground truth that is made of ``rgb`` and ``alpha``.
        finer: those of the views that are trained on in pictures some times as wide, where they were made of the same
            drawings and nobody has taken them yet, see ``teacher.sources.finer_teacher``.
    """

    cameras: Cameras
    names: tuple[str, ...]
    rgb: Tensor
    alpha: Tensor | None
    coverage: Tensor
    distance: Tensor | None
    background: Color | None
    ground_truth: Tensor | None
    holdout: Tensor
    depth_report: DepthReport | None = None
    depth_kind: DepthKind | None = None
    counted: Tensor | None = None
    silhouettes: bool = True
    store: PictureStore | None = None
    finer: TeacherViews | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def training_frames(self) -> Tensor:
        """(M,) int64: the frames that are not held out."""
        return (~self.holdout).nonzero()[:, 0]

    @property
    def holdout_frames(self) -> Tensor:
        """(M,) int64: the frames that are held out."""
        return self.holdout.nonzero()[:, 0]

    def with_distance_of(self, other: TeacherViews) -> TeacherViews:
        """Pictures without distances, with those of other views where these are trained on from the same cameras.

        A distance is taken where at least half of the other's pixel is covered. Pictures and views of which a part is
        in memory at a time stay as they are.
        """
        own, others = self.training_frames, other.training_frames
        if self.distance is not None or other.distance is None or self.store or other.store:
            return self
        if not self.cameras[own].same_as(other.cameras[others]):
            return self
        distance, unsure = other.distance, (other.coverage < _HALF) & (other.distance > 0)
        if unsure.any():
            distance = distance.where(~unsure, 0.0)
        if not torch.equal(self.holdout, other.holdout):
            kept = distance.new_zeros(len(self), *distance.shape[1:])
            kept[own] = distance[others]
            distance = kept
        return replace(self, distance=distance)

    def image(self, i: int, background: Color) -> Tensor:
        """View i on a background, (H, W, 3) float32 in [0, 1].

        Raises:
            ValueError: without alpha, any background but the one the view was rendered on.
        """
        rgb = self.rgb[i].float() / 255
        if self.alpha is None:
            if not np.allclose(background, self.background, atol=1e-3):
                raise ValueError(f"views without alpha are on {self.background} and cannot be put on {background}")
            return rgb
        return _over(rgb, self.alpha[i].float()[..., None] / 255, background)

    def ground_truth_image(self, i: int, background: Color) -> Tensor | None:
        """The dataset's image i on a background, (H, W, 3) float32 in [0, 1]; None where there is none."""
        if self.ground_truth is None:
            return None
        rgba = self.ground_truth[i].float() / 255
        return _over(rgba[..., :3], rgba[..., 3:], background)


@one_torch_thread()
def views_from_outputs(
    outputs_dir: str | Path,
    transforms: str | Path,
    *,
    width: int | None = None,
    box: SceneBox | None,
    background: Color,
    depth_kind: str = "auto",
    depth_empty: EmptyValues | None = None,
    holdout_every: int,
    ground_truth: bool = True,
    frames: str | None = None,
    data: DataConfig | None = None,
) -> TeacherViews:
    """Renders and depth on disk in graphdeco's layout: ``renders/00000.png``, ``depth/00000.npy``, ``gt/``.

    They are matched by order to the frames of the JSON, which must be the poses they were rendered from; their size
    may be a scaled one of the dataset's. Depth becomes distance at its own size and is then averaged over the valid
    pixels of each working pixel's footprint; it is known where at least half of the footprint is valid.

    Args:
        outputs_dir: the folder with ``renders/``, or one holding a single such ``ours_*`` folder.
        width: working width in pixels, height follows; None: native.
        box: the scene box; expected distances outside of it are dropped. None: inferring the depth kind supposes
            ``scene.rays.focus_box``, and nothing is dropped.
        background: what RGB renders are composited on; RGBA renders need none.
        depth_kind: a ``DepthKind`` value, ``"auto"``, or ``"none"``: leave depth alone.
        depth_empty: values of the files that say that nothing is there, see ``read_depth``.
        holdout_every: every k-th frame, from the first on, is held out; 0: none.
        ground_truth: load the dataset's images too if they exist (``gt/`` if only that does, or has those of all
            frames). Frames that have none among others that do are left out, see ``frames_with_pictures``.
        frames: ``"START:STOP:STEP"`` of the frames to use.
        data: how the dataset is read, see ``load_frames``.

    Raises:
        InputError: files missing, unreadable, of differing sizes or counts; depth of unclear or unknown kind, or
            none that lands in the box.
    """
    use_depth = depth_kind != "none"
    files = find_outputs(
        outputs_dir, transforms, frames, depth=use_depth, truth=ground_truth, data=data, depth_empty=depth_empty
    )
    held = held_out(files.dataset, holdout_every)
    truths = files.dataset.image_paths
    if ground_truth and not all(truths) and files.truths:
        files = replace(files, dataset=replace(files.dataset, image_paths=tuple(files.truths)))
    elif ground_truth and any(truths) and not all(truths):
        kept = frames_with_pictures(files.dataset, held, WITHOUT_TRUTH)
        files, held = files[kept], held[kept]
    dataset, size = files.dataset, working_size(files.cameras, width, files.renders[0])
    reader = DepthReader(files, box, DepthKind.parse(depth_kind)) if use_depth else None

    def views() -> Iterator[View]:
        loaded = late_bar(parallel_map(files.load, len(files)), "teacher's files", len(files), " view")
        for i, (picture, depth) in enumerate(loaded):
            yield picture_view(picture, size, background, *(reader.read(i, picture, depth) if reader else ()))

    planes = collect_views(views(), len(files))
    if reader:
        reader.check()
    return TeacherViews(
        cameras=files.cameras.resized(*size),
        names=dataset.names,
        **_with_counted(planes, dataset, size),
        background=None if files.has_alpha else background,
        ground_truth=load_ground_truth(dataset, size) if ground_truth else None,
        holdout=held,
        depth_report=reader.report if reader else None,
        depth_kind=reader.kind if reader else None,
    )


def views_from_images(
    transforms: str | Path,
    *,
    width: int | None,
    background: Color,
    holdout_every: int,
    frames: str | None = None,
    data: DataConfig | None = None,
    canvas: Size | None = None,
    box: SceneBox | None = None,
) -> TeacherViews:
    """The dataset's own images stand in for the teacher: the control arm. Arguments as ``views_from_outputs``.

    Frames whose images are not on disk are left out, see ``frames_with_pictures``.

    Args:
        canvas: see ``Frames.on_canvas``.

    Raises:
        InputError: no image is there, or one is unreadable, or has alpha where the first has none or the reverse; a
            file of ``data.depth`` is missing or does not fit.
    """
    dataset = chosen_frames(frames, load_frames(transforms, data=data).on_canvas(canvas))
    held = held_out(dataset, holdout_every)
    kept = frames_with_pictures(dataset, held)
    dataset, held = dataset[kept], held[kept]
    paths = dataset.image_paths
    native = (dataset.cameras.width, dataset.cameras.height)
    size = working_size(dataset.cameras, width, paths[0])
    has_alpha = shared_alpha(paths)
    has_depth = data is not None and data.depth is not None
    distance = distance_reader(data.depth, dataset, box) if has_depth else lambda i: None

    def read(i: int) -> np.ndarray:
        return check_picture(paths[i], read_picture(dataset, i), native, has_alpha)

    def view(i: int) -> View:
        return picture_view(read(i), size, background, distance=distance(i))

    def photograph(i: int, coverage: Tensor) -> View:
        return photograph_view(read(i), coverage, distance(i))

    def shows_silhouettes(rgb: LazyPlane) -> bool:
        return has_alpha or has_silhouettes(rgb, background, dataset)

    if data is not None and data.memory_gib is not None:
        budget = int(data.memory_gib * GIB * STORED_SHARE)
        fields = _images_a_part_at_a_time(view, photograph, shows_silhouettes, dataset, size, budget)
    else:
        needed = _IMAGE_BYTES + (4 if has_depth else 0)
        check_pictures_fit(size, len(paths), needed, "data.resolution", more="or set data.memory_gib")
        fields = _images_in_memory(view, photograph, shows_silhouettes, dataset, size)
    return TeacherViews(
        cameras=dataset.cameras.resized(*size),
        names=dataset.names,
        background=None if has_alpha else background,
        holdout=held,
        **fields,
    )


def _images_in_memory(
    view: Callable[[int], View],
    photograph: Callable[[int, Tensor], View],
    shows_silhouettes: Callable[[LazyPlane], bool],
    dataset: Frames,
    size: Size,
) -> dict[str, Any]:
    """Fields of ``TeacherViews`` that hold all images."""
    # A few tell, and looking for silhouettes in thousands of photographs takes longer than decoding them.
    silhouettes = shows_silhouettes(LazyPlane(lambda i: view(i).rgb, (len(dataset), size[1], size[0], 3)))
    covered = _all_covered(size)
    load = view if silhouettes else lambda i: photograph(i, covered)
    pictures = late_bar(parallel_map(load, len(dataset)), "pictures", len(dataset), " picture")
    fields = collect_views(pictures, len(dataset))
    truth = rgba_plane(fields["rgb"], fields["alpha"])
    return {**_with_counted(fields, dataset, size), "ground_truth": truth, "silhouettes": silhouettes}


def _all_covered(size: Size) -> Tensor:
    """(H, W) uint8 coverage of a photograph."""
    return torch.full((1, 1), 255, dtype=torch.uint8).expand(size[1], size[0])


def _images_a_part_at_a_time(
    view: Callable[[int], View],
    photograph: Callable[[int, Tensor], View],
    shows_silhouettes: Callable[[LazyPlane], bool],
    dataset: Frames,
    size: Size,
    budget: int,
) -> dict[str, Any]:
    """Fields of ``TeacherViews`` whose images are decoded when they are asked for, in so many bytes."""
    store = _picture_store(view, dataset, size, budget)
    fields = store.planes()
    silhouettes = shows_silhouettes(fields["rgb"])
    if not silhouettes:
        covered = _all_covered(size)
        store = _picture_store(lambda i: photograph(i, covered), dataset, size, budget)
        fields = {**store.planes(), "coverage": covered.expand(len(dataset), -1, -1)}
    return {**fields, "silhouettes": silhouettes, "store": store}


def _with_counted(fields: dict[str, Tensor | None], dataset: Frames, size: Size) -> dict[str, Tensor | None]:
    """The planes of pictures, and which of their pixels count: nothing says of others that they show no scene."""
    counted = counted_pixels(dataset, size)
    if counted is None:
        return fields
    counted = torch.from_numpy(counted)
    return {**fields, "coverage": torch.where(counted, fields["coverage"], 255), "counted": counted}


def _picture_store(view: Callable[[int], View], dataset: Frames, size: Size, budget: int) -> PictureStore:
    def picture(i: int) -> Picture:
        shown = view(i)
        if all_count(dataset):
            return Picture(shown)
        counted = torch.from_numpy(counted_of(dataset, i, size))
        return Picture(replace(shown, coverage=torch.where(counted, shown.coverage, 255)), counted)

    return PictureStore(picture, len(dataset), budget)


def _over(rgb: Tensor, alpha: Tensor, background: Color) -> Tensor:
    return rgb * alpha + (1 - alpha) * rgb.new_tensor(background)
