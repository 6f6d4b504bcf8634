"""The sources of what is on disk, one class for each ``teacher.kind``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from machine.terminal import late_word
from scene.cameras import Cameras
from scene.formats import load_frames, split_beside
from scene.formats.colmap_model import SparsePoints
from scene.formats.graphdeco import note_off_centre
from scene.formats.nerfstudio_json import note_dataparser
from scene.frames import Frames, Size, chosen_frames, refuse_leaks, shared_canvas
from scene.rays import SceneBox
from settings.config import Config
from settings.errors import InputError
from teacher.gaussians import Gaussians
from teacher.sources.assets import Asset, asset
from teacher.sources.box import box_of_gaussians, box_setting
from teacher.sources.drawn_views import named_orbit, rasterized, working_frames
from teacher.sources.orbit import Orbit, orbit_of_gaussians
from teacher.sources.source import Source
from teacher.sources.sparse_points import box_of_points, read_sparse_points
from teacher.views.joined_views import join_views
from teacher.views.output_folder import OutputFiles, find_outputs, shared_alpha
from teacher.views.teacher_views import TeacherViews, views_from_images, views_from_outputs

_log = logging.getLogger(__name__)


class StoredViews(Source):
    """Renders and depth that another program left on disk; a PLY beside them, where there is one, bounds the scene."""

    kind = "views"
    draws = False

    def assets(self) -> list[Asset]:
        without = "Or do without: `--set teacher.ply=null` takes the first occupancy from the views."
        return [*self.dataset_assets(), self.outputs_asset(), self.ply_asset(without)]

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        return _stored(self, box, self.config.teacher.depth_kind, self.config.data.holdout_every)

    def stored_renders(self) -> Path | None:
        return self.config.teacher.outputs

    def outlier_advice(self, gaussians: Gaussians) -> str:
        return "Delete them from the file, or --set teacher.ply=null, since the stored renders are teacher enough."

    def lacks_alpha(self) -> str | None:
        drawn = "--set teacher.kind=gaussians draws them here of teacher.ply, with alpha."
        without = (
            "Export them as RGBA (tools/export_teacher.py --rgba), or set teacher.ply and teacher.kind: gaussians."
        )
        return None if _have_alpha(self) else without if self.config.teacher.ply is None else drawn

    def depth_files(self) -> OutputFiles:
        self.check()
        data, teacher = self.config.data, self.config.teacher
        return find_outputs(
            teacher.outputs, data.transforms, data.frames, depth=True, truth=False, data=data,
            depth_empty=teacher.depth_empty,
        )  # fmt: skip


class RasterizedGaussians(Source):
    """A 3DGS PLY, rendered from the dataset's frames before training."""

    kind = "gaussians"

    def assets(self) -> list[Asset]:
        return [*self.dataset_assets(), self.ply_asset()]

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        return _of_splits(self, lambda *frames: self._rendered(gaussians, *frames))

    def outlier_advice(self, gaussians: Gaussians) -> str:
        config = self.config
        if config.teacher.clip or config.teacher.rasterizer == "gsplat":
            return super().outlier_advice(gaussians)
        box = f"--set {box_setting(box_of_gaussians(gaussians))} " if config.data.box == "auto" else ""
        return f"Delete them from the file, or {box}--set teacher.clip=true, which draws nothing outside of the box."

    def _rendered(
        self, gaussians: Gaussians, json: Path, frames: str | None, holdout_every: int, canvas: Size | None = None
    ) -> TeacherViews:
        """The Gaussians seen from some frames of a dataset, at the working size."""
        dataset, cameras = working_frames(json, frames, self.config.data, canvas)
        note_off_centre(dataset, self.config.teacher.ply)
        note_dataparser(self.config.teacher.ply, self.config.data)
        return rasterized(self, gaussians, cameras, dataset.names, holdout_every, dataset)


