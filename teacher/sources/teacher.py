"""A teacher, whatever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scene.cameras import Cameras
from scene.pose_sampling import PoseSampler
from scene.rays import SceneBox
from settings.teacher import LiveConfig
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.views.sight import Sight
from teacher.views.teacher_views import TeacherViews


@dataclass
class Teacher:
    """What is distilled, and the box it is in.

    Attributes:
        views: what the student is measured on, and without ``poses`` also, but for the held-out ones, trained on.
        gaussians: the teacher's, where there is a PLY.
        poses: where views are rendered all through training; None where they are fixed.
        live: how they are, with ``poses``.
        images: the dataset's own images as a second source of rays, or None.
        stored_renders: the folder that the views' pictures were read from; None where they were made here.
        drawing: at which size the Gaussians are drawn; None where they are not.
        sight: what the views see, once somebody has asked, see ``teacher_sight``.
        stored_drawing: at which size the Gaussians were drawn in views that were read, once somebody has asked, see
            ``drawing_of``.
        finer: itself in wider pictures, from when they were tried until they are asked for, see ``finer_teacher``.
    """

    views: TeacherViews
    gaussians: Gaussians | None
    box: SceneBox
    poses: PoseSampler | None = None
    live: LiveConfig | None = None
    images: TeacherViews | None = None
    stored_renders: Path | None = None
    drawing: Drawing | None = None
    sight: Sight | None = None
    stored_drawing: Drawing | None = None
    finer: Teacher | None = None

    @property
    def training_cameras(self) -> Cameras:
        """The cameras that views are trained on, or that live ones are near to."""
        return self.views.cameras[~self.views.holdout] if self.poses is None else self.poses.cameras
