"""What a teacher's depth files hold, as a report and as pictures: for who has to say ``teacher.depth_kind``."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from kernels.threads import one_torch_thread
from machine.terminal import late_bar
from scene.rays import SceneBox, image_rays, intersect_box
from teacher.depth import DepthKind, back_project, to_distance
from teacher.depth_inference import DepthReport, view_agreement, view_pairs
from teacher.views.output_folder import OutputFiles, parallel_map
from teacher.views.stored_depth import alpha_of, infer_from_files

_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_SHOWN_FRAMES = 4
_PAIRS = 16
# Pixels that percentiles and histograms are of, and points, evenly spread over all frames: of thousands of large ones
# memory does not hold all.
_PIXELS, _POINTS = 1_000_000, 200_000


@dataclass(frozen=True)
class Sample:
    """Values above 0 of the pixels of all frames, every so many of them, and what is true of all.

    Attributes:
        values: (M,) float32.
        every: pixels that each stands for.
        count: of all pixels that have a value.
        least, most: of all; infinite where there are none.
    """

    values: Tensor
    every: int
    count: int
    least: float
    most: float


@dataclass(frozen=True)
class Inspection:
    """Everything the report and the pictures show.

    Attributes:
        covered: (N,) share of each frame's pixels that have depth.
        stored: depth as in the files.
        shown: of a few frames, by number: depth as in the file, and distance (None while the kind is unclear), (H, W).
        box, box_source: the scene box and where it is from, in words.
        report: what the inference found.
        configured: the config's kind, None for auto.
        distance: along the ray; None while the kind is unclear.
        points: (M, 3) back-projected world points, spread over all frames.
        differences: a (M,) signed relative difference for each pair of neighbouring frames.
    """

    files: OutputFiles
    covered: Tensor
    stored: Sample
    shown: dict[int, tuple[Tensor, Tensor | None]]
    box: SceneBox
    box_source: str
    report: DepthReport
    configured: DepthKind | None
    distance: Sample | None
    points: Tensor
    differences: dict[tuple[int, int], Tensor]

    @property
    def kind(self) -> DepthKind | None:
        """The kind the distance is read with: the config's if it has one."""
        return self.configured or self.report.kind

    @property
    def is_clear(self) -> bool:
        """Whether the files show their kind, and the config says no other."""
        return self.report.kind is not None and self.configured in (None, self.report.kind)


