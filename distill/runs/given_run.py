"""A trained run that a command line names: by its folder, by one of its checkpoints, or by a config."""

from __future__ import annotations

import argparse
import itertools
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.model.checkpoint import load_checkpoint
from distill.runs.command_line import add_device_option, add_root_option, config_of, given_path, overrides_of
from machine.run_folder import RunFolder, checkpoint_at, newest_checkpoint, results_folder
from settings.config import Config
from settings.errors import InputError
from settings.loading import REPO_ROOT, config_from_text, load_config
from settings.yaml_text import read_mapping

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GivenRun:
    """A run with a checkpoint.

    Attributes:
        config: to use it by, called as the run is called now.
        root: of its ``results/`` and ``logs/``.
        checkpoint: the file.
        own: the config in the checkpoint.
        step: training steps behind it.
    """

    config: Config
    root: Path
    checkpoint: Path
    own: Config
    step: int


def run_at(
    path: Path,
    checkpoint: Path | None = None,
    config_file: Path | None = None,
    overrides: Sequence[str] = (),
    assets: Path | None = None,
    root: Path | None = None,
) -> GivenRun:
    """The run of a folder ``results/<scene>/<run>``, of which the newest checkpoint is taken, or of a checkpoint.

    Args:
        checkpoint: of a folder another than the newest.
        config_file: instead of the config that the checkpoint carries.
        root: instead of the one that the run lies under; of a checkpoint elsewhere that is this repository.

    Raises:
        InputError: a checkpoint or a config is missing or damaged.
    """
    results = results_folder(path)
    checkpoint = checkpoint_at(checkpoint or path)
    state = load_checkpoint(checkpoint, "cpu")
    own = config_from_text(state["config"], checkpoint)
    if config_file is not None:
        config = load_config(config_file, overrides, assets)
    else:
        config = config_from_text(state["config"], checkpoint, overrides, assets)
        if results is not None:  # a run that was copied or renamed is the one it is called now
            config = config.model_copy(update={"scene": results.parent.name, "run": results.name})
    if root is None and results is None:
        where = RunFolder(config, REPO_ROOT).results
        _log.info("%s is not in a folder results/<scene>/<run>: what is made of it goes to %s", path, where)
    root = root or (REPO_ROOT if results is None else results.parents[2])
    return GivenRun(config, root, checkpoint, own, state["step"])


def check_resumes_own_run(config_file: Path | None, config: Config, root: Path) -> None:
    """Refuses to begin a run anew by ``--resume auto`` and the config of one that was renamed or moved since.

    Where ``--set`` or ``--output`` name a third place, a new run is what is meant.

    Args:
        config_file: that the config is from; None: another. A run's own is its ``config.yaml``.
        root: where the config's run is looked for.

    Raises:
        InputError: the config's run has no checkpoint, and the folder that the file is in has some.
    """
    wanted = RunFolder(config, root)
    if config_file is None or config_file.name != wanted.config_yaml.name:  # one built on it is of a run of its own
        return
    in_place = results_folder(config_file.parent)
    own = in_place or config_file.resolve().parent
    if newest_checkpoint(own / "checkpoints") is None or wanted.latest_checkpoint() is not None:
        return
    called = read_mapping(config_file)
    if (called.get("scene"), called.get("run")) != (config.scene, config.run):
        return
    above = in_place and in_place.parents[2].resolve()  # whose ``results`` may be a link
    if root.resolve() not in (REPO_ROOT, above):
        return
    hint = f"--resume {shlex.quote(str(own))} goes on from them, in {wanted.results}."
    if in_place:
        names = f"scene={own.parent.name}", f"run={own.name}"
        words = [f"--output {shlex.quote(str(above))}", *(f"--set {shlex.quote(name)}" for name in names)]
        is_needed = root.resolve() != above, config.scene != own.parent.name, config.run != own.name
        hint = f"Add {' '.join(itertools.compress(words, is_needed))} to go on with the run in this folder."
    found = f"no checkpoint in {wanted.checkpoints}, but some beside this config"
    raise InputError(config_file, "--resume auto", found, "the config of a run in its own folder", hint)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """``PATH``, ``--checkpoint``, ``--output`` and ``--device``, of the tools that look at a trained run.

    For ``run_of``, which reads what ``add_config_options`` adds, too.
    """
    parser.add_argument(
        "run", nargs="?", type=given_path, metavar="PATH",
        help="a run folder or a checkpoint, which carries its config (default: the run of --config)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", type=given_path, metavar="PATH", help="a checkpoint or a run folder (default: the run's latest)"
    )
    add_root_option(parser, "the run's results/ are", "beside the run that PATH names, else this repository")
    add_device_option(parser)


def run_of(arguments: argparse.Namespace) -> tuple[Config, Path, Path | None]:
    """What ``add_run_options`` and ``add_config_options`` name: the config of a run, the root of its ``results/``, and
    the checkpoint, None where it is the latest of the config's run.

    Raises:
        InputError: as ``config_of`` and ``run_at``, or both name a run.
    """
    path, checkpoint = arguments.run, arguments.checkpoint
    if path is None:
        return config_of(arguments), arguments.output or REPO_ROOT, checkpoint
    for option in ("model", "source", "splat"):
        if getattr(arguments, option) is not None:
            hint = "A run knows its scene."
            raise InputError("command line", f"--{option}", f"the run {path} too", "one of them", hint)
    if checkpoint is not None and not path.is_dir():
        raise InputError("command line", "--checkpoint", f"{path} too", "one of them, or a run folder before it")
    if arguments.up is not None and not arguments.turns:
        raise InputError("command line", "--up", "no --splat", "--splat FILE", "Cameras are given without it.")
    options = {"--device": ("device", arguments.device), "--up": ("teacher.orbit.up", arguments.up)}
    overrides = arguments.overrides + overrides_of(options)
    run = run_at(path, checkpoint, arguments.config, overrides, arguments.assets, arguments.output)
    return run.config, run.root, run.checkpoint
