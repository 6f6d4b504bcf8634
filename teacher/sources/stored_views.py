"""``teacher.kind: views``: renders and depth that another program left on disk."""

from __future__ import annotations

from pathlib import Path

from scene.rays import SceneBox
from settings.config import Config
from teacher.gaussians import Gaussians
from teacher.sources.source import Asset, Source
from teacher.views.output_folder import OutputFiles, find_outputs
from teacher.views.teacher_views import TeacherViews, views_from_outputs


class StoredViews(Source):
    """Stored renders are the teacher; a PLY beside them, where there is one, bounds the scene."""

    kind = "views"

    def assets(self) -> list[Asset]:
        without = "Or do without: `--set teacher.ply=null` takes the first occupancy from the views."
        return [*self.dataset_assets(), self.outputs_asset(), self.ply_asset(without)]

    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        data = self.config.data
        return stored(self.config, box, self.config.teacher.depth_kind, holdout_every=data.holdout_every)

    def stored_renders(self) -> Path | None:
        return self.config.teacher.outputs

    def depth_files(self) -> OutputFiles:
        self.check()
        data = self.config.data
        return find_outputs(self.config.teacher.outputs, data.transforms, data.frames, depth=True, truth=False)


def stored(config: Config, box: SceneBox | None, depth_kind: str, holdout_every: int) -> TeacherViews:
    """The views of ``teacher.outputs``: see ``views_from_outputs``."""
    data, teacher = config.data, config.teacher
    return views_from_outputs(
        teacher.outputs,
        data.transforms,
        width=data.resolution,
        box=box,
        background=teacher.background_rgb,
        depth_kind=depth_kind,
        holdout_every=holdout_every,
        ground_truth=bool(data.ground_truth),
        frames=data.frames,
    )