@one_torch_thread()
def inspect(files: OutputFiles, box: SceneBox, box_source: str, configured: DepthKind | None) -> Inspection:
    """Reads depth files and finds out what they hold; arguments as the attributes of ``Inspection``.

    A few frames are in memory at a time, however many there are.

    Raises:
        InputError: files are missing or damaged.
    """
    report = infer_from_files(files, box)
    kind = configured or report.kind
    cameras, count = files.cameras, len(files)
    pixels = count * cameras.width * cameras.height
    shown = dict.fromkeys(round(i) for i in np.linspace(0, count - 1, min(_SHOWN_FRAMES, count)))
    # Near frames; sparse cameras have only farther ones.
    candidates = (view_pairs(cameras, box, angle, _PAIRS) for angle in (10.0, 25.0, 45.0))
    pairs = [] if kind is None else next(filter(None, candidates), [])
    waiting = {frame for pair in pairs for frame in pair}
    kept: dict[int, Tensor] = {}

    stored, distances, points = _Sampler(pixels), _Sampler(pixels), []
    covered = torch.empty(count)
    for i, (picture, depth) in enumerate(late_bar(parallel_map(files.load, count), "depth", count, " file")):
        covered[i] = stored.add(depth) / depth.numel()
        distance = None
        if kind is not None:
            distance, known = to_distance(depth, kind, cameras, i, alpha_of(picture))
            distances.add(distance)
            points.append(back_project(distance, _thinned(known, max(1, pixels // _POINTS)), cameras, i))
            if i in waiting:
                kept[i] = distance
        if i in shown:
            shown[i] = depth, distance

    differences = {}
    for pair in pairs:
        both = (kept[pair[0]], kept[pair[1]])
        difference = view_agreement(both, (both[0] > 0, both[1] > 0), cameras, pair)
        if len(difference):
            differences[pair] = difference
    return Inspection(
        files, covered, stored.sample(), shown, box, box_source, report, configured,
        None if kind is None else distances.sample(), torch.cat(points) if points else torch.empty(0, 3), differences,
    )  # fmt: skip


class _Sampler:
    """Takes a ``Sample`` of frames that have so many pixels together."""

    def __init__(self, pixels: int) -> None:
        self._every, self._parts = max(1, pixels // _PIXELS), []
        self._count, self._least, self._most = 0, math.inf, -math.inf

    def add(self, frame: Tensor) -> int:
        """Takes in a frame (H, W); how many of its pixels have a value."""
        values = frame[frame > 0]
        if len(values):
            first = -self._count % self._every  # frames with few values count as much as others
            self._parts.append(values[first :: self._every])
            self._least, self._most = min(self._least, values.min().item()), max(self._most, values.max().item())
            self._count += len(values)
        return len(values)

    def sample(self) -> Sample:
        values = torch.cat(self._parts) if self._parts else torch.empty(0)
        return Sample(values, self._every, self._count, self._least, self._most)


def _thinned(mask: Tensor, every: int) -> Tensor:
    """(H, W) bool: the first of every so many pixels that the mask holds."""
    places = mask.flatten().nonzero()[::every, 0]
    return torch.zeros_like(mask).flatten().index_fill(0, places, True).view(mask.shape)


def describe(inspection: Inspection) -> str:
    """The report as text, the lines for the config last."""
    files, stored, report, covered = inspection.files, inspection.stored, inspection.report, inspection.covered
    lines = [
        ("files", f"{len(files)} of {files.cameras.width}x{files.cameras.height} in {files.depths[0].parent}"),
        ("poses", str(files.dataset.source)),
        ("box", f"{_corner(inspection.box.lower)} to {_corner(inspection.box.upper)}, {inspection.box_source}"),
        ("coverage", f"{covered.mean():.1%} of pixels have depth ({covered.min():.1%} to {covered.max():.1%} a frame)"),
    ]
    if stored.count:
        lines += [("stored", f"{stored.least:.6g} to {stored.most:.6g}, 0 elsewhere"), ("", _percentiles(stored))]
    lines.append(("kind", report.kind.value if report.kind else "unclear"))
    lines += [("", sentence) for sentence in report.evidence]
    if inspection.configured is not None and not inspection.is_clear:
        found = report.kind.value if report.kind else "no clear kind"
        lines.append(("WARNING", f"the config says {inspection.configured.value}, the values say {found}"))
    if inspection.distance is not None:
        lines += _distance_lines(inspection)
    name_width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:<{name_width}}  {words}".rstrip() for name, words in lines)
    return f"{text}\n\nFor the config:\n\n{_for_the_config(inspection)}"


def _distance_lines(inspection: Inspection) -> list[tuple[str, str]]:
    distance, cameras, points = inspection.distance, inspection.files.cameras, inspection.points
    share = distance.count / max(1, inspection.stored.count)
    lines = [("distance", f"known in {share:.1%} of the pixels with depth, world units along the ray")]
    if len(points) == 0:
        return lines
    inside = inspection.box.contains(points).float().mean()
    lines += [("", _percentiles(distance)), ("", f"{inside:.1%} of the back-projected points are in the box")]
    if not inspection.differences:
        return [*lines, ("agreement", "not measured: no frame sees the points of a neighbouring one")]
    medians = {pair: d.abs().median().item() for pair, d in inspection.differences.items()}
    worst = max(medians, key=medians.__getitem__)
    together = torch.cat([d.abs() for d in inspection.differences.values()])
    names = inspection.files.dataset.names
    agreement = (
        f"median relative difference {together.median():.3%}, 90% are under {_quantile(together, 90):.2%}, "
        f"at {len(together)} points that both frames of {len(medians)} neighbouring pairs see"
    )
    return [
        *lines,
        ("agreement", agreement),
        ("", f"worst pair {names[worst[0]]}, {names[worst[1]]}: median {medians[worst]:.3%}"),
        ("", f"for comparison, a pixel is {1 / cameras.fx.median():.3%} of the distance wide"),
    ]


def _for_the_config(inspection: Inspection) -> str:
    """YAML lines."""
    kind = inspection.report.kind
    names = ", ".join(kind.value for kind in DepthKind)
    lines = ["teacher:"]
    lines += [f"  depth_kind: {kind.value}"] if kind else [f"  depth_kind: none  # or, if you know it: {names}"]
    points = inspection.points
    if len(points) and "no PLY" in inspection.box_source:
        # A few points lie astray; the margin keeps what the percentiles cut off.
        low, high = (np.percentile(points.numpy(), q, axis=0) for q in (0.5, 99.5))
        margin = 0.05 * (high - low).max()
        lines += ["data:", f"  box: {{lower: {_corner(low - margin)}, upper: {_corner(high + margin)}}}"]
    return "\n".join(lines) + "\n"


def _percentiles(sample: Sample) -> str:
    figures = np.percentile(sample.values.numpy(), _PERCENTILES)
    return "percentiles  " + "  ".join(f"{q}%: {v:.4g}" for q, v in zip(_PERCENTILES, figures, strict=True))


def _quantile(values: Tensor, percent: float) -> float:
    return float(np.percentile(values.numpy(), percent))


def _corner(corner: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in corner) + "]"


def histogram(inspection: Inspection) -> Figure:
    """Stored values; distance against the box; differences between neighbouring frames."""
    figure = Figure(figsize=(14, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _hist(left, inspection.stored, color="tab:gray")
    left.set(title="depth as stored (0 left out)", xlabel="value", ylabel="pixels")
    if inspection.distance is not None:
        known, box_range = inspection.distance.values, _box_range(inspection)
        low, high = (_quantile(known, percent) for percent in (0.1, 99.9)) if len(known) else box_range
        shown = (min(low, box_range[0]), max(high, box_range[1]))
        _hist(middle, inspection.distance, range=shown, color="tab:blue")
        for edge in box_range:
            middle.axvline(edge, color="tab:red", linestyle="--")
        title = f"distance, read as {inspection.kind.value} (red: the box)"
        middle.set(title=title, xlabel="world units along the ray")
    else:
        _blank(middle, "distance: the kind is unclear")
    if inspection.differences:
        together = torch.cat([*inspection.differences.values()]).numpy() * 100
        right.hist(together, bins=120, log=True, color="tab:green")
        right.set(title="difference between neighbouring frames", xlabel="% of the distance")
    else:
        _blank(right, "agreement: not measured")
    return figure


def _hist(axes: Axes, sample: Sample, **options: object) -> None:
    """How many pixels of all frames have which value."""
    weights = np.full(len(sample.values), float(sample.every))
    axes.hist(sample.values.numpy(), bins=120, weights=weights, log=True, **options)


def _box_range(inspection: Inspection) -> tuple[float, float]:
    """Nearest and farthest distance at which a ray of the first frame is in the box."""
    near, far = intersect_box(*image_rays(inspection.files.cameras, 0), inspection.box, 0.0, torch.inf)
    hit = far > near
    return (near[hit].min().item(), far[hit].max().item()) if hit.any() else (0.0, 1.0)


def depth_maps(inspection: Inspection) -> Figure:
    """Render, stored depth and distance of a few frames."""
    shown = inspection.shown
    figure = Figure(figsize=(12, 3.6 * len(shown)), layout="constrained")
    for row, (i, (stored, distance)) in zip(figure.subplots(len(shown), 3, squeeze=False), shown.items(), strict=True):
        picture, _ = inspection.files.load(i)
        row[0].imshow(picture)
        row[0].set_title(inspection.files.dataset.names[i], parse_math=False)  # a file's name may hold dollars
        _map(row[1], stored, "depth as stored")
        if distance is None:
            _blank(row[2], "distance: the kind is unclear")
        else:
            _map(row[2], distance, f"distance, world units; read as {inspection.kind.value}")
        for axes in row:
            axes.set_axis_off()
    return figure


def _map(axes: Axes, values: Tensor, title: str) -> None:
    """Colours between the 1st and 99th percentile, so that a few outliers do not flatten the rest; 0 is white."""
    known = values[values > 0].numpy()
    low, high = np.percentile(known, (1, 99)) if len(known) else (0, 1)
    masked = np.ma.masked_equal(values.numpy(), 0)
    drawn = axes.imshow(masked, cmap="turbo", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8)
    axes.set(title=title)


def _blank(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def png(figure: Figure) -> bytes:
    """The figure as a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
