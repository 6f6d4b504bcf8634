"""The settings of the optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from settings.sections import FromList, Section


class TrainConfig(Section):
    """The optimisation; it ends at max_steps or max_seconds, whichever is first, and schedules follow that one."""

    max_steps: int = Field(20000, ge=1, description="steps at most")
    max_seconds: float | None = Field(None, gt=0, description="wall time of training at most, s; null: no limit")
    rays_per_step: int = Field(4096, ge=1, description="most rays in a step")
    samples_per_step: int = Field(
        65536, ge=1, description="samples aimed at in a step; the number of rays adapts to it"
    )
    scale_batch: bool = Field(
        False,
        description="with several processes (`torchrun`); true: each has `rays_per_step` and `samples_per_step` of "
        "its own, and learning rates are multiplied by the square root of their number; false: all share one process's"
        " batch",
    )
    lr: float = Field(1e-2, gt=0, description="Adam's learning rate of the tables")
    lr_mlp: float | None = Field(None, gt=0, description="learning rate of the MLPs; null: `lr`")
    mlp_optimizer: Literal["muon", "adam"] = Field(
        "muon",
        description="optimiser of a hash grid's MLPs and of the density MLPs of KiloUniform's cells: adam scales each "
        "weight's step by its own gradients; muon orthogonalises the step of a whole matrix, which learns faster",
    )
    lr_common: float | None = Field(
        None,
        gt=0,
        description="for KiloUniform: Adam's learning rate of the common step that the colour networks of all cells "
        "take by the sum of their gradients (docs/students.md); null: no such step",
    )
    lr_final_ratio: float = Field(
        0.03, gt=0, le=1, description="fraction of `lr` that the rate falls to, linearly, over the run"
    )
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
    checkpoint_minutes: float | None = Field(
        5.0,
        gt=0,
        description="minutes between automatic checkpoints, to resume from after a crash; the latest two are kept "
        "until the run ends; null: none",
    )
    checkpoint_steps: Annotated[tuple[Annotated[int, Field(ge=1)], ...], FromList] = Field(
        (), description="further steps at which to write a checkpoint"
    )
    log_every: int = Field(50, ge=1, description="steps between rows of training_metrics.csv")
    mlp_weight_decay: float = Field(1e-6, ge=0, description="L2 weight decay of the MLPs")
