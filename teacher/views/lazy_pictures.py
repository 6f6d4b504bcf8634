"""Pictures that are decoded or put together when they are asked for: no more of them is in memory than has to be."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from teacher.views.rasterized import View


class Picture(NamedTuple):
    """A picture as a view, which of its pixels count, (H, W) bool, None: all, and, of a drawn one, the dataset's own
    image of it, (H, W, 4) uint8 straight RGBA, where there is one.
    """

    view: View
    counted: Tensor | None = None
    truth: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Of its planes, one that two share counted once."""
        planes = {id(plane): plane.nbytes for plane in vars(self.view).values() if plane is not None}
        return sum(planes.values()) + sum(plane.nbytes for plane in self[1:] if plane is not None)


class PictureStore:
    """Pictures by their numbers, those used last kept within a budget.

    Args:
        decode: picture i, of one size and kind with the others; called from several threads.
        count: number of pictures.
        budget: bytes that are kept at most; a single picture may take more.
        drawn: whether they are a teacher's; otherwise they are the dataset's images and ground truth themselves.
    """

    def __init__(self, decode: Callable[[int], Picture], count: int, budget: int, drawn: bool = False) -> None:
        self.decode, self.budget, self.drawn = decode, budget, drawn
        self.nbytes = 0
        self._count = count
        self._kept: OrderedDict[int, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Picture:
        with self._lock:
            if (kept := self._kept.get(index)) is not None:
                self._kept.move_to_end(index)
                return kept
        picture = self.decode(index)  # others need not wait for it
        with self._lock:
            if index not in self._kept:
                self._kept[index] = picture
                self.nbytes += picture.nbytes
            while self.nbytes > self.budget and len(self._kept) > 1:
                self.nbytes -= self._kept.popitem(last=False)[1].nbytes
        return picture

    def joined(self, other: PictureStore) -> PictureStore:
        """The pictures of both, those of the other after one's own, in one's own budget."""
        own, masked = len(self), any(store[0].counted is not None for store in (self, other))

        def decode(index: int) -> Picture:
            picture = self.decode(index) if index < own else other.decode(index - own)
            if masked and picture.counted is None:
                picture = picture._replace(counted=torch.ones_like(picture.view.coverage, dtype=torch.bool))
            return picture

        return PictureStore(decode, own + len(other), self.budget, self.drawn)

    def planes(self) -> dict[str, Any]:
        """The fields of ``TeacherViews`` that pictures fill, as ``LazyPlane``; None as those of the first are."""
        first = self[0]

        def plane(of: Callable[[Picture], Tensor | None]) -> LazyPlane | None:
            shown = of(first)
            return None if shown is None else LazyPlane(lambda i: of(self[i]), (len(self), *shown.shape))

        named = {name: plane(lambda picture, name=name: getattr(picture.view, name)) for name in vars(first.view)}
        truth = plane(
            lambda picture: picture.truth if self.drawn else straight_rgba(picture.view.rgb, picture.view.alpha)
        )
        return {**named, "ground_truth": truth, "counted": plane(lambda picture: picture.counted)}


class LazyPlane:
    """A plane of N pictures, (N, H, W, ...), indexed like a tensor; what is asked for is decoded.

    Args:
        of: the plane of picture i.
    """

    def __init__(self, of: Callable[[int], Tensor], shape: tuple[int, ...]) -> None:
        self._of, self.shape = of, torch.Size(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Tensor:
        first, *rest = index if isinstance(index, tuple) else (index,)
        if first is Ellipsis:
            first, rest = slice(None), [..., *rest]
        chosen = torch.arange(len(self))[first]
        if chosen.ndim == 0:
            return self._of(int(chosen))[tuple(rest)]
        return torch.stack([self._of(i) for i in chosen.tolist()])[(slice(None), *rest)]


def rgba_plane(rgb: Tensor | LazyPlane, alpha: Tensor | LazyPlane | None) -> LazyPlane:
    """(N, H, W, 4) uint8 straight RGBA of N pictures (N, H, W, 3) with their alpha (N, H, W), made when asked for."""
    return LazyPlane(lambda i: straight_rgba(rgb[i], None if alpha is None else alpha[i]), (*rgb.shape[:3], 4))


def straight_rgba(rgb: Tensor, alpha: Tensor | None) -> Tensor:
    """(H, W, 4) uint8 on the CPU of a picture's colour (H, W, 3) and alpha (H, W) uint8; None: it is opaque."""
    rgba, colour = np.empty((*rgb.shape[:2], 4), np.uint8), rgb.cpu().numpy()
    for channel in range(3):  # a third of what torch.cat takes, which a fit on a GPU would wait for in each step
        rgba[..., channel] = colour[..., channel]
    rgba[..., 3] = 255 if alpha is None else alpha.cpu().numpy()
    return torch.from_numpy(rgba)
