"""What a config may say: names, types, ranges, units, defaults. The README's reference is made from this file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from distill.schema_base import (
    AssetPath,
    Background,
    Device,
    FolderName,
    FrameSlice,
    FromList,
    Section,
    Tag,
    Vector,
    background_rgb,
    distinct,
    problem,
)
from distill.schema_features import FeatureConfig
from distill.schema_fitting import FittingConfig
from distill.schema_logging import LoggingConfig
from distill.schema_losses import LossConfig
from distill.schema_students import HashGridConfig, StudentConfig
from distill.schema_training_views import GroundTruthConfig, LiveConfig


class BoxConfig(Section):
    """An axis-aligned box in world units."""

    lower: Vector = Field(description="smallest corner x, y, z, world units")
    upper: Vector = Field(description="largest corner x, y, z, world units")

    @model_validator(mode="after")
    def _ordered(self) -> BoxConfig:
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise problem("upper", list(self.upper), f"more than lower {list(self.lower)} on every axis")
        return self


class DataConfig(Section):
    """The cameras and images of the dataset."""

    transforms: AssetPath | None = Field(None, description="the dataset's `transforms_*.json`, under the assets root")
    train_transforms: AssetPath | None = Field(
        None,
        description="the JSON of the poses to train on; all of `transforms` is held out then. For gaussians, images; "
        "null: a share of `transforms`, but for a live PLY `transforms_train.json` beside it",
    )
    train_frames: FrameSlice | None = Field(
        None, description="frames to use of the JSON that is trained on, where it is not `transforms`; null: all"
    )
    resolution: int | None = Field(
        None, ge=1, description="working image width in pixels (downscaled by area); null: native"
    )
    holdout_every: int = Field(
        8,
        ge=0,
        description="every k-th frame, from the first on, is kept out of training; 0: none. Of no effect where "
        "another JSON than `transforms` is trained on",
    )
    frames: FrameSlice | None = Field(None, description="frames of the JSON to use, as a Python slice; null: all")
    box: Literal["auto"] | BoxConfig = Field(
        "auto", description="scene box, world units: `auto`, or `lower` and `upper`"
    )
    near: float = Field(0.05, ge=0, description="nearest distance along a ray, world units")
    far: float = Field(100.0, gt=0, description="farthest distance along a ray, world units")
    ground_truth: bool | GroundTruthConfig = Field(
        True,
        description="measure against the dataset's own images too, where they exist; with `split` and `weight`: "
        "and train on those of a split",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.near >= self.far:
            raise problem("far", self.far, f"more than near {self.near}")
        if self.holdout_every == 1:
            raise problem("holdout_every", 1, "0 (none) or at least 2", "With 1 no frame is left to train on.")
        return self

    def split_json(self, split: str) -> Path:
        """``transforms_<split>.json`` beside ``transforms``."""
        return self.transforms.with_name(f"transforms_{split}.json")


class TeacherConfig(Section):
    """What is distilled."""

    kind: Literal["views", "images", "gaussians", "bricks"] = Field(
        description="views: renders and depth on disk; images: the dataset's own images (control arm); "
        "gaussians: a 3DGS PLY rendered here; bricks: the built-in scene"
    )
    outputs: AssetPath | None = Field(
        None,
        description="graphdeco's output folder (`renders/`, `depth/`), under the assets root; views: the teacher; a "
        "live PLY: what the student is measured against, null: rendered here",
    )
    ply: AssetPath | None = Field(
        None,
        description="3D Gaussians (.ply, .npz or .spz), under the assets root; gaussians: the teacher; views: the "
        "first occupancy",
    )
    rasterizer: Literal["auto", "cpu", "gsplat"] = Field(
        "auto",
        description="what renders the Gaussians; gsplat: CUDA, an optional package compiled on first use; auto: gsplat "
        "on a CUDA device, else cpu",
    )
    background: Background = Field(
        "white", description="what the teacher's RGB renders are composited on; R, G, B in [0, 1]"
    )
    depth_kind: Literal[
        "auto", "none", "z", "distance", "inverse_z", "z_normalized", "distance_normalized", "inverse_z_normalized"
    ] = Field(
        "auto",
        description="what the depth files hold (normalized: divided by accumulated alpha); none: ignore them",
    )
    live: bool | LiveConfig = Field(
        False,
        description="render new views all through training instead of fixed ones before it; for gaussians, bricks",
    )
    frames: int = Field(64, ge=2, description="number of views; for bricks")
    supersample: int = Field(
        1, ge=1, le=4, description="renders at this multiple of the width, then averages; for gaussians, bricks"
    )

    @property
    def background_rgb(self) -> tuple[float, float, float]:
        """sRGB in [0, 1]."""
        return background_rgb(self.background)


class OccupancyConfig(Section):
    """The grid that tells empty space from occupied."""

    resolution: int = Field(128, ge=1, le=1024, description="cells along the box's longest side")
    threshold: float = Field(0.01, ge=0, lt=1, description="a cell whose alpha over one step is below this is empty")
    update_every: int = Field(16, ge=1, description="steps between refreshes from the student")
    decay: float = Field(0.95, gt=0, le=1, description="factor on a cell's remembered density at each refresh")
    warmup_steps: int = Field(256, ge=0, description="steps before the student may empty a cell")


class RenderConfig(Section):
    """How rays are sampled and composited."""

    step_size: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description="distance between samples, world units; auto: half a pixel's width at the centre of the box, "
        "but no less than the box's diagonal / 1024",
    )
    max_samples_per_ray: int = Field(1024, ge=1, description="samples on one ray at most")
    termination: float = Field(1e-4, ge=0, lt=1, description="a ray ends at this transmittance (evaluation)")
    max_batch_samples: int = Field(
        262144, ge=1024, description="samples in memory at a time (evaluation without the fused renderer)"
    )
    fused: Literal["auto"] | bool = Field(
        "auto",
        description="render whole pictures in one Triton kernel (evaluation); auto: where the kernels are Triton's and "
        "the student fits it, false: always in waves of samples, the reference, true: fused or an error",
    )
    precision: Literal["float32", "float16"] = Field(
        "float32", description="type of the fused renderer's tables and factors of products; sums are float32"
    )
    background: Background = Field(
        "white",
        description="background of evaluation, and of training without random_background; R, G, B in [0, 1]",
    )
    random_background: bool = Field(
        True, description="train on a random background per ray, where the teacher has alpha"
    )

    @property
    def background_rgb(self) -> tuple[float, float, float]:
        """sRGB in [0, 1]."""
        return background_rgb(self.background)


class TrainConfig(Section):
    """The optimisation; it ends at max_steps or max_seconds, whichever is first, and schedules follow that one."""

    max_steps: int = Field(20000, ge=1, description="steps at most")
    max_seconds: float | None = Field(None, gt=0, description="wall time of training at most, s; null: no limit")
    rays_per_step: int = Field(4096, ge=1, description="rays in a step at most")
    samples_per_step: int = Field(
        65536, ge=1, description="samples aimed at in a step; the number of rays adapts to it"
    )
    lr: float = Field(1e-2, gt=0, description="Adam's learning rate of the tables")
    lr_mlp: float | None = Field(None, gt=0, description="Adam's learning rate of the MLPs; null: `lr`")
    lr_common: float | None = Field(
        None,
        gt=0,
        description="Adam's learning rate of the step that all cells' colour networks of a KiloUniform take together, "
        "by the sum of their gradients; null: none",
    )
    lr_final_ratio: float = Field(0.03, gt=0, le=1, description="learning rate at the end, as a fraction of `lr`")
    lr_warmup_steps: int = Field(100, ge=0, description="steps over which the learning rate rises linearly from 0")
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto",
        description="type of the factors in a step's products; parameters and sums are float32. auto: float16 on CUDA, "
        "with a dynamic loss scale, float32 on a CPU. Half precision on a CPU needs kernels: torch",
    )
    cuda_graphs: bool = Field(
        False, description="record steps as CUDA graphs and replay them, where their shapes allow; for CUDA"
    )
    checkpoint_every: int | None = Field(None, ge=1, description="steps between checkpoints; null: only at the end")
    checkpoint_steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], FromList] = Field(
        (), description="further steps at which to write a checkpoint"
    )
    log_every: int = Field(50, ge=1, description="steps between rows of training_metrics.csv")
    mlp_weight_decay: float = Field(1e-6, ge=0, description="L2 weight decay of the MLPs")
    assistant: str | None = Field(
        None,
        description="a trained student that supervises this one point by point before the rays take over: the path of "
        "its checkpoint, or auto, which trains a hash grid first; null: rays alone",
    )
    assistant_share: float = Field(
        0.25, gt=0, lt=1, description="share of the training (steps or time) that the auto assistant gets"
    )
    pointwise_share: float = Field(
        0.25, gt=0, lt=1, description="share of the rest in which the assistant supervises points"
    )
    points_per_step: int = Field(16384, ge=1, description="points of a pointwise step")


class EvalConfig(Section):
    """What is measured at the end."""

    reference: Literal["both", "teacher", "ground_truth"] = Field(
        "both", description="measure against the teacher, the dataset's images, or both where they exist"
    )
    splits: Annotated[
        tuple[Literal["holdout", "train"], ...], FromList, Field(min_length=1), AfterValidator(distinct)
    ] = Field(("holdout", "train"), description="frames to measure on")
    lpips: bool | Annotated[tuple[Literal["vgg", "alex"], ...], FromList, AfterValidator(distinct)] = Field(
        True, description="measure LPIPS, the slowest metric on a CPU; a list: with these networks; true: VGG"
    )
    max_train_frames: int | None = Field(
        None, ge=1, description="train frames measured at most, evenly spread; null: all"
    )
    save_renders: bool = Field(True, description="write every render as PNG")

    @property
    def lpips_nets(self) -> tuple[str, ...]:
        """The networks that measure LPIPS."""
        if isinstance(self.lpips, bool):
            return ("vgg",) if self.lpips else ()
        return self.lpips


class Config(Section):
    """One run: what is distilled, into what, how, and how it is measured."""

    scene: FolderName = Field(description="folder of the scene under `results/` and `logs/`")
    run: FolderName = Field(description="folder of the run under the scene's")
    tag: Tag = Field("", description="suffix of the evaluation CSV: `eval_step_020000_<tag>.csv`")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of every random number")
    device: Device = Field("auto", description="where to compute; auto: CUDA if there is any")
    kernels: Literal["auto", "torch", "numba", "triton"] = Field(
        "auto",
        description="implementation of the numeric kernels; auto: the fastest on the device, torch: the reference, "
        "numba: for the CPU, triton: for CUDA",
    )
    data: DataConfig = Field(DataConfig(), description="cameras and images")
    teacher: TeacherConfig = Field(description="what is distilled")
    student: StudentConfig = Field(HashGridConfig(), description="what it is distilled into")
    assistant_student: HashGridConfig = Field(HashGridConfig(), description="what train.assistant: auto trains first")
    occupancy: OccupancyConfig = Field(OccupancyConfig(), description="empty-space skipping")
    render: RenderConfig = Field(RenderConfig(), description="sampling and compositing")
    loss: LossConfig = Field(LossConfig(), description="what training minimises")
    features: FeatureConfig = Field(FeatureConfig(), description="the teacher's insides, for the losses on them")
    train: TrainConfig = Field(TrainConfig(), description="the optimisation")
    fitting: FittingConfig = Field(FittingConfig(), description="fitting a teacher to images (tools/train_teacher.py)")
    eval: EvalConfig = Field(EvalConfig(), description="what is measured")
    logging: LoggingConfig = Field(LoggingConfig(), description="what a run tells beside its CSVs")

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        kind = self.teacher.kind
        needed = {"views": "data.transforms teacher.outputs", "images": "data.transforms"}
        needed |= {"gaussians": "data.transforms teacher.ply", "bricks": "data.resolution"}
        for field in needed[kind].split():
            section, name = field.split(".")
            if getattr(getattr(self, section), name) is None:
                raise problem(field, "nothing", f"a value, since teacher.kind is {kind}", f"Set {field}.")
        if self.loss.depth.weight > 0 and (kind == "images" or self.teacher.depth_kind == "none"):
            why = "teacher.kind is images" if kind == "images" else "teacher.depth_kind is none"
            raise problem(
                "loss.depth.weight", self.loss.depth.weight, f"0, since {why}: there is no depth to learn from"
            )
        self._check_training_views()
        self._check_features()
        if self.training_json is None and self.data.holdout_every == 0 and self.eval.splits == ("holdout",):
            raise problem("eval.splits", ["holdout"], "train among them, since data.holdout_every is 0")
        if self.eval.reference == "ground_truth" and not self.data.ground_truth:
            raise problem("eval.reference", "ground_truth", "another, since data.ground_truth is false")
        return self

    @property
    def live(self) -> LiveConfig | None:
        """How the teacher goes on rendering; None where its views are fixed."""
        live = self.teacher.live
        return LiveConfig() if live is True else live or None

    @property
    def training_json(self) -> Path | None:
        """The JSON whose poses are trained on; None: a share of ``data.transforms``, or the built-in scene's."""
        if self.data.train_transforms is None and self.live and self.teacher.kind == "gaussians":
            return self.data.split_json("train")
        return self.data.train_transforms

    @property
    def image_json(self) -> Path | None:
        """The JSON whose images are a second source of rays; None: there is none."""
        truth = self.data.ground_truth
        return self.data.split_json(truth.split) if isinstance(truth, GroundTruthConfig) else None

    def _check_training_views(self) -> None:
        data, kind = self.data, self.teacher.kind
        if self.live and kind not in ("gaussians", "bricks"):
            hint = "Only Gaussians can be rendered from new poses: set teacher.kind: gaussians and teacher.ply."
            raise problem("teacher.live", "a live teacher", f"false, since teacher.kind is {kind}", hint)
        if data.train_transforms is not None and kind not in ("gaussians", "images"):
            hint = "Its views are its own; set teacher.kind: gaussians to render others from the PLY."
            raise problem("data.train_transforms", data.train_transforms, f"null, since teacher.kind is {kind}", hint)
        if isinstance(data.ground_truth, GroundTruthConfig) and kind in ("images", "bricks"):
            why = "these are the teacher already" if kind == "images" else "the built-in scene has no images"
            raise problem("data.ground_truth", "a split", f"true or false, since {why} (teacher.kind is {kind})")
        if data.train_frames is not None and self.training_json is None and self.image_json is None:
            raise problem("data.train_frames", data.train_frames, "null, since no other JSON is trained on")
        if self.live and kind == "gaussians" and "holdout" not in self.eval.splits:
            found = list(self.eval.splits)
            raise problem(
                "eval.splits", found, "holdout among them, since a live teacher's training views are not kept"
            )

    def _check_features(self) -> None:
        teacher, used = self.teacher, self.loss.inside_terms
        if not used:
            return
        field = f"loss.{used[0]}.weight"
        if teacher.kind == "images" or (teacher.kind == "views" and teacher.ply is None):
            found = getattr(self.loss, used[0]).weight
            raise problem(field, found, "0, since there are no Gaussians to look into", "Set teacher.ply.")
        if self.loss.aligns and self.features.level == "ray" and (self.live or self.image_json is not None):
            why = "teacher.live is on" if self.live else "images are a second source of rays"
            raise problem("features.level", "ray", f"sample, since {why}", "Only fixed views have rendered features.")
