"""What a dataset format is."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import ClassVar

from scene.frames import Frames, Size
from settings.data import DataConfig

_log = logging.getLogger(__name__)


class DatasetFormat(ABC):
    """Reads the frames of one kind of dataset."""

    name: ClassVar[str]
    """The value of ``data.format``."""
    has_picture_folder: ClassVar[bool] = False
    """Whether pictures are those of one folder, which ``data.images`` may name; else the dataset says where each is."""

    has_worlds: ClassVar[bool] = False
    """Whether nerfstudio trains on it, in a world of its own that ``data.dataparser_transforms`` leads to."""

    @abstractmethod
    def recognises(self, path: Path) -> str | None:
        """Why ``path`` looks like one of these, in words; None: it does not. It need not be there."""

    @abstractmethod
    def load(self, path: Path, image_size: Size | None, data: DataConfig) -> Frames:
        """The frames, in the dataset's order.

        Args:
            image_size: (width, height), used where the dataset does not say it.
            data: what the config says; ``offset`` is taken off the positions by ``moved_cameras``.

        Raises:
            InputError: missing, damaged, or nothing this program can use.
        """

    @abstractmethod
    def files(self, path: Path) -> list[Path]:
        """The files that cameras are read from, as far as they are there."""

    def is_split(self, path: Path) -> bool:
        """Whether ``path`` is named as a split of a dataset that may have others."""
        return False

    def split(self, path: Path, name: str) -> Path | None:
        """Where the split ``name`` of the dataset of ``path`` would be; None where the format keeps no splits apart."""
        return None


@cache
def note_once(level: str, message: str) -> None:
    """Logs what a reader has to say about a dataset, once a process: one run reads its cameras several times.

    Args:
        level: ``"info"`` or ``"warning"``.
    """
    getattr(_log, level)(message)
