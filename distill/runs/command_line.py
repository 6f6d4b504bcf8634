"""What the command lines share: the options that name a config, and errors as one message and an exit status."""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from distill.runs.given_scene import check_taken, direction, given_scene
from machine import ranks
from machine.failures import forgiving_output, is_name_too_long, machine_failure
from machine.interrupts import signals_stop, stop_behind
from settings.config import Config
from settings.errors import ExitCode, InputError, TrainingDiverged
from settings.loading import REPO_ROOT, Override, load_config
from teacher.gaussian_files import FORMATS


def given_path(text: str) -> Path:
    """The path that an option gives; an empty one, of a shell's variable that is not set, is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError("found nothing, expected a path (is a variable of the shell not set?)")
    return Path(text)


def add_config_options(
    parser: argparse.ArgumentParser, default_config: str = "", source_config: Path | None = None, turns: bool = False
) -> None:
    """``--config``, ``--set``, ``--assets``, ``--debug``, and where a config has to be given ``--model``, ``--source``,
    ``--splat`` and ``--up``; ``config_of`` reads all but ``--debug``.

    Args:
        default_config: what is taken without ``--config``, in words; empty: it or a scene has to be given.
        source_config: what ``--source`` alone starts from, of a command that fits Gaussians to pictures: the options of
            others are then there to be refused. None: the config of a student.
        turns: whether the command needs to know what is up where cameras are given, too.
    """
    parser.set_defaults(source_config=source_config, turns=turns)
    words = f"YAML config, see configs/{f' (default: {default_config})' if default_config else ''}"
    parser.add_argument("--config", type=given_path, metavar="FILE", help=words)
    if not default_config:
        _add_scene_options(parser, fits=source_config is not None)
    if turns or not (default_config or source_config):
        parser.add_argument(
            "--up", type=direction, metavar="AXIS",
            help=f"direction that is up{'' if turns else ', with --splat'}: x, y, z, or as in --up=-y, --up=0,-1,0.1; "
            "sets teacher.orbit.up",
        )  # fmt: skip
    add_set_option(parser, "train.lr=0.005")
    add_assets_option(parser)
    add_debug_option(parser)


def _add_scene_options(parser: argparse.ArgumentParser, fits: bool) -> None:
    of_model = "the output folder of graphdeco's program or of tools/train_teacher.py: its cameras, and its latest "
    of_model += "Gaussians as the teacher"
    of_source = "a capture: a COLMAP model or a transforms.json, and its pictures"
    of_splat = f"Gaussians ({', '.join(f'.{name}' for name in FORMATS)}), with --source from its cameras; alone, "
    of_splat += "cameras are placed for them, and the config is configs/splat.yaml unless --config names another"
    if fits:
        of_model = of_splat = argparse.SUPPRESS
    else:
        of_source += "; with --model only the pictures are taken from it"
    parser.add_argument("--model", type=given_path, metavar="DIR", help=of_model)
    parser.add_argument("--source", type=given_path, metavar="DIR", help=of_source)
    parser.add_argument("--splat", type=given_path, metavar="FILE", help=of_splat)


def add_set_option(parser: argparse.ArgumentParser, example: str, what: str = "a setting") -> None:
    """``--set``, whose texts are a config's ``overrides``."""
    parser.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE",
        help=f"override {what}, e.g. --set {example}; may be repeated",
    )  # fmt: skip


def add_assets_option(parser: argparse.ArgumentParser) -> None:
    """``--assets``, for ``load_config``."""
    parser.add_argument(
        "--assets", type=given_path, metavar="DIR", help="root of relative asset paths (default: this repository)"
    )


def add_root_option(parser: argparse.ArgumentParser, what: str = "results/ and logs/ are", otherwise: str = "") -> None:
    """``--output``, the folder in which runs have theirs.

    Args:
        otherwise: what is taken without it, in words, where that depends on what else is given: it is None then.
    """
    parser.add_argument(
        "--output", metavar="DIR", type=given_path, default=None if otherwise else REPO_ROOT,
        help=f"where {what} (default: {otherwise or 'this repository'})",
    )  # fmt: skip


def add_frames_option(parser: argparse.ArgumentParser, what: str = "frames") -> None:
    """``--frames``, a text for ``frame_slice``."""
    parser.add_argument("--frames", metavar="START:STOP:STEP", help=f"only these {what}, as a Python slice")


def add_debug_option(parser: argparse.ArgumentParser) -> None:
    """``--debug``, for ``run_command``."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def positive_number(text: str) -> float:
    """An option's number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a number above 0")
    return value


