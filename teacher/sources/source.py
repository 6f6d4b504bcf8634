"""What a source of teachers is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from machine.devices import choose_device
from machine.memory import GIB
from machine.terminal import late_word
from scene.cameras import Cameras
from scene.formats import load_frames, other_split, split_beside
from scene.formats.colmap_model import SparsePoints
from scene.frames import Frames, refuse_leaks
from scene.pose_sampling import PoseSampler
from scene.rays import SceneBox
from settings.config import Config
from settings.errors import InputError
from settings.teacher import LiveConfig
from teacher.gaussian_files import read_gaussians
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing, Rasterizer
from teacher.sources.assets import Asset, asset, asset_digests, check_there
from teacher.sources.box import box_of_gaussians, check_box_holds, outlier_words, scene_box
from teacher.sources.fitted_width import find_drawing
from teacher.sources.teacher import Teacher
from teacher.views.output_folder import OutputFiles
from teacher.views.rasterized import VIEW_BYTES
from teacher.views.teacher_views import STORED_SHARE, TeacherViews, views_from_images

_log = logging.getLogger(__name__)


class Source(ABC):
    """Where the teacher of a run comes from."""

    kind: ClassVar[str]
    """The value of ``teacher.kind``."""
    uses_gaussians: ClassVar[bool] = True
    """Whether the Gaussians of ``teacher.ply``, where it is set, are the teacher's."""
    draws: ClassVar[bool] = True
    """Whether views are drawn here from the Gaussians."""
    has_dataset: ClassVar[bool] = True
    """Whether frames are those of ``data.transforms``, which may have other splits."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.finer = 1
        """How many times as wide pictures of what is trained on will be asked for, where views are drawn."""
        self._drawing: Drawing | None = None
        self._drawn_as: Source | None = None

    # --- what it needs

    @abstractmethod
    def assets(self) -> list[Asset]:
        """What has to be there, in the order in which it is asked for."""

    def check(self) -> None:
        """Checks that the assets are there, and that nothing measured is trained on.

        Raises:
            InputError: one is missing, or is a folder where a file is needed or the reverse; the frames to train on are
                those that are held out.
        """
        check_there(self.assets())
        data, poses, images = self.config.data, self.training_poses(), self.image_poses()
        if poses is None:
            return
        for field, path in (("data.train_transforms", poses), ("data.ground_truth", images)):
            if path is not None and path.samefile(data.transforms):
                found, expected = "the file of data.transforms, all of which is held out", "another one"
                raise InputError(path, field, found, expected, "Set data.transforms to the poses to measure on.")

    def dataset_assets(self) -> list[Asset]:
        """The dataset's frames, of the sources that need them: those measured on, and others that are trained on."""
        split = "Name another split, or set data.ground_truth: true to train on the teacher alone."
        return [
            asset("data.transforms", self.config.data.transforms, Path.exists, "a transforms_*.json, or a capture"),
            asset("data.train_transforms", self.training_poses(), Path.exists, "the JSON of the training poses"),
            Asset("data.ground_truth", self.image_poses(), Path.exists, "the JSON of the split's images", split),
        ]

    def outputs_asset(self, otherwise: str = "") -> Asset:
        """The folder of stored renders, of the sources that use one."""
        expected = "a folder with renders/ and depth/"
        return asset("teacher.outputs", self.config.teacher.outputs, Path.is_dir, expected, otherwise)

    def ply_asset(self, otherwise: str = "") -> Asset:
        """The PLY, of the sources that use one."""
        return asset("teacher.ply", self.config.teacher.ply, Path.is_file, "a 3DGS point_cloud.ply", otherwise)

    def asset_digests(self) -> dict[str, str]:
        """A digest of the contents of each asset that shapes what is trained, by the setting that names it.

        Raises:
            InputError: a JSON whose images are trained on is damaged.
        """
        return asset_digests(self.config, self.assets(), self.trained_images())

    def trained_images(self) -> list[Path]:
        """The JSONs whose images are trained on."""
        images = self.image_poses()
        return [] if images is None else [images]

    # --- what it gives

    def load(self) -> Teacher:
        """Reads or makes the teacher.

        Raises:
            InputError: an asset is missing, damaged or does not fit the others.
        """
        gaussians = self.gaussians() if self.uses_gaussians else None
        configured = self.config.data.box != "auto"
        box = self.box(gaussians, None)[0] if configured or gaussians is not None else None
        bounded = self.config.far_field.kind == "none"
        if configured and gaussians is not None and bounded and not self.config.teacher.clip:
            check_box_holds(box, gaussians)
        # By the box the kind of stored depth is told, which is of the whole scene.
        views = self.views(gaussians, box if bounded or gaussians is None else box_of_gaussians(gaussians))
        if box is None or not (bounded or configured):
            box, words = self.box(gaussians, views.cameras)
            if not bounded:
                corners = " to ".join(str([round(value, 4) for value in corner]) for corner in (box.lower, box.upper))
                _log.info("scene box: %s, %s", words, corners)
        drawing = self.drawing(gaussians) if self.draws else None
        live, poses = self.live(views), None
        if live is not None:
            shares = {"own_share": live.own_share, "angle": live.angle, "distance": live.distance}
            poses = PoseSampler(self.live_cameras(views), seed=self.config.seed, **shares)
        return Teacher(views, gaussians, box, poses, live, self.images(views), self.stored_renders(), drawing)

    def gaussians(self) -> Gaussians | None:
        """The Gaussians that the config names, whether they teach or not; None where it names none.

        Raises:
            InputError: their file is missing or damaged.
        """
        ply = self.config.teacher.ply
        return None if ply is None else self.gaussians_in(ply)

    def gaussians_in(self, path: Path) -> Gaussians:
        """The Gaussians in a file of the teacher's world, as ``data.offset`` and ``teacher.scale`` have that world.

        Raises:
            InputError: the file is missing or damaged.
        """
        scale = self.config.teacher.scale
        with late_word(f"reading {path}"):
            gaussians = read_gaussians(path, self.config.data.offset)
        return gaussians if scale == 1 else gaussians.scaled(scale)

    def drawing(self, gaussians: Gaussians) -> Drawing:
        """At which size the Gaussians are drawn, found out once."""
        if self._drawing is None:
            other = self._drawn_as
            own = self._find_drawing(gaussians) if other is None else other.drawing(gaussians).as_for(other.width())
            self._drawing = own
        return self._drawing

    def _find_drawing(self, gaussians: Gaussians) -> Drawing:
        """At which size: see ``find_drawing``; and in which box."""
        found = find_drawing(self.config, gaussians)
        clip = self.box(gaussians, None)[0] if self.config.teacher.clip else None
        return replace(found, clip=clip)

    def draw_as(self, other: Source) -> None:
        """Has the Gaussians drawn as another source of them draws its views, which are of another size."""
        self._drawn_as = other

    def rasterizer(self, gaussians: Gaussians, *, as_in_views: bool = False) -> Rasterizer:
        """Draws Gaussians as ``drawing`` says, on the run's device, by what ``teacher.rasterizer`` names.

        Args:
            as_in_views: as the views show them in pictures of any size, see ``Drawing.as_for``: for a
                teacher that is looked at beside its student.
        """
        drawing = self.drawing(gaussians)
        if as_in_views and drawing.fitted_width is None:
            with suppress(InputError):  # the dataset, which tells how wide the views were, may be gone
                drawing = drawing.as_for(self.width())
        device = choose_device(self.config)
        return Rasterizer(gaussians, self.config.teacher.rasterizer, device=device, drawing=drawing)

    def box(self, gaussians: Gaussians | None, cameras: Cameras | None) -> tuple[SceneBox, str]:
        """The scene box, and in words where it is from: see ``scene_box``."""
        return scene_box(self.config, gaussians, cameras)

    @abstractmethod
    def views(self, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
        """What the student is measured on, and trained on unless poses say otherwise.

        Args:
            box: the scene box, where it is known before.

        Raises:
            InputError: a file is missing or damaged, or does not fit the others.
        """

    def live(self, views: TeacherViews) -> LiveConfig | None:
        """How views are rendered all through training; None where they are fixed.

        Those of Gaussians that are more than ``data.memory_gib`` holds are rendered anew again and again, as they are.
        """
        data, drawn = self.config.data, views.store is not None and views.store.drawn
        if self.config.live or not drawn:
            return self.config.live
        pixels = views.cameras.width * views.cameras.height
        held = int(data.memory_gib * GIB * (1 - STORED_SHARE)) // (VIEW_BYTES * pixels)
        kept = max(2, min(held, int((~views.holdout).sum())))
        return LiveConfig(buffer=kept, own_share=1.0)

    def live_cameras(self, views: TeacherViews) -> Cameras:
        """Those near which live views are rendered: of the views' those that are not held out."""
        return views.cameras[~views.holdout]

    def images(self, views: TeacherViews) -> TeacherViews | None:
        """The dataset's own images that are a second source of rays; None where the config wants none.

        Of the frames that are measured on, only those that are not held out are trained on.

        Args:
            views: the teacher's, which say what is held out. Images from their cameras get their distances.

        Raises:
            InputError: an image is missing or damaged, or of a pose that is held out.
        """
        data, path = self.config.data, self.image_poses()
        if path is None:
            return None
        measured = path.samefile(data.transforms)
        images = views_from_images(
            path,
            width=data.resolution,
            background=self.config.teacher.background_rgb,
            holdout_every=data.holdout_every if measured else 0,
            frames=data.frames if measured else data.train_frames,
            data=data,
        )
        if not measured:
            refuse_leaks(path, images.cameras, views.cameras[views.holdout])
        return images.with_distance_of(views)

    def stored_renders(self) -> Path | None:
        """The folder that the views' pictures are read from; None where they are made here."""
        return None

    def outlier_note(self, gaussians: Gaussians | None) -> str:
        """What is to be said of Gaussians far too wide or far away where pictures are not what they should be, with
        what to do; empty: none are.
        """
        if gaussians is None or not (words := outlier_words(gaussians)):
            return ""
        return f"{words}, may hide what is to be seen. {self.outlier_advice(gaussians)}"

    def outlier_advice(self, gaussians: Gaussians) -> str:
        """How to do without them."""
        return "Delete them from the file."

    def lacks_alpha(self) -> str | None:
        """Where the views have no alpha, and so are on one background alone: what could be done. None: they have it.

        Told by the headers of the pictures; views that are drawn here have it.

        Raises:
            InputError: a picture is missing or damaged, or they differ in it.
        """
        return None

    def sparse_points(self) -> SparsePoints | Gaussians | None:
        """The dataset's sparse points, of the sources that use them: see ``read_sparse_points``."""
        return None

    def depth_files(self) -> OutputFiles:
        """The teacher's depth on disk.

        Raises:
            InputError: it has none, or the files are missing or damaged.
        """
        hint = "Other teachers have no depth files: theirs is exact, or there is none."
        raise InputError("config", "teacher.kind", self.kind, "views", hint)

    # --- its frames

    def frames(self, split: str | None = None) -> tuple[Frames, str]:
        """The dataset's cameras at its own size, or those of another split, and where they are from.

        Raises:
            InputError: there are none, or the file is missing or damaged.
        """
        transforms = self.config.data.transforms
        if transforms is None:
            hint = "Set it, or name cameras with a command's --path, if it has one."
            raise InputError("config", "data.transforms", "nothing", "a transforms_*.json", hint)
        if split is None:
            return load_frames(transforms, data=self.config.data), str(transforms)
        beside = other_split(transforms, split)
        if beside is None:
            expected = "a name like transforms_test.json, whose other splits lie beside it"
            raise InputError("--split", "data.transforms", transforms.name, expected, "Use --path FILE.")
        return load_frames(beside, data=self.config.data), str(beside)

    def width(self) -> int:
        """That of the views, pixels."""
        return self.config.data.resolution or self.frames()[0].cameras.width

    def focal(self) -> float | None:
        """Horizontal focal length of the median frame, in widths of its picture; None: the dataset is gone."""
        with suppress(InputError):
            cameras = self.frames()[0].cameras
            return (cameras.fx / cameras.width).median().item()
        return None

    def training_poses(self) -> Path | None:
        """The frames that are trained on; None: a share of those that are measured on."""
        return self.config.data.train_transforms

    def image_poses(self) -> Path | None:
        """The frames whose images are a second source of rays; None: there is none."""
        split, data = self.config.image_split, self.config.data
        if split is None:
            return None
        beside = split_beside(data.transforms, split, data)
        if beside is None and split != "train":
            expected = "train: all frames that are not held out, since the dataset keeps no splits apart"
            raise InputError("config", "data.ground_truth.split", split, expected)
        return beside or data.transforms
