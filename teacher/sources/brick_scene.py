"""``teacher.kind: bricks``: the built-in scene, from cameras around it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from machine.devices import choose_device
from scene.cameras import Cameras
from scene.frames import Frames
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.bricks.scene import BRICKS_BOX, build_bricks, orbit_cameras
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.gaussians import Gaussians
from teacher.sources.source import Asset, Source
from teacher.views.teacher_views import TeacherViews, views_from_gaussians


class BrickScene(Source):
    """Needs nothing on disk."""

    kind = "bricks"

    def assets(self) -> list[Asset]:
        return []

    def gaussians(self) -> Gaussians:
        """The scene by way of a file, so that it takes the same path as a user's own."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "point_cloud.ply"
            write_ply(path, build_bricks(self.config.seed))
            return read_ply(path)

    def box(self, gaussians: Gaussians | None, cameras: Cameras | None) -> tuple[SceneBox, str]:
        if self.config.data.box != "auto":
            return super().box(gaussians, cameras)
        return BRICKS_BOX, "the built-in scene's"

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        config, (frames, _) = self.config, self.frames()
        return views_from_gaussians(
            gaussians,
            frames.cameras,
            frames.names,
            supersample=config.teacher.supersample,
            rasterizer=config.teacher.rasterizer,
            device=choose_device(config),
            holdout_every=config.data.holdout_every,
        )

    def frames(self, split: str | None = None) -> tuple[Frames, str]:
        if split is not None:
            raise InputError("--split", "split", split, "none, since teacher.kind is bricks: it has no dataset")
        size = self.config.data.resolution
        cameras = orbit_cameras(self.config.teacher.frames, size, size, self.config.seed)
        names = tuple(f"orbit_{index:03d}" for index in range(len(cameras)))
        source = "the built-in scene's cameras"
        return Frames(cameras, names, (None,) * len(cameras), Path(source)), source

    def training_frames(self) -> tuple[Cameras, str]:
        frames, source = self.frames()
        return frames.cameras, source
