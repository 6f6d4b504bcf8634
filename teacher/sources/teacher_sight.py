"""What a run's teacher sees, by which its student is sampled."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from scene.cameras import Cameras, join_cameras
from scene.cells import CellGrid
from scene.formats.dataset_format import note_once
from settings.config import Config
from settings.errors import InputError
from teacher.rasterizer import Drawing, Rasterizer
from teacher.sources.fitted_width import find_drawing
from teacher.sources.occupied_cells import cells_of_gaussians, opacity_scale
from teacher.sources.teacher import Teacher
from teacher.views.sight import Sight, sight_of_depth, sight_of_gaussians


def teacher_sight(config: Config, teacher: Teacher, grid: CellGrid) -> Sight | None:
    """What the views and images that are trained on see, made once for each teacher; None: rays are not guided by it.

    Of a live teacher it is what its training poses and its first views see, and no reach is kept: the views to come
    bring theirs. So do pictures with distances of which a few at a time are in memory; others of these have none.

    Args:
        grid: the cells that are asked about.

    Raises:
        InputError: ``render.sampling`` wants guidance that the teacher cannot give.
    """
    if config.render.sampling == "occupancy":
        return None
    if teacher.sight is None:
        teacher.sight = _look(config, teacher, grid)
    if teacher.sight is None and config.render.sampling == "teacher":
        expected = "a teacher with Gaussians or distances to guide rays by"
        raise InputError("config", "render.sampling", "teacher", expected, "Set it to occupancy, or to auto.")
    return teacher.sight


def drawing_of(config: Config, teacher: Teacher) -> Drawing:
    """At which size a teacher's Gaussians are drawn in its views, found out once where none are drawn here.

    Stored renders were drawn at some width too: at another one Gaussians would hide, or leave out, what these show.
    """
    if teacher.drawing is not None:
        return teacher.drawing
    if teacher.stored_drawing is None:
        teacher.stored_drawing = find_drawing(config, teacher.gaussians)
    return teacher.stored_drawing


def _look(config: Config, teacher: Teacher, grid: CellGrid) -> Sight | None:
    views, live = teacher.views, teacher.poses is not None
    if teacher.gaussians is None:
        frames = views.training_frames.tolist()
        if views.distance is not None and views.store is not None:
            return Sight(cells=None, reach=None)
        return None if views.distance is None else sight_of_depth(views, frames, grid)
    drawing = drawing_of(config, teacher)
    if (seen := _seen_in_finer(config, teacher, grid, drawing)) is not None:
        return seen
    rasterizer = Rasterizer(teacher.gaussians, "cpu", threads=1, drawing=drawing)
    cameras = teacher.training_cameras.to(torch.device("cpu"))
    least = config.occupancy.least_weight * opacity_scale(teacher.gaussians)
    sight = sight_of_gaussians(rasterizer, _with_first(cameras, teacher), grid, least, keep_reach=not live)
    if drawing.clip is not None:  # what is in the box of Gaussians that straddle its faces may be seen anywhere
        cells = cells_of_gaussians(teacher.gaussians[rasterizer.straddles], grid)
        sight = replace(sight, cells=torch.maximum(sight.cells, cells))
    if teacher.images is None:
        return sight
    if teacher.images.store is not None:
        if teacher.images.distance is None:
            note_once(
                "info",
                "the images' rays are not ended behind what the teacher shows there: a few of them are in memory at a "
                "time (data.memory_gib), and none brings distances (data.depth)",
            )
        return sight
    of_images = teacher.images.cameras[~teacher.images.holdout].to(torch.device("cpu"))
    if not live and of_images.same_as(cameras):  # as in a capture
        return replace(sight, image_reach=sight.reach)
    images = sight_of_gaussians(rasterizer, of_images, grid, least)
    return Sight(torch.maximum(sight.cells, images.cells), sight.reach, images.reach)


def _seen_in_finer(config: Config, teacher: Teacher, grid: CellGrid, drawing: Drawing) -> Sight | None:
    """What the teacher sees by what it sees in wider pictures, which will be asked for too; None: there are no such
    pictures, or its Gaussians are drawn at another size for them.
    """
    finer = teacher.finer
    if finer is None or teacher.poses is not None:
        return None
    finer.stored_drawing, scale = teacher.stored_drawing, finer.views.cameras.width // teacher.views.cameras.width
    other = drawing_of(config, finer)
    own, others = _looked_from(teacher, drawing), _looked_from(finer, other)
    width = own[0].width
    if not all(map(Cameras.same_as, own, others)) or other.dilation(width) != drawing.dilation(width):
        return None
    sight = teacher_sight(config, finer, grid)

    def coarser(reach: Tensor | None) -> Tensor | None:
        if reach is None:
            return None
        return torch.stack([F.max_pool2d(view.float()[None], scale)[0].half() for view in reach])

    reach = coarser(sight.reach)
    return Sight(sight.cells, reach, reach if sight.image_reach is sight.reach else coarser(sight.image_reach))


def _looked_from(teacher: Teacher, drawing: Drawing) -> list[Cameras]:
    """The cameras that are trained on, of views and of images, at the size that Gaussians are drawn at."""
    images = teacher.images
    cameras = [teacher.training_cameras, *([] if images is None else [images.cameras[~images.holdout]])]
    return [drawing.fine(each).to(torch.device("cpu")) for each in cameras]


def _with_first(cameras: Cameras, teacher: Teacher) -> Cameras:
    """The training cameras, and the first ones of a live teacher."""
    if teacher.live is None or teacher.live.own_share == 1:
        return cameras
    return join_cameras(cameras, *(teacher.poses.camera(index) for index in range(teacher.live.buffer)))
