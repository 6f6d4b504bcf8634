"""``teacher.live``: Gaussians that go on being rendered from new poses while the student trains."""

from __future__ import annotations

from pathlib import Path

from scene.cameras import Cameras
from scene.formats import split_beside
from scene.pose_sampling import PoseSampler
from scene.rays import SceneBox
from teacher.gaussians import Gaussians
from teacher.sources.brick_scene import BrickScene
from teacher.sources.rasterized_gaussians import RasterizedGaussians
from teacher.sources.source import Asset, Source, rasterized, working_frames
from teacher.sources.stored_views import stored
from teacher.views.teacher_views import TeacherViews


class _LivePoses(Source):
    """New views near some cameras."""

    def near(self, views: TeacherViews) -> Cameras:
        """The cameras that new views are near to."""
        raise NotImplementedError

    def poses(self, views: TeacherViews) -> PoseSampler:
        live = self.config.live
        settings = {"own_share": live.own_share, "angle": live.angle, "distance": live.distance}
        return PoseSampler(self.near(views), seed=self.config.seed, **settings)


class LiveGaussians(_LivePoses, RasterizedGaussians):
    """A live PLY: trained near the training poses, measured on all of ``data.transforms``.

    What it is measured on are stored renders, where ``teacher.outputs`` names some, or renders made here.
    """

    def assets(self) -> list[Asset]:
        without = "Or do without: `--set teacher.outputs=null` measures against renders made here."
        return [*self.dataset_assets(), self.outputs_asset(without), self.ply_asset()]

    def training_poses(self) -> Path:
        data = self.config.data
        return data.train_transforms or split_beside(data.transforms, "train")

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        config, data = self.config, self.config.data
        if config.teacher.outputs is None:
            return rasterized(config, gaussians, data.transforms, data.frames, holdout_every=1)
        return stored(config, box, "none", holdout_every=1)

    def near(self, views: TeacherViews) -> Cameras:
        data = self.config.data
        return working_frames(self.training_poses(), data.train_frames, data.resolution)[1]

    def stored_renders(self) -> Path | None:
        return self.config.teacher.outputs


class LiveBricks(_LivePoses, BrickScene):
    """The built-in scene, live: trained near those of its cameras that are not held out."""

    def near(self, views: TeacherViews) -> Cameras:
        return views.cameras[~views.holdout]
