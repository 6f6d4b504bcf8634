"""``teacher.kind: gaussians``: a 3DGS PLY, rendered here."""

from __future__ import annotations

from scene.rays import SceneBox
from teacher.gaussians import Gaussians
from teacher.sources.source import Asset, Source, rasterized
from teacher.sources.two_splits import views_of_two_splits
from teacher.views.teacher_views import TeacherViews


class RasterizedGaussians(Source):
    """Views of the PLY from the dataset's frames, before training."""

    kind = "gaussians"

    def assets(self) -> list[Asset]:
        return [*self.dataset_assets(), self.ply_asset()]

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        config, data, poses = self.config, self.config.data, self.training_poses()
        if poses is None:
            return rasterized(config, gaussians, data.transforms, data.frames, data.holdout_every)
        train = rasterized(config, gaussians, poses, data.train_frames, holdout_every=0)
        measured = rasterized(config, gaussians, data.transforms, data.frames, holdout_every=1)
        return views_of_two_splits(train, measured, poses)
