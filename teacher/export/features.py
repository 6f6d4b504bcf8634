"""Teacher features on disk, beside the exported views: the volume and the Gaussians', and every view's rays'."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from kernels.threads import one_torch_thread
from machine.fingerprints import digest
from machine.memory import GIB, size_in_words
from scene.rays import SceneBox
from settings.errors import InputError
from settings.words import counted
from teacher.export.export_cameras import ExportViews
from teacher.export.folder import FolderExport, Writers
from teacher.features.along_rays import RayFeatures, ray_features
from teacher.features.channels import gaussian_features, select_channels
from teacher.features.volume import MAX_GIB, build_volume
from teacher.features.volume_files import TOO_LARGE, read_features, write_features
from teacher.gaussians import Gaussians
from teacher.npz_files import narrowed, save_npz
from teacher.rasterizer import Rasterizer

FEATURES, RAYS, SETTINGS = "teacher_features.npz", "ray_features", "feature_settings.json"
# Values that spread over many orders of magnitude, or must tell near distances apart, are not float16.
_FLOAT32 = ("distance", "distance_variance", "effective")
_log = logging.getLogger(__name__)


class RayMemory(NamedTuple):
    """Bytes that ray features take: in memory for the frame at hand, and on disk per frame before deflating."""

    memory: int
    disk: int


def ray_memory(width: int, height: int, channels: int, gaussians: int) -> RayMemory:
    """What a frame's ray features take, known before any is rendered."""
    pixels = width * height
    # The image of 6 planes, the channels and two of depth; its channels once more apart; statistics; float16 to write.
    memory = pixels * (4 * (6 + 2 * (channels + 2)) + 4 * 9 + 2 * channels) + 4 * gaussians * (3 * channels + 12)
    planes = len(RayFeatures._fields) - 1
    return RayMemory(memory, pixels * (2 * channels + 2 * planes + 2 * len(_FLOAT32)))


class FeatureExport(FolderExport):
    """Features of the teacher in a folder of exported views; what is complete in it is kept.

    ``teacher_features.npz`` is ``teacher.features.volume_files``'s; ``ray_features/00000.npz`` holds the fields of
    ``RayFeatures`` by name, deflated: float16, but distance, its variance and the effective number float32.

    Args:
        rasterizer: of the same Gaussians.
        box, resolution: of the volume.
        channels: see ``teacher.features.channels.select_channels``.

    Raises:
        InputError: a channel is unknown; too much memory would be needed; the folder holds features that were made
            otherwise, or a damaged file. Nothing is written yet.
    """

    def __init__(
        self,
        folder: Path,
        gaussians: Gaussians,
        rasterizer: Rasterizer,
        views: ExportViews,
        box: SceneBox,
        resolution: int,
        channels: Sequence[str],
    ) -> None:
        self._gaussians, self._rasterizer = gaussians, rasterizer
        self.channels = select_channels(channels, "--features")
        cameras = views.cameras
        settings = {
            "gaussians": gaussians.fingerprint(),
            "cameras": digest(views.cameras.tensors().values()),
            "size": [cameras.width, cameras.height],
            "box": [list(box.lower), list(box.upper)],
            "features_resolution": resolution,
            "features": list(self.channels),
            "rasterizer": rasterizer.implementation,
            "fitted_width": rasterizer.drawing.fitted_width,
        }
        super().__init__(folder, views, SETTINGS, settings, (FEATURES, RAYS))
        self.memory = ray_memory(cameras.width, cameras.height, len(self.channels), len(gaussians))
        if self.memory.memory > MAX_GIB * GIB:
            size, needed = f"{cameras.width}x{cameras.height}", self.memory.memory / GIB
            found = f"{size} with {len(self.channels)} channels: {needed:.1f} GiB"
            hint = "Name fewer channels."
            raise InputError("--features", "memory of a frame", found, f"at most {MAX_GIB:g} GiB", hint)
        self._volume = None
        if (folder / FEATURES).is_file():
            read_features(folder / FEATURES, gaussians=gaussians, box=box, channels=self.channels)
        else:
            self._volume = build_volume(gaussians, box, resolution, self.channels)

    def run(self) -> None:
        """Writes what is not there yet.

        Raises:
            InputError: the folder cannot be written; a feature is beyond what float16 holds.
        """
        frames, channels = counted(len(self.todo), "frame"), counted(len(self.channels), "channel")
        memory, disk = (size_in_words(each) for each in (self.memory.memory, len(self.todo) * self.memory.disk))
        _log.info("ray features: %s of %s, %s of memory, up to %s on disk", frames, channels, memory, disk)
        features = gaussian_features(self._gaussians, self.channels)
        with self._writing():
            if self._volume is not None:
                write_features(self.folder / FEATURES, self._volume, self._gaussians)
            with one_torch_thread(), Writers() as writers:
                for index in tqdm(self.todo, desc="ray features", unit=" frame"):
                    rays = ray_features(self._rasterizer, self._gaussians.means, features, self.views.cameras, index)
                    writers.submit(_write_rays, self._paths(index)["rays"], rays)

    def _paths(self, index: int) -> dict[str, Path]:
        return {"rays": self.folder / RAYS / f"{index:05d}.npz"}


def _write_rays(path: Path, rays: RayFeatures) -> None:
    planes = {name: plane.cpu().numpy() for name, plane in rays._asdict().items()}
    types = {name: np.float32 if name in _FLOAT32 else np.float16 for name in planes}
    save_npz(path, **{name: narrowed(path, name, plane, types[name], TOO_LARGE) for name, plane in planes.items()})
