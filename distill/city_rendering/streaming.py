"""A city's blocks in memory: opened when rays meet them, the least recently used dropped to stay under a budget."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import torch

from distill.city.manifest import Block, Manifest
from distill.city_rendering.block_rays import BlockRenderer
from distill.city_rendering.compositing import CityRenderer, CitySettings
from distill.city_rendering.level_of_detail import View, level_for
from distill.model.checkpoint import load_checkpoint
from distill.model.model import Model, restore_model
from distill.rendering.far_field import FarField
from distill.rendering.renderer import RenderedFrame
from machine.devices import choose_device
from machine.memory import MIB, ResidentMemory, give_back_freed
from machine.run_folder import CITY_MANIFEST
from scene.cameras import Cameras
from settings.config import Config
from settings.errors import InputError
from settings.sections import Color

_WARM_UP = 16  # pixels, of the picture for which kernels are loaded
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameCost:
    """What a frame took.

    Attributes:
        blocks: that its rays met.
        coarse: of those, the ones shown by another student than their finest.
        loads: students read from disk.
        held_mib: what the loaded students hold at its end.
        peak_mib: most memory of the process above its base while it was rendered; None where the system does not tell.
    """

    blocks: int
    coarse: int
    loads: int
    held_mib: float
    peak_mib: float | None


@dataclass
class _Loaded:
    renderer: BlockRenderer
    bytes: int


class BlockStore:
    """The students of a city's blocks, at most ``limit`` bytes of them at a time, the most recently used.

    Args:
        limit: bytes that loaded students may hold; None: all stay. One is held in any case.
        level_of_detail: whether far blocks are shown by coarser students, where they have some; else by the finest.

    Attributes:
        blocks: those that show anything.
        used: (block, student) of those that were asked for since ``used`` was last cleared.
        loads: students read from disk so far.
        largest: most bytes that one of them held.
    """

    def __init__(
        self, manifest: Manifest, config: Config, device: torch.device, limit: int | None, level_of_detail: bool = True
    ) -> None:
        self.manifest, self.blocks = manifest, shown_blocks(manifest)
        self.limit, self.used, self.loads, self.largest = limit, set(), 0, 0
        self._config, self._device, self._level_of_detail = config, device, level_of_detail
        self._loaded: OrderedDict[tuple[int, int], _Loaded] = OrderedDict()

    @property
    def held(self) -> int:
        """Bytes that the loaded students hold."""
        return sum(loaded.bytes for loaded in self._loaded.values())

    def open(self, index: int, view: View) -> BlockRenderer:
        """A block's renderer for a view.

        Raises:
            InputError: its student's file is missing, damaged, or another block's.
        """
        block = self.blocks[index]
        sizes = [student.cell_size for student in block.students] if self._level_of_detail else [0.0]
        key = index, level_for(sizes, view.footprint(block.box))
        self.used.add(key)
        if key not in self._loaded:
            self._make_room(self.largest)
            path = self.manifest.path(block.students[key[1]].file)
            model = load_model(self._config, path, self._device)
            check_is_of(block, model, path)
            renderer = BlockRenderer(model)
            self._loaded[key] = _Loaded(renderer, held_bytes(renderer))
            self.loads, self.largest = self.loads + 1, max(self.largest, self._loaded[key].bytes)
            self._make_room(0)
        self._loaded.move_to_end(key)
        return self._loaded[key].renderer

    def clear(self) -> None:
        """Drops all."""
        self._loaded.clear()
        give_back_freed()

    def _make_room(self, more: int) -> None:
        """Drops the least recently used until ``more`` bytes fit beside the rest; the last loaded stays if it must."""
        least = 1 if more == 0 else 0
        while self.limit is not None and len(self._loaded) > least and self.held + more > self.limit:
            self._loaded.popitem(last=False)
        give_back_freed()  # of the dropped, and of what reading took


class StreamedCity:
    """Pictures of a city whose blocks are files, in a fixed memory.

    What rendering takes beside the loaded students, reading one among it, is measured on the first picture and kept
    free of them, and again on every further one.

    Args:
        manifest: of a city whose blocks are trained.
        config: the city's; of it rendering, range, device and kernels matter.
        budget: bytes above what the process takes before it, kernels loaded; None: no limit.
        background: sRGB in [0, 1]; None: the config's.

    Raises:
        InputError: a block is still to be trained.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: Config,
        budget: int | None,
        level_of_detail: bool = True,
        background: Color | None = None,
    ) -> None:
        self.budget, self.device = budget, choose_device(config)
        self._background = config.render.background_rgb if background is None else background
        self.store = BlockStore(manifest, config, self.device, None if budget is None else 0, level_of_detail)
        render, data = config.render, config.data
        scale = 1 if render.supersample == "auto" else render.supersample
        near = data.nearest(max(manifest.scene_box.extent))
        settings = CitySettings(near, data.far, render.termination, config.kernels, scale)
        boxes = [block.box for block in self.store.blocks]
        far_field = city_far_field(manifest, config, self.device)
        self._renderer = CityRenderer(boxes, manifest.scene_box, self.store.open, settings, far_field)
        self._memory: ResidentMemory | None = None
        self._overhead = 0

    @property
    def peak(self) -> int | None:
        """Most bytes that the process took above its base so far; None where the system does not tell."""
        return None if self._memory is None or self._memory.base is None else self._memory.peak

    def frames(self, cameras: Cameras) -> Iterator[tuple[RenderedFrame, FrameCost]]:
        """Every camera's picture, on the background, and what it took.

        Raises:
            InputError: a student's file is missing or damaged, or one picture takes more than the budget.
        """
        cameras = cameras.to(self.device)
        self._warm_up(cameras)
        for index in range(len(cameras)):
            before = self.store.loads
            self.store.used.clear()
            frame = self._renderer.render(cameras, index, self._background)
            used = self.store.used
            peak = self._watch(index == 0)
            coarse = sum(level > 0 for _, level in used)
            held = self.store.held / MIB
            cost = FrameCost(len(used), coarse, self.store.loads - before, held, None if peak is None else peak / MIB)
            yield frame, cost

    def _warm_up(self, cameras: Cameras) -> None:
        """Has kernels and files' readers loaded, so that they are in the base."""
        small = cameras[0].resized(_WARM_UP, max(1, round(_WARM_UP * cameras.height / cameras.width)))
        self._renderer.render(small, 0, self._background)
        self.store.clear()
        self.store.loads = 0  # those of pictures count
        self._memory = ResidentMemory()
        if self._memory.base is None and self.budget is not None:
            _log.warning("this system does not tell how much memory a process takes: the budget is for blocks alone")

    def _watch(self, is_first: bool) -> int | None:
        """Takes what the last picture took into account; returns its peak."""
        peak = self._memory.stretch()
        if self.budget is None:
            return peak
        if peak is not None:
            if is_first and peak > self.budget:
                took = f"{peak / MIB:.3g} with a block at a time"
                found = f"{self.budget / MIB:.3g}, where the first picture took {took}"
                expected = f"at least {math.ceil(11 * peak / MIB) / 10:g} MiB"
                hint = "Give it more, or render smaller pictures or blocks."
                raise InputError("--budget-mib", "budget", found, expected, hint)
            # On the first picture the largest block was held alone; later ones have all the limit allows.
            held = self.store.largest if is_first else max(self.store.limit, self.store.largest)
            self._overhead = max(self._overhead, peak - held)
        self.store.limit = max(0, self.budget - self._overhead)
        return peak


