"""Makes and measures the files of a rate study: students at several sizes, the teacher in its own forms.

The teacher's Gaussians are pruned by what they contribute to the training views, lowered in SH degree, and fitted on to
what the student was taught by, the teacher's training views and the images if it had them, for as long as it was
trained and compressed; each result is written in every form that is written here. All are measured as they are read
back, on the held-out frames, by the same clock: drawn at the width that the teacher was fitted at, and averaged, as its
pictures are and as they are fitted on.

What has been measured is kept, so that a study that was stopped goes on from there.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill.compression.compress import Wanted, compress
from distill.evaluation.figure_cache import FigureCache, code_digest
from distill.model.checkpoint import load_checkpoint, supersample_in
from distill.rate_quality.fitted_on import PrunedTeacher, seconds_of
from distill.rate_quality.form_measurement import FormMeasurement
from distill.rate_quality.rate_table import COLUMNS, RatePoint, draw, markdown, rows_of
from distill.runs.session import train_and_evaluate
from kernels.threads import available_threads
from machine.devices import choose_device, device_name
from machine.files import write_atomically, write_csv
from machine.fingerprints import cache_key, files_digest
from machine.interrupts import Stopped
from machine.run_folder import RunFolder
from settings.config import Config
from settings.errors import InputError
from settings.loading import to_yaml, validate
from settings.words import counted
from teacher.fitting.backends import fitting_device
from teacher.gaussian_files import import_gsply, read_gaussians, write_gaussians
from teacher.gaussians import Gaussians
from teacher.rasterizer import raster_implementation
from teacher.sources import Teacher, check_assets, finer_teacher, load_teacher, source_of

FORMS = (".ply", ".npz", ".spz")
"""Of a teacher, as written here. No well-kept Python library writes SOG: a command does, see ``RatePlan.sog``."""
_SMALLER = 0.9  # bytes of a file that is given, as a share of a plain PLY of it, below which it is another form
_LAST_OF_OWN = 128  # exit status; a signal's number is added to it
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RatePlan:
    """What is made.

    Attributes:
        students: the runs that are compressed, or trained anew; the first one's teacher is the teacher of all.
        sizes: of the students' files, MiB.
        anew: each of these files is of a run of its own, in the time that training and compression have, not made of a
            checkpoint.
        kept: shares of the teacher's Gaussians that pruned forms keep.
        sh_degrees: to which these are lowered.
        fit_seconds, fit_steps: how long each is fitted on at most; None for seconds: as long as the first student's
            training and compression.
        files: further forms of the teacher, made elsewhere.
        sog: words of the command that makes a SOG of a PLY, whose paths follow them; empty: none are made.
    """

    students: Sequence[Config]
    sizes: Sequence[float]
    anew: bool
    kept: Sequence[float]
    sh_degrees: Sequence[int]
    fit_seconds: float | None = None
    fit_steps: int | None = None
    files: Sequence[Path] = ()
    sog: Sequence[str] = ()


class RateStudy:
    """A plan at work; files, ``table.md``, ``table.csv`` and ``plot.png`` go to ``results/<scene>/<run>_rates/``.

    Raises:
        InputError: assets or checkpoints are not in order, or there are no Gaussians or no held-out frames.
    """

    def __init__(self, plan: RatePlan, root: Path) -> None:
        self.plan, self.root = plan, root
        self.config = config = plan.students[0]
        self._check_plan()
        self.device = choose_device(config)
        # Before anything is read: a file that changes while the study is under way is another's the next time.
        made_of = [self._made_of(each) for each in plan.students]
        # Gaussians are fitted on to pictures as fine as the first student was taught by.
        scale = supersample_in(load_checkpoint(RunFolder(config, root).latest_checkpoint(), "cpu"))
        self.teacher: Teacher = load_teacher(config, finer=scale)
        if self.teacher.gaussians is None:
            raise InputError("config", "teacher", "no Gaussians", "some, to compare with", "Set teacher.ply.")
        self.source = source_of(config)
        self.drawing = self.source.drawing(self.teacher.gaussians)  # of all forms, as of the whole
        taught = finer_teacher(config, self.teacher, scale)
        self.fewer = PrunedTeacher(config, self.source, self.drawing, self.teacher, taught)
        self.fewer.check()
        self.measurement = FormMeasurement(config, self.source, self.teacher, self.device)
        self.folder = RunFolder(config.model_copy(update={"run": f"{config.run}_rates"}), root)
        self.files = self.folder.results / "files"
        machine = [str(self.device), device_name(self.device), available_threads()]
        drawn_by = [raster_implementation(config.teacher.rasterizer, self.device), str(fitting_device(config))]
        conditions = cache_key(code_digest(), machine, drawn_by, self.measurement.key())
        self.keys = [cache_key(conditions, each) for each in made_of]

    def run(self, command: str) -> list[RatePoint]:
        """Makes, measures, writes the tables after each file and the plot at the end; returns the points.

        What ``record.jsonl`` has of the same program, machine, settings, assets and checkpoint, and whose files are
        there, is not made again.

        Args:
            command: how a reader of the table can make it again.
        """
        with self.folder.held():
            self.folder.create()
            self.files.mkdir(exist_ok=True)
            record = FigureCache(self.folder.results / "record.jsonl")
            points: list[RatePoint] = []
            for point in self._points(record):
                points.append(point)
                self._write(points, command)
            draw(points, self.folder.results / "plot.png")
        return points

    def _check_plan(self) -> None:
        """InputError for what would only be found out after an hour."""
        plan = self.plan
        for each in plan.students:
            check_assets(each)
            folder = RunFolder(each, self.root)
            if folder.latest_checkpoint() is None:
                raise InputError(folder.checkpoints, "checkpoint", "none", "a trained run", "Train first.")
            if plan.anew:
                for size in plan.sizes:
                    self._of_size(each, size)
        import_gsply("--config")
        if plan.sog and shutil.which(plan.sog[0]) is None:
            expected = "a program that makes a SOG of a PLY"
            raise InputError("--sog", plan.sog[0], "no such program", expected, "Install it, or leave out --sog.")
        for path in plan.files:
            if path.suffix == ".json":  # the other files of such a SOG are neither counted nor told from others
                hint = f"Pack it: splat-transform {shlex.quote(str(path))} packed.sog"
                raise InputError("--file", path.name, "an unpacked SOG", "one file, whose bytes are counted", hint)
            source_of(self.config).gaussians_in(path)

    def _points(self, record: FigureCache) -> Iterator[RatePoint]:
        plan = self.plan
        for config, key in zip(plan.students, self.keys, strict=True):
            yield from self._students(config, key, record)
        taught = [self.fewer.taught.views.cameras.width, plan.fit_seconds, plan.fit_steps]
        key = cache_key(self.keys[0], taught, list(plan.sog))
        for path in plan.files:
            own = cache_key(key, files_digest([path]))
            yield from self._once(record, str(path), own, [], self._elsewhere, path)
        whole = self.teacher.gaussians
        yield from self._once(record, "whole", key, self._paths("whole"), self._forms, whole, "whole", "as it is")
        yield from self._once(record, "given", cache_key(key, [str(path) for path in plan.files]), [], self._given)
        for kept in plan.kept:
            name = f"kept{kept:g}"
            yield from self._once(record, name, key, self._paths(name), self._pruned, kept)
            for degree in plan.sh_degrees:
                name = f"kept{kept:g}_sh{degree}_fitted"
                yield from self._once(record, name, key, self._paths(name), self._fitted, kept, degree)

    def _made_of(self, config: Config) -> str:
        """Key of what a student's files, and its teacher's forms, are made of."""
        assets, checkpoint = source_of(config).asset_digests(), RunFolder(config, self.root).latest_checkpoint()
        return cache_key(to_yaml(config), assets, files_digest([checkpoint]), self.plan.anew)

    def _once(
        self,
        record: FigureCache,
        name: str,
        key: str,
        files: Sequence[Path],
        make: Callable[..., Iterator[RatePoint]],
        *of: object,
    ) -> Iterator[RatePoint]:
        """The points of files that belong together: from the record, else as ``make`` gives them."""
        found = record.get(name, key)
        if found is not None and all(path.is_file() for path in files):
            for point in (RatePoint(**each) for each in found):
                _log.info("%s, measured before", point.text())
                yield point
            return
        record.put(name, key, None)  # files are replaced from here on, also where this one is stopped
        points = []
        for point in make(*of):
            _log.info("%s", point.text())
            points.append(asdict(point))
            yield point
        record.put(name, key, points)

    def _elsewhere(self, path: Path) -> Iterator[RatePoint]:
        gaussians = self.source.gaussians_in(path)
        words = f"{path.name}, made elsewhere ({len(gaussians):,})"
        yield self.measurement.gaussians(gaussians, path.suffix, words, path.stat().st_size)

    def _pruned(self, kept: float) -> Iterator[RatePoint]:
        return self._forms(self.fewer.pruned(kept), f"kept{kept:g}", _words_of(kept))

    def _fitted(self, kept: float, degree: int) -> Iterator[RatePoint]:
        limits = self.plan.fit_seconds, self.plan.fit_steps
        fitted, words = self.fewer.fitted(kept, degree, *limits, self.folder)
        return self._forms(fitted, f"kept{kept:g}_sh{degree}_fitted", f"{_words_of(kept)}, SH {degree}, {words}")

    def _given(self) -> Iterator[RatePoint]:
        """The teacher's own file, where it is of a smaller form than a plain PLY, and one file (not a SOG's folder)."""
        path, whole = self.config.teacher.ply, self.teacher.gaussians
        if path is None or path in self.plan.files or path.suffix == ".json":
            return
        if (size := path.stat().st_size) < _SMALLER * (self.files / "whole.ply").stat().st_size:
            yield self.measurement.gaussians(whole, path.suffix, f"{path.name}, as given ({len(whole):,})", size)

    def _students(self, config: Config, key: str, record: FigureCache) -> Iterator[RatePoint]:
        for size in self.plan.sizes:
            path = self.files / f"{config.run}_{size:g}MiB.lrd"
            if self.plan.anew:
                yield from self._once(record, path.name, key, [path], self._anew, config, size, path, record, key)
            else:
                yield from self._once(record, path.name, key, [path], self._compressed, config, size, path)
        yield from self._once(record, config.run, key, [], self._as_trained, config)

    def _compressed(self, config: Config, size: float, path: Path) -> Iterator[RatePoint]:
        wanted = Wanted(size, option="--sizes")
        made = compress(config, self.root, wanted, RunFolder(config, self.root).latest_checkpoint(), path)
        _log.info("%s", made.text())
        words = f"{config.run}, {counted(made.steps, 'step')} of compression"
        yield self.measurement.student(config, path, words, path.stat().st_size)

    def _as_trained(self, config: Config) -> Iterator[RatePoint]:
        path = RunFolder(config, self.root).latest_checkpoint()
        weights = load_checkpoint(path, "cpu")["student"]["weights"]
        size = sum(weight.numel() * 4 for weight in weights.values())
        yield self.measurement.student(config, path, f"{config.run}, float32 weights", size)

    def _anew(self, config: Config, size: float, path: Path, record: FigureCache, key: str) -> Iterator[RatePoint]:
        """A student trained for a file of this size, MiB, put at ``path``; one that was begun is gone on with."""
        own, begun = self._of_size(config, size), f"{path.name} begun"
        folder = RunFolder(own, self.root)
        # The folder may hold an earlier run's files, of the same config too, until training has begun.
        before, written = record.get(begun, key), 0
        if folder.config_yaml.is_file():
            written = folder.config_yaml.stat().st_mtime_ns
        is_begun = before is not None and written not in (0, before)
        is_begun = is_begun and folder.config_yaml.read_text(encoding="utf-8") == to_yaml(own)
        if not is_begun:
            record.put(begun, key, written)
        going_on = "the study goes on with it"  # its command has no --resume
        if (status := train_and_evaluate(own, self.root, "auto" if is_begun else None, going_on)) > _LAST_OF_OWN:
            raise Stopped(status - _LAST_OF_OWN)
        checkpoint = folder.latest_checkpoint()
        write_atomically(path, checkpoint.with_suffix(".lrd").read_bytes())
        steps = counted(load_checkpoint(checkpoint, "cpu")["step"], "step")
        words = f"{config.run}, trained for this size in {steps}"
        yield self.measurement.student(config, path, words, path.stat().st_size)

    def _of_size(self, config: Config, size: float) -> Config:
        """The config of a run that ends with a file of this size, MiB."""
        settings = config.model_dump(mode="json")
        settings["run"] = f"{config.run}_{size:g}MiB"
        settings["compact"]["target_mib"] = size
        settings["train"]["max_seconds"] = seconds_of(config)
        return validate(Config, settings, {}, "--anew")

    def _forms(self, gaussians: Gaussians, name: str, words: str) -> Iterator[RatePoint]:
        for path in self._paths(name):
            if path.suffix == ".sog":
                _run([*self.plan.sog, str(path.with_suffix(".ply")), str(path)], path)
            else:
                write_gaussians(path, gaussians)
            words_of_all, size = f"{words} ({len(gaussians):,})", path.stat().st_size
            yield self.measurement.gaussians(read_gaussians(path), path.suffix, words_of_all, size)

    def _paths(self, name: str) -> list[Path]:
        """Of a teacher's forms."""
        return [self.files / f"{name}{form}" for form in ((*FORMS, ".sog") if self.plan.sog else FORMS)]

    def _write(self, points: Sequence[RatePoint], command: str) -> None:
        cameras, folder = self.teacher.views.cameras, self.folder.results
        frames = counted(len(self.measurement.frames), "held-out frame")
        about = (
            f"{self.config.scene}, {frames} of {cameras.width}x{cameras.height}, on "
            f"{device_name(self.device)}. Command: `{command}`. A teacher's forms are measured as they are read back."
        )
        write_atomically(folder / "table.md", markdown(points, f"Rate against quality: {self.config.run}", about))
        write_csv(folder / "table.csv", rows_of(points), COLUMNS)


def _words_of(kept: float) -> str:
    return f"{100 * kept:g} % of the Gaussians"


def _run(command: list[str], made: Path) -> None:
    """Runs a command that makes a file."""
    made.unlink(missing_ok=True)  # an earlier study's
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode or not made.is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise InputError(made, "--sog", f"`{shlex.join(command)}` ended with: {last[0]}", "a file", "Try it by hand.")
