"""What a dataset format is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path

from scene.frames import Frames
from scene.world_offset import Offset

_log = logging.getLogger(__name__)


class DatasetFormat(ABC):
    """Reads the frames of one kind of dataset."""

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Whether ``path`` looks like one of these; need not be there."""

    @abstractmethod
    def load(self, path: Path, image_size: tuple[int, int] | None, offset: Offset | None) -> Frames:
        """The frames, in the dataset's order.

        Args:
            image_size: (width, height), used where the dataset does not say it.
            offset: ``data.offset``, to be taken off the positions by ``moved_positions``.

        Raises:
            InputError: missing, damaged, or nothing this program can use.
        """

    @abstractmethod
    def is_split(self, path: Path) -> bool:
        """Whether ``path`` is named as a split of a dataset that may have others."""

    @abstractmethod
    def split(self, path: Path, name: str) -> Path:
        """Where the split ``name`` of the dataset of ``path`` is."""


@cache
def note_once(level: str, message: str) -> None:
    """Logs what a reader has to say about a dataset, once a process: one run reads its cameras several times.

    Args:
        level: ``"info"`` or ``"warning"``.
    """
    getattr(_log, level)(message)
