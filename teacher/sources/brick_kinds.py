"""The sources that need nothing on disk: the built-in scene, that in a room, and the city."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scene.cameras import Cameras
from scene.formats import load_frames
from scene.frames import Frames
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.bricks.city import City
from teacher.bricks.city_cameras import city_cameras
from teacher.bricks.room import ROOM_DRAWING, room_capture
from teacher.bricks.scene import BRICKS_BOX, build_bricks, orbit_cameras
from teacher.gaussian_files.ply import read_ply, write_ply, write_ply_parts
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.sources.assets import Asset
from teacher.sources.drawn_views import named_orbit, rasterized, working_frames
from teacher.sources.source import Source
from teacher.sources.source_kinds import RasterizedGaussians
from teacher.views.teacher_views import TeacherViews


class BrickScene(Source):
    """The built-in scene, from cameras around it. Needs nothing on disk."""

    kind = "bricks"
    has_dataset = False

    def assets(self) -> list[Asset]:
        return []

    def gaussians(self) -> Gaussians:
        """The scene by way of a file, so that it takes the same path as a user's own."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "point_cloud.ply"
            write_ply(path, build_bricks(self.config.seed))
            return read_ply(path)

    def _find_drawing(self, gaussians: Gaussians) -> Drawing:
        """Made by hand, not fitted: widened at every size, unless the config says otherwise."""
        return Drawing(self.config.teacher.fitted_width, self.config.teacher.supersample)

    def box(self, gaussians: Gaussians | None, cameras: Cameras | None) -> tuple[SceneBox, str]:
        if self.config.data.box != "auto":
            return super().box(gaussians, cameras)
        return self._own_box(), "the built-in scene's"

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        frames, _ = self.frames()
        return rasterized(self, gaussians, frames.cameras, frames.names, self.config.data.holdout_every)

    def frames(self, split: str | None = None) -> tuple[Frames, str]:
        self._refuse_split(split)
        size = self.config.data.resolution
        cameras = orbit_cameras(self.config.teacher.frames, size, size, self.config.seed)
        source = "the built-in scene's cameras"
        return named_orbit(cameras, Path(source)), source

    def _refuse_split(self, split: str | None) -> None:
        """InputError where a split is asked for."""
        if split is not None:
            expected = f"none, since teacher.kind is {self.kind}: it has no dataset"
            raise InputError("--split", "split", split, expected)

    def _own_box(self) -> SceneBox:
        return BRICKS_BOX


class ProceduralCity(BrickScene):
    """The built-in city, from cameras over it and in its streets: see ``City``."""

    kind = "city"

    def gaussians(self) -> Gaussians:
        """All of it in memory; ``tools/make_city.py`` writes one that is too large for that."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "point_cloud.ply"
            write_ply_parts(path, self._city().parts())
            return read_ply(path)

    def frames(self, split: str | None = None) -> tuple[Frames, str]:
        self._refuse_split(split)
        size = self.config.data.resolution
        cameras, names = city_cameras(self._city(), self.config.teacher.frames, size, size)
        source = "the built-in city's cameras"
        return Frames(cameras, names, (None,) * len(names), Path(source)), source

    def _own_box(self) -> SceneBox:
        return self._city().box

    def _city(self) -> City:
        city = self.config.teacher.city
        return City(city.lots, self.config.seed, city.spacing)


class BrickRoom(RasterizedGaussians):
    """The built-in scene in a room, written as a capture and read back as a user's own: see ``room_capture``."""

    kind = "room"
    has_dataset = False

    def assets(self) -> list[Asset]:
        return []

    def gaussians(self) -> Gaussians:
        return read_ply(self._capture() / "point_cloud.ply")

    def _find_drawing(self, gaussians: Gaussians) -> Drawing:
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

    def _capture(self) -> Path:
        config = self.config
        return room_capture(config.data.resolution, config.teacher.frames, config.seed)
