"""The blocks of a city trained on together for a while, so that their faces do not show.

A block's own run learns from pictures of its own Gaussians. Here whole rays of the full teacher are compared,
composited from the blocks that they cross. As in NeRF-XL (Li et al. 2024) nothing crosses between blocks but the
colour, alpha and distance of each one's part of a ray, and their gradients: blocks may be on several devices.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.city.manifest import Block, Manifest, StudentFile
from distill.city_rendering.block_rays import training_segment
from distill.city_rendering.compositing import composite_segments
from distill.city_rendering.streaming import check_is_of, city_far_field, shown_blocks
from distill.city_training.rounded_blocks import RoundedBlock
from distill.losses.pictures import term_weights, total_loss
from distill.model.checkpoint import load_checkpoint, rendering_only, save_checkpoint, student_state
from distill.model.model import Model, restore_model
from distill.rendering.far_field import FarField, Segment
from distill.rendering.occupancy import OccupancyGrid
from distill.training.optimizer import StudentOptimizer
from distill.training.ray_source import RaySource
from distill.training.sampler_choice import make_sampler
from kernels.compositing.compositing import Composite
from kernels.threads import one_torch_thread
from machine.devices import choose_device, host_integer
from machine.files import write_atomically
from machine.fingerprints import cache_key
from machine.interrupts import Interrupt, Stopped
from machine.run_folder import newest_checkpoint
from machine.run_identity import RunIdentity
from machine.terminal import progress_bar
from machine.weights_files import read_weights, restoring, write_weights
from scene.rays import Rays, SceneBox, intersect_box
from settings.config import Config
from settings.errors import InputError, TrainingDiverged
from students.base import Student
from teacher.sources import Teacher, load_teacher

STATE = "joint_state.pth"
"""Where a fine-tune that was stopped goes on, in the city's folder."""
_SAVE_EVERY = 200  # steps
_KEPT = ("step", "box", "occupancy", "config")  # of the checkpoint that a block's tuning begins at
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JointOptions:
    """How blocks are trained together.

    Args:
        steps: of Adam.
        rays: of each.
        rate: learning rate of the first step as a share of ``train.lr``; it falls to nothing along half a cosine.
    """

    steps: int
    rays: int = 2048
    rate: float = 0.1


@dataclass
class BlockPart:
    """A block in training: the box that its rays are cut at, its student, and the device that this is on."""

    box: SceneBox
    model: Model
    device: torch.device


def fine_tune(
    manifest: Manifest, config: Config, options: JointOptions, whole: Callable[[], Teacher] | None = None
) -> Manifest:
    """Trains all blocks of a city together on whole rays of its teacher.

    Each block begins at its run's newest checkpoint, and is written to ``joint_020000.pth`` beside its run's folder, by
    the step of that; one with a budget as a compact file, ``joint_020000.lrd``, whose weights it is trained with. What
    was stopped, by a signal or by force, goes on from the last state that it left in the city's folder when it is
    called again, on the CPU to the same bits; what is done is not done again.

    Args:
        config: the city's.
        whole: gives its teacher, where others need that too; None: it is loaded.

    Returns:
        The manifest with the tuned students in the place of those that they were made of; it is not written.

    Raises:
        InputError: a block has no checkpoint to go on from, the teacher is not in order, or the state is damaged.
        Stopped: a signal asked for it.
        TrainingDiverged: a loss term was not finite.
    """
    blocks, device = shown_blocks(manifest), choose_device(config)
    paths = [_trainable(manifest, block) for block in blocks]
    states = [load_checkpoint(path, device) for path in paths]
    models = [restore_model(config, state, path, device) for state, path in zip(states, paths, strict=True)]
    for block, model, path in zip(blocks, models, paths, strict=True):
        check_is_of(block, model, path)
    key = cache_key(RunIdentity(config).settings, [options.steps, options.rays, options.rate], *map(_weights, models))
    parts = [BlockPart(block.box, model, device) for block, model in zip(blocks, models, strict=True)]
    tuning = _Tuning(manifest, config, options, parts, key, whole or (lambda: load_teacher(config)))
    for place, (block, state, path) in enumerate(zip(blocks, states, paths, strict=True)):
        if block.budget_mib is not None:
            tuning.round(place, block, state, path)
    states = [{name: state[name] for name in _KEPT} for state in states]  # of the rest all is in its place
    tuning.run()
    for place, (block, state, part) in enumerate(zip(blocks, states, parts, strict=True)):
        file = Path(block.run).with_name(f"joint_{state['step']:06d}.pth")
        if (rounded := tuning.rounded[place]) is not None:
            file = file.with_suffix(".lrd")
            _write_changed(manifest.path(file), rounded.file())
        elif not _holds(manifest.path(file), part.model.student):  # what was made of it stays newer than it
            manifest.path(file).parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(manifest.path(file), {**state, "student": student_state(part.model.student)})
        size = manifest.path(file).stat().st_size
        tuned = StudentFile(file=file.as_posix(), cell_size=block.students[0].cell_size, bytes=size)
        manifest = manifest.with_block(block.name, students=(tuned, *block.students[1:]))
    return manifest