def whole_number(text: str) -> int:
    """An option's whole number of at least 1."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number of at least 1")
    return int(text)


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """``--device``, which ``config_of`` reads."""
    parser.add_argument("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N; same as --set device=DEVICE")


def add_short_options(parser: argparse.ArgumentParser, steps: str) -> None:
    """``--max-steps`` and ``--seed``, which ``config_of`` reads.

    Args:
        steps: the setting that the first stands for.
    """
    parser.set_defaults(steps_setting=steps)
    parser.add_argument("--max-steps", type=int, metavar="N", help=f"same as --set {steps}=N")
    parser.add_argument("--seed", type=int, metavar="N", help="same as --set seed=N")


def config_of(arguments: argparse.Namespace) -> Config:
    """The config that the options name; ``--max-steps``, ``--seed`` and ``--device`` among them where there are any.

    Raises:
        InputError: as ``given_scene``, ``load_config`` and ``check_taken``.
    """
    config, layers = given_scene(arguments)
    given = vars(arguments)
    options = {
        "--max-steps": (given.get("steps_setting"), given.get("max_steps")),
        "--seed": ("seed", given.get("seed")),
        "--device": ("device", given.get("device")),
    }
    loaded = load_config(config, arguments.overrides + overrides_of(options), arguments.assets, layers)
    check_taken(arguments, loaded)
    return loaded


def overrides_of(options: Mapping[str, tuple[str, object]]) -> list[str]:
    """Settings that have an option of their own, as the texts that ``--set`` would give.

    Args:
        options: by the option's name, which errors give as the source: the setting and its value, None where the
            option is not given.
    """
    return [Override(f"{key}={value}", option) for option, (key, value) in options.items() if value is not None]


def run_command(
    work: Callable[[], int | None],
    debug: bool,
    interrupted: str = "interrupted",
    together: bool = False,
    going_on: str = "",
) -> int:
    """Runs a command with its log on stderr; returns the exit status that ``work`` gives (None: done), or its error's.

    A terminal that goes away does not end it. What was to be printed and could not be is a failure of the machine, but
    for a reader that wants no more (``| head``).

    Args:
        debug: let errors through, so that their traceback shows, and tell what is logged for that alone.
        interrupted: what to say after a signal that asks it to stop.
        together: whether the processes that torchrun has started do this work together, see ``machine.ranks``.
        going_on: how it goes on after that, or after a full disk, a sentence, where running it again begins anew.
    """
    with forgiving_output() as stdout, signals_stop():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter())
        handler.addFilter(_is_told_here)
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        for library in ("numba", "matplotlib"):
            logging.getLogger(library).setLevel(logging.WARNING)
        logging.getLogger("distill").setLevel(logging.DEBUG if debug else logging.NOTSET)
        warnings.filterwarnings("ignore", message="The torchvision", module="lpips")
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box in a picture's title
        interrupted += going_on and f". {going_on}"
        status = _status_of((lambda: _together(work)) if together else work, debug, interrupted, going_on)
        ranks.leave(status)
        stdout.flush()
        if status == ExitCode.DONE and stdout.error is not None and not isinstance(stdout.error, BrokenPipeError):
            print(f"error: standard output: {stdout.error}", file=sys.stderr)
            return ExitCode.MACHINE_FAILED
        return status


def _together(work: Callable[[], int | None]) -> int | None:
    """The work of all processes; what one prints that is not the first goes nowhere, its errors apart."""
    ranks.join()
    if ranks.is_first():
        return work()
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return work()


def _is_told_here(record: logging.LogRecord) -> bool:
    """Whether this process tells what is logged: the first does, and another what it alone has to warn of."""
    return ranks.says_first(record.getMessage()) if record.levelno >= logging.WARNING else ranks.is_first()


def _tell(text: str) -> None:
    if ranks.says_first(text):
        print(text, file=sys.stderr)


def _status_of(work: Callable[[], int | None], debug: bool, interrupted: str, going_on: str) -> int:
    try:
        return work() or ExitCode.DONE
    except (InputError, TrainingDiverged) as error:
        if debug:
            raise
        _tell(f"error: {error}")
        return ExitCode.BAD_INPUT if isinstance(error, InputError) else ExitCode.DIVERGED
    except (KeyboardInterrupt, SystemError) as error:
        stop = stop_behind(error)
        if stop is None:
            raise
        return _status_of_stop(stop, interrupted)
    except ranks.RankLost as error:
        if debug:
            raise
        if (status := ranks.status_of_lost()) is not None:
            return status
        _tell(f"error: {error}")
        return ExitCode.MACHINE_FAILED
    except (OSError, MemoryError, RuntimeError) as error:
        failure = machine_failure(error, going_on)
        if failure is None and (stop := stop_behind(error)) is not None:
            return _status_of_stop(stop, interrupted)
        if debug or failure is None:
            raise
        _tell(f"error: {failure}")
        return ExitCode.BAD_INPUT if is_name_too_long(error) else ExitCode.MACHINE_FAILED


def _status_of_stop(stop: KeyboardInterrupt, interrupted: str) -> int:
    if (status := ranks.status_of_lost()) is not None:  # torchrun stops the others then
        return status
    _tell(interrupted)
    return getattr(stop, "status", ExitCode.INTERRUPTED)


class _Formatter(logging.Formatter):
    """The message alone, of a warning with the word before it."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{'warning: ' if record.levelno == logging.WARNING else ''}{super().format(record)}"
