"""A checkpoint looked at by another config than it was trained with: how its figures are tagged, what is warned of, and
what of its own config is kept.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.compact.container import is_compact
from distill.model.safetensors_file import is_of_compact, is_safetensors
from machine.run_folder import set_aside_as
from settings.config import Config
from settings.rendering import MOST_RAYS
from settings.sections import Section
from settings.words import show
from teacher.sources import source_of

_OF_SPLIT = ("holdout_every", "frames")
_OF_DRAWING = ("fitted_width", "supersample")
_OF_PICTURES = ("picture_step", "supersample", "max_samples_per_ray", "termination", "fused", "precision")
_SAMPLING = ("step_size", "step_pixels")  # which the occupancy was trained with
_NO_TAG = re.compile("[^a-z0-9-]+")  # what a tag's word cannot have
_log = logging.getLogger(__name__)


def evaluated_as(config: Config, checkpoint: Path, own: Config) -> Config:
    """The config with what is evaluated named in its tag, so that its figures stand beside those of the run itself.

    That is an earlier run's checkpoint, another resolution than the run's, a compact file, which is made of the run's
    student, a safetensors file of that, which is larger, and other settings of pictures or other frames held out,
    unless the config has a tag of its own. A safetensors file of a checkpoint has its weights, and so its figures.

    Args:
        own: the checkpoint's.
    """
    changed = _earlier(checkpoint)
    if config.data.resolution != own.data.resolution:
        changed.append("native" if config.data.resolution is None else f"{config.data.resolution}px")
    changed += _made_of_it(checkpoint)
    if config.tag == own.tag:
        others = _changed(config.render, own.render, _OF_PICTURES) | _changed(config.data, own.data, _OF_SPLIT)
        changed += [_word(name, value) for name, value in others.items()]
    return tagged(config, *changed)


def named_after(config: Config, checkpoint: Path) -> Config:
    """The config with the checkpoint named in its tag where that is not the run's own: for what is made of it, so that
    a film of a compact file stands beside that of the run.
    """
    return tagged(config, *_earlier(checkpoint), *_made_of_it(checkpoint))


def tagged(config: Config, *words: str) -> Config:
    """The config with these words added to its tag, unless they are in it already."""
    own = [*filter(None, config.tag.split("_"))]
    tag = "_".join([*own, *(word for word in words if word not in own)])
    return config if tag == config.tag else config.model_copy(update={"tag": tag})


def note_other_split(config: Config, checkpoint: Path, own: Config) -> None:
    """Warns that frames which a config holds out may be some that the checkpoint's student was trained on.

    Args:
        own: the checkpoint's.
    """
    if pairs := _told_changes("data", config.data, own.data, _OF_SPLIT):
        words = "%s was trained with other frames held out, so some that are called held out it may have seen: %s"
        _log.warning(words, checkpoint, "; ".join(pairs))


def note_other_model(config: Config, own: Config, checkpoint: Path) -> None:
    """Says which settings of a config have no effect, since what a checkpoint was trained with is what counts."""
    pairs = []
    for section in ("student", "far_field", "render"):
        given, trained = getattr(config, section), getattr(own, section)
        if section == "render":
            names = _SAMPLING
        elif given.kind != trained.kind or trained.kind == "none":
            names = ("kind",)
        else:
            names = tuple(type(trained).model_fields)
        pairs += _told_changes(section, given, trained, names)
    if pairs:
        _log.warning("%s is the student that counts, not the config's: %s", checkpoint, "; ".join(pairs))


def drawn_as_trained(config: Config, own: Config) -> Config | None:
    """The config at the width of a run's own views, by which its teacher's Gaussians are to be drawn; None: as it says.

    For ``load_teacher``: else Gaussians of which nobody knows at which width they were fitted would be fatter in
    smaller pictures, and a student be held to what it has never seen.

    Args:
        own: the checkpoint's.
    """
    is_told = any(getattr(config.teacher, name) != getattr(own.teacher, name) for name in _OF_DRAWING)
    if is_told or config.data.resolution == own.data.resolution:
        return None
    return config.model_copy(update={"data": config.data.model_copy(update={"resolution": own.data.resolution})})


def with_as_many_rays(config: Config, own: Config, supersample: int) -> Config:
    """The config with about as many rays across a picture as in training, at another resolution than the run's.

    A smaller picture's pixels are means of more rays, a larger one's of fewer; a number in the config is kept.

    Args:
        own: the checkpoint's.
        supersample: rays along a side of each pixel in training.
    """
    if config.data.resolution == own.data.resolution or config.render.supersample != "auto":
        return config
    data = config.data.model_copy(update={"resolution": own.data.resolution})
    across = source_of(config.model_copy(update={"data": data})).width() * supersample
    scale = min(MOST_RAYS, math.ceil(across / source_of(config).width()))
    return config.model_copy(update={"render": config.render.model_copy(update={"supersample": scale})})


def _earlier(checkpoint: Path) -> list[str]:
    number = set_aside_as(checkpoint)
    return [] if number is None else [f"earlier-{number}"]


def _made_of_it(checkpoint: Path) -> list[str]:
    """A word for a file that is made of a checkpoint and has other figures."""
    if is_compact(checkpoint):
        return ["compact"]
    return ["compact-safetensors"] if is_safetensors(checkpoint) and is_of_compact(checkpoint) else []


def _told_changes(name: str, section: Section, before: Section, names: Sequence[str]) -> list[str]:
    """In words, which of a section's settings differ from a checkpoint's."""
    changed = _changed(section, before, names).items()
    return [f"{name}.{each} {show(value)}, there {show(getattr(before, each))}" for each, value in changed]


def _changed(section: Section, before: Section, names: Sequence[str]) -> dict[str, Any]:
    """Those of the settings that are not what they were."""
    return {name: getattr(section, name) for name in names if getattr(section, name) != getattr(before, name)}


def _word(name: str, value: float | str | None) -> str:
    """Of a tag, for a setting: ``picture-step-0-5``."""
    shown = f"{value:g}" if isinstance(value, float) else str(value).lower()
    return _NO_TAG.sub("-", f"{name}-{shown}")
