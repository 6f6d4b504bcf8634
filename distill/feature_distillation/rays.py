"""The teacher's features composited along the training rays of fixed views."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from tqdm import tqdm

from distill.schema import Config
from scene.cameras import Cameras
from scene.errors import InputError
from teacher.features import gaussian_features, select_channels
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer

MAX_GIB = 8.0
_log = logging.getLogger(__name__)


@torch.no_grad()
def render_features(
    config: Config, gaussians: Gaussians, cameras: Cameras, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features (P, C) float16, sums over the Gaussians of weight times feature, and the sums of the weights (P,).

    P counts the pixels of all cameras, frame by frame, row by row; C are ``features.channels``. They are drawn through
    the pixels' centres, and stay on the ``device``; the memory is said in the log before it is taken.

    Raises:
        InputError: they need more than 8 GiB.
    """
    channels = select_channels(config.features.channels, "config, features")
    pixels = len(cameras) * cameras.height * cameras.width
    needed = pixels * (2 * len(channels) + 4) / 2**30
    if needed > MAX_GIB:
        found = (
            f"{len(cameras)} views at {cameras.width}x{cameras.height} with {len(channels)} channels: {needed:.1f} GiB"
        )
        hint = "Use fewer channels, a lower data.resolution, or features.level: sample."
        raise InputError("config", "features.level", found, f"at most {MAX_GIB:g} GiB of ray features", hint)
    _log.info("ray features: %d views, %d channels: %.3f GiB", len(cameras), len(channels), needed)
    rasterizer = Rasterizer(gaussians, config.teacher.rasterizer, device=device)
    values = gaussian_features(gaussians, channels).to(rasterizer.device)
    features = torch.empty(len(cameras), cameras.height, cameras.width, len(channels), dtype=torch.float16)
    alpha = torch.empty(len(cameras), cameras.height, cameras.width)
    for index in tqdm(range(len(cameras)), desc="ray features", unit="view", leave=False):
        output = rasterizer.render(cameras, index, values)
        features[index], alpha[index] = output.channels.half().cpu(), output.alpha.cpu()
    return features.flatten(0, 2).to(device), alpha.flatten().to(device)
