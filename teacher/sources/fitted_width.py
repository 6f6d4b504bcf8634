"""At which width a teacher's Gaussians were fitted: files say it, or drawing some views shows it."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import log2
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from machine.devices import choose_device
from machine.terminal import late_word
from scene.cameras import Cameras
from scene.formats import load_frames
from scene.frames import Frames, chosen_frames, spread, working_size
from scene.images import image_header, psnr
from settings.config import Config
from settings.errors import InputError
from settings.words import counted
from teacher.gaussian_files import fitted_width_in
from teacher.gaussian_files.checks import FITTED_WIDTH
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing, Rasterizer
from teacher.views.output_folder import find_outputs, load_ground_truth, outputs_folder
from teacher.views.rasterized import blended_planes

# A few views tell, and no view needs to be large: what is thinner than a pixel shows at any size.
_TRIAL_FRAMES, _TRIAL_WIDTH = 2, 200
# Under it pictures show another scene than the Gaussians, and tell nothing about them.
_ALIKE_DB = 20.0
# What another width has to be better by: than one that somebody or something said; than one that is merely likely.
_COSTLY_DB, _BETTER_DB = 1.0, 0.25
_LEAST_WIDTH = 8
_OF_THE_FRAMES = "the width of the dataset's frames"
_GRAPHDECO_MOST = 1600  # graphdeco reduces wider pictures to it unless told otherwise
_log = logging.getLogger(__name__)


class Known(NamedTuple):
    """A width in pixels, and where it is from, in words."""

    width: int
    source: str


def find_drawing(config: Config, gaussians: Gaussians) -> Drawing:
    """At which size the Gaussians of ``teacher.ply`` are drawn, from which near plane on, and the log told so.

    The fitted width is the config's; else that which files beside the Gaussians tell (``recorded_width``), that of
    the stored renders, or that of the dataset's frames, unless some views drawn at other widths look clearly more like
    the dataset's images (like the stored renders, where there are no images). What costs more than 1 dB is warned of.

    Raises:
        InputError: the dataset's file, or an image of it, is missing or damaged.
    """
    return replace(_find_size(config, gaussians), near=config.teacher.near_plane)


def _find_size(config: Config, gaussians: Gaussians) -> Drawing:
    teacher, transforms, said = config.teacher, config.data.transforms, _said(config)
    if transforms is None or not transforms.exists():
        return Drawing(said and said.width, teacher.supersample)
    dataset = chosen_frames(config.data.frames, load_frames(transforms, data=config.data))
    native = dataset.cameras.width
    width = config.data.resolution or native
    tried = min(width, native)
    trial = _trial(config, gaussians, dataset, tried)
    if trial is None:
        return _untried(teacher.supersample, said, native, width)
    with late_word("finding out at which width the Gaussians were fitted"):
        known = _judged(trial, said, native, told=teacher.fitted_width is not None)
    if known is None:
        return _untried(teacher.supersample, said, native, width)
    drawing, automatic = Drawing(known.width, teacher.supersample), Drawing(known.width)
    if trial.psnr(automatic) > trial.psnr(drawing) + _COSTLY_DB:
        _log.warning(
            "teacher.supersample: %d draws the Gaussians at %d pixels, fitted at %d: %.2f dB %s; without it, "
            "at %d pixels, %.2f dB",
            *(teacher.supersample, tried * teacher.supersample, known.width, trial.psnr(drawing), trial.reference),
            *(tried * automatic.multiple(tried), trial.psnr(automatic)),
        )
    _announce(known, drawing, width, f"; {trial.psnr(drawing):.2f} dB {trial.reference}")
    return drawing


def recorded_width(gaussians: Path) -> Known | None:
    """What files tell of the width that the Gaussians of a file were fitted at; None where none does.

    The file itself, a PLY or ``.npz``, as ``write_gaussians`` leaves it; else graphdeco's ``cameras.json`` and
    ``cfg_args``, beside the file or in its model's folder.
    """
    if own := fitted_width_in(gaussians):
        return Known(own, f"the width in the header of {gaussians.name}")
    for folder in (gaussians.parent, *gaussians.parents[2:3]):
        if width := _graphdeco_width(folder):
            return Known(width, f"the width in graphdeco's files in {folder}")
    return None


def best_width(psnr_at: Callable[[int], float], start: int, most: int) -> int:
    """The width of highest PSNR near ``start``: steps of a quarter octave, wider while they climb, then narrower.

    A step has to gain a tenth of a dB. Three widths are tried where the start is best.

    Args:
        psnr_at: of pictures drawn for a fitted width; has one peak.
        most: the largest width tried.
    """
    figures = {start: psnr_at(start)}
    best, octaves, finest = start, 0.25, 0.25
    while octaves >= finest:
        near = {min(most, max(_LEAST_WIDTH, round(best * 2**step))) for step in (-octaves, octaves)}
        figures |= {width: psnr_at(width) for width in near if width not in figures}
        top = max(near, key=figures.__getitem__)
        if figures[top] > figures[best] + 0.1:
            best, octaves, finest = top, min(1.0, 2 * octaves), 0.125
        else:
            octaves /= 2
    return best


# --- what is said ------------------------------------------------------------------------------------------------


def _said(config: Config) -> Known | None:
    teacher = config.teacher
    if teacher.fitted_width is not None:
        return Known(teacher.fitted_width, "teacher.fitted_width")
    recorded = None if teacher.ply is None else recorded_width(teacher.ply)
    return recorded or (_stored_width(teacher.outputs) if teacher.outputs is not None else None)


def _stored_width(outputs: Path) -> Known | None:
    """Of renders on disk: programs draw them as wide as what they fitted, unless an export says otherwise."""
    try:
        folder = outputs_folder(outputs)
        first = next(iter(sorted((folder / "renders").glob("*.png"))), None)
        width = None if first is None else image_header(first).size[0]
    except InputError:  # not a folder of renders: whoever needs one says so
        return None
    exported = _json(folder / "export_settings.json")
    if isinstance(exported, dict) and isinstance(exported.get(FITTED_WIDTH), int):
        width = exported[FITTED_WIDTH]
    return width and Known(width, f"the width of the renders in {folder}")


def _graphdeco_width(folder: Path) -> int | None:
    """Of the pictures that graphdeco's program trained on: ``cameras.json`` has that of the files, ``cfg_args`` how
    they were reduced (``-r`` 1, 2, 4 or 8: by that; -1: to 1600 pixels where they are wider; else: to that width).

    Of pictures of several widths it is that of the widest, the cameras' (``Frames.cameras``), reduced as the commonest
    ones were.
    """
    cameras, arguments = _json(folder / "cameras.json"), folder / "cfg_args"
    text = arguments.read_text(encoding="utf-8", errors="replace") if arguments.is_file() else ""
    resolution = re.search(r"\bresolution=(-?\d+)", text)
    reduced = int(resolution[1]) if resolution else -1
    entries = cameras if isinstance(cameras, list) else []
    widths = Counter(entry["width"] for entry in entries if isinstance(entry, dict) and type(entry.get("width")) is int)
    if not widths:
        return reduced if reduced > 8 else None
    (common, _), *_ = widths.most_common(1)
    width = common
    if smaller := re.search(r"\bimages='[^']*_([248])'", text):  # a folder of reduced images: images_4
        width = round(width / int(smaller[1]))
    width = width / reduced if 0 < reduced <= 8 else min(width, _GRAPHDECO_MOST) if reduced <= 0 else reduced
    return round(width * max(widths) / common)


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


# --- what drawing shows ------------------------------------------------------------------------------------------


def _judged(trial: _Trial, said: Known | None, native: int, told: bool) -> Known | None:
    """The fitted width by what is said and by what drawing shows; None where the pictures show another scene.

    Args:
        native: width of the dataset's frames.
        told: whether the config says it, which holds whatever drawing shows.
    """

    def psnr_at(width: int) -> float:
        return trial.psnr(Drawing(width))

    known = said or Known(native, _OF_THE_FRAMES)
    best = best_width(psnr_at, known.width, 4 * native)
    if psnr_at(best) < _ALIKE_DB:
        return None
    usual = round(native * 2.0 ** round(log2(best / native)))  # images are mostly halved, if anything
    if psnr_at(usual) > psnr_at(best) - _BETTER_DB:
        best = usual
    gain, least = psnr_at(best) - psnr_at(known.width), _COSTLY_DB if said else _BETTER_DB
    if gain <= least:
        return known
    figures = f"{psnr_at(best):.2f} dB at {best} pixels, {psnr_at(known.width):.2f} at {known.width}, {trial.reference}"
    if told:
        _log.warning("teacher.fitted_width: the Gaussians look better drawn for another width: %s", figures)
        return known
    if said:
        _log.warning("the Gaussians look better drawn for another width than %s: %s", said.source, figures)
    else:
        _log.info("the width that the Gaussians were fitted at: %s", figures)
    return Known(best, "the best of those tried")


class _Trial:
    """A few views to draw and to compare with pictures of them.

    Args:
        pictures: (V, H, W, 4) uint8 straight RGBA of the V cameras, at their size.
        reference: what the pictures are, in words.
    """

    def __init__(
        self, config: Config, gaussians: Gaussians, cameras: Cameras, pictures: Tensor, reference: str
    ) -> None:
        self._rasterizer = Rasterizer(gaussians, config.teacher.rasterizer, device=choose_device(config))
        self._cameras, self._near = cameras, config.teacher.near_plane
        self._background = np.array(config.teacher.background_rgb, np.float32)
        rgba = pictures.numpy() / np.float32(255)
        self._pictures = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]) * self._background
        self.reference = f"against {reference} ({counted(len(cameras), 'frame')} at {cameras.width}x{cameras.height})"
        self._figures: dict[Drawing, float] = {}

    def psnr(self, drawing: Drawing) -> float:
        """Mean over the views, dB."""
        if drawing not in self._figures:
            rasterizer, figures = self._rasterizer.redrawn(replace(drawing, near=self._near)), []
            for index, picture in enumerate(self._pictures):
                planes = blended_planes(rasterizer, self._cameras, index).cpu().numpy()
                drawn = planes[..., :3] + (1 - planes[..., 3:4]) * self._background
                figures.append(psnr(drawn.clip(0, 1), picture))
            self._figures[drawing] = sum(figures) / len(figures)
        return self._figures[drawing]


def _trial(config: Config, gaussians: Gaussians, dataset: Frames, width: int) -> _Trial | None:
    """Of the dataset's images, else of stored renders; None without either.

    At the working width where ``teacher.supersample`` is to be judged, else no larger than needed.
    """
    data, outputs, reference = config.data, config.teacher.outputs, "ground truth"
    paths = list(dataset.image_paths) if data.ground_truth else []
    if not config.teacher.supersample:
        width = min(width, _TRIAL_WIDTH)
    if outputs is not None:
        try:
            files = find_outputs(
                outputs, data.transforms, data.frames, depth=False, truth=bool(data.ground_truth), data=data
            )
        except InputError:  # not renders of these frames: whoever needs them says so
            if not any(paths):
                return None
        else:
            paths = list(files.dataset.image_paths) if data.ground_truth else []  # those that are no renders
            if not any(paths):
                paths, reference = (files.truths, reference) if files.truths else (files.renders, "the stored renders")
                width = min(width, image_header(paths[0]).size[0])
    whole = (dataset.cameras.width, dataset.cameras.height)
    usable = [index for index, path in enumerate(paths) if path is not None and dataset.size_of(index) == whole]
    chosen = spread(usable, _TRIAL_FRAMES)
    if not chosen:
        return None
    size = working_size(dataset.cameras, width, dataset.source)
    pictures = torch.cat([load_ground_truth(_only(dataset, index, paths[index]), size) for index in chosen])
    return _Trial(config, gaussians, dataset.cameras[chosen].resized(*size), pictures, reference)


def _only(dataset: Frames, index: int, path: Path) -> Frames:
    """One frame, with a picture that need not be the dataset's own: those are of one size."""
    frame = dataset[index : index + 1]
    own = path == frame.image_paths[0]
    return replace(frame, image_paths=(path,), sizes=frame.sizes if own else None)


def _untried(supersample: int | None, said: Known | None, native: int, width: int) -> Drawing:
    """The drawing by what is said, where no pictures can tell."""
    if said is None and supersample is not None:
        return Drawing(None, supersample)
    known = said or Known(native, _OF_THE_FRAMES)
    drawing = Drawing(known.width, supersample, is_supposed=said is None)
    if said is None and native != width:
        text = "nothing says at which width the Gaussians were fitted: %d pixels are assumed, %s; "
        _log.warning(text + "teacher.fitted_width sets another", *known)
    if supersample is not None and width * supersample < known.width:
        text = "teacher.supersample: %d draws the Gaussians at %d pixels, fitted at %d (%s): thin parts get lost"
        _log.warning(text, supersample, width * supersample, *known)
    _announce(known, drawing, width)
    return drawing


def _announce(known: Known, drawing: Drawing, width: int, figure: str = "") -> None:
    text = "Gaussians fitted at %d pixels (%s), drawn at %d for views of %d%s"
    _log.info(text, *known, width * drawing.multiple(width), width, figure)
