"""How good a city is, and whether its seams show: PSNR of held-out frames, and along the faces between blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_dilation
from torch import Tensor

from distill.city.manifest import Manifest
from distill.city_rendering.level_of_detail import View
from distill.city_rendering.streaming import StreamedCity
from distill.evaluation.evaluator import background_of
from distill.rendering.renderer import RenderedFrame
from machine.files import write_csv
from machine.terminal import progress_bar
from scene.cameras import Cameras
from scene.frames import refuse_no_holdout
from scene.images import psnr_from_mse, to_uint8
from scene.rays import SceneBox, image_rays
from settings.config import Config
from settings.words import counted
from teacher.sources import Teacher, load_teacher

COLUMNS = ("frame", "name", "psnr", "psnr_band", "psnr_rest", "band_pixels", "rest_pixels")
FILE = "evaluation.csv"
"""In the city's folder: a row per held-out frame, then one of all."""
_SURFACE = 0.5  # alpha from which a pixel shows a surface
_JUMP = 0.05  # of the distance: between neighbouring pixels more is another surface, not a face


@dataclass(frozen=True)
class CityFigures:
    """What an evaluation found; dB against the full teacher, in 8 bits, None where there are no such pixels.

    Attributes:
        frames: held-out ones.
        psnr: mean over frames.
        psnr_band: of all frames' pixels in a band 4 pixels wide along faces where a surface crosses them.
        psnr_rest: of the other pixels that show a surface.
        band_share: of the surfaces' pixels, those in the band.
        path: the CSV.
    """

    frames: int
    psnr: float
    psnr_band: float | None
    psnr_rest: float | None
    band_share: float
    path: Path

    def text(self) -> str:
        """A line for a person."""
        if self.psnr_band is None or self.psnr_rest is None:
            seams = "no surface crosses a face between blocks"
        else:
            seams = (
                f"{self.psnr_band:.2f} dB along faces, {self.psnr_rest:.2f} dB on the rest of the surfaces "
                f"({self.psnr_band - self.psnr_rest:+.2f} dB; {self.band_share:.1%} of their pixels)"
            )
        return f"city: {self.psnr:.2f} dB on {counted(self.frames, 'held-out frame')}; {seams}"


def evaluate(
    manifest: Manifest, config: Config, budget: int | None = None, whole: Callable[[], Teacher] | None = None
) -> CityFigures:
    """Renders a city's held-out frames by its finest students and compares them with its whole teacher; writes the CSV.

    Args:
        config: the city's.
        budget: bytes that rendering may take, see ``StreamedCity``; None: no limit.
        whole: gives the teacher, where others need that too; None: it is loaded.

    Raises:
        InputError: blocks or the teacher are not in order, or no frame is held out.
    """
    views = (load_teacher(config) if whole is None else whole()).views
    held = views.holdout_frames.tolist()
    refuse_no_holdout(len(held))
    background = background_of(views, config)
    city = StreamedCity(manifest, config, budget, level_of_detail=False, background=background)
    boxes, cameras = [block.box for block in manifest.blocks], views.cameras[held]
    rows, errors = [], []
    frames = progress_bar(city.frames(cameras), desc="city", total=len(held), unit=" frame")
    for place, (frame, _) in enumerate(frames):
        image = to_uint8(frame.rgb.cpu().numpy()) / np.float32(255)
        error = np.square(image - views.image(held[place], background).numpy()).mean(-1, dtype=np.float64)
        counted = np.ones_like(error, bool) if views.counted is None else views.counted[held[place]].numpy()
        surface, band = (mask.cpu().numpy() & counted for mask in surface_and_band(frame, cameras, place, boxes))
        parts = [error[mask] for mask in (counted, band, surface & ~band)]
        errors.append(parts)
        rows.append(_row(place, views.names[held[place]], parts))
    whole = [np.concatenate(parts) for parts in zip(*errors, strict=True)]
    psnr = float(np.mean([row["psnr"] for row in rows]))
    total = _row(None, "all", whole) | {"psnr": psnr}
    path = manifest.path(FILE)
    write_csv(path, [*rows, total], COLUMNS)
    share = len(whole[1]) / max(1, len(whole[1]) + len(whole[2]))
    return CityFigures(len(held), psnr, total["psnr_band"], total["psnr_rest"], share, path)


def surface_and_band(
    frame: RenderedFrame, cameras: Cameras, index: int, boxes: Sequence[SceneBox]
) -> tuple[Tensor, Tensor]:
    """Which pixels show a surface, and which lie within 2 pixels of where one crosses from a block to the next.

    That is between neighbouring pixels whose surface points, at the rendered distance, are in two blocks, and about as
    far away: across an edge that hides another surface it is no seam.

    Returns:
        (H, W) bool each; the band is part of the surface.
    """
    size, view = frame.alpha.shape, View(cameras, index)
    origins, directions = (part.to(frame.alpha.device) for part in image_rays(cameras, index))
    points = origins + frame.distance.reshape(-1, 1) * directions
    surface, block = frame.alpha > _SURFACE, torch.full(size, -1, device=points.device)
    for number in view.seen(boxes):
        for band, _ in view.bands(boxes[number]):
            pixels = band.to(points.device)
            block.view(-1)[pixels[boxes[number].contains(points[pixels])]] = number
    surface = surface & (block >= 0)
    seam = torch.zeros_like(surface)
    for here, there in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        near, far = frame.distance[here], frame.distance[there]
        crosses = surface[here] & surface[there] & (block[here] != block[there])
        crosses &= (near - far).abs() < _JUMP * torch.minimum(near, far)
        seam[here] |= crosses
        seam[there] |= crosses
    wide = torch.from_numpy(binary_dilation(seam.cpu().numpy(), np.ones((3, 3)))).to(surface.device)
    return surface, wide & surface


def _row(frame: int | None, name: str, parts: Sequence[np.ndarray]) -> dict[str, object]:
    """A row of the CSV of squared errors: of all pixels, of the band, of the rest."""
    figures = [float(psnr_from_mse(part.mean())) if len(part) else None for part in parts]
    named = dict(zip(("psnr", "psnr_band", "psnr_rest"), figures, strict=True))
    return {"frame": frame, "name": name, **named, "band_pixels": len(parts[1]), "rest_pixels": len(parts[2])}
