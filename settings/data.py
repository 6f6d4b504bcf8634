"""The settings of the cameras and images of the dataset, and of the box the scene is in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from settings.sections import AssetPath, FolderName, FrameSlice, Section, Vector, problem


class BoxConfig(Section):
    """An axis-aligned box in world units."""

    lower: Vector = Field(description="smallest corner x, y, z, world units")
    upper: Vector = Field(description="largest corner x, y, z, world units")

    @model_validator(mode="after")
    def _ordered(self) -> BoxConfig:
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise problem("upper", list(self.upper), f"more than lower {list(self.lower)} on every axis")
        return self


class GroundTruthConfig(Section):
    """The dataset's own images as a second source of rays, so that a student can pass its teacher."""

    split: FolderName = Field(description="train on the images of `transforms_<split>.json` beside data.transforms")
    weight: float = Field(
        1.0, gt=0, description="rays drawn from the images for each ray drawn from the teacher: 1 is half of a step"
    )


FARTHEST_OFFSET = 1e10
"""World units; the coordinates of maps end before it, even in millimetres, and float64 steps by 2e-6 there."""


class DataConfig(Section):
    """The cameras and images of the dataset."""

    transforms: AssetPath | None = Field(
        None,
        description="the dataset, under the assets root: a `transforms_*.json`, a folder with a COLMAP model, the "
        "folder that graphdeco trained a model into, or a file of MatrixCity or a folder over its blocks",
    )
    format: Literal["auto", "transforms", "colmap", "graphdeco", "matrixcity"] = Field(
        "auto", description="what `transforms` is; auto: by what is there, which is said"
    )
    images: AssetPath | None = Field(
        None,
        description="for colmap, graphdeco: the folder of the pictures; null: `images`, else the largest `images_N`, "
        "beside the model; a JSON says itself where each is, and refuses this",
    )
    depth: AssetPath | None = Field(
        None,
        description="for images of MatrixCity: the folder of its depth, laid out as that of the pictures, whose "
        "OpenEXR files (z in centimetres) `loss.depth` then learns from; null: none",
    )
    train_transforms: AssetPath | None = Field(
        None,
        description="the JSON of the poses to train on; all of `transforms` is held out then. For gaussians, images; "
        "null: a share of `transforms`, or where gaussians are rendered live `transforms_train.json` beside it",
    )
    train_frames: FrameSlice | None = Field(
        None, description="frames to use of the JSON that is trained on, where it is not `transforms`; null: all"
    )
    resolution: int | None = Field(
        None,
        ge=1,
        description="working image width in pixels (pictures are downscaled by area; Gaussians can be drawn "
        "larger than they are, then without ground truth); null: native",
    )
    memory_gib: float | None = Field(
        None,
        gt=0,
        description="memory of pictures, GiB: a part of them is in memory, and replaced one by one by "
        "others that a thread decodes beside training. For images, for data.ground_truth with a split, and for the "
        "renders of gaussians, which are drawn anew; null: all are in memory",
    )
    holdout_every: int = Field(
        8,
        ge=0,
        description="every k-th frame, from the first on, is kept out of training; 0: none. Of no effect where "
        "another JSON than `transforms` is trained on, or where the dataset itself keeps frames for tests. "
        "`test_every` is another name of it",
    )
    frames: FrameSlice | None = Field(None, description="frames of the JSON to use, as a Python slice; null: all")
    offset: Vector | None = Field(
        None,
        description="x, y, z taken off all positions (cameras, teacher.ply) in double precision, for scenes at a map's "
        "coordinates; `box` and all that is written are in the moved world. null: none",
    )
    applied_transform: Literal["keep", "undo"] = Field(
        "keep",
        description="undo: cameras of a nerfstudio JSON are moved to the world before its `applied_transform`, where "
        "Gaussians trained on the COLMAP model are",
    )
    dataparser_transforms: AssetPath | None = Field(
        None,
        description="nerfstudio's `dataparser_transforms.json`: cameras of its JSON are moved into the normalised "
        "world of the Gaussians that it trained; null: they stay",
    )
    box: Literal["auto"] | BoxConfig = Field(
        "auto", description="scene box, world units: `auto`, or `lower` and `upper`"
    )
    near: float = Field(0.05, ge=0, description="nearest distance along a ray, world units")
    far: float = Field(
        1e6,
        gt=0,
        le=1e9,
        description="farthest distance along a ray, world units; without a far field rays end at the scene box anyhow",
    )
    ground_truth: bool | GroundTruthConfig = Field(
        True,
        description="measure against the dataset's own images too, where they exist; with `split` and `weight`: "
        "and train on those of a split",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.near >= self.far:
            raise problem("far", self.far, f"more than near {self.near}")
        if self.offset is not None and not max(map(abs, self.offset)) < FARTHEST_OFFSET:
            hint = "Set it to about where cameras and Gaussians lie, or to null."
            raise problem("offset", list(self.offset), f"coordinates below {FARTHEST_OFFSET:.0e}", hint)
        if self.dataparser_transforms is not None and self.applied_transform == "undo":
            expected = "keep, since data.dataparser_transforms undoes it too"
            raise problem("applied_transform", self.applied_transform, expected)
        if self.holdout_every == 1:
            raise problem("holdout_every", 1, "0 (none) or at least 2", "With 1 no frame is left to train on.")
        return self
