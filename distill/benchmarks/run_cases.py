"""Whole runs on the built-in scene: training steps and rendered frames, all kernels of one implementation at a time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path

import torch

from distill.benchmarks.case import Case, Sizes, implementations
from distill.model.model import build_model
from distill.rendering.renderer import FrameRenderer, renders_fused
from distill.training.sampler_choice import make_sampler
from distill.training.step_graph import graph_refusal
from distill.training.trainer import Trainer
from kernels.threads import one_torch_thread
from machine.run_folder import RunFolder
from machine.telemetry import synchronize
from settings.config import Config
from settings.loading import REPO_ROOT, load_config
from teacher.sources import Teacher, load_teacher

# The config of each student, and what makes it one worth measuring on a GPU: the size in configs/base/lego.yaml
# and configs/records/lego_kilo.yaml.
STUDENTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "hash_grid": (
        "quickstart.yaml",
        (
            *("student.levels=16", "student.features=2", "student.table_size=524288"),
            *("student.hidden_width=64", "student.finest_resolution=2048"),
        ),
    ),
    "kilo_uniform": ("quickstart_kilo.yaml", ("student.grid=[10,18,12]",)),
}


def run_cases(kind: str, device: torch.device, sizes: Sizes, wanted: frozenset[str]) -> Iterator[Case]:
    """Of one of ``STUDENTS``, as ``wanted`` says: "training" (a step at the sample budget), "rendering" (a frame).

    The student is trained for ``sizes.warm_steps`` in the first call, so that the number of rays and the occupied space
    are those of training and not of the start. On CUDA steps recorded as CUDA graphs are timed too, but not torch's:
    for KiloUniform's thousands of networks it would take minutes.
    """
    teacher = load_teacher(run_config(kind, device, sizes, "torch"))
    names, on_cuda = implementations(device), device.type == "cuda"
    for implementation in names[1:] if on_cuda else names:
        run = Run(run_config(kind, device, sizes, implementation), teacher, device)
        if "training" in wanted:
            yield _training_case(kind, implementation, run, sizes)
            if on_cuda:
                config = run_config(kind, device, sizes, implementation, "train.cuda_graphs=true")
                yield _training_case(kind, f"{implementation}, recorded", Run(config, teacher, device), sizes)
        if "rendering" in wanted:
            yield _rendering_case(kind, implementation, run)
            if renders_fused(run.model.student, run.model.settings, device):
                yield _rendering_case(kind, f"{implementation}, fused", run, fused=True)
                yield _rendering_case(kind, f"{implementation}, fused, float16", run, True, "float16")


def run_config(kind: str, device: torch.device, sizes: Sizes, implementation: str, *more: str) -> Config:
    """A student's, with all kernels of one implementation."""
    overrides = [
        f"data.resolution={sizes.frame}",
        f"teacher.frames={sizes.views}",
        "teacher.supersample=1",
        "teacher.rasterizer=cpu",
        f"device={device}",
        f"kernels={implementation}",
        "train.max_seconds=null",
        f"train.max_steps={sizes.warm_steps}",
        f"occupancy.warmup_steps={sizes.warm_steps}",  # so that the steps timed refresh it, as most of a run's do
        f"train.samples_per_step={sizes.samples_per_step}",
        f"train.rays_per_step={max(64, sizes.samples_per_step // 4)}",
    ]
    name, full_size = STUDENTS[kind]
    if device.type == "cuda":
        overrides += full_size
    return load_config(REPO_ROOT / "configs" / name, [*overrides, *more])


class Run:
    """A student in training, begun when it is first asked for."""

    def __init__(self, config: Config, teacher: Teacher, device: torch.device) -> None:
        self.config, self.teacher, self.device = config, teacher, device
        self.model = build_model(config, teacher, device)

    @cached_property
    def trainer(self) -> Trainer:
        """After ``train.max_steps``."""
        with tempfile.TemporaryDirectory() as root:
            folder = RunFolder(self.config, Path(root))
            folder.create()
            sampler = make_sampler(self.config, self.teacher, self.model, self.device)
            trainer = Trainer(self.config, self.model, sampler, folder, self.device)
            trainer.run(show_progress=False)
        return trainer

    def step_seconds(self, steps: int) -> float:
        """Mean of some further steps, to an idle device.

        Raises:
            ValueError: steps were to be recorded and cannot be.
            RuntimeError: recording them failed.
        """
        trainer, graphs = self.trainer, self.trainer.step.graphs
        if self.config.train.cuda_graphs and graphs is None:
            raise ValueError(graph_refusal(self.config, trainer.step.asynchronous))
        if graphs is not None and graphs.refusal is not None:
            raise RuntimeError(graphs.refusal)
        with one_torch_thread():
            start = time.perf_counter()
            for _ in range(steps):
                trainer.take_step()
            trainer.step.settle(trainer.progress.step)
            synchronize(self.device)
        return (time.perf_counter() - start) / steps


def _training_case(kind: str, implementation: str, run: Run, sizes: Sizes) -> Case:
    """The seconds of one step: the mean over ``sizes.timed_steps``, with the refreshes of the occupied space due."""
    budget, width = run.config.train.samples_per_step, run.config.data.resolution
    name = f"training {kind}, steps of {budget:,} samples, {width} px"
    rays = {"items": lambda: float(run.trainer.step.rays_per_step), "unit": "rays"}
    return Case(name, implementation, lambda: run.step_seconds(sizes.timed_steps), **rays)


def _rendering_case(kind: str, implementation: str, run: Run, fused: bool = False, precision: str = "float32") -> Case:
    """One held-out frame as evaluation renders it, in waves of samples or by the fused renderer, left on the device."""
    cameras, background = run.teacher.views.cameras.to(run.device), run.config.render.background_rgb
    held_out = int(run.teacher.views.holdout_frames[0])

    @cache
    def renderer() -> FrameRenderer:
        model = run.trainer.model
        return FrameRenderer(model.student, model.grid, replace(model.settings, fused=fused, precision=precision))

    def work() -> None:
        renderer().render(cameras, held_out, background)

    name = f"rendering {kind} {cameras.width}x{cameras.height}"
    return Case(name, implementation, work, items=1, unit="frames")
