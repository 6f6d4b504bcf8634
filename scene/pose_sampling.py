"""New camera poses near a dataset's own: what a teacher that answers any camera is asked for."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace

import numpy as np
import torch

from scene.cameras import Cameras
from scene.rays import focus

_NEIGHBOURS = 6
_HEAVIEST = 4.0  # a camera gets at most this many times the poses of the median one
_LEAST_COSINE = 0.5  # cameras that look more than 60 degrees apart are no neighbours, however close they stand


class PoseSampler:
    """An endless sequence of cameras on the shell of a dataset's cameras; number k depends on (cameras, seed, k) alone.

    A new pose lies between a camera and two of its neighbours, or as far on the other side of the camera, and is
    nearest to the camera: their viewing directions, distances and the points they look at are mixed with random
    weights. So it is never more than two thirds as far from the camera as one of these neighbours, at the border of
    what they cover too. Jitter comes on top. The roll is the camera's own, as nearly as a rotation onto the new
    direction leaves it. N poses in a row have each camera as often as the area around it asks for, in random order,
    so that poses are spread evenly however unevenly the cameras are.

    Cameras with no common focus (all looking the same way, or outwards) are mixed by position instead of orbiting.

    Args:
        cameras: N of them, at the image size that is wanted.
        seed: of the sequence.
        own_share: share of the poses that are a camera's own, unchanged, in [0, 1].
        angle: jitter of the viewing direction, degrees at most; around a focus the camera orbits with it.
        distance: jitter of the distance to what a camera looks at, as a fraction; without a focus, of the position,
            as a fraction of the distance to the nearest neighbour. Less than 1.
    """

    def __init__(self, cameras: Cameras, *, seed: int, own_share: float, angle: float, distance: float) -> None:
        self.cameras, self.seed = cameras, seed
        self.own_share, self.angle, self.distance = own_share, math.radians(angle), distance
        poses = cameras.c2w.double().cpu().numpy()
        self._rotations, self._centers = poses[:, :3, :3], poses[:, :3, 3]
        self._back = self._rotations[:, :, 2]
        try:
            self._depth = focus(cameras)[1].clamp(min=0).numpy()
        except ValueError:
            self._depth = np.zeros(len(cameras))
        # What a camera looks at: the point of its axis nearest to the focus; itself where there is none.
        self._targets = self._centers - self._depth[:, None] * self._back
        self._shares = np.cumsum(self._areas())

    def finer(self, scale: int) -> PoseSampler:
        """The same poses, of ``scale`` x ``scale`` pixels for each."""
        finer = copy(self)
        finer.cameras = self.cameras.finer(scale)
        return finer

    def camera(self, index: int) -> Cameras:
        """Number ``index`` of the sequence, a set of one on the CPU."""
        turn = self._turn(index)
        rng = np.random.default_rng([self.seed, index, 1])
        chosen = self.cameras[turn].to("cpu")
        if rng.random() < self.own_share:
            return chosen
        return replace(chosen, c2w=torch.from_numpy(self._new_pose(turn, rng)).float()[None])

    def _turn(self, index: int) -> int:
        """The camera that pose ``index`` is near to: systematic sampling by area, N poses at a time."""
        count = len(self.cameras)
        rng = np.random.default_rng([self.seed, index // count, 0])
        place = (rng.permutation(count)[index % count] + rng.random()) / count
        return min(int(np.searchsorted(self._shares, place * self._shares[-1], side="right")), count - 1)

    def _areas(self) -> np.ndarray:
        """(N,) relative areas around the cameras: their squared mean distance to the nearest neighbours."""
        areas = np.zeros(len(self.cameras))
        for own in range(len(areas)):
            near, apart = self._neighbours(own)
            areas[own] = apart[near].mean() ** 2 if len(near) else 0.0
        typical = np.median(areas[areas > 0]) if areas.any() else 1.0
        return np.where(areas > 0, np.minimum(areas, _HEAVIEST * typical), typical)

    def _new_pose(self, own: int, rng: np.random.Generator) -> np.ndarray:
        near, apart = self._neighbours(own)
        corners = np.concatenate([[own], rng.permutation(near)[:2]])
        weights = np.sort(np.diff(np.sort(rng.random(len(corners) - 1)), prepend=0.0, append=1.0))[::-1]
        if rng.random() < 0.5:  # mirrored at the camera
            weights = 2.0 * (np.arange(len(corners)) == 0) - weights
        target, back = weights @ self._targets[corners], _unit(weights @ self._back[corners])
        back = _turned(back, self.angle * math.sqrt(rng.random()), rng)
        depth = max(weights @ self._depth[corners], self._depth[own] / 2) * (1 + self.distance * rng.uniform(-1, 1))
        if not self._depth.any():
            spacing = apart[near][apart[near] > 0][:1].sum()  # 0 where all cameras are in one place
            target = target + self.distance * spacing * rng.random() * _unit(rng.normal(size=3))
        pose = np.eye(4)
        pose[:3, :3] = _rotation(self._back[own], back) @ self._rotations[own]
        pose[:3, 3] = target + depth * back
        return pose

    def _neighbours(self, own: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the cameras nearest to one that look its way, nearest first; all cameras' distances to it."""
        apart = np.linalg.norm(self._centers - self._centers[own], axis=1)
        alike = self._back @ self._back[own] >= _LEAST_COSINE
        alike[own] = False
        (candidates,) = alike.nonzero()
        return candidates[np.argsort(apart[candidates], kind="stable")][:_NEIGHBOURS], apart


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _turned(direction: np.ndarray, angle: float, rng: np.random.Generator) -> np.ndarray:
    """A unit vector turned by ``angle`` towards a random side."""
    aside = _unit(np.cross(direction, np.eye(3)[np.abs(direction).argmin()]))
    up, turn = np.cross(direction, aside), 2 * math.pi * rng.random()
    side = math.cos(turn) * aside + math.sin(turn) * up
    return math.cos(angle) * direction + math.sin(angle) * side


def _rotation(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(3, 3) the shortest rotation of one unit vector onto another, not its opposite (Rodrigues' formula)."""
    x, y, z = np.cross(start, end)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + start @ end)
