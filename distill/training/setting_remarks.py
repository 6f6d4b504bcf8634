"""What is said of settings before a run begins: which change nothing, leave something untaught, or cost waiting."""

from __future__ import annotations

from collections.abc import Sequence

from settings.config import Config
from settings.losses import INTERNAL_TERMS, PICTURE_TERMS, FeatureConfig
from settings.teacher import OrbitConfig
from students.base import Student

_COLOUR = ("rgb", "color")
_OF_DATASETS = ("format", "images", "frames", "applied_transform", "dataparser_transforms")


def idle_settings(config: Config, student: Student, unrecorded: str | None = None) -> list[str]:
    """Warnings, a sentence each, about settings that change nothing or leave something untaught.

    Args:
        unrecorded: why ``train.cuda_graphs`` records no steps; None: it does, or is not asked to.
    """
    graphs = [] if unrecorded is None else [f"train.cuda_graphs is without effect: {unrecorded}"]
    return [*graphs, *_of_rates(config, student), *_of_losses(config), *_of_features(config), *_of_sources(config)]


def waiting_parts(config: Config, student: Student) -> list[str]:
    """What makes the host wait for a GPU between two rows of the log, where steps themselves do not.

    Parts of a sentence, each naming its field; empty where nothing waits.
    """
    why = "teacher.live" if config.live else "data.memory_gib"
    live = [f"{why}, whenever a view is rendered"] if config.renders_in_training else []
    far = ["far_field.kind, for the number of its samples"] if config.far_field.kind != "none" else []
    tapped = student.waits_for(config.features.tap) if config.loss.aligns else []
    return tapped + far + live


def _of_rates(config: Config, student: Student) -> list[str]:
    train, said = config.train, []
    if beyond := [step for step in train.checkpoint_steps if step > train.max_steps]:
        steps = ", ".join(map(str, beyond))
        said.append(f"train.checkpoint_steps: the run ends at step {train.max_steps}, before {steps}")
    if train.lr_warmup_steps > train.max_steps:
        reached = train.max_steps / train.lr_warmup_steps
        said.append(
            f"train.lr_warmup_steps {train.lr_warmup_steps}: the run ends at step {train.max_steps}, "
            f"when learning rates have risen to {reached:.2g} of what they are set to"
        )
    if train.lr_common is not None and not student.networks_with_a_common_part():
        said.append(f"train.lr_common has no effect: a {student.kind} has no networks with a part in common")
    return said


def _of_losses(config: Config) -> list[str]:
    """What is taught, and until when."""
    terms, said = {name: getattr(config.loss, name) for name in (*PICTURE_TERMS, *INTERNAL_TERMS)}, []
    taught = {name: term for name, term in terms.items() if term.weight > 0}
    if taught.keys().isdisjoint(_COLOUR):
        said.append("neither loss.rgb nor loss.color has a weight: no colour is taught")
    last = max(taught, key=lambda name: taught[name].end)
    if (end := taught[last].end) < 1:
        said.append(f"nothing is learnt after {end:.0%} of the run: the last loss, loss.{last}, ends there")
    return said


def _of_features(config: Config) -> list[str]:
    if config.loss.internal_terms:
        return []
    losses = ", ".join(f"loss.{name}" for name in INTERNAL_TERMS)
    return _idle(config, "features", [*FeatureConfig.model_fields], f"none of {losses} has a weight")


def _of_sources(config: Config) -> list[str]:
    """Settings of a dataset where there is none, of cameras found where they are given, of guidance, of a file."""
    said, kind = [], config.teacher.kind
    if kind in ("bricks", "city") or config.finds_cameras:  # the room has a dataset, of its own
        said += _idle(config, "data", _OF_DATASETS, f"a teacher of kind {kind} has cameras of its own")
    if not config.finds_cameras:
        rest = [name for name in OrbitConfig.model_fields if name != "up"]  # which paths go by too
        said += _idle(config, "teacher.orbit", rest, "cameras are found for Gaussians without data.transforms alone")
    if config.render.sampling == "occupancy":
        said += _idle(config, "occupancy", ["least_weight"], "with render.sampling occupancy no teacher guides rays")
    if config.compact.target_mib is None:
        said += _idle(config, "compact", ["share", "sparsity"], "compact.target_mib is not set")
    return said


def _idle(config: Config, section: str, names: Sequence[str], why: str) -> list[str]:
    """Those of some settings of a section that are not what they are by default, in a sentence."""
    given = config
    for part in section.split("."):
        given = getattr(given, part)
    fields = type(given).model_fields
    changed = [f"{section}.{name}" for name in names if getattr(given, name) != fields[name].get_default()]
    verb = "has" if len(changed) == 1 else "have"
    return [f"{', '.join(changed)} {verb} no effect: {why}"] if changed else []
