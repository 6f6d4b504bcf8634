"""How close two pictures are. Pictures are (H, W, 3) float arrays in [0, 1]; dB figures have data range 1."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch

from distill.evaluation import lpips_weights
from scene.images import psnr, psnr_from_mse
from settings.sections import Color

COLLAPSE_MARGIN_DB = 0.5
"""A student no more than this above a blank picture has learnt nothing."""

GATE_DB = 20.0
"""PSNR under which a student does not show what its teacher shows: the gate of the alignment prototype."""

HALF_DB, QUARTER_DB = 3.0, 6.0
"""Above a blank picture, with half and with a quarter of its squared error left."""

FOREGROUND_COVERAGE = 0.5
NETS = ("vgg", "alex")
"""Networks of LPIPS; the column is ``lpips_<net>``."""

OPAQUE = 0.9
"""Alpha from which a pixel's expected depth is that of one surface, not of an edge and what is behind it."""

SSIM_MIN_SIDE = 11
"""Pixels: the window of a Gaussian of sigma 1.5 cut at 3.5 sigma."""
LPIPS_MIN_SIDE = 32
"""Pixels: below it the deepest features are a single cell or none."""

_log = logging.getLogger(__name__)


def psnr_foreground(image: np.ndarray, reference: np.ndarray, coverage: np.ndarray) -> float | None:
    """PSNR in dB over the pixels whose ``coverage`` (H, W) in [0, 1] exceeds 0.5; None where there are none."""
    foreground = coverage > FOREGROUND_COVERAGE
    return psnr(image[foreground], reference[foreground]) if foreground.any() else None


def psnr_blank(reference: np.ndarray) -> float:
    """PSNR in dB of the best single-colour picture of ``reference``.

    A constant minimises the squared error of a channel at that channel's mean, where the error is the variance.
    """
    return psnr_from_mse(reference.var(axis=(0, 1), dtype=np.float64).mean())


def psnr_silhouette(reference: np.ndarray, coverage: np.ndarray, background: Color) -> float:
    """PSNR in dB of the reference's silhouette filled with its mean colour, on the background: it needs no learning.

    Args:
        coverage: (H, W) in [0, 1], the part of a pixel that the object covers.
        background: what the reference is on, sRGB in [0, 1].
    """
    share = coverage.astype(np.float64)[..., None]
    behind = (1 - share) * np.array(background)
    # The colour of least squared error: a mean, in which a pixel counts as far as it is covered.
    color = (share * (reference - behind)).sum(axis=(0, 1)) / max((share**2).sum(), 1e-12)
    return psnr(share * color.clip(0, 1) + behind, reference)


class DepthError(NamedTuple):
    """Mean absolute difference of two distances: in world units, and as a fraction of the reference's."""

    absolute: float
    relative: float


def depth_error(
    distance: np.ndarray, alpha: np.ndarray, reference: np.ndarray, reference_alpha: np.ndarray
) -> DepthError | None:
    """Over the pixels where both pictures are opaque (alpha of 0.9 or more) and both distances known (above 0).

    Args:
        distance, reference: (H, W) expected distance along the unit ray, world units, 0 where unknown.
        alpha, reference_alpha: (H, W) in [0, 1].

    Returns:
        None where there is no such pixel.
    """
    both = (alpha >= OPAQUE) & (reference_alpha >= OPAQUE) & (distance > 0) & (reference > 0)
    if not both.any():
        return None
    error = np.abs(distance[both].astype(np.float64) - reference[both])
    return DepthError(float(error.mean()), float((error / reference[both]).mean()))


def alpha_iou(alpha: np.ndarray, coverage: np.ndarray) -> float | None:
    """Intersection over union of the silhouettes, the pixels whose alpha (H, W) exceeds 0.5; None without any."""
    ours, theirs = alpha > FOREGROUND_COVERAGE, coverage > FOREGROUND_COVERAGE
    union = np.count_nonzero(ours | theirs)
    return np.count_nonzero(ours & theirs) / union if union else None


def flicker(
    image: np.ndarray, reference: np.ndarray, previous_image: np.ndarray, previous_reference: np.ndarray
) -> float:
    """What changes from one frame to the next beside what should: mean over pixels and channels of
    ``|(image - previous_image) - (reference - previous_reference)|``, in [0, 2].

    That is the absolute difference between consecutive signed error images: an error that stays where it is does not
    flicker. It is dtSSD (Erofeev et al. 2015, on video matting) with the absolute value for the square. It means
    something only where the two frames are neighbours on a camera path.
    """
    change = (image.astype(np.float64) - previous_image) - (reference.astype(np.float64) - previous_reference)
    return float(np.abs(change).mean())