def shown_blocks(manifest: Manifest) -> list[Block]:
    """The blocks that have students; others are empty, or nobody sees them.

    Raises:
        InputError: a block is still to be trained.
    """
    waiting = [block.name for block in manifest.blocks if not block.students and block.status != "done"]
    if waiting:
        some = ", ".join(waiting[:5]) + (", ..." if len(waiting) > 5 else "")
        found = f"none of {some} ({len(waiting)} of {len(manifest.blocks)} blocks)"
        file = manifest.path(CITY_MANIFEST)
        raise InputError(file, "blocks.students", found, "a student of each", "Train them first.")
    return [block for block in manifest.blocks if block.students]


def load_model(config: Config, path: Path, device: torch.device) -> Model:
    """A block's student, in evaluation mode.

    Raises:
        InputError: its file is missing or damaged.
    """
    if not path.is_file():
        hint = "Copy it back, or have tools/distill_city.py make it again, with --resume."
        raise InputError(path, "blocks.students", "no such file", "a student of the block", hint)
    model = restore_model(config, load_checkpoint(path, device), path, device)
    model.student.eval()
    return model


def check_is_of(block: Block, model: Model, path: Path) -> None:
    """Raises ``InputError`` where a model, read from a file, is not of the block that the manifest says.

    Corners may differ by what float32 makes of them.
    """
    own, corners = model.grid.box, (*block.lower, *block.upper)
    apart = max(abs(found - expected) for found, expected in zip((*own.lower, *own.upper), corners, strict=True))
    if apart > 1e-5 * max(map(abs, corners)):
        found, expected = (f"{list(box.lower)} to {list(box.upper)}" for box in (own, block))
        hint = "It is the student of another block, or of another city."
        raise InputError(path, "box", found, f"{expected}, that of block {block.name}", hint)


def held_bytes(*things: object) -> int:
    """Bytes of all tensors and arrays that objects hold, each memory once."""
    held, seen, stack = {}, set(), list(things)
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, (str, bytes, int, float, type, FunctionType, ModuleType)):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
        elif isinstance(thing, np.ndarray):
            if thing.base is None:
                held[thing.ctypes.data] = thing.nbytes
            else:
                stack.append(thing.base)
        elif isinstance(thing, dict):
            stack += thing.values()
        elif isinstance(thing, (list, tuple, set)):
            stack += thing
        else:
            stack.append(getattr(thing, "__dict__", None))
    return sum(held.values())


def city_far_field(manifest: Manifest, config: Config, device: torch.device) -> FarField | None:
    """What is outside the city, where it has been learnt.

    Raises:
        InputError: its file is missing or damaged, or is of a student without a far field.
    """
    if manifest.far_field is None:
        return None
    if manifest.far_field.student is None:
        _log.warning("the far field has not been trained: outside the city's box there is the background alone")
        return None
    path = manifest.path(manifest.far_field.student)
    far_field = load_model(config, path, device).far_field
    if far_field is None:
        hint = "It is to be trained with far_field.kind=contracted."
        raise InputError(path, "far_field", "a student without one", "the far field of the city", hint)
    return far_field
