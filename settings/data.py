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
        1.0,
        gt=0,
        description="rays drawn from the images for each ray drawn from the teacher; at 1 half of a step's rays are "
        "of images",
    )


FARTHEST_OFFSET = 1e10
"""World units; the coordinates of maps end before it, even in millimetres, and float64 steps by 2e-6 there."""

_NEAR = 0.05  # world units, or widths of a box that is smaller than one


class DataConfig(Section):
    """The cameras and images of the dataset."""

    transforms: AssetPath | None = Field(
        None,
        description="the dataset, under the assets root: a `transforms_*.json`, a folder with a COLMAP model, the "
        "folder that graphdeco trained a model into, or a file of MatrixCity or a folder over its blocks",
    )
    format: Literal["auto", "transforms", "colmap", "graphdeco", "matrixcity"] = Field(
        "auto", description="format of `transforms`; auto: recognised by the files that are there, and logged"
    )
    images: AssetPath | None = Field(
        None,
        description="for colmap, graphdeco: the folder of the pictures; null: `images` beside the model, else the "
        "largest `images_N`. Refused for a JSON, which says itself where each picture is",
    )
    depth: AssetPath | None = Field(
        None,
        description="for teacher.kind images of MatrixCity: the folder of its depth, laid out like that of the "
        "pictures; `loss.depth` learns from its OpenEXR files (z in centimetres); null: none",
    )
    train_transforms: AssetPath | None = Field(
        None,
        description="for gaussians, images: the JSON of the poses to train on; all of `transforms` is held out then."
        " null: a part of `transforms`, or, if gaussians are rendered live, `transforms_train.json` beside it",
    )
    train_frames: FrameSlice | None = Field(
        None, description="frames to use of the JSON that is trained on, if that is not `transforms`; null: all"
    )
    resolution: int | None = Field(
        None,
        ge=1,
        description="working width of the pictures in pixels; null: native. They are downscaled by area; Gaussians "
        "can also be drawn wider than the pictures, then without ground truth",
    )
    memory_gib: float | None = Field(
        None,
        gt=0,
        description="most memory that pictures take, GiB: only a part of them is in memory at a time, and others "
        "replace them one by one. For images and for data.ground_truth with a split, which a thread decodes beside "
        "training, and for the renders of gaussians, which are drawn anew; null: all are in memory",
    )
    holdout_every: int = Field(
        8,
        ge=0,
        description="every k-th frame, from the first on, is kept out of training; 0: none. No effect if another "
        "JSON than `transforms` is trained on, or if the dataset itself keeps frames for tests. Also called "
        "`test_every`",
    )
    frames: FrameSlice | None = Field(None, description="frames of `transforms` to use, as a Python slice; null: all")
    offset: Vector | None = Field(
        None,
        description="x, y, z subtracted from all positions (cameras, teacher.ply) in double precision, for scenes at"
        " a map's coordinates; `box` and all that is written are then in the moved world. null: none",
    )
    applied_transform: Literal["keep", "undo"] = Field(
        "keep",
        description="for a nerfstudio JSON; undo: move its cameras back to the world before its `applied_transform`,"
        " where Gaussians trained on the COLMAP model are; keep: leave them",
    )
    dataparser_transforms: AssetPath | None = Field(
        None,
        description="nerfstudio's `dataparser_transforms.json`: moves the cameras of its JSON, or of a COLMAP model, "
        "into the normalised world of the Gaussians that it trained; null: leave them",
    )
    box: Literal["auto"] | BoxConfig = Field(
        "auto", description="scene box, world units: `auto`, or `lower` and `upper`"
    )
    near: float | None = Field(
        None,
        ge=0,
        description="nearest distance along a ray, world units; null: 0.05, or in a scene box less than a unit wide "
        "0.05 of its width",
    )
    far: float = Field(
        1e6,
        gt=0,
        le=1e9,
        description="farthest distance along a ray, world units; without a far field rays end at the scene box in "
        "any case",
    )
    ground_truth: bool | GroundTruthConfig = Field(
        True,
        description="measure against the dataset's own images too, if there are any; a section with `split` and "
        "`weight`: train on those of a split as well",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.near is not None and self.near >= self.far:
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

    def nearest(self, width: float) -> float:
        """``near`` in a scene box whose longest side is ``width``, world units."""
        return _NEAR * min(1.0, width) if self.near is None else self.near
