"""Where a run's files go, and how they are written so that a kill at any moment leaves them readable."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from machine.failures import is_machines_fault
from machine.files import remove_litter, write_atomically
from machine.folder_lock import locked
from machine.run_identity import RunIdentity
from machine.versions import versions
from settings.config import Config
from settings.errors import InputError
from settings.loading import REPO_ROOT, to_yaml
from settings.words import counted

_CHECKPOINTS, _COMPACT, _EARLIER = "*step_*.pth", "step_*.lrd", "earlier"
_CONFIG = "config.yaml"
FIT_STATE = "fit_latest.pth"
"""Of a teacher's fit, the name of what it goes on from, among the checkpoints."""
_EVALUATION = re.compile(r"eval_step_(\d{6,})((?:_.*)?)\.csv")
CITY_MANIFEST = "city.json"
"""Its name in the folder of a city of blocks, each of which has a run."""
_NAMED = 4  # of the runs below a folder
_log = logging.getLogger(__name__)


class RunFolder:
    """Paths of one run, in ``results/<scene>/<run>/`` and ``logs/<scene>/<run>/`` under ``root``."""

    def __init__(self, config: Config, root: str | Path = REPO_ROOT) -> None:
        self.config, self._root = config, Path(root)
        self.results = Path(root) / "results" / config.scene / config.run
        self.logs = Path(root) / "logs" / config.scene / config.run
        self.checkpoints = self.results / "checkpoints"
        self.eval = self.results / "eval"
        self.training_csv, self.tensorboard = self.logs / "training_metrics.csv", self.logs / "tensorboard"
        self.config_yaml, self.versions_json = self.results / _CONFIG, self.results / "versions.json"
        self.identity_json = self.results / "identity.json"
        self.identity = RunIdentity(config)

    def root_option(self) -> str:
        """`` --output ROOT``, for a shell; empty where the root is the default one."""
        return "" if self._root == REPO_ROOT else f" --output {shlex.quote(str(self._root))}"

    def checkpoint_path(self, step: int) -> Path:
        """``checkpoints/step_020000.pth``."""
        return self.checkpoints / f"step_{step:06d}.pth"

    def compact_path(self, step: int) -> Path:
        """``checkpoints/step_020000.lrd``."""
        return self.checkpoint_path(step).with_suffix(".lrd")

    def eval_csv(self, step: int) -> Path:
        """``eval_step_020000[_<tag>].csv``, a row per split and reference."""
        return self.logs / f"eval_step_{step:06d}{'_' if self.config.tag else ''}{self.config.tag}.csv"

    def eval_frames_csv(self, step: int) -> Path:
        """``eval_step_020000[_<tag>]_frames.csv``, a row per frame."""
        summary = self.eval_csv(step)
        return summary.with_name(f"{summary.stem}_frames.csv")

    def latest_compact(self) -> Path | None:
        """The compact file of the highest step, or None."""
        return next(reversed(_by_step(self.checkpoints, _COMPACT)), None)

    def autosave_path(self, step: int) -> Path:
        """``checkpoints/autosave_step_020000.pth``, one of the few that ``keep_autosaves`` keeps."""
        return self.checkpoints / f"autosave_step_{step:06d}.pth"

    def keep_autosaves(self, count: int) -> None:
        """Deletes all automatic checkpoints but the last ``count``."""
        for path in _by_step(self.checkpoints, "autosave_step_*.pth")[: -count or None]:
            path.unlink(missing_ok=True)

    def latest_checkpoint(self) -> Path | None:
        """The run's ``newest_checkpoint``."""
        return newest_checkpoint(self.checkpoints)

    def checkpoint_before(self, checkpoint: Path) -> Path | None:
        """Of one of the run's checkpoints the one of the next lower step, or None."""
        found = _by_step(self.checkpoints, _CHECKPOINTS)
        step = _step_of(checkpoint) if checkpoint.resolve().parent == self.checkpoints.resolve() else None
        return next((path for path in reversed(found) if step is not None and _step_of(path) < step), None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other process writes to the run meanwhile; what a killed one left half-written is deleted first.

        Raises:
            InputError: another process does, or a folder cannot be made or written to.
        """
        with ExitStack() as stack:
            with _naming_what_is_in_the_way(self.results):
                stack.enter_context(locked(self.results))
            for folder in (self.results, self.logs):
                remove_litter(folder)
            yield

    def create(self) -> None:
        """Creates the folders.

        Raises:
            InputError: one cannot be made or written to.
        """
        self.check_creatable()  # of all, before one is made
        for folder in (self.checkpoints, self.eval, self.logs):
            _make_writable(folder)

    def check_creatable(self) -> None:
        """As ``create``, as far as can be told without writing anything.

        Raises:
            InputError: as there.
        """
        for folder in (self.checkpoints, self.eval, self.logs):
            with _naming_what_is_in_the_way(folder):
                standing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
                if not standing.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                if not os.access(standing, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def prepare(
        self,
        device: torch.device | str,
        identity: RunIdentity | None = None,
        resumed: Path | None = None,
        step: int = 0,
    ) -> None:
        """Creates the folders and records ``config.yaml``, ``versions.json`` and ``identity.json``.

        Checkpoints, compact files, fitted Gaussians and evaluations that are not of what the run goes on with, as an
        earlier run of its name left them, are moved into ``earlier/1`` beside them, or the next number.

        Args:
            resumed: the checkpoint that is gone on from, of ``step``; None: the run begins.

        Raises:
            InputError: a folder cannot be made or written to.
        """
        self.create()
        self.identity = identity or self.identity
        is_own = resumed is not None and resumed.resolve().parent == self.checkpoints.resolve()
        clouds = [*self.results.glob("point_cloud/iteration_*")]
        fitted = {path.name.removeprefix("iteration_") for path in clouds}
        if self.identity.fits_teacher:
            if not is_own:
                _set_aside(self.checkpoints, [*self.checkpoints.glob(FIT_STATE)])
                _set_aside(self.results / "point_cloud", clouds)
                _set_aside(self.logs, [path for path, of in self._evaluations() if str(of) in fitted])
        else:
            files = _by_step(self.checkpoints, _CHECKPOINTS, _COMPACT)
            _set_aside(self.checkpoints, [path for path in files if not is_own or _step_of(path) > step])
            found = [(path, of) for path, of in self._evaluations() if str(of) not in fitted]
            _set_aside(self.logs, [path for path, of in found if not is_own or of > step])
        write_atomically(self.config_yaml, to_yaml(self.config))
        write_atomically(self.identity_json, json.dumps(self.identity.state(), indent=2) + "\n")
        found = versions(self.config, torch.device(device))
        write_atomically(self.versions_json, json.dumps(found, indent=2) + "\n")

    def _evaluations(self) -> list[tuple[Path, int]]:
        """CSVs of evaluations with their steps, but for those of checkpoints that were set aside, whose tag says so."""
        found = ((path, _EVALUATION.fullmatch(path.name)) for path in sorted(self.logs.glob("eval_step_*.csv")))
        return [(path, int(match[1])) for path, match in found if match and f"_{_EARLIER}-" not in match[2]]


def _set_aside(folder: Path, paths: Sequence[Path]) -> None:
    """Moves what is in a folder into ``earlier/`` within it, which is on the same disk wherever a link leads."""
    if not paths:
        return
    with _naming_what_is_in_the_way(folder / _EARLIER):
        numbers = [int(path.name) for path in (folder / _EARLIER).glob("*") if path.name.isdecimal()]
        place = folder / _EARLIER / str(max(numbers, default=0) + 1)
        place.mkdir(parents=True)
        for path in paths:
            path.rename(place / path.name)
    names = ", ".join(path.name for path in paths[:4]) + (" ..." if len(paths) > 4 else "")
    _log.info("moved to %s, since they are from an earlier run: %s", place, names)


def set_aside_as(checkpoint: Path) -> str | None:
    """The number of the folder that an earlier run's checkpoint was moved into; None where it was not."""
    folders = [path.parent for path in spellings(checkpoint)]
    is_there = [path.parent.name == _EARLIER and path.parents[1].name == "checkpoints" for path in folders]
    return next((path.name for path, found in zip(folders, is_there, strict=True) if found), None)


def results_folder(path: Path) -> Path | None:
    """``results/<scene>/<run>``, of that folder or of a checkpoint that lies where the program puts it, also in
    ``earlier/1``; else None.
    """
    runs = list(spellings(path))
    if not os.path.isdir(path):
        above = 0 if set_aside_as(path) is None else 2
        runs = [run.parents[above].parent for run in runs if run.parents[above].name == "checkpoints"]
    return next(filter(is_results_folder, runs), None)


def is_results_folder(path: Path) -> bool:
    """Whether a path is ``results/<scene>/<run>`` by its names."""
    return path.parent.parent.name == "results"


def spellings(path: Path) -> tuple[Path, Path]:
    """A path with its links followed, and as it is named: of a run on another disk any folder may be a link."""
    return path.resolve(), Path(os.path.abspath(path))


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint of the highest step in a folder, or None.

    One of a lower step that was written later, as a version of this program may have left it that kept those of earlier
    runs beside, is warned of.
    """
    found = _by_step(checkpoints, _CHECKPOINTS)
    if not found:
        return None
    last = max(found, key=lambda path: (path.stat().st_mtime_ns, _step_of(path)))
    if _step_of(last) < _step_of(found[-1]):
        _log.warning(
            "%s: %s has the highest step and is taken, though %s was written later: name that one if it is meant",
            checkpoints, found[-1].name, last.name,
        )  # fmt: skip
    return found[-1]


def checkpoint_at(path: Path) -> Path:
    """The checkpoint that a path names: itself, or of a run's folder ``results/<scene>/<run>`` the newest.

    Raises:
        InputError: a folder without any, or a city.
    """
    is_city = path.name == CITY_MANIFEST and os.path.isfile(path)
    if not os.path.isdir(path) and not is_city:  # names too long for a file as well
        return path
    newest = None if is_city else newest_checkpoint(path / "checkpoints")
    if newest is None:
        expected = "checkpoints/step_*.pth, as in results/<scene>/<run>"
        own = own_folder(path.parent if is_city else path)
        found, hint = own or ("no checkpoint", "Train first, or name another folder.")
        raise InputError(path, "run folder", found, expected, hint)
    return newest


def own_folder(path: Path) -> tuple[str, str] | None:
    """What a folder that this program wrote is, and which command takes it; None of any other."""
    if os.path.isfile(path / CITY_MANIFEST):
        run = next((run for run in sorted(path.glob("blocks/*/run/results/*/*")) if _is_run(run)), None)
        each = f"; each of its blocks has a run, such as {run}" if run else ""
        return "a city", f"tools/render_city.py draws the city{each}."
    if _is_run(path):
        here, config = shlex.quote(str(path)), shlex.quote(str(path / _CONFIG))
        hint = f"python tools/view.py {here} shows it, python tools/evaluate.py {here} measures it, --config {config} "
        return "a run of this program, which trained a student", f"{hint}trains it anew."
    if is_fit(path):
        here = shlex.quote(str(path))
        hint = f"python lego_response_distill.py --model {here} distils it, and python tools/view.py {here} shows it."
        return "a teacher that tools/train_teacher.py fitted", hint
    if is_stopped_fit(path):
        hint = "The command that began it goes on with it, with --resume, and writes the Gaussians."
        return "a teacher whose fit by tools/train_teacher.py was stopped", hint
    runs = [run for pattern in ("*", "*/*", "results/*/*") for run in sorted(path.glob(pattern)) if _is_run(run)]
    if not runs:
        return None
    names = ", ".join(run.relative_to(path).as_posix() for run in runs[:_NAMED])
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    hint = f"Name {'it' if len(runs) == 1 else 'one of them'}: {runs[0]}."
    return f"no run, but a folder above {counted(len(runs), 'run')}: {names}{more}", hint


def is_fit(path: Path) -> bool:
    """Whether a folder is of a teacher that this program fitted to the end."""
    return os.path.isfile(path / _CONFIG) and any(path.glob("point_cloud/iteration_*/point_cloud.ply"))


def is_stopped_fit(path: Path) -> bool:
    """Whether a folder is of a teacher's fit that can be gone on with; of one that is at its end ``is_fit`` tells."""
    return os.path.isfile(path / "checkpoints" / FIT_STATE)


def _is_run(path: Path) -> bool:
    return os.path.isfile(path / _CONFIG) and bool(_by_step(path / "checkpoints", _CHECKPOINTS))


def _by_step(folder: Path, *patterns: str) -> list[Path]:
    """The files of a step whose names match a pattern, by their steps; of one step an automatic checkpoint is first."""
    found = [path for pattern in patterns for path in folder.glob(pattern) if _step_of(path) is not None]
    return sorted(found, key=lambda path: (_step_of(path), path.name))


def _step_of(path: Path) -> int | None:
    """The step in the name of a checkpoint or compact file; None of other names."""
    match = re.fullmatch(r"(?:autosave_)?step_(\d{6,})\.(?:pth|lrd)", path.name)
    return int(match[1]) if match else None


def _make_writable(folder: Path) -> None:
    with _naming_what_is_in_the_way(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def _naming_what_is_in_the_way(folder: Path) -> Iterator[None]:
    """An ``OSError`` within becomes the ``InputError`` that the folder cannot be used; a full disk stays what it is."""
    try:
        yield
    except OSError as error:
        if is_machines_fault(error):
            raise
        paths = [path for path in [folder, *folder.parents] if os.path.exists(path) and not os.path.isdir(path)]
        found = f"a file in the way, {paths[0]}" if paths else (error.strerror or str(error))
        elsewhere = "Move the file, or choose another scene, run or --output."
        hint = elsewhere if paths else "Check its permissions and the disk."
        raise InputError(folder, "output folder", found, "a folder that can be written to", hint) from error
