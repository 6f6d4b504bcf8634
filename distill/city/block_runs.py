"""The runs of a city's blocks: begun or gone on with, and how far they are."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from distill.city.cutting import CITY_YAML, cut_city
from distill.city.manifest import Block, Manifest, StudentFile, read_manifest, write_manifest
from distill.executors import run
from distill.executors.job import PROGRAM, Job, JobState, Phase
from distill.reports.markdown_table import markdown_table
from machine.files import read_csv, remove_litter, write_atomically
from machine.memory import MIB
from machine.run_folder import CITY_MANIFEST, RunFolder
from machine.run_identity import RunIdentity
from scene.rays import SceneBox
from settings.config import Config
from settings.errors import ExitCode, InputError
from settings.loading import REPO_ROOT, load_config, run_config, to_yaml
from settings.sections import Section
from settings.words import counted
from students.base import STUDENTS

_log = logging.getLogger(__name__)

_FIGURES = ("MiB", "PSNR, dB", "blank, dB", "steps", "training, s")
_HEADER = ("block", "Gaussians", "cameras", "held out", *_FIGURES, "status")


def open_city(config: Config, folder: Path, resume: bool) -> Manifest:
    """The manifest of a city: a new one, or with ``resume`` the one in its folder, if there is one.

    Raises:
        InputError: as ``cut_city``; there is one and it is not to be gone on with, or it was made with other settings.
    """
    for part in (folder, *folder.glob("blocks/*")):
        remove_litter(part, below=False)  # runs, which may be under way on another machine, do so themselves
    if not (folder / CITY_MANIFEST).is_file():
        start = time.perf_counter()
        manifest = cut_city(config, folder)
        blocks = counted(len(manifest.blocks), "block")
        _log.info("%s: %s in %.1f s", folder / CITY_MANIFEST, blocks, time.perf_counter() - start)
        return manifest
    if not resume:
        hint = "Go on with it: --resume; or choose another run name, or delete the folder."
        raise InputError(folder, "city", f"a {CITY_MANIFEST} already", "no city", hint)
    manifest = read_manifest(folder)
    stored = manifest.path(manifest.config)
    RunIdentity(config).check_continues(RunIdentity(run_config(stored)), stored)
    write_atomically(folder / CITY_YAML, to_yaml(config))  # what may change: how long runs last, where they compute
    return manifest


def run_blocks(config: Config, manifest: Manifest) -> tuple[Manifest, int]:
    """Runs the blocks that are not done yet; ``city.json`` says at any time how far they are.

    Returns:
        The manifest, and the exit status: 0, or the highest of the runs that failed.

    Raises:
        Stopped: a signal asked for it; the blocks can be gone on with.
        InputError, OSError: see ``distill.executors.run``.
    """
    waiting = [block for block in manifest.blocks if block.status != "done"]
    runs = {block.name: _run_of(manifest, block) for block in waiting}
    jobs = [_job(manifest, block, runs[block.name]) for block in waiting]

    def record(job: Job, state: JobState) -> None:
        nonlocal manifest
        block = manifest.block(job.name)
        ended = state.phase in (Phase.DONE, Phase.FAILED)
        students = students_of(manifest, block, runs[job.name]) if ended else block.students
        manifest = write_manifest(
            manifest.folder, manifest.with_block(job.name, status=state.phase.value, students=students)
        )

    states = run(jobs, config.city.executor, manifest.folder, record) if jobs else {}
    return manifest, _status(states)


def students_of(manifest: Manifest, block: Block, run: RunFolder) -> tuple[StudentFile, ...]:
    """What a block's run has made: its compact file, or else its newest checkpoint; nothing where there is none."""
    newest = run.latest_compact() or run.latest_checkpoint()
    if newest is None:
        return ()
    cell = cell_size(run.config.student, block.box)
    return (StudentFile(file=str(newest.relative_to(manifest.folder)), cell_size=cell, bytes=newest.stat().st_size),)


def cell_size(student: Section, box: SceneBox) -> float:
    """Edge of the finest detail that a student of a box holds, world units."""
    if (resolution := getattr(student, "finest_resolution", None)) is not None:
        return max(box.extent) / max((resolution, *student.planes))
    return min(side / cells for side, cells in zip(box.extent, student.grid, strict=True)) / 2**student.frequencies


