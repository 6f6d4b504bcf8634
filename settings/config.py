"""What a config may say: names, types, ranges, units, defaults. The tables in docs/config.md are made from it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from settings.city import BlocksConfig
from settings.compact import CompactConfig
from settings.data import DataConfig, GroundTruthConfig
from settings.evaluation import EvalConfig, LoggingConfig
from settings.far_field import FarFieldConfig
from settings.fitting import FittingConfig
from settings.kinds import STUDENT_KINDS, StudentSection
from settings.losses import FeatureConfig, LossConfig
from settings.rendering import OccupancyConfig, RenderConfig
from settings.sections import Device, FolderName, Section, Tag, problem
from settings.teacher import BUILT_IN, LiveConfig, TeacherConfig
from settings.training import TrainConfig


class Config(Section):
    """One run: what is distilled, into what, how, and how it is measured."""

    scene: FolderName = Field(description="folder of the scene under `results/` and `logs/`")
    run: FolderName = Field(description="folder of the run under the scene's")
    tag: Tag = Field("", description="suffix of the evaluation CSV: `eval_step_020000_<tag>.csv`")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of every random number")
    device: Device = Field("auto", description="where to compute; auto: CUDA if there is any")
    kernels: Literal["auto", "torch", "numba", "triton", "tinycudann"] = Field(
        "auto",
        description="implementation of the numeric kernels; auto: the fastest on the device, torch: the reference, "
        "numba: for the CPU, triton: for CUDA, tinycudann: its hash encoding on CUDA, the others as with auto",
    )
    data: DataConfig = Field(DataConfig(), description="cameras and images")
    teacher: TeacherConfig = Field(description="what is distilled")
    student: StudentSection = Field(default_factory=STUDENT_KINDS.make_default, description="what it is distilled into")
    occupancy: OccupancyConfig = Field(OccupancyConfig(), description="empty-space skipping")
    far_field: FarFieldConfig = Field(FarFieldConfig(), description="what is outside the scene box")
    render: RenderConfig = Field(RenderConfig(), description="sampling and compositing")
    loss: LossConfig = Field(LossConfig(), description="what training minimises")
    features: FeatureConfig = Field(
        FeatureConfig(), description="the teacher's internal features, for the losses on them"
    )
    train: TrainConfig = Field(TrainConfig(), description="the optimisation")
    compact: CompactConfig = Field(CompactConfig(), description="a small file of the student (tools/compress.py)")
    city: BlocksConfig = Field(BlocksConfig(), description="blocks of a large scene (tools/distill_city.py)")
    fitting: FittingConfig = Field(
        FittingConfig(),
        description="fitting Gaussians to images (tools/train_teacher.py), or to a teacher's views "
        "(tools/rate_quality.py)",
    )
    eval: EvalConfig = Field(EvalConfig(), description="what is measured")
    logging: LoggingConfig = Field(LoggingConfig(), description="what a run tells beside its CSVs")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        kind = self.teacher.kind
        needed = {"views": "data.transforms teacher.outputs", "images": "data.transforms"}
        needed |= {"gaussians": "teacher.ply", **dict.fromkeys(BUILT_IN, "data.resolution")}
        for field in needed.get(kind, "").split():
            section, name = field.split(".")
            if getattr(getattr(self, section), name) is None:
                raise problem(field, "nothing", f"a value, since teacher.kind is {kind}", f"Set {field}.")
        if self.finds_cameras and self.data.resolution is None:
            hint = "Set data.transforms to have the dataset's cameras, or data.resolution to have some found."
            raise problem("data.transforms", "nothing", "a value, since data.resolution is null too", hint)
        if self.data.depth is not None and kind != "images":
            hint = "Other teachers have depth of their own."
            raise problem("data.depth", self.data.depth, f"null, since teacher.kind is {kind}", hint)
        if self.teacher.scale != 1 and self.teacher.ply is None:
            raise problem("teacher.scale", self.teacher.scale, "1, since teacher.ply is null")
        if self.teacher.scale != 1 and self.data.offset is not None:
            raise problem("teacher.scale", self.teacher.scale, "1, since data.offset is of the world as it is stored")
        has_no_depth = kind == "images" and self.data.depth is None
        if self.loss.depth.weight > 0 and (has_no_depth or self.teacher.depth_kind == "none"):
            why = "teacher.kind is images" if has_no_depth else "teacher.depth_kind is none"
            raise problem(
                "loss.depth.weight", self.loss.depth.weight, f"0, since {why}: there is no depth to learn from"
            )
        self._check_clip()
        self._check_training_views()
        self._check_features()
        if not self.trains_on_other_poses and self.data.holdout_every == 0 and self.eval.splits == ("holdout",):
            raise problem("eval.splits", ["holdout"], "train among them, since data.holdout_every is 0")
        if self.eval.reference == "ground_truth" and not self.data.ground_truth:
            raise problem("eval.reference", "ground_truth", "another, since data.ground_truth is false")
        if self.compact.target_mib is not None and self.far_field.kind != "none":
            hint = "A compact file holds what is in the scene box alone."
            raise problem("compact.target_mib", self.compact.target_mib, "null, since there is a far field", hint)
        return self

    @property
    def live(self) -> LiveConfig | None:
        """How the teacher goes on rendering; None where its views are fixed."""
        live = self.teacher.live
        return LiveConfig() if live is True else live or None

    @property
    def taught_by_images(self) -> bool:
        """Whether the dataset's images are the teacher: what is measured against it is then against ground truth."""
        return self.teacher.kind == "images"

    @property
    def renders_in_training(self) -> bool:
        """Whether views are rendered all through training: new ones, or those that memory has no room for."""
        drawn = self.teacher.kind not in ("views", "images")
        return self.live is not None or (drawn and self.data.memory_gib is not None)

    @property
    def finds_cameras(self) -> bool:
        """Whether views are from cameras found from the Gaussians, since there is no dataset."""
        return self.teacher.kind == "gaussians" and self.data.transforms is None

    @property
    def trains_on_other_poses(self) -> bool:
        """Whether other frames are trained on than a share of those that are measured on."""
        live = bool(self.live and self.teacher.kind == "gaussians" and not self.finds_cameras)
        return live or self.data.train_transforms is not None

    @property
    def image_split(self) -> str | None:
        """The split whose images are a second source of rays; None: there is none."""
        truth = self.data.ground_truth
        return truth.split if isinstance(truth, GroundTruthConfig) else None

    def _check_training_views(self) -> None:
        data, kind = self.data, self.teacher.kind
        if self.live and kind not in ("gaussians", *BUILT_IN):
            hint = "Only Gaussians can be rendered from new poses: set teacher.kind: gaussians and teacher.ply."
            raise problem("teacher.live", "a live teacher", f"false, since teacher.kind is {kind}", hint)
        if data.train_transforms is not None and kind not in ("gaussians", "images"):
            hint = "Its views are its own; set teacher.kind: gaussians to render others from the PLY."
            raise problem("data.train_transforms", data.train_transforms, f"null, since teacher.kind is {kind}", hint)
        if self.finds_cameras and data.train_transforms is not None:
            hint = "Set data.transforms to the poses to measure on, or train_transforms to null."
            raise problem("data.train_transforms", data.train_transforms, "null, since data.transforms is", hint)
        own_scene = kind in ("images", *BUILT_IN) or self.finds_cameras
        if isinstance(data.ground_truth, GroundTruthConfig) and own_scene:
            why = "these are the teacher already" if kind == "images" else "there is no dataset with images"
            raise problem("data.ground_truth", "a split", f"true or false, since {why} (teacher.kind is {kind})")
        if data.train_frames is not None and not self.trains_on_other_poses and self.image_split is None:
            raise problem("data.train_frames", data.train_frames, "null, since no other JSON is trained on")
        if self.live and kind == "gaussians" and "holdout" not in self.eval.splits:
            found = list(self.eval.splits)
            raise problem(
                "eval.splits", found, "holdout among them, since a live teacher's training views are not kept"
            )

    def _check_clip(self) -> None:
        if not self.teacher.clip:
            return
        if self.teacher.kind != "gaussians":
            raise problem("teacher.clip", "true", f"false, since teacher.kind is {self.teacher.kind}")
        if self.data.box == "auto":
            raise problem("data.box", "auto", "a box, since teacher.clip is true", "Set its lower and upper.")
        if self.teacher.rasterizer == "gsplat":
            expected = "auto or cpu, since teacher.clip is true"
            raise problem("teacher.rasterizer", "gsplat", expected, "gsplat draws whole Gaussians alone.")

    def _check_features(self) -> None:
        teacher, used = self.teacher, self.loss.internal_terms
        if not used:
            return
        field = f"loss.{used[0]}.weight"
        if teacher.kind == "images" or (teacher.kind == "views" and teacher.ply is None):
            found = getattr(self.loss, used[0]).weight
            raise problem(field, found, "0, since there are no Gaussians to look into", "Set teacher.ply.")
