"""``teacher.kind: images``: the dataset's own images stand in for a teacher, as the control arm of a claim."""

from __future__ import annotations

from pathlib import Path

from scene.rays import SceneBox
from teacher.gaussians import Gaussians
from teacher.sources.source import Asset, Source
from teacher.sources.two_splits import views_of_two_splits
from teacher.views.teacher_views import TeacherViews, views_from_images


class DatasetImages(Source):
    """The images of the dataset's frames. They know of no Gaussians, whatever else the config names."""

    kind = "images"
    uses_gaussians = False

    def assets(self) -> list[Asset]:
        return self.dataset_assets()

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        data, poses = self.config.data, self.training_poses()
        if poses is None:
            return self._images(data.transforms, data.frames, data.holdout_every)
        train = self._images(poses, data.train_frames, holdout_every=0)
        return views_of_two_splits(train, self._images(data.transforms, data.frames, holdout_every=1), poses)

    def _images(self, json: Path, frames: str | None, holdout_every: int) -> TeacherViews:
        width, background = self.config.data.resolution, self.config.teacher.background_rgb
        return views_from_images(json, width=width, background=background, holdout_every=holdout_every, frames=frames)
