"""The runs under a root as records, from whatever their folders in ``logs/`` and ``results/`` hold."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill.evaluation.metrics import COLLAPSE_MARGIN_DB, GATE_DB, is_collapsed, is_far
from distill.evaluation.results import REMEDY
from distill.reports.dashboard.run_files import Problems, Row, read_mapping, read_rows, section
from distill.reports.dashboard.stages import LINEAR, stage_of, student_of
from machine.memory import MIB
from machine.run_folder import CITY_MANIFEST

SUSPICIOUS_PSNR = 12.0
"""dB: a student below it is likely blank, where no ``psnr_blank`` can tell; LEGO and the bricks have 9 to 12."""

_EVAL_CSV = re.compile(r"eval_step_(\d+)(?:_(.+?))??(_frames|_parity)?\.csv")
_PICTURE = re.compile(r"_(worst_\d+|median)_frame_(\d+)\.png")
_TRAINING, _FITTING = "training_metrics.csv", "fitting_metrics.csv"
_BLOCKS = "blocks"  # the folder beside a city's manifest that its blocks are in
_EARLIER = "earlier"  # what a run of the same name left
_EVAL_EXPECTED = ("psnr", "ssim", "lpips_vgg", "avg_fps", "psnr_blank")
_ALIASES = {"lpips": "lpips_vgg"}  # the experiment log's first CSVs do not name the network; it was VGG


@dataclass(frozen=True)
class Picture:
    """A triptych of an evaluation: ``kind`` is ``worst_1``, ``median`` ..., ``frame`` counts the views."""

    kind: str
    frame: int
    path: Path


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Args:
        step: training steps of what was evaluated; None where nothing tells.
        tag: as in the CSV's name.
        rows: one per split and reference, columns as in the CSV.
        frames: one per frame and reference.
        parity: one per subject: student, teacher, ratio.
        pictures: the worst frames, worst first, then the median one.
    """

    step: int | None
    tag: str
    rows: list[Row]
    frames: list[Row]
    parity: list[Row]
    pictures: list[Picture]

    @property
    def judged(self) -> Row:
        """The row a run is judged by: held-out frames against the teacher, else the next best; empty without rows."""
        order = ("reference", "teacher"), ("split", "holdout"), ("split", "all")
        rank = lambda row: (row.get("psnr") is None, *(row.get(name) != best for name, best in order))  # noqa: E731
        return min(self.rows, key=rank, default={})

    @property
    def against_truth(self) -> Row:
        """The row of the same frames as ``judged`` against ground truth; empty where there is none."""
        split = self.judged.get("split")
        same = (row for row in self.rows if (row.get("split"), row.get("reference")) == (split, "ground_truth"))
        return next(same, {})

    @property
    def student_parity(self) -> Row:
        """The student's figures beside its teacher; empty where there are none."""
        return next((row for row in self.parity if row.get("subject") == "student"), {})


