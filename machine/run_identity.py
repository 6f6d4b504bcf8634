"""Which run it is: the settings and assets that shape it. Only the run that was begun can be gone on with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine.fingerprints import cache_key
from machine.weights_files import restoring
from settings.config import Config
from settings.errors import InputError
from settings.loading import ASSETS, config_from_text, run_config, to_yaml
from settings.words import show

# What a resumed run may change: how long it lasts, what it measures and tells, how and where it computes.
_FREE = {
    *("scene", "run", "tag", "device", "kernels", "eval", "logging"),
    *(f"city.{name}" for name in ("executor", "joint_steps", "coarser")),
    *(f"train.{name}" for name in ("max_steps", "max_seconds", "log_every")),
    *(f"train.checkpoint_{name}" for name in ("every", "minutes", "steps")),
    *(f"render.{name}" for name in ("max_batch_samples", "fused", "precision", "termination")),
    *(f"fitting.{name}" for name in ("max_steps", "max_seconds", "log_every", "checkpoint_every")),
    "fitting.checkpoint_minutes",
}
_OF_STUDENTS = {"student", "occupancy", "loss", "features", "train"}
_HINT = "Resume with what it was begun with, or start anew: without --resume, under another run name."
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """A run's settings and assets.

    Attributes:
        config: all its settings.
        assets: the digest of each asset's contents, by the setting that names it; None: not known.
        fits_teacher: whether it fits a teacher, whom the student's settings do not concern.
    """

    config: Config
    assets: Mapping[str, str] | None = None
    fits_teacher: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that shape the run, by their dotted names."""
        of_others = _OF_STUDENTS if self.fits_teacher else {"fitting"}
        return dict(_flat(self.config.model_dump(mode="json"), _FREE | of_others | {*ASSETS}))

    def state(self) -> dict[str, Any]:
        """What a run folder keeps: one digest of all, and those of the assets."""
        return {"digest": cache_key(self.settings, dict(self.assets or {})), "assets": dict(self.assets or {})}

    def check_continues(self, stored: RunIdentity, source: Path) -> None:
        """Checks that this is the run that ``source`` is of.

        Raises:
            InputError: a setting or an asset is another; all are named.
        """
        then, now = stored.settings, self.settings
        differ = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        assets = self._changed_assets(stored, source)
        others = [*differ[1:], *(assets if differ else assets[1:])]
        hint = f"{'So are ' + ', '.join(others) + '. ' if others else ''}{_HINT}"
        if differ:
            name = differ[0]
            expected = f"{show(now.get(name))}, as the config says"
            raise InputError(source, name, show(then.get(name)), expected, hint)
        if assets:
            found = "another file's contents than the config's asset has now"
            raise InputError(source, assets[0], found, "the assets it was begun with", hint)

    def _changed_assets(self, stored: RunIdentity, source: Path) -> list[str]:
        if stored.assets is not None:
            now = self.assets or {}
            return [name for name in {**stored.assets, **now} if stored.assets.get(name) != now.get(name)]
        return [name for name in ASSETS if self._is_another_path(stored, name, source)]

    def _is_another_path(self, stored: RunIdentity, name: str, source: Path) -> bool:
        """Of a run of an earlier version, which knows its assets' places alone: they may have moved."""
        then, now = (_setting(identity.config, name) for identity in (stored, self))
        if then == now:
            return False
        if then is None or now is None or then.name != now.name or then.exists():
            return True
        _log.warning(
            "%s is of an earlier version, which did not record its assets' contents: %s was %s, and is now %s.",
            source, name, then, now,
        )  # fmt: skip
        return False


def identity_of_folder(results: Path, fits_teacher: bool = False) -> RunIdentity | None:
    """The run whose files are in a results folder; None: of none, or of an earlier version.

    Raises:
        InputError: what it says of itself is damaged.
    """
    config, identity = results / "config.yaml", results / "identity.json"
    if not config.is_file() or not identity.is_file():
        return None
    try:
        assets = json.loads(identity.read_text(encoding="utf-8"))["assets"]
        return RunIdentity(run_config(config), dict(assets), fits_teacher)
    except (ValueError, KeyError, TypeError) as error:
        hint = "Delete it, if the folder's files are of the run that you go on with."
        raise InputError(identity, "run identity", f"something unreadable ({error})", "a run's", hint) from error


def identity_of_state(state: Mapping[str, Any], source: Path, fits_teacher: bool = False) -> RunIdentity:
    """The run that a checkpoint is of."""
    assets = state.get("assets")
    with restoring(source, "assets"):
        assets = None if assets is None else dict(assets)
    return RunIdentity(config_from_text(state["config"], source), assets, fits_teacher)


def identity_state(identity: RunIdentity) -> dict[str, Any]:
    """What a checkpoint keeps of the run that writes it."""
    return {"config": to_yaml(identity.config), "assets": None if identity.assets is None else dict(identity.assets)}


def _setting(config: Config, name: str) -> Any:
    section, key = name.split(".")
    return getattr(getattr(config, section), key)


def _flat(values: Mapping[str, Any], ignored: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = prefix + key
        if name in ignored:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, ignored, f"{name}.")
        else:
            yield name, value