def blocks_table(manifest: Manifest) -> str:
    """The blocks and what their runs measured, one a line; and a line of all runs that have trained."""
    figures = [_figures(manifest, block) for block in manifest.blocks]
    table = markdown_table(_HEADER, [_row(*each) for each in zip(manifest.blocks, figures, strict=True)])
    found = [of_block for of_block in figures if of_block is not None]
    return f"{table}\n{_cost(found)}" if found else table


def _cost(found: Sequence[_Figures]) -> str:
    """What runs cost and gave, all together."""
    steps, seconds = sum(run.steps for run in found), sum(run.seconds for run in found)
    size = sum(run.mib for run in found)
    words = [f"all together: {counted(steps, 'step')} in {seconds:,.0f} s of training"]
    words[0] += f" ({steps / seconds:.1f} a second)" if seconds else ""
    if psnr := [run.psnr for run in found if run.psnr is not None]:
        words.append(f"{sum(psnr) / len(psnr):.2f} dB on average ({min(psnr):.2f} to {max(psnr):.2f})")
    return ", ".join([*words, f"students of {size:.2f} MiB"])


def _run_of(manifest: Manifest, block: Block) -> RunFolder:
    return RunFolder(load_config(manifest.path(block.config), assets=manifest.folder), manifest.path(block.run))


def _job(manifest: Manifest, block: Block, run: RunFolder) -> Job:
    folder = manifest.folder.resolve()
    command = [sys.executable, str(PROGRAM), "--config", str(folder / block.config), "--assets", str(folder)]
    command += ["--output", str(folder / block.run), "--resume", "auto"]
    return Job(block.name, command, REPO_ROOT, (folder / block.config).with_name("log.txt"), run=run)


def _status(states: Mapping[str, JobState]) -> int:
    """The exit status that says how runs ended; one that signals ended too often is the machine's failure."""
    failed = [state.status or ExitCode.MACHINE_FAILED for state in states.values() if state.phase is Phase.FAILED]
    return max((min(status, ExitCode.MACHINE_FAILED) for status in failed), default=ExitCode.DONE)


def _row(block: Block, found: _Figures | None) -> Sequence[str]:
    cells = [block.name, f"{block.gaussians:,}", str(block.train_cameras), str(block.holdout_cameras)]
    if found is None:
        return [*cells, *[""] * len(_FIGURES), block.status]
    psnr, blank = ("" if value is None else f"{value:.2f}" for value in (found.psnr, found.blank))
    seconds = f"{found.seconds:.0f}" if found.seconds else ""
    return [*cells, f"{found.mib:.2f}", psnr, blank, f"{found.steps:,}", seconds, block.status]


class _Figures(NamedTuple):
    """Of a block's run: the size of its student, which in a checkpoint is not all there is, MiB; its steps; the time
    that they took, s, 0 where nothing tells; PSNR of its held-out frames, else of others, dB, and that of blank
    pictures, which is high of a block that fills little of its pictures.
    """

    mib: float
    steps: int
    seconds: float
    psnr: float | None
    blank: float | None


def _mib_of(student: StudentFile, settings: Section) -> float:
    """Of a compact file its size, else that of float32 weights: a checkpoint holds what training needs too."""
    if student.file.endswith(".lrd"):
        return student.bytes / MIB
    return 4 * STUDENTS[settings.kind].parameters_of(settings) / MIB


def _figures(manifest: Manifest, block: Block) -> _Figures | None:
    """None where there is no checkpoint of it."""
    run = _run_of(manifest, block) if block.students else None
    newest = run and run.latest_checkpoint()
    if newest is None:
        return None
    step = int(newest.stem.rpartition("_")[2])
    measured = {row["split"]: row for row in read_csv(run.eval_csv(step)).rows.values()}
    row = measured.get("holdout") or measured.get("train") or {}
    psnr, blank = (float(row[name]) if row.get(name) else None for name in ("psnr", "psnr_blank"))
    steps = list(read_csv(run.training_csv).rows.values())
    seconds, mib = float(steps[-1]["wall_s"]) if steps else 0.0, _mib_of(block.students[0], run.config.student)
    return _Figures(mib, step, seconds, psnr, blank)