@dataclass(frozen=True)
class Run:
    """A run, or one of its tags where evaluations of several lie in one folder.

    Args:
        scene: its folder's parents, ``lego``.
        name: its folder, with ``(tag)`` where there are several.
        stage: a key of ``stages.STAGES``.
        student: the student's kind, None where nothing tells.
        width: pixels, as the evaluation has it, else the config; None where neither says.
        training: rows of the training log.
        evaluations: by step.
        size_mib: of the student (of a fitted teacher its PLY), MiB.
        parameters: how many numbers that is.
        versions: what versions.json says.
        is_block: whether it is a block of a city, whose teacher is its own part of the city's.
    """

    scene: str
    name: str
    stage: str
    student: str | None
    width: int | None
    training: list[Row]
    evaluations: list[Evaluation]
    size_mib: float | None
    parameters: int | None
    versions: dict[str, Any]
    is_block: bool = False

    @property
    def key(self) -> str:
        """``scene/name``, of which there is one under a root."""
        return f"{self.scene}/{self.name}" if self.scene else self.name

    @property
    def latest(self) -> Evaluation | None:
        """Of the highest step, of those with a PSNR where there are any."""
        measured = [evaluation for evaluation in self.evaluations if evaluation.judged.get("psnr") is not None]
        return next(reversed(measured or self.evaluations), None)

    @property
    def steps(self) -> int | None:
        """Of the latest evaluation, else of the training log's last row."""
        if self.latest is not None:
            return self.latest.step
        logged = [row["step"] for row in self.training if row.get("step") is not None]
        return int(logged[-1]) if logged else None

    def figure(self, name: str) -> float | None:
        """A figure of the row the run is judged by."""
        value = self.latest.judged.get(name) if self.latest else None
        return value if isinstance(value, float) else None

    @property
    def reference(self) -> str | None:
        """What it is judged against, in words; the teacher of a control is the dataset's images."""
        name = self.latest.judged.get("reference") if self.latest else None
        if name is None:
            return None
        return "images" if self.stage == "control" and name == "teacher" else str(name).replace("_", " ")

    @property
    def gap_to_blank(self) -> float | None:
        """dB above the best single-colour picture."""
        psnr, blank = self.figure("psnr"), self.figure("psnr_blank")
        return None if psnr is None or blank is None else psnr - blank

    @property
    def gap_to_teacher(self) -> float | None:
        """dB that the teacher is nearer ground truth than the student, on the same frames; negative: it is passed."""
        row = self.latest.against_truth if self.latest else {}
        teacher, student = row.get("psnr_teacher"), row.get("psnr")
        return None if teacher is None or student is None else teacher - student

    @property
    def mark(self) -> tuple[str, str] | None:
        """What makes the figures worthless, in a word, and why; None where nothing says so."""
        if self.latest is None or not self.latest.rows:
            return None
        psnr, blank = self.figure("psnr"), self.figure("psnr_blank")
        if psnr is None:
            said = self.latest.judged.get("collapsed")
            return ("COLLAPSED", "The evaluation says so; it has no PSNR.") if said else None
        silhouette, alpha, coverage = (self.figure(name) for name in ("psnr_silhouette", "alpha_mean", "coverage"))
        if blank is not None and is_collapsed(psnr, blank, silhouette, alpha, coverage):
            if is_collapsed(psnr, blank):
                bound = f"not {COLLAPSE_MARGIN_DB} dB above that of a blank picture, {blank:.2f} dB."
            else:
                bound = f"below that of the silhouette in one colour, {silhouette:.2f} dB."
            return "COLLAPSED", f"PSNR {psnr:.2f} dB is {bound}"
        if self.latest.judged.get("collapsed"):
            return "COLLAPSED", "The evaluation says so."
        if blank is None and psnr < SUSPICIOUS_PSNR:
            return "likely blank", (
                f"PSNR {psnr:.2f} dB is below {SUSPICIOUS_PSNR:g} dB and the CSV has no psnr_blank."
                + (" An all-white picture has 9.4757 dB on LEGO's test images." if self.is_comparable else "")
            )
        if is_far(psnr, blank, silhouette):
            bound = f"{GATE_DB:g} dB" if psnr < GATE_DB else f"the silhouette in one colour, {silhouette:.2f} dB"
            return "far from its teacher", f"PSNR {psnr:.2f} dB is below {bound}: {REMEDY}."
        return None

    @property
    def is_comparable(self) -> bool:
        """Whether its figures are of sRGB values, as all but the earlier evaluator's are."""
        return self.stage != LINEAR

    @property
    def blank_unknown(self) -> bool:
        """Whether there is a PSNR and nothing to tell what a blank picture would have."""
        return self.figure("psnr") is not None and self.figure("psnr_blank") is None


def read_runs(root: Path, problems: Problems) -> list[Run]:
    """Every run under ``root``, by scene and name.

    A run is a folder of ``logs/`` with a training log or an evaluation in it, or one of ``results/`` with a
    config.yaml; the same path in the other tree is its other half. Of a city each block is a run, and the city their
    scene; those that have not been run are none. A rate study's fits of pruned teachers are rows of its own table.
    """
    found = set(_folders(root / "logs", problems, _is_log)) | set(_folders(root / "results", problems, _is_config))
    found = {relative for relative in found if not _is_rate_study(root / "results" / relative)}
    runs = [run for relative in sorted(found) for run in _runs_of(root, relative, problems)]
    for city in sorted(_folders(root / "results", problems, _is_city)):
        for block in sorted((root / "results" / city / _BLOCKS).glob("*/run")):
            runs += [replace(run, scene=city.as_posix(), is_block=True) for run in read_runs(block, problems)]
    return runs


def _is_log(name: str) -> bool:
    return name in (_TRAINING, _FITTING) or _EVAL_CSV.fullmatch(name) is not None


def _is_config(name: str) -> bool:
    return name == "config.yaml"


def _is_rate_study(results: Path) -> bool:
    return (results / "table.csv").is_file() and not (results / "config.yaml").exists()


def _is_city(name: str) -> bool:
    return name == CITY_MANIFEST


