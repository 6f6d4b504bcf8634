"""The teacher's views as its Gaussians show them, drawn here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from machine.memory import GIB, check_pictures_fit
from machine.terminal import late_bar
from scene.cameras import Cameras, area_means
from scene.dataset_pictures import all_count, counted_of, counted_pixels
from scene.formats.dataset_format import note_once
from scene.frames import Frames, Size, held_out, holdout_mask
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing, Rasterizer
from teacher.views.lazy_pictures import Picture, PictureStore
from teacher.views.missing_pictures import WITHOUT_TRUTH, frames_with_pictures
from teacher.views.output_folder import ground_truth_reader, load_ground_truth
from teacher.views.rasterized import (
    DRAWN_BYTES,
    VIEW_BYTES,
    CollectedViews,
    View,
    collect_views,
    drawn_planes,
    render_view,
    view_of,
)
from teacher.views.teacher_views import STORED_SHARE, TRUTH_BYTES, TeacherViews


def views_from_gaussians(
    gaussians: Gaussians,
    cameras: Cameras,
    names: Sequence[str],
    *,
    drawing: Drawing | None = None,
    rasterizer: str = "auto",
    device: torch.device | None = None,
    holdout_every: int,
    dataset: Frames | None = None,
    ground_truth: bool = True,
    memory_gib: float | None = None,
    finer: int = 1,
) -> TeacherViews:
    """The teacher rasterised here, at the size of the cameras, so alpha and expected distance are exact.

    Args:
        names: N unique frame names.
        drawing, rasterizer, device: of the ``Rasterizer``, ``rasterizer`` its ``implementation``.
        dataset: the frames that the cameras are of, whose images are ground truth; None: there are none.
        ground_truth: load them, where there are any; a warning says that they are left out where the cameras are
            larger. Frames that have none among others that do are left out, see ``frames_with_pictures``.
        memory_gib: ``data.memory_gib``; views are then drawn when they are asked for. None: all are, once.
        finer: makes ``TeacherViews.finer``, so many times as wide, of what is drawn; the drawing's multiple is one of
            it. 1: does not.

    Raises:
        InputError: a ground-truth image is unreadable or of another shape; gsplat is chosen and cannot run; the views
            are more than the memory can hold.
    """
    renderer = Rasterizer(gaussians, rasterizer, device=device, drawing=drawing)
    size = (cameras.width, cameras.height)
    check_pictures_fit(size, 1, DRAWN_BYTES * renderer.drawing.multiple(size[0]) ** 2, "data.resolution")
    held = holdout_mask(len(cameras), holdout_every) if dataset is None else held_out(dataset, holdout_every)
    truths = _large_enough(dataset, size) if dataset is not None and ground_truth else None
    if truths is not None and any(truths.image_paths) and not all(truths.image_paths):
        kept = frames_with_pictures(truths, held, WITHOUT_TRUTH)
        cameras, names, held = cameras[kept], [names[index] for index in kept], held[kept]
        dataset = truths = truths[kept]
    common = {"cameras": cameras, "names": tuple(names), "background": None, "holdout": held}
    if memory_gib is not None:
        store = _drawn_store(renderer, cameras, dataset, truths, int(memory_gib * GIB * STORED_SHARE))
        return TeacherViews(**common, **store.planes(), store=store)
    has_truths = truths is not None and any(truths.image_paths)
    needed = VIEW_BYTES + (TRUTH_BYTES if has_truths else 0)
    check_pictures_fit(size, len(cameras), needed, "data.resolution", more="or set data.memory_gib")
    # Files first: one that is missing or damaged is told before views are drawn, which may take hours.
    counted = None if dataset is None else counted_pixels(dataset, size)
    truth = None if truths is None else load_ground_truth(truths, size)
    drawn = late_bar(range(len(cameras)), "teacher", unit=" view")
    trained, fine = (~held).nonzero()[:, 0], cameras.finer(finer)
    fine_views = CollectedViews(len(trained)) if finer > 1 and len(trained) else None

    def views() -> Iterator[View]:
        multiple = renderer.drawing.multiple(cameras.width)
        for i in drawn:
            planes = drawn_planes(renderer, cameras, i)
            if fine_views is not None and not held[i]:
                fine_views.add(view_of(area_means(planes, multiple // finer)))
            yield view_of(renderer.drawing.averaged(planes, cameras))

    fields = collect_views(views(), len(cameras))
    if fine_views is not None:
        own = {"cameras": fine[trained], "names": tuple(names[i] for i in trained.tolist()), "holdout": held[trained]}
        fields["finer"] = TeacherViews(**common | own, **fine_views.planes, ground_truth=None)
    counted = None if counted is None else torch.from_numpy(counted)
    return TeacherViews(**common, **fields, ground_truth=truth, counted=counted)


def _large_enough(dataset: Frames, size: Size) -> Frames | None:
    """The dataset, whose images can be ground truth at that size; None after a warning where they are smaller."""
    width = dataset.cameras.width
    if size[0] <= width or not any(dataset.image_paths):
        return dataset
    note_once(
        "warning",
        f"{dataset.source}: no ground truth: its images are {width} pixels wide, and {size[0]} are asked for "
        "(data.resolution). Figures are against the teacher alone, which is drawn at that size.",
    )
    return None


def _drawn_store(
    renderer: Rasterizer, cameras: Cameras, dataset: Frames | None, truths: Frames | None, budget: int
) -> PictureStore:
    """Views of Gaussians, with the images of ``truths``, where there are any, as ground truth."""
    size = (cameras.width, cameras.height)
    read = None if truths is None else ground_truth_reader(truths, size)
    masked = dataset is not None and not all_count(dataset)

    def picture(i: int) -> Picture:
        counted = torch.from_numpy(counted_of(dataset, i, size)) if masked else None
        # As all that is looked at: what gsplat has drawn is on the GPU.
        view = render_view(renderer, cameras, i).on_cpu()
        return Picture(view, counted, None if read is None else torch.from_numpy(read(i)))

    return PictureStore(picture, len(cameras), budget, drawn=True)
