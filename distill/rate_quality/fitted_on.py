"""A teacher with fewer Gaussians: pruned, lowered in SH degree, and fitted on to what a student was taught by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from machine.interrupts import Stopped
from machine.run_folder import RunFolder
from settings.config import Config
from settings.errors import InputError
from settings.words import counted
from teacher.export.pruning import contribution
from teacher.fitting.backends import fitting_device
from teacher.fitting.fit import TeacherFit, scene_extent
from teacher.fitting.picture_levels import MixedPictures, Pictures
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.sources import Source, Teacher


@dataclass(frozen=True)
class PrunedTeacher:
    """A teacher's Gaussians with fewer of them.

    Attributes:
        config: of the student that was taught by it.
        source: which draws them, as ``drawing`` says.
        teacher: whose training views say what each Gaussian contributes.
        taught: the same in pictures as fine as the student was taught by.
    """

    config: Config
    source: Source
    drawing: Drawing
    teacher: Teacher
    taught: Teacher

    def check(self) -> None:
        """Raises ``InputError`` where Gaussians cannot be fitted on to what the student was taught by."""
        views, images = self.taught.views, self.taught.images
        if views.holdout.all():
            found = f"all {len(views)} views held out, as those of a live teacher are"
            hint = "Set teacher.live=false, and data.train_transforms=null."
            raise InputError("config", "teacher.live", found, "some to prune Gaussians by and to fit them on to", hint)
        if images is not None:
            sizes = [f"{each.cameras.width}x{each.cameras.height}" for each in (images, views)]
            if sizes[0] != sizes[1]:
                found, expected = f"images of {sizes[0]}", f"{sizes[1]}, as the teacher's views"
                hint = "Set data.resolution, or data.ground_truth=null to fit Gaussians on to the views alone."
                raise InputError("config", "data.ground_truth", found, expected, hint)

    def pruned(self, kept: float) -> Gaussians:
        """The share of the Gaussians that contributes most to the training views."""
        whole = self.teacher.gaussians
        return whole[self._contribution.argsort(descending=True)[: max(1, round(kept * len(whole)))].sort().values]

    @cached_property
    def _contribution(self) -> Tensor:
        """(N,) blending weight over the training views, pixels."""
        views, gaussians = self.teacher.views, self.teacher.gaussians
        cameras = views.cameras[views.training_frames]
        drawn_by = self.source.rasterizer(gaussians)
        return contribution(drawn_by, len(gaussians), self.drawing.fine(cameras)).total

    def fitted(
        self, kept: float, degree: int, seconds: float | None, steps: int | None, folder: RunFolder
    ) -> tuple[Gaussians, str]:
        """Pruned Gaussians fitted on, none added and none taken away, and how long.

        Args:
            seconds, steps: how long at most; None: as ``compact`` and ``train`` say, and as ``fitting`` does.

        Raises:
            Stopped: a signal.
        """
        config, start = self.config, self.pruned(kept)
        alike = {"max_gaussians": len(start), "grow_until": 0.0, "prune_until": 0.0, "coarse_levels": 0}
        alike |= {"sh_degree": degree, "sh_degree_every": 0.0, "checkpoint_every": None, "checkpoint_minutes": None}
        alike |= {"max_seconds": seconds_of(config) if seconds is None else seconds}
        settings = config.fitting.model_copy(update=alike | ({} if steps is None else {"max_steps": steps}))
        pictures = Pictures(self.taught.views, 0)
        extent = scene_extent(pictures.cameras(0), self.teacher.box)
        if self.taught.images is not None:
            images = Pictures(self.taught.images, 0)
            pictures = MixedPictures(pictures, images, config.data.ground_truth.weight)
        background = config.render.background_rgb
        device, drawing = fitting_device(config), self.taught.drawing or self.drawing
        fit = TeacherFit(settings, pictures, start, extent, background, config.seed, device, drawing)
        fit.run(folder, lambda fit: None)
        if fit.stopped_by is not None:
            raise Stopped(fit.stopped_by)
        return fit.model.snapshot(), f"fitted on for {counted(fit.progress.step, 'step')}"


def seconds_of(config: Config) -> float | None:
    """What a student gets for training and compression; None where steps alone end training."""
    limit = config.train.max_seconds
    return None if limit is None else limit + config.compact.seconds
