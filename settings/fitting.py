"""The settings of fitting a teacher to images."""

from __future__ import annotations

from pydantic import Field

from settings.sections import Section, Unit


class FittingConfig(Section):
    """How ``tools/train_teacher.py`` fits 3D Gaussians to images; ends at max_steps or max_seconds.

    Rates, thresholds and intervals are those of Kerbl et al. 2023 where they have one.
    """

    max_steps: int = Field(30000, ge=1, description="steps at most; a step is one view")
    max_seconds: float | None = Field(None, gt=0, description="wall time of the fit at most, s; null: no limit")
    initial_gaussians: int = Field(30000, ge=1, description="Gaussians placed in the visual hull at the start")
    max_gaussians: int = Field(
        120000, ge=1, description="most Gaussians that growing may reach; fewer on coarse images"
    )
    sh_degree: int = Field(3, ge=0, le=3, description="spherical-harmonics degree of colour")
    sh_degree_every: Unit = Field(
        0.08, description="fraction of the fit after which the degree rises by one; 0: at once"
    )
    dssim_weight: Unit = Field(0.2, description="share of 1 - SSIM in the loss; the rest is L1")
    random_background: bool = Field(
        True, description="a random background per step, where the images have alpha or are photographs"
    )
    coarse_levels: int = Field(2, ge=0, le=6, description="halvings of the image size to begin with, down to 64 pixels")
    coarse_until: Unit = Field(0.3, description="fraction of the fit after which images have their full size")
    grow_from: int = Field(300, ge=1, description="step from which Gaussians are cloned, split and pruned")
    grow_every: int = Field(100, ge=1, description="steps between two rounds of growing and pruning")
    grow_until: Unit = Field(0.6, description="fraction of the fit after which there is no more growing")
    grow_gradient: float = Field(
        2e-4, gt=0, description="mean screen-space gradient, in half image sides, over which a Gaussian grows"
    )
    prune_opacity: float = Field(0.005, gt=0, lt=0.5, description="Gaussians of less opacity are pruned")
    prune_until: Unit = Field(0.9, description="fraction of the fit after which there is no more pruning")
    lr_means: float = Field(1.6e-4, gt=0, description="Adam's learning rate of positions, in scene extents")
    lr_means_final_ratio: float = Field(
        0.01, gt=0, le=1, description="fraction of lr_means that the rate has at the end"
    )
    lr_scales: float = Field(5e-3, gt=0, description="Adam's learning rate of log scales")
    lr_rotations: float = Field(1e-3, gt=0, description="Adam's learning rate of rotations")
    lr_opacities: float = Field(0.05, gt=0, description="Adam's learning rate of opacity logits")
    lr_sh: float = Field(2.5e-3, gt=0, description="Adam's learning rate of SH degree 0; a 20th of it for the rest")
    log_every: int = Field(50, ge=1, description="steps between rows of fitting_metrics.csv")
    checkpoint_every: int | None = Field(1000, ge=1, description="steps between checkpoints; null: only at the end")
    checkpoint_minutes: float | None = Field(
        5.0, gt=0, description="minutes after which a checkpoint is written at the latest; null: steps alone decide"
    )