def is_collapsed(
    student_psnr: float,
    blank_psnr: float,
    silhouette_psnr: float | None = None,
    alpha: float | None = None,
    coverage: float | None = None,
) -> bool:
    """Whether a student has learnt nothing.

    It is within ``COLLAPSE_MARGIN_DB`` of a blank picture, below it, or not a number. Or it is below the silhouette,
    as untrained ones are in cells that are known to be occupied, and half of the blank picture's squared error is left
    or its mean alpha is under half of the teacher's coverage. What is None is not looked at.
    """
    if not student_psnr > blank_psnr + COLLAPSE_MARGIN_DB:
        return True
    if silhouette_psnr is None or student_psnr >= silhouette_psnr:
        return False
    is_thin = alpha is not None and coverage is not None and alpha < coverage / 2
    return is_thin or student_psnr < blank_psnr + HALF_DB


def is_far(student_psnr: float, blank_psnr: float | None = None, silhouette_psnr: float | None = None) -> bool:
    """Whether a student, collapsed or not, is far from what it is compared with.

    It is below ``GATE_DB``; or below the silhouette, with more than a quarter of a blank picture's squared error left.
    """
    if not student_psnr >= GATE_DB:
        return True
    known = blank_psnr is not None and silhouette_psnr is not None
    return known and student_psnr < min(silhouette_psnr, blank_psnr + QUARTER_DB)


def ssim(image: np.ndarray, reference: np.ndarray, counted: np.ndarray | None = None) -> float | None:
    """Structural similarity (Wang et al. 2004, Gaussian window) as scikit-image computes it, in [-1, 1].

    Args:
        counted: (H, W) bool, the pixels whose windows are averaged; None: all.

    Returns:
        None where a side is shorter than the window (11 pixels), or no counted pixel has its whole window in the
        picture.
    """
    if min(image.shape[:2]) < SSIM_MIN_SIDE:
        return None
    from skimage.metrics import structural_similarity

    mean, each = structural_similarity(
        image,
        reference,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )
    if counted is None:
        return float(mean)
    inner = (slice(SSIM_MIN_SIDE // 2, -(SSIM_MIN_SIDE // 2)),) * 2
    chosen = each[inner][counted[inner]]
    return float(chosen.mean(dtype=np.float64)) if len(chosen) else None


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018, version 0.1) of the ``lpips`` package; 0 is identical.

    Args:
        net: ``"vgg"`` or ``"alex"``; the column it fills is ``lpips_<net>``.
        weights: the backbone's convolutions, from ``lpips_weights.backbone_weights``.
        device: where it runs.
    """

    def __init__(self, net: str, weights: dict[str, torch.Tensor], device: torch.device | str = "cpu") -> None:
        self.net, self.device = net, torch.device(device)
        self.model = _build_model(net, weights).to(self.device)
        self._alone = Lock()

    @classmethod
    def load(cls, net: str = "vgg", device: torch.device | str = "cpu") -> Lpips | None:
        """The metric, or None after a warning in the log: no weights to be had, or the package does not load."""
        weights = lpips_weights.backbone_weights(net)
        if weights is None:
            return None
        try:
            return cls(net, weights, device)
        except (ImportError, RuntimeError) as error:  # what a torchvision built for another torch raises
            _log.warning(
                "LPIPS is not measured (lpips_%s stays empty), the lpips package does not load: %s. "
                "Install the torchvision that belongs to torch %s.",
                *(net, error, torch.__version__),
            )
            return None

    @torch.no_grad()
    def __call__(self, image: np.ndarray, reference: np.ndarray, counted: np.ndarray | None = None) -> float | None:
        """The distance, or None where a side is shorter than ``LPIPS_MIN_SIDE``.

        Args:
            counted: (H, W) bool, the pixels over which the network's map of distances is averaged; None: all.
        """
        if min(image.shape[:2]) < LPIPS_MIN_SIDE:
            return None
        pair = torch.from_numpy(np.stack([image, reference])).float().permute(0, 3, 1, 2).to(self.device)
        with self._alone:  # features of one pair fill gigabytes
            self.model.spatial = counted is not None
            distance = self.model(pair[:1], pair[1:], normalize=True)
        return distance.item() if counted is None else distance[0, 0].cpu().numpy()[counted].mean().item()


def _build_model(net: str, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    import lpips

    # On the meta device nothing is allocated: the package would fill VGG's 138 million parameters at random first.
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # torchvision's deprecation of the arguments lpips passes
        model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    linear = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    state = torch.load(linear, map_location="cpu", weights_only=True)
    for key in model.net.state_dict():  # "slice2.5.weight" is torchvision's "features.5.weight"
        state[f"net.{key}"] = weights[f"features.{key.split('.', 1)[1]}"]
    model.load_state_dict(state, strict=False, assign=True)
    return model.requires_grad_(False).eval()