def _folders(top: Path, problems: Problems, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """Folders under ``top`` that hold a wanted file, relative to it; none of a city's blocks, whose runs are theirs."""

    def unreadable(error: OSError) -> None:
        problems.add(Path(error.filename), f"cannot be read ({error.strerror})")

    if not top.is_dir():
        return
    for folder, inner, names in os.walk(top, onerror=unreadable):
        if CITY_MANIFEST in names and _BLOCKS in inner:
            inner.remove(_BLOCKS)
        if any(wanted(name) for name in names):
            if _EARLIER in inner:
                inner.remove(_EARLIER)  # evaluations of what had the run's name before
            yield Path(folder).relative_to(top)


def _runs_of(root: Path, relative: Path, problems: Problems) -> list[Run]:
    logs, results = root / "logs" / relative, root / "results" / relative
    evaluations = _evaluations(logs, results, problems)
    tags = sorted({evaluation.tag for evaluation in evaluations}) or [""]
    config = read_mapping(results / "config.yaml", problems)
    versions = read_mapping(results / "versions.json", problems)
    fitted = (logs / _FITTING).exists()
    training_csv = logs / (_FITTING if fitted else _TRAINING)
    training = []
    if training_csv.exists():
        training = read_rows(training_csv, problems, ("step", "wall_s", "psnr_batch"))
    resolution = section(config, "data", "resolution")
    runs = []
    for tag in tags:
        own = [evaluation for evaluation in evaluations if evaluation.tag == tag]
        words = " ".join((*relative.parts, tag))
        run = Run(
            scene=relative.parent.as_posix() if relative.parent != Path() else "",
            name=relative.name + (f" ({tag})" if len(tags) > 1 and tag else ""),
            stage=stage_of(config, words, fitted),
            student="gaussians" if fitted else student_of(config, words),
            width=resolution if isinstance(resolution, int) else None,
            training=training,
            evaluations=own,
            size_mib=None,
            parameters=None,
            versions=versions,
        )
        size, parameters = _size(results, run.latest, fitted, problems)
        rendered = run.figure("width")
        width = run.width if rendered is None else int(rendered)
        runs.append(replace(run, width=width, size_mib=size, parameters=parameters))
    return runs


def _evaluations(logs: Path, results: Path, problems: Problems) -> list[Evaluation]:
    """By step. Frames or parity without their summary are an evaluation too."""
    parts: dict[tuple[int, str], dict[str, Path]] = {}
    for path in sorted(logs.glob("eval_step_*.csv")):
        if match := _EVAL_CSV.fullmatch(path.name):
            parts.setdefault((int(match[1]), match[2] or ""), {})[match[3] or ""] = path
    found = []
    for (step, tag), paths in sorted(parts.items()):
        rows = frames = parity = []
        if path := paths.get(""):
            rows = read_rows(path, problems, _EVAL_EXPECTED, _ALIASES)
        if path := paths.get("_frames"):
            frames = read_rows(path, problems, ("frame", "psnr"), _ALIASES)
        if path := paths.get("_parity"):
            parity = read_rows(path, problems, ("subject", "fps_median"))
        stem = next(iter(paths.values())).stem.removeprefix("eval_")
        stem = stem.removesuffix("_frames").removesuffix("_parity")
        found.append(Evaluation(step, tag, rows, frames, parity, _pictures(results / "eval", stem)))
    return found


def _pictures(folder: Path, stem: str) -> list[Picture]:
    found = []
    for path in folder.glob(f"{stem}_*_frame_*.png"):
        if match := _PICTURE.fullmatch(path.name.removeprefix(stem)):
            found.append(Picture(match[1], int(match[2]), path))
    return sorted(found, key=lambda picture: (picture.kind == "median", picture.kind))


def _size(
    results: Path, evaluation: Evaluation | None, fitted: bool, problems: Problems
) -> tuple[float | None, int | None]:
    """MiB and parameters: as the parity CSV has them, else of the weights in that step's checkpoint."""
    if evaluation is None:
        return None, None
    row = evaluation.student_parity
    if (size := row.get("size_mib")) is not None:
        parameters = row.get("parameters")
        return size, None if parameters is None else int(parameters)
    if fitted:
        ply = results / "point_cloud" / f"iteration_{evaluation.step}" / "point_cloud.ply"
        return (ply.stat().st_size / MIB if ply.is_file() else None), None
    return _checkpoint_size(results / "checkpoints" / f"step_{evaluation.step:06d}.pth", problems)


def _checkpoint_size(path: Path, problems: Problems) -> tuple[float | None, int | None]:
    """Of the student's weights alone: a checkpoint also holds the optimiser and the occupancy."""
    if not path.is_file():
        return None, None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        weights = [value for name, value in state["student"]["weights"].items() if name != "box"]
        return sum(value.nbytes for value in weights) / MIB, sum(value.numel() for value in weights)
    except Exception as error:  # damaged files raise RuntimeError, EOFError, UnpicklingError, KeyError, TypeError ...
        problems.add(path, f"no checkpoint of a student ({type(error).__name__})")
        return None, None
