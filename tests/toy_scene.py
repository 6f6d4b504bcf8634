"""A scene small enough to train in seconds: a coloured block of Gaussians, on disk as users have it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import yaml

from scene.cameras import Cameras
from scene.formats.transforms_json import write_transforms
from scene.images import read_image, write_image
from teacher.gaussian_files.ply import write_ply
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer

SIZE, FRAMES = 24, 17
SETTINGS = {
    "scene": "toy",
    "run": "first",
    "device": "cpu",
    "data": {"transforms": "data/transforms.json", "holdout_every": 4},
    # The kind is found out where that is what is tested: it takes longer than all else that is read.
    "teacher": {"kind": "views", "outputs": "outputs", "ply": "point_cloud.ply", "depth_kind": "inverse_z"},
    "student": {"levels": 4, "table_size": 1024, "finest_resolution": 32, "hidden_width": 16, "geo_features": 7},
    "occupancy": {"resolution": 16, "warmup_steps": 16},
    "train": {"max_steps": 300, "samples_per_step": 4096, "log_every": 10, "lr_warmup_steps": 10},
    "eval": {"lpips": False, "splits": ["holdout"]},
    "logging": {"report": False},  # drawing it takes longer than training
}
BOTH_SPLITS = {"splits": ["holdout", "train"]}
"""Of ``eval``, where that is what is tested: three times as many frames as those held out."""
# As good after half of the steps as ``SETTINGS`` after all: 9 dB above a blank picture.
QUICKLY = {"max_steps": 150, "lr": 0.06}


def block_of_gaussians() -> Gaussians:
    """A box of 0.8 x 0.5 x 0.6 whose colour varies smoothly from corner to corner."""
    axes = [torch.linspace(-side / 2, side / 2, 9) for side in (0.8, 0.5, 0.6)]
    means = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    count = len(means)
    color = (means / torch.tensor([0.8, 0.5, 0.6]) + 0.5) * 0.8 + 0.1
    return Gaussians(
        means=means,
        log_scales=torch.full((count, 3), math.log(0.05)),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        opacity_logits=torch.full((count,), 3.0),
        sh=((color - 0.5) / 0.28209479177387814)[:, None, :],
    )


def turned_over(cameras: Cameras) -> Cameras:
    """The same, each turned by a third about what it looks at from the one before: nothing is up in all of them."""
    angles = torch.arange(len(cameras))[:, None] * (2 * math.pi / 3)
    poses, (right, up, _, _) = cameras.c2w.clone(), cameras.c2w.unbind(2)
    poses[:, :, 0] = angles.cos() * right + angles.sin() * up
    poses[:, :, 1] = angles.cos() * up - angles.sin() * right
    return replace(cameras, c2w=poses)


def ring_of_cameras(frames: int = FRAMES, width: int = SIZE, height: int = SIZE, turn: float = 0.0) -> Cameras:
    """Cameras at distance 2, looking at the origin from a little above; the first at ``turn`` radians."""
    poses = []
    for angle in torch.arange(frames) * (2 * math.pi / frames) + turn:
        back = torch.nn.functional.normalize(torch.tensor([torch.cos(angle), torch.sin(angle), 0.4]), dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 0, 1]), back), dim=0)
        pose = torch.eye(4)
        pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, torch.linalg.cross(back, right), back
        pose[:3, 3] = 2 * back
        poses.append(pose)
    focal = torch.full((frames,), 1.4 * width)
    return Cameras(torch.stack(poses), focal, focal, focal * 0 + width / 2, focal * 0 + height / 2, width, height)


def write_toy_scene(root: Path, **sections: dict) -> Path:
    """Writes data, outputs and PLY under ``root``, and a config; returns the config's path.

    ``sections`` are merged over ``SETTINGS`` one level deep.
    """
    for name, content in _files_of_the_scene().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    settings = {
        key: {**value, **sections.get(key, {})} if isinstance(value, dict) else sections.get(key, value)
        for key, value in {**dict.fromkeys(sections, {}), **SETTINGS}.items()
    }
    path = root / "toy.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@cache
def _files_of_the_scene() -> dict[Path, bytes]:
    """What is in each file of the scene, rendered once: many tests begin with it."""
    with TemporaryDirectory() as folder:
        _render_scene(Path(folder))
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {path.relative_to(folder): path.read_bytes() for path in files}


def _render_scene(root: Path) -> None:
    gaussians, cameras = block_of_gaussians(), ring_of_cameras()
    write_ply(root / "point_cloud.ply", gaussians)
    (root / "data").mkdir()
    names = [f"./r_{index}" for index in range(len(cameras))]
    write_transforms(root / "data" / "transforms.json", cameras, names)
    rasterizer = Rasterizer(gaussians)
    _write_images(root / "data", rasterizer, cameras, names)
    for folder in ("renders", "depth"):
        (root / "outputs" / folder).mkdir(parents=True)
    for index in range(len(cameras)):
        output = rasterizer.render(cameras, index)
        white = (output.rgb + 1 - output.alpha[..., None]).clamp(0, 1)
        write_image(root / "outputs" / "renders" / f"{index:05d}.png", white.numpy())
        np.save(root / "outputs" / "depth" / f"{index:05d}.npy", output.inverse_z.numpy())


def add_training_split(root: Path, frames: int = 12) -> None:
    """Adds ``data/transforms_train.json`` with poses between those of a toy scene, and their images."""
    cameras, names = ring_of_cameras(frames, turn=0.1), [f"./train/r_{index}" for index in range(frames)]
    write_transforms(root / "data" / "transforms_train.json", cameras, names)
    _write_images(root / "data", Rasterizer(block_of_gaussians()), cameras, names)


def scale_toy_cameras(root: Path, factor: float) -> None:
    """Puts a toy scene's cameras into a world so many times as large, where ``teacher.scale`` puts its Gaussians."""
    path = root / "data" / "transforms.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= factor
    path.write_text(json.dumps(content))


def mask_toy_scene(root: Path, rows: int = 8) -> None:
    """Masks the upper rows of a toy scene's images, and paints what the mask leaves out in a colour of no scene."""
    mask = np.full((SIZE, SIZE), 255, np.uint8)
    mask[:rows] = 0
    write_image(root / "data" / "mask.png", mask)
    path = root / "data" / "transforms.json"
    content = json.loads(path.read_text())
    for index, frame in enumerate(content["frames"]):
        frame["mask_path"] = "mask.png"
        picture = read_image(root / "data" / f"r_{index}.png").copy()
        picture[:rows] = 255, 0, 255, 255
        write_image(root / "data" / f"r_{index}.png", picture)
    path.write_text(json.dumps(content))


def _write_images(folder: Path, rasterizer: Rasterizer, cameras: Cameras, names: list[str]) -> None:
    for index, name in enumerate(names):
        output = rasterizer.render(cameras, index)
        straight = output.rgb / output.alpha[..., None].clamp(min=1e-3)
        rgba = torch.cat([straight, output.alpha[..., None]], dim=-1).clamp(0, 1)
        write_image(folder / f"{name}.png", rgba.numpy())
