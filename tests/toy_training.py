"""A trainer of the toy scene, as a run makes one."""

from __future__ import annotations

from pathlib import Path

import torch

from distill.losses.feature_supervision import supervise
from distill.model.checkpoint import load_checkpoint
from distill.model.model import build_model, restore_model
from distill.training.sampler_choice import make_sampler
from distill.training.trainer import Trainer
from machine.run_folder import RunFolder
from settings.loading import load_config
from teacher.sources import load_teacher

CPU = torch.device("cpu")


def trainer_of(
    path: Path,
    *overrides: str,
    resume: Path | None = None,
    asynchronous: bool | None = None,
    device: torch.device = CPU,
) -> Trainer:
    """60 steps of the config at ``path``, from the start or from a checkpoint."""
    config = load_config(path, ["train.max_steps=60", *overrides], path.parent)
    folder = RunFolder(config, path.parent)
    folder.create()
    teacher = load_teacher(config)
    state = load_checkpoint(resume, device) if resume else None
    model = restore_model(config, state, resume, device) if resume else build_model(config, teacher, device)
    features = supervise(config, teacher, model.student, device)
    if state and features:
        features.restore(state["features"] or {}, resume)
    sampler = make_sampler(config, teacher, model, device)
    trainer = Trainer(config, model, sampler, folder, device, features=features, asynchronous=asynchronous)
    if state:
        trainer.restore(state)
    return trainer


def losses_of(trainer: Trainer, steps: int) -> list[float]:
    """Takes steps; the loss of each."""
    losses = []
    for _ in range(steps):
        losses.append(trainer.take_step().loss.item())
    return losses
