"""Evaluating a student: its figures, its pictures, and how it compares with its teacher."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import torch

from distill.evaluation.evaluator import background_of, evaluate
from distill.evaluation.parity import measure_parity, parity_csv
from distill.evaluation.render_files import RenderFiles
from distill.evaluation.results import EvaluationResult
from distill.evaluation.speed import BURN_IN
from distill.model.model import Model
from distill.model.other_config import tagged
from distill.rendering.renderer import RenderedFrame
from machine import ranks
from machine.devices import device_name
from machine.fingerprints import cache_key
from machine.run_folder import RunFolder
from settings.config import Config
from settings.errors import InputError
from settings.sections import Color, background_rgb
from teacher.sources import Teacher, source_of

if TYPE_CHECKING:
    from teacher.views.teacher_views import TeacherViews

BackgroundName = Literal["white", "black"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What an evaluation does besides measuring what the config says.

    Attributes:
        backgrounds: each is an evaluation of its own; none: the config's.
        like_a_teacher: renders as ``renders/00012.png`` instead of a run's own names.
        rgba, depth: further files of every frame, with ``like_a_teacher``.
        burn_in: untimed renders before speed is measured.
        fresh: measure again what has been measured.
    """

    backgrounds: tuple[BackgroundName, ...] = ()
    like_a_teacher: bool = False
    rgba: bool = False
    depth: bool = False
    burn_in: int = BURN_IN
    fresh: bool = False

    def check(self, config: Config) -> None:
        """Refuses, before the teacher is read, a background that its views cannot be put on.

        Raises:
            InputError: the views have no alpha and are on another background.
        """
        own = config.teacher.background
        others = [name for name in self.backgrounds if background_rgb(name) != config.teacher.background_rgb]
        if others and (advice := source_of(config).lacks_alpha()) is not None:
            found = f"{others[0]}, and pictures of the teacher without alpha, on {own}"
            raise InputError("--background", "colour", found, f"{own}, or pictures with alpha", advice)

    def configs(self, config: Config, views: TeacherViews, own: Config) -> list[Config]:
        """One config for each background; one that is not the run's own is named in the tag.

        Args:
            own: the checkpoint's.
        """
        configs = []
        for name in self.backgrounds or (config.render.background,):
            render = config.render.model_copy(update={"background": name})
            shown = config.model_copy(update={"render": render})
            word = name if isinstance(name, str) else "".join(f"{round(255 * part):02x}" for part in name)
            is_own = background_of(views, shown) == background_of(views, own)
            configs.append(shown if is_own else tagged(shown, word))
        return configs


AS_CONFIGURED = EvaluationOptions()


def evaluate_student(
    config: Config,
    teacher: Teacher,
    model: Model,
    step: int,
    folder: RunFolder,
    device: torch.device,
    options: EvaluationOptions = AS_CONFIGURED,
) -> EvaluationResult:
    """Measures the student and its parity with the teacher, writes all files, prints both tables.

    Several processes share the frames; rank 0 has all to write and to say.

    Raises:
        InputError: the config asks for a reference or a split that the teacher's views do not have.
    """
    cameras = teacher.views.cameras.to(device)
    model.student.eval()
    files = None
    if options.like_a_teacher:
        files = RenderFiles.like_a_teacher(folder, step, rgba=options.rgba, depth=options.depth)

    renderer = model.renderer()

    def render(index: int, background: Color) -> RenderedFrame:
        return renderer.render(cameras, index, background)

    identity = model_digest(model, device)
    result = evaluate(
        render, teacher.views, config, step, folder, device, files=files, identity=identity, fresh=options.fresh
    )
    if not ranks.is_first():
        return result
    print(result.summary_text())
    parity = measure_parity(
        config, teacher, model, step, folder, device, identity=identity, burn_in=options.burn_in, fresh=options.fresh
    )
    print(parity.table())
    print(f"figures  {folder.eval_csv(step)}\nparity   {parity_csv(folder, step)}\npictures {folder.eval}")
    return result


def model_digest(model: Model, device: torch.device) -> str:
    """Digest of all that a student's renders and their times depend on beside the program and the cameras."""
    weights = model.student.state_dict()
    occupancy = model.grid.state_dict()
    far = {} if model.far_field is None else model.far_field.state_dict()
    return cache_key(
        *(part for state in (weights, occupancy, far) for name in sorted(state) for part in (name, state[name])),
        [model.student.settings.model_dump(), model.student.implementation],
        *([] if model.far_field is None else [model.far_field.settings.model_dump()]),
        [asdict(model.settings), model.grid.box.lower, model.grid.box.upper, str(device), device_name(device)],
    )