def composite_training(
    parts: Sequence[BlockPart], rays: Rays, seed: int | None, near: float, far: float
) -> tuple[Segment, list[int]]:
    """Training rays through all blocks that they meet, each front to back in its own order; differentiable.

    Args:
        rays: anywhere; where they are near and far is not looked at.
        seed: of random places in intervals, see ``march``; None: the middles of intervals.
        near, far: range along the unit ray.

    Returns:
        The rays, and the places among the parts of those that some ray meets.
    """
    count, device = len(rays), rays.origins.device
    spans = [intersect_box(rays.origins, rays.directions, part.box, near, far) for part in parts]
    entries, exits = (torch.stack(side) for side in zip(*spans, strict=True))
    met = exits > entries
    # How many of a ray's blocks come before each.
    rank = torch.where(met, entries, torch.inf).argsort(dim=0, stable=True).argsort(dim=0)
    segments, places = [], met.any(dim=1).nonzero()[:, 0].tolist()
    for place in places or [0]:  # of rays that meet none, what one makes of no rays
        part, ray = parts[place], met[place].nonzero()[:, 0]
        own = Rays(rays.origins[ray], rays.directions[ray], entries[place, ray], exits[place, ray]).to(part.device)
        segment, _ = training_segment(part.model, own, None if seed is None else seed + place)
        segments.append((rank[place, ray] * count + ray, Segment(*(plane.to(device) for plane in segment))))
    most = max(1, int(met.sum(0).max()))
    slots = torch.cat([slot for slot, _ in segments])
    planes = (torch.cat(plane) for plane in zip(*(segment for _, segment in segments), strict=True))
    filled = (plane.new_zeros(most * count, *plane.shape[1:]).index_copy(0, slots, plane) for plane in planes)
    ordered = [plane.unflatten(0, (most, count)) for plane in filled]
    return composite_segments([Segment(*(plane[turn] for plane in ordered)) for turn in range(most)]), places


