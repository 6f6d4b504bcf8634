"""What cutting a city costs before any student learns it: what its blocks are taught, composited, against the whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.city.block_cameras import city_cameras
from distill.city.manifest import Block, Manifest
from distill.city_rendering.block_order import front_to_back
from kernels.threads import one_torch_thread
from machine.terminal import progress_bar
from scene.cameras import Cameras
from scene.frames import refuse_no_holdout
from scene.images import psnr_from_mse
from settings.config import Config
from settings.loading import load_config
from teacher.rasterizer import Rasterizer
from teacher.sources import source_of
from teacher.views.rasterized import blended_planes


def taught_psnr(manifest: Manifest, config: Config) -> tuple[float, float]:
    """PSNR of held-out views of the blocks' teachers, composited front to back, against the whole teacher's, dB.

    In float32, on the config's background; means over views.

    Args:
        config: the city's.

    Returns:
        With each Gaussian drawn by its share of each block, as blocks are taught; and with the whole of it in every
        block that it reaches into.

    Raises:
        InputError: no frame is held out, or an asset is missing or damaged.
    """
    source = source_of(config)
    cameras = city_cameras(source).holdout
    refuse_no_holdout(len(cameras))
    if (width := config.data.resolution) is not None and width < cameras.width:
        cameras = cameras.resized(width, max(1, round(width * cameras.height / cameras.width)))
    gaussians = source.gaussians()
    drawing = source.drawing(gaussians)
    whole = Rasterizer(gaussians, "cpu", drawing=drawing)
    blocks = [block for block in manifest.blocks if block.gaussians and block.train_cameras]
    parts = [_teacher_of(manifest, block) for block in blocks]
    teachers = parts, [part.redrawn(drawing) for part in parts]
    found: list[list[float]] = [[], []]
    with one_torch_thread():
        for index in progress_bar(range(len(cameras)), desc="taught", unit=" view"):
            reference = _colour(blended_planes(whole, cameras, index), config)
            for rasterizers, figures in zip(teachers, found, strict=True):
                error = _colour(_composited(blocks, rasterizers, cameras, index), config) - reference
                figures.append(psnr_from_mse(float(error.double().square().mean())))
    clipped, unclipped = (sum(figures) / len(figures) for figures in found)
    return clipped, unclipped


def _teacher_of(manifest: Manifest, block: Block) -> Rasterizer:
    """As the block's run draws it."""
    source = source_of(load_config(manifest.path(block.config), assets=manifest.folder))
    gaussians = source.gaussians()
    return Rasterizer(gaussians, drawing=source.drawing(gaussians))


def _composited(blocks: Sequence[Block], rasterizers: Sequence[Rasterizer], cameras: Cameras, index: int) -> Tensor:
    """(H, W, 4) premultiplied rgb and alpha of all blocks."""
    planes = torch.zeros(cameras.height, cameras.width, 4)
    for place in front_to_back([block.box for block in blocks], tuple(cameras.centers[index].tolist())):
        planes += (1 - planes[..., 3:]) * blended_planes(rasterizers[place], cameras, index)[..., :4]
    return planes


def _colour(planes: Tensor, config: Config) -> Tensor:
    return planes[..., :3] + (1 - planes[..., 3:4]) * planes.new_tensor(config.render.background_rgb)
