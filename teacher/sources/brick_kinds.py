"""The sources that need nothing on disk: the built-in scene, and that in a room."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scene.cameras import Cameras
from scene.formats import load_frames
from scene.frames import Frames
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.bricks.room import ROOM_DRAWING, room_capture
from teacher.bricks.scene import BRICKS_BOX, build_bricks, orbit_cameras
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.sources.drawn_views import named_orbit, rasterized, working_frames
from teacher.sources.source import Asset, Source
from teacher.sources.source_kinds import RasterizedGaussians
from teacher.views.teacher_views import TeacherViews


class BrickScene(Source):
    """The built-in scene, from cameras around it. Needs nothing on disk."""

    kind = "bricks"

    def assets(self) -> list[Asset]:
        return []

    def gaussians(self) -> Gaussians:
        """The scene by way of a file, so that it takes the same path as a user's own."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "point_cloud.ply"
            write_ply(path, build_bricks(self.config.seed))
            return read_ply(path)

    def drawing(self, gaussians: Gaussians) -> Drawing:
        """Made by hand, not fitted: widened at every size, unless the config says otherwise."""
        return Drawing(self.config.teacher.fitted_width, self.config.teacher.supersample)

    def box(self, gaussians: Gaussians | None, cameras: Cameras | None) -> tuple[SceneBox, str]:
        if self.config.data.box != "auto":
            return super().box(gaussians, cameras)
        return BRICKS_BOX, "the built-in scene's"

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        frames, _ = self.frames()
        return rasterized(self, gaussians, frames.cameras, frames.names, self.config.data.holdout_every)

    def frames(self, split: str | None = None) -> tuple[Frames, str]:
        if split is not None:
            raise InputError("--split", "split", split, "none, since teacher.kind is bricks: it has no dataset")
        size = self.config.data.resolution
        cameras = orbit_cameras(self.config.teacher.frames, size, size, self.config.seed)
        source = "the built-in scene's cameras"
        return named_orbit(cameras, Path(source)), source

    def training_frames(self) -> tuple[Cameras, str]:
        frames, source = self.frames()
        return frames.cameras, source


class BrickRoom(RasterizedGaussians):
    """The built-in scene in a room, written as a capture and read back as a user's own: see ``room_capture``."""

    kind = "room"

    def assets(self) -> list[Asset]:
        return []

    def gaussians(self) -> Gaussians:
        return read_ply(self._capture() / "point_cloud.ply")

    def drawing(self, gaussians: Gaussians) -> Drawing:
        """As the pictures were, unless the config says otherwise."""
        own = Drawing(self.config.teacher.fitted_width, self.config.teacher.supersample)
        return ROOM_DRAWING if own == Drawing() else own

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        data = self.config.data
        dataset, cameras = working_frames(self._capture(), data.frames, data)
        return rasterized(self, gaussians, cameras, dataset.names, data.holdout_every, dataset)

    def frames(self, split: str | None = None) -> tuple[Frames, str]:
        if split is not None:
            raise InputError("--split", "split", split, "none, since teacher.kind is room: it has no other frames")
        return load_frames(self._capture(), data=self.config.data), "the built-in capture"

    def training_frames(self) -> tuple[Cameras, str]:
        frames, source = self.frames()
        return frames.cameras, source

    def _capture(self) -> Path:
        config = self.config
        return room_capture(config.data.resolution, config.teacher.frames, config.seed)
