"""Makes and measures the files of a rate study: students at several sizes, the teacher in its own forms.

The teacher's Gaussians are pruned by what they contribute to the training views, lowered in SH degree, and fitted on to
what the student was taught by, the teacher's training views and the images if it had them, for as long as it was
trained and compressed; each result is written in every form that is written here. All are measured as they are read
back, on the held-out frames, by the same clock: drawn at the width that the teacher was fitted at, and averaged, as its
pictures are and as they are fitted on.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.compression.compress import Wanted, compress
from distill.evaluation.evaluator import background_of
from distill.evaluation.frame_metrics import References, Render
from distill.evaluation.metrics import Lpips
from distill.evaluation.speed import frames_per_second, timed
from distill.model.checkpoint import load_checkpoint, supersample_in
from distill.model.model import restore_model
from distill.rate_quality.rate_table import COLUMNS, FIGURES, RatePoint, draw, markdown, rows_of
from distill.rendering.renderer import RenderedFrame
from distill.runs.session import train_and_evaluate
from kernels.threads import one_torch_thread
from machine.devices import choose_device, device_name
from machine.files import write_atomically, write_csv
from machine.interrupts import Stopped
from machine.memory import MIB
from machine.run_folder import RunFolder
from scene.frames import refuse_no_holdout
from settings.config import Config
from settings.errors import InputError
from settings.loading import validate
from settings.words import counted
from teacher.export.pruning import contribution
from teacher.fitting.backends import fitting_device
from teacher.fitting.fit import TeacherFit, scene_extent
from teacher.fitting.picture_levels import MixedPictures, Pictures
from teacher.gaussian_files import import_gsply, read_gaussians, write_gaussians
from teacher.gaussians import Gaussians
from teacher.sources import Teacher, check_assets, finer_teacher, load_teacher, source_of
from teacher.views.rasterized import blended_planes

FORMS = (".ply", ".npz", ".spz")
"""Of a teacher, as written here. No well-kept Python library writes SOG: a command does, see ``RatePlan.sog``."""
_SMALLER = 0.9  # bytes of a file that is given, as a share of a plain PLY of it, below which it is another form
_LAST_OF_OWN = 128  # exit status; a signal's number is added to it
_log = logging.getLogger(__name__)
_Frame = Callable[[int], RenderedFrame]


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
        for each in plan.students:
            check_assets(each)
            if RunFolder(each, root).latest_checkpoint() is None:
                raise InputError(
                    RunFolder(each, root).checkpoints, "checkpoint", "none", "a trained run", "Train first."
                )
            if plan.anew:
                for size in plan.sizes:
                    self._of_size(each, size)
        import_gsply("--config")  # now, not after an hour
        if plan.sog and shutil.which(plan.sog[0]) is None:
            expected = "a program that makes a SOG of a PLY"
            raise InputError("--sog", plan.sog[0], "no such program", expected, "Install it, or leave out --sog.")
        for path in plan.files:
            source_of(config).gaussians_in(path)
        self.device = choose_device(config)
        self.teacher: Teacher = load_teacher(config)
        if self.teacher.gaussians is None:
            raise InputError("config", "teacher", "no Gaussians", "some, to compare with", "Set teacher.ply.")
        self.source = source_of(config)
        self.drawing = self.source.drawing(self.teacher.gaussians)  # of all forms, as of the whole
        # Gaussians are fitted on to pictures as fine as the first student was taught by.
        scale = supersample_in(load_checkpoint(RunFolder(config, root).latest_checkpoint(), "cpu"))
        self.taught = finer_teacher(config, self.teacher, scale)
        self._check_taught()
        self.frames = self.teacher.views.holdout_frames.tolist()
        refuse_no_holdout(len(self.frames))
        self.folder = RunFolder(config.model_copy(update={"run": f"{config.run}_rates"}), root)
        self.files = self.folder.results / "files"
        views = self.teacher.views
        names = ("teacher",) + (("ground_truth",) if views.ground_truth is not None else ())
        nets = {net: Lpips.load(net, self.device) for net in config.eval.lpips_nets if net == "vgg"}
        nets = {net: model for net, model in nets.items() if model}
        self.references = References(views, names, background_of(views, config), nets)

    def _check_taught(self) -> None:
        """Raises ``InputError`` where Gaussians cannot be fitted on to what the student was taught by."""
        views, images = self.taught.views, self.taught.images
        if views.holdout.all():
            found = f"all {len(views)} views held out, as those of a live teacher are"
            hint = "Set teacher.live=false, and data.train_transforms=null."
            raise InputError("config", "teacher.live", found, "some to prune Gaussians by and to fit them on to", hint)
        if images is not None:
            sizes = [f"{each.cameras.width}x{each.cameras.height}" for each in (images, views)]
            if sizes[0] != sizes[1]:
                found, expected = f"images of {sizes[0]}", f"{sizes[1]}, as the teacher's views"
                hint = "Set data.resolution, or data.ground_truth=null to fit Gaussians on to the views alone."
                raise InputError("config", "data.ground_truth", found, expected, hint)

    def run(self, command: str) -> list[RatePoint]:
        """Makes, measures, writes the tables after each file and the plot at the end; returns the points.

        Args:
            command: how a reader of the table can make it again.
        """
        with self.folder.held():
            self.folder.create()
            self.files.mkdir(exist_ok=True)
            points: list[RatePoint] = []
            for point in self._points():
                points.append(point)
                self._write(points, command)
            draw(points, self.folder.results / "plot.png")
        return points

    def _points(self) -> Iterator[RatePoint]:
        for config in self.plan.students:
            yield from self._students(config)
        for path in self.plan.files:
            gaussians = self.source.gaussians_in(path)
            words = f"{path.name}, made elsewhere ({len(gaussians):,})"
            yield self._measured(path.suffix, words, path.stat().st_size, self._drawn(gaussians))
        whole = self.teacher.gaussians
        yield from self._forms(whole, "whole", "as it is")
        yield from self._given(whole)
        share = self._contribution(whole)
        for kept in self.plan.kept:
            chosen = share.argsort(descending=True)[: max(1, round(kept * len(whole)))].sort().values
            pruned = whole[chosen]
            label = f"{100 * kept:g} % of the Gaussians"
            yield from self._forms(pruned, f"kept{kept:g}", label)
            for degree in self.plan.sh_degrees:
                fitted, words = self._fit(pruned, degree)
                yield from self._forms(fitted, f"kept{kept:g}_sh{degree}_fitted", f"{label}, SH {degree}, {words}")

    def _given(self, whole: Gaussians) -> Iterator[RatePoint]:
        """The teacher's own file, where it is of a smaller form than a plain PLY, and one file (not a SOG's folder)."""
        path = self.config.teacher.ply
        if path is None or path in self.plan.files or path.suffix == ".json":
            return
        if (size := path.stat().st_size) < _SMALLER * (self.files / "whole.ply").stat().st_size:
            yield self._measured(path.suffix, f"{path.name}, as given ({len(whole):,})", size, self._drawn(whole))

    def _students(self, config: Config) -> Iterator[RatePoint]:
        folder = RunFolder(config, self.root)
        for size in self.plan.sizes:
            path = self.files / f"{config.run}_{size:g}MiB.lrd"
            if self.plan.anew:
                words = f"{config.run}, trained for this size in {counted(self._train(config, size, path), 'step')}"
            else:
                wanted = Wanted(size, option="--sizes")
                made = compress(config, self.root, wanted, folder.latest_checkpoint(), path)
                _log.info("%s", made.text())
                words = f"{config.run}, {counted(made.steps, 'step')} of compression"
            yield self._student(config, path, words, path.stat().st_size)
        path = folder.latest_checkpoint()
        weights = load_checkpoint(path, "cpu")["student"]["weights"]
        size = sum(weight.numel() * 4 for weight in weights.values())
        yield self._student(config, path, f"{config.run}, float32 weights", size)

    def _train(self, config: Config, size: float, path: Path) -> int:
        """Trains a student whose file has this size, MiB, and puts it at ``path``; returns how many steps it took."""
        config = self._of_size(config, size)
        if (status := train_and_evaluate(config, self.root)) > _LAST_OF_OWN:
            raise Stopped(status - _LAST_OF_OWN)
        checkpoint = RunFolder(config, self.root).latest_checkpoint()
        write_atomically(path, checkpoint.with_suffix(".lrd").read_bytes())
        return load_checkpoint(checkpoint, "cpu")["step"]

    def _of_size(self, config: Config, size: float) -> Config:
        """The config of a run that ends with a file of this size, MiB."""
        settings = config.model_dump(mode="json")
        settings["run"] = f"{config.run}_{size:g}MiB"
        settings["compact"]["target_mib"] = size
        settings["train"]["max_seconds"] = _seconds_of(config)
        return validate(Config, settings, {}, "--anew")

    def _student(self, config: Config, path: Path, words: str, size: int) -> RatePoint:
        model = restore_model(config, load_checkpoint(path, self.device), path, self.device)
        model.student.eval()
        cameras = self.teacher.views.cameras.to(self.device)
        renderer, background = model.renderer(), self.references.background

        def render(index: int) -> RenderedFrame:
            return renderer.render(cameras, index, background)

        return self._measured(f"student {model.student.kind}", words, size, render)

    def _forms(self, gaussians: Gaussians, name: str, words: str) -> Iterator[RatePoint]:
        for form in (*FORMS, ".sog") if self.plan.sog else FORMS:
            path = self.files / f"{name}{form}"
            if form == ".sog":
                _run([*self.plan.sog, str(path.with_suffix(".ply")), str(path)], path)
            else:
                write_gaussians(path, gaussians)
            words_of_all = f"{words} ({len(gaussians):,})"
            yield self._measured(form, words_of_all, path.stat().st_size, self._drawn(read_gaussians(path)))

    def _drawn(self, gaussians: Gaussians) -> _Frame:
        rasterizer = self.source.rasterizer(gaussians)
        cameras = self.teacher.views.cameras

        @one_torch_thread()  # as students are drawn: their times are compared
        def render(index: int) -> RenderedFrame:
            planes = blended_planes(rasterizer, cameras, index)
            alpha = planes[..., 3]
            rgb = planes[..., :3] + (1 - alpha)[..., None] * planes.new_tensor(self.references.background)
            return RenderedFrame(rgb.clamp(0, 1), alpha, torch.zeros_like(alpha))

        return render

    @torch.no_grad()
    def _measured(self, form: str, words: str, size: int, render: _Frame) -> RatePoint:
        timed(render, self.frames[0], self.device)  # the first one compiles, or fills caches
        found: dict[str, list[dict[str, float | None]]] = {name: [] for name in self.references.names}
        seconds = []
        for index in self.frames:
            frame, spent = timed(render, index, self.device)
            seconds.append(spent)
            for name, figures in self.references.measure(index, Render.of(frame, spent), None).items():
                found[name].append(figures)
        figures = {
            name: {figure: _mean([each.get(figure) for each in every]) for figure in FIGURES}
            for name, every in found.items()
        }
        point = RatePoint(form, words, size, figures, frames_per_second(seconds))
        _log.info("%s, %s: %.3f MiB, %.2f dB", form, words, size / MIB, point.psnr("teacher"))
        return point

    def _contribution(self, gaussians: Gaussians) -> Tensor:
        """(N,) blending weight over the training views, pixels."""
        views = self.teacher.views
        cameras = views.cameras[views.training_frames]
        rasterizer = self.source.rasterizer(gaussians)
        return contribution(rasterizer, len(gaussians), self.drawing.fine(cameras)).total

    def _fit(self, start: Gaussians, degree: int) -> tuple[Gaussians, str]:
        """Gaussians fitted on, none added and none taken away, and how long."""
        config, plan = self.config, self.plan
        seconds = _seconds_of(config) if plan.fit_seconds is None else plan.fit_seconds
        alike = {"max_gaussians": len(start), "grow_until": 0.0, "prune_until": 0.0, "coarse_levels": 0}
        alike |= {"sh_degree": degree, "sh_degree_every": 0.0, "checkpoint_every": None, "checkpoint_minutes": None}
        time = {"max_seconds": seconds} | ({} if plan.fit_steps is None else {"max_steps": plan.fit_steps})
        settings, pictures = config.fitting.model_copy(update=alike | time), Pictures(self.taught.views, 0)
        extent = scene_extent(pictures.cameras(0), self.teacher.box)
        if self.taught.images is not None:
            images = Pictures(self.taught.images, 0)
            pictures = MixedPictures(pictures, images, config.data.ground_truth.weight)
        background = config.render.background_rgb
        device, drawing = fitting_device(config), self.taught.drawing or self.drawing
        fit = TeacherFit(settings, pictures, start, extent, background, config.seed, device, drawing)
        fit.run(self.folder, lambda fit: None)
        if fit.stopped_by is not None:
            raise KeyboardInterrupt
        return fit.model.snapshot(), f"fitted on for {counted(fit.progress.step, 'step')}"

    def _write(self, points: Sequence[RatePoint], command: str) -> None:
        cameras, folder = self.teacher.views.cameras, self.folder.results
        frames = counted(len(self.frames), "held-out frame")
        about = (
            f"{self.config.scene}, {frames} of {cameras.width}x{cameras.height}, on "
            f"{device_name(self.device)}. Command: `{command}`. A teacher's forms are measured as they are read back."
        )
        write_atomically(folder / "table.md", markdown(points, f"Rate against quality: {self.config.run}", about))
        write_csv(folder / "table.csv", rows_of(points), COLUMNS)


def _seconds_of(config: Config) -> float | None:
    """What a student gets for training and compression; None where steps alone end training."""
    limit = config.train.max_seconds
    return None if limit is None else limit + config.compact.seconds


def _run(command: list[str], made: Path) -> None:
    """Runs a command that makes a file."""
    made.unlink(missing_ok=True)  # an earlier study's
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode or not made.is_file():
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise InputError(made, "--sog", f"`{shlex.join(command)}` ended with: {last[0]}", "a file", "Try it by hand.")


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
