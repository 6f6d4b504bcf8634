"""A toy scene in which something is made wrong, and what is found out about it before the first step."""

import json
import logging
from dataclasses import replace

import numpy as np
import torch

from distill.alignment.before_training import check_before_training, explained_errors
from distill.model.model import build_model
from scene.images import read_image, write_image
from settings.loading import load_config
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.sources import load_teacher
from tests.toy_scene import mask_toy_scene

IMAGES = ["teacher.kind=images", "teacher.outputs=null", "teacher.ply=null"]
GAUSSIANS = ["teacher.kind=gaussians", "teacher.outputs=null"]
NO_DEPTH = ["teacher.depth_kind=none"]
AUTO = ["teacher.depth_kind=auto"]
SMALL = [*NO_DEPTH, "data.resolution=12"]


def prepare(folder, *overrides):
    config = load_config(folder / "toy.yaml", list(overrides), folder)
    with explained_errors(config):
        teacher = load_teacher(config)
        model = build_model(config, teacher, torch.device("cpu"))
    check_before_training(config, teacher, model)


def warnings_of(caplog, folder, *overrides):
    with caplog.at_level(logging.WARNING):
        prepare(folder, *overrides)
    return [record.getMessage() for record in caplog.records]


def change_poses(folder, change):
    path = folder / "data" / "transforms.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        frame.update(change(frame))
    path.write_text(json.dumps(content))


def change_pictures(folder, change):
    """Of images in ``data`` or renders in ``outputs``: uint8 in, uint8 or values in [0, 1] out."""
    for path in folder.glob("*.png"):
        write_image(path, change(read_image(path)))


def other_world(folder):
    smaller = read_ply(folder / "point_cloud.ply").scaled(0.2356)
    moved = replace(smaller, means=smaller.means + torch.tensor([0.4, -0.3, 0.2]))
    write_ply(folder / "point_cloud.ply", moved)


def mask(folder):
    """Masks the upper rows; there renders and images are of no scene."""
    mask_toy_scene(folder)
    of_no_scene = np.arange(24)[:, None, None] < 8
    change_pictures(folder / "outputs/renders", lambda image: np.where(of_no_scene, np.uint8([255, 0, 255]), image))
