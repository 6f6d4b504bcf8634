"""Whole runs on the built-in scene: training steps and rendered frames, all kernels of one implementation at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from distill.benchmarks.case import Case, Sizes, implementations
from distill.model.model import Model, build_model
from distill.rendering.renderer import render_frame, renders_fused
from distill.runs.session import make_sampler
from distill.training.trainer import Trainer
from machine.run_folder import RunFolder
from settings.config import Config
from settings.loading import REPO_ROOT, load_config
from teacher.sources import Teacher, load_teacher

# The config of each student, and what makes it one worth measuring on a GPU: the size in configs/base/lego.yaml.
STUDENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "hash_grid": (
        "quickstart.yaml",
        (
            *("student.levels=16", "student.features=2", "student.table_size=524288"),
            *("student.hidden_width=64", "student.finest_resolution=2048"),
        ),
    ),
    "kilo_uniform": ("quickstart_kilo.yaml", ()),
}


def run_cases(device: torch.device, sizes: Sizes, wanted: frozenset[str]) -> Iterator[Case]:
    """Of both students, as ``wanted`` says: "training" (a step at the sample budget), "rendering" (a frame).

    The student is trained for ``sizes.warm_steps`` first, so that the number of rays and the occupied space are those
    of training and not of the start.
    """
    for kind in STUDENTS:
        config = _config(kind, device, sizes, "torch")
        teacher = load_teacher(config)
        for implementation in implementations(device):
            config = _config(kind, device, sizes, implementation)
            trainer, model = _warm(config, teacher, device, sizes)
            if "training" in wanted:
                yield _training_case(kind, implementation, trainer, config, sizes)
            if "rendering" in wanted:
                yield _rendering_case(kind, implementation, model, teacher, config)
                if renders_fused(model.student, model.settings, device):
                    yield _rendering_case(kind, f"{implementation}, fused", model, teacher, config, fused=True)


def _config(kind: str, device: torch.device, sizes: Sizes, implementation: str) -> Config:
    overrides = [
        f"data.resolution={sizes.frame}",
        f"teacher.frames={sizes.views}",
        "teacher.supersample=1",
        "teacher.rasterizer=cpu",
        f"device={device}",
        f"kernels={implementation}",
        "train.max_seconds=null",
        f"train.max_steps={sizes.warm_steps}",
        f"train.samples_per_step={sizes.samples_per_step}",
        f"train.rays_per_step={max(64, sizes.samples_per_step // 4)}",
    ]
    name, full_size = STUDENTS[kind]
    if device.type == "cuda":
        overrides += full_size
    return load_config(REPO_ROOT / "configs" / name, overrides)


def _warm(config: Config, teacher: Teacher, device: torch.device, sizes: Sizes) -> tuple[Trainer, Model]:
    model = build_model(config, teacher, device)
    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(config, Path(root))
        folder.create()
        sampler = make_sampler(config, teacher, model, device)
        trainer = Trainer(config, model, sampler, folder, device)
        trainer.run(show_progress=False)
    return trainer, model


def _training_case(kind: str, implementation: str, trainer: Trainer, config: Config, sizes: Sizes) -> Case:
    """The seconds of one step: the mean over ``sizes.timed_steps`` on a copy, which is not timed."""
    budget = config.train.samples_per_step
    name = f"training {kind}, steps of {budget:,} samples, {config.data.resolution} px"
    rays = float(trainer.step.rays_per_step)
    return Case(name, implementation, lambda: trainer.probe(sizes.timed_steps), items=rays, unit="rays")


def _rendering_case(
    kind: str, implementation: str, model: Model, teacher: Teacher, config: Config, fused: bool = False
) -> Case:
    """One held-out frame as evaluation renders it, in waves of samples or by the fused renderer, left on the device."""
    cameras = teacher.views.cameras.to(model.grid.occupied.device)
    held_out = int(teacher.views.holdout.nonzero()[0])
    settings = replace(model.settings, fused=fused)

    def work() -> None:
        with torch.no_grad():
            render_frame(model.student, model.grid, cameras, held_out, settings, config.render.background_rgb)

    name = f"rendering {kind} {cameras.width}x{cameras.height}"
    return Case(name, implementation, work, items=1, unit="frames")