class _Tuning:
    """A fine-tune under way."""

    def __init__(
        self,
        manifest: Manifest,
        config: Config,
        options: JointOptions,
        parts: Sequence[BlockPart],
        key: str,
        whole: Callable[[], Teacher],
    ) -> None:
        self.config, self.options, self.parts, self.key = config, options, parts, key
        self._whole = whole
        self.box = manifest.scene_box
        self.device, self.path, self.step = choose_device(config), manifest.path(STATE), 0
        self.far_field: FarField | None = city_far_field(manifest, config, self.device)
        if self.far_field is not None:
            self.far_field.requires_grad_(False)
        self.optimizers = [StudentOptimizer(part.model.student, config.train, config.kernels) for part in parts]
        self.rounded: list[RoundedBlock | None] = [None] * len(parts)
        self.generator = torch.Generator().manual_seed(config.seed)
        for part in parts:
            part.model.student.train()

    def round(self, place: int, block: Block, state: dict[str, Any], path: Path) -> None:
        """Has a block's student trained with its weights rounded as in its file, from its run's checkpoint on."""
        own = self.parts[place].model.student, self.optimizers[place]
        self.rounded[place] = RoundedBlock(block, state, path, *own, self.config)

    def run(self) -> None:
        """Takes the steps that are left."""
        state = self._resume()
        if self.step == self.options.steps:
            return
        sampler = self._sampler()
        if state is not None:
            with restoring(self.path, "state"):
                sampler.restore(state["sampler"])
        bar = progress_bar(total=self.options.steps, initial=self.step, desc="joint", unit=" step")
        with one_torch_thread(), sampler, bar, Interrupt() as interrupt:
            while self.step < self.options.steps and not interrupt.asked:
                loss, rays = self._take(sampler)
                sampler.advance(rays)
                self.step += 1
                bar.update()
                if self.step % _SAVE_EVERY == 0:
                    bar.set_postfix(loss=f"{loss:.5f}")
                    self._save(sampler)
            self._save(sampler)
        if self.step < self.options.steps:
            raise Stopped(interrupt.signal)

    def _sampler(self) -> RaySource:
        """Whole rays of the teacher."""
        teacher, occupancy, first = self._whole(), self.config.occupancy, self.parts[0].model
        # Which rays are drawn follows from the box, its cells, and whether there is a far field.
        cells = occupancy.resolution, first.settings.step, occupancy.threshold, occupancy.decay
        whole = Model(first.student, OccupancyGrid(self.box, *cells), first.settings, far_field=self.far_field)
        return make_sampler(self.config, teacher, whole, self.device)

    def _take(self, sampler: RaySource) -> tuple[float, int]:
        """One step; the loss, and how many rays it was of."""
        done, far = self.step / self.options.steps, self.config.data.far
        near = self.config.data.nearest(max(self.box.extent))
        batch = sampler.draw(self.options.rays, self.generator)
        own = batch.rays.origins, batch.rays.directions
        batch = replace(batch, rays=Rays(*own, *intersect_box(*own, self.box, near, far)))
        seed = host_integer(1 << 31, self.generator)
        for block in self.rounded:
            if block is not None:
                block.before_step()
        whole, places = composite_training(self.parts, batch.rays, seed, near, far)
        if self.far_field is not None:
            whole, _ = self.far_field.render_training(whole, batch.rays, near, far, batch.reach, seed)
            batch = batch.with_depth_inside()
        composite = Composite(*whole, weights=whole.alpha.new_empty(0))
        loss, terms, _ = total_loss(composite, batch, self.config.loss, term_weights(self.config.loss, 1.0))
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise TrainingDiverged(f"joint step {self.step + 1}: the {name} loss is {term.item()}")
        loss.backward()
        for place in places:  # a block that no ray meets stays as it is
            optimizer, block = self.optimizers[place], self.rounded[place]
            optimizer.set_rate(self.options.rate * 0.5 * (1 + math.cos(math.pi * done)))
            optimizer.step()
            if block is not None:
                block.after_step(len(batch.rays), terms["rgb"].detach())
        return loss.item(), len(batch.rays)

    def _save(self, sampler: RaySource) -> None:
        rounded = [None if block is None else block.state() for block in self.rounded]
        students = [part.model.student.state_dict() for part in self.parts]
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        own = {"step": self.step, "generator": self.generator.get_state(), "sampler": sampler.state()}
        write_weights(
            self.path, {"key": self.key, **own, "students": students, "optimizers": optimizers, "rounded": rounded}
        )

    def _resume(self) -> dict[str, Any] | None:
        """Goes on from the state of the same fine-tune, if there is one, and returns it; another's is replaced."""
        if not self.path.is_file():
            return None
        state = read_weights(self.path, "state", "the state of a joint fine-tune", self.device)
        if state.get("key") != self.key:
            _log.warning("%s is of other blocks or settings: the fine-tune starts anew", self.path)
            return None
        with restoring(self.path, "state"):
            self.step = state["step"]
            self.generator.set_state(state["generator"].cpu())
            for part, student in zip(self.parts, state["students"], strict=True):
                part.model.student.load_state_dict(student)
            for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(own)
            for block, own in zip(self.rounded, state["rounded"], strict=True):
                if block is not None:
                    block.restore(own)
        return state


def _trainable(manifest: Manifest, block: Block) -> Path:
    """The checkpoint that a block's tuning begins at: its run's newest, else its finest student where that is one.

    Raises:
        InputError: there is none.
    """
    folders = sorted(manifest.path(block.run).glob("results/*/*/checkpoints"))
    newest = next(filter(None, map(newest_checkpoint, folders)), None)
    path = newest or manifest.path(block.students[0].file)
    if (kind := rendering_only(path)) is not None:
        found = f"{kind} alone"
        raise InputError(path, f"{block.name}.students", found, "a checkpoint to train on", "Keep the run's folder.")
    return path


def _holds(path: Path, student: Student) -> bool:
    """Whether a file is a whole checkpoint of these very weights."""
    try:
        stored = load_checkpoint(path, "cpu")["student"]["weights"]
    except InputError:
        return False
    own = student.state_dict()
    return stored.keys() == own.keys() and all(torch.equal(stored[name], own[name].cpu()) for name in own)


def _write_changed(path: Path, content: bytes) -> None:
    """Writes a file that is not there yet, or of another content: what was made of it stays newer than it."""
    if not (path.is_file() and path.read_bytes() == content):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _weights(model: Model) -> Tensor:
    """All parameters of a student, one after another, for a key."""
    return torch.cat([parameter.detach().flatten().cpu() for parameter in model.student.parameters()])