class OrbitedGaussians(RasterizedGaussians):
    """A 3DGS PLY alone, rendered from cameras that are found from its Gaussians: see ``orbit_of_gaussians``."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._orbit: Orbit | None = None

    def assets(self) -> list[Asset]:
        return [self.ply_asset()]

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        frames = self._frames(gaussians)
        return rasterized(self, gaussians, frames.cameras, frames.names, self.config.data.holdout_every)

    def frames(self, split: str | None = None) -> tuple[Frames, str]:
        if split is not None:
            raise InputError("--split", "split", split, "none, since data.transforms is null: there is no dataset")
        return self._frames(None if self._orbit else self.gaussians()), "the cameras found from the Gaussians"

    def _frames(self, gaussians: Gaussians | None) -> Frames:
        if self._orbit is None:
            config = self.config
            teacher, width = config.teacher, config.data.resolution
            with late_word(f"finding cameras for {len(gaussians):,} Gaussians"):
                self._orbit = orbit_of_gaussians(gaussians, teacher.orbit, teacher.frames, width, config.seed)
            _log.info("cameras found from the Gaussians: %s", self._orbit.words)
        return named_orbit(self._orbit.cameras, self.config.teacher.ply)


class DatasetImages(Source):
    """The dataset's own images stand in for a teacher, as the control arm of a claim.

    They know of no Gaussians, whatever else the config names.
    """

    kind = "images"
    uses_gaussians = False
    draws = False

    def assets(self) -> list[Asset]:
        depth = asset("data.depth", self.config.data.depth, Path.is_dir, "a folder of OpenEXR files")
        return [*self.dataset_assets(), depth]

    def trained_images(self) -> list[Path]:
        data = self.config.data
        return [json for json in (data.transforms, data.train_transforms) if json is not None]

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        data, background = self.config.data, self.config.teacher.background_rgb
        options = {"width": data.resolution, "background": background, "data": data, "box": box}

        def images(json: Path, frames: str | None, every: int, canvas: Size | None = None) -> TeacherViews:
            return views_from_images(json, holdout_every=every, frames=frames, canvas=canvas, **options)

        return _of_splits(self, images)

    def lacks_alpha(self) -> str | None:
        data = self.config.data
        paths = list(filter(None, chosen_frames(data.frames, load_frames(data.transforms, data=data)).image_paths))
        if not paths or shared_alpha(paths):  # whoever reads pictures says that there are none
            return None
        return "Only pictures with alpha can be put on another background."

    def box(self, gaussians: Gaussians | None, cameras: Cameras | None) -> tuple[SceneBox, str]:
        """Cameras that look at no one place, as those of a capture may, leave it to the dataset's points."""
        try:
            return super().box(gaussians, cameras)
        except InputError:
            points = self.sparse_points()
            if points is None:
                raise
            return box_of_points(points), "around most of the dataset's sparse points"

    def sparse_points(self) -> SparsePoints | Gaussians | None:
        """The sparse points of the frames that are trained on: see ``read_sparse_points``."""
        data = self.config.data
        frames = load_frames(self.training_poses() or data.transforms, data=data)
        return read_sparse_points(frames, data.offset)


class LiveGaussians(RasterizedGaussians):
    """A PLY that goes on being rendered while the student trains, near the training poses.

    Students are measured on all of ``data.transforms``, or on its frames that are held out where the dataset keeps no
    split for training apart: on stored renders, where ``teacher.outputs`` names some, or on renders made here.
    """

    def assets(self) -> list[Asset]:
        without = "Or do without: `--set teacher.outputs=null` measures against renders made here."
        return [*self.dataset_assets(), self.outputs_asset(without), self.ply_asset()]

    def training_poses(self) -> Path | None:
        data = self.config.data
        return data.train_transforms or split_beside(data.transforms, "train", data)

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        data = self.config.data
        every = data.holdout_every if self.training_poses() is None else 1
        if self.config.teacher.outputs is None:
            return self._rendered(gaussians, data.transforms, data.frames, holdout_every=every)
        return _stored(self, box, "none", holdout_every=every)

    def live_cameras(self, views: TeacherViews) -> Cameras:
        data, poses = self.config.data, self.training_poses()
        if poses is None:
            return super().live_cameras(views)
        cameras = working_frames(poses, data.train_frames, data)[1]
        refuse_leaks(poses, cameras, views.cameras[views.holdout])
        return cameras

    def stored_renders(self) -> Path | None:
        return self.config.teacher.outputs

    def lacks_alpha(self) -> str | None:
        drawn = "--set teacher.outputs=null measures against renders made here, with alpha."
        return None if self.config.teacher.outputs is None or _have_alpha(self) else drawn


def _have_alpha(source: Source) -> bool:
    """Whether stored renders have alpha."""
    data, teacher = source.config.data, source.config.teacher
    return find_outputs(teacher.outputs, data.transforms, data.frames, depth=False, truth=False, data=data).has_alpha


def _of_splits(source: Source, views_of: Callable[..., TeacherViews]) -> TeacherViews:
    """The views of the frames trained on, where they are others, and of those measured on.

    Args:
        views_of: the views of a JSON's frames, ``"START:STOP:STEP"`` of them, every k-th of these held out, on a canvas
            (see ``Frames.on_canvas``) where one is given.
    """
    data, poses = source.config.data, source.training_poses()
    if poses is None:
        return views_of(data.transforms, data.frames, data.holdout_every)
    trained, measured = (poses, data.train_frames, 0), (data.transforms, data.frames, 1)
    cameras = [chosen_frames(part, load_frames(json, data=data)).cameras for json, part, _ in (trained, measured)]
    refuse_leaks(poses, *cameras)
    canvas = shared_canvas(cameras, data.resolution)
    return join_views(views_of(*trained, canvas), views_of(*measured, canvas), poses)


def _stored(source: Source, box: SceneBox | None, depth_kind: str, holdout_every: int) -> TeacherViews:
    """The views of ``teacher.outputs``: see ``views_from_outputs``."""
    data, teacher = source.config.data, source.config.teacher
    return views_from_outputs(
        teacher.outputs,
        data.transforms,
        width=data.resolution,
        box=box,
        background=teacher.background_rgb,
        depth_kind=depth_kind,
        depth_empty=teacher.depth_empty,
        holdout_every=holdout_every,
        ground_truth=bool(data.ground_truth),
        frames=data.frames,
        data=data,
    )
