"""Takes a trained student elsewhere: as safetensors, as ONNX of its field, or as a mesh of its surface.

    python tools/export.py results/bricks/quickstart --safetensors student.safetensors
    python tools/export.py results/bricks/quickstart --onnx field.onnx
    python tools/export.py results/bricks/quickstart --mesh surface.glb --mesh-cells 256

Takes a checkpoint, a compact file, a safetensors file, or a run folder, which stands for its newest checkpoint. It
carries its config; --config FILE names another. docs/export.md says what is in the files. ONNX is checked with
onnxruntime before it is written; a mesh is compared with the teacher's held-out views, and the error printed and
written beside it. Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's packages, whatever is installed

from distill.export.mesh import DensityVolume
from distill.export.mesh_density import surface_density
from distill.export.mesh_error import measure_mesh
from distill.export.mesh_files import SUFFIXES, write_mesh
from distill.export.mesh_picture import mesh_renderer
from distill.export.onnx_field import write_onnx
from distill.library.scenes import LoadedStudent, load_student
from distill.model.checkpoint import load_checkpoint
from distill.model.other_config import drawn_as_trained
from distill.model.safetensors_file import save_safetensors
from distill.runs.command_line import add_config_options, add_device_option, given_path, overrides_of, run_command
from machine.files import check_output_file, output_errors
from machine.memory import MIB
from scene.camera_paths import world_up
from settings.errors import InputError
from settings.loading import config_from_text
from teacher.sources import check_assets, load_teacher

_CELLS = 256
_ENDINGS = {"safetensors": (".safetensors",), "onnx": (".onnx",), "mesh": SUFFIXES}
_log = logging.getLogger(__name__)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Take a trained student elsewhere: safetensors, ONNX of its field, a mesh of its surface.",
        epilog="Exit status: 0 done, 2 bad input, 4 the machine failed, 130 interrupted; nothing is left half-written.",
    )
    parser.add_argument("checkpoint", type=given_path, metavar="CHECKPOINT", help="a checkpoint or a run folder")
    parser.add_argument(
        "--safetensors", type=given_path, metavar="FILE", help="write the student, for this program to render again"
    )
    parser.add_argument(
        "--onnx", type=given_path, metavar="FILE", help="write its field: position, direction -> density, rgb"
    )
    parser.add_argument("--mesh", type=given_path, metavar="FILE", help="write its surface, as .ply or .glb")
    parser.add_argument(
        "--mesh-cells", type=int, default=_CELLS, metavar="N",
        help="cells of the mesh along the longest side of the box (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--mesh-density", type=float, metavar="X",
        help="the density at the surface, 1 / world unit (default: found from training views)",
    )  # fmt: skip
    add_config_options(parser, default_config="the checkpoint's own", turns=True)
    add_device_option(parser)
    return parser.parse_args(arguments)


def export(chosen: argparse.Namespace) -> None:
    """Writes what the command line asks for and prints a line about each.

    Raises:
        InputError: the checkpoint, the config or an option is not in order, or the student cannot be expressed.
    """
    _check(chosen)
    overrides = chosen.overrides + overrides_of({"--up": ("teacher.orbit.up", chosen.up)})
    named = {name: getattr(chosen, name) for name in ("config", "assets", "device")}
    student = load_student(chosen.checkpoint, overrides=overrides, **named)
    _check_files(chosen, student.checkpoint, student.config.teacher.ply)
    bounded = next((name for name in ("onnx", "mesh") if getattr(chosen, name) is not None), None)
    if bounded and student.model.far_field is not None:
        hint = "--safetensors keeps all of it."
        raise InputError(f"--{bounded}", "far_field", "a student with a far field", "one of what is in its box", hint)
    if chosen.safetensors is not None:
        state = load_checkpoint(student.checkpoint, "cpu")
        with output_errors(chosen.safetensors):
            size = save_safetensors(chosen.safetensors, state)
        print(f"{chosen.safetensors}: {size / MIB:.3f} MiB, step {student.step}")
    if chosen.onnx is not None:
        with output_errors(chosen.onnx):
            files, error = write_onnx(chosen.onnx, student.model, student.step)
        sizes = ", ".join(f"{file}: {file.stat().st_size / MIB:.3f} MiB" for file in files)
        print(
            f"{sizes}; onnxruntime's results at {error.points} points differ by at most {error.rgb:.1e} in colour and "
            f"{error.density:.1e} of the density (of the student's density unit where it is smaller)"
        )
    if chosen.mesh is not None:
        _export_mesh(student, chosen)


def _check(chosen: argparse.Namespace) -> None:
    """Refuses before the work what would be refused after it."""
    if all(getattr(chosen, name) is None for name in _ENDINGS):
        raise InputError("command line", "file to write", "none", "--safetensors, --onnx or --mesh")
    _check_files(chosen)
    if chosen.mesh_cells < 2:
        raise InputError("--mesh-cells", "cells", chosen.mesh_cells, "at least 2")
    if chosen.mesh_density is not None and not chosen.mesh_density > 0:
        raise InputError("--mesh-density", "density", chosen.mesh_density, "more than 0")


def _check_files(chosen: argparse.Namespace, *inputs: Path | None) -> None:
    """Refuses files to write that cannot be meant, among them those that are read."""
    for name, endings in _ENDINGS.items():
        if (path := getattr(chosen, name)) is not None:
            check_output_file(f"--{name}", path, endings, inputs)


def _export_mesh(student: LoadedStudent, chosen: argparse.Namespace) -> None:
    path = chosen.mesh
    check_assets(student.config)
    own = config_from_text(load_checkpoint(student.checkpoint, "cpu")["config"], student.checkpoint)
    # It is what the mesh is measured against.
    teacher = load_teacher(student.config, drawn_as_trained(student.config, own))
    volume, density = DensityVolume(student.model, chosen.mesh_cells), chosen.mesh_density
    if density is None:
        density = surface_density(volume, teacher.training_cameras, student.render)
    mesh = volume.colored(volume.surface(density))
    up = student.config.teacher.orbit.known_up or world_up(teacher.training_cameras)
    if up is None and path.suffix.lower() == ".glb":
        _log.warning("%s: found cameras with no up direction in common, so +Y is up in it; say what is with --up", path)
    with output_errors(path):
        size = write_mesh(path, mesh) if up is None else write_mesh(path, mesh, up)
        counts = f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles"
        print(f"{path}: {size / MIB:.3f} MiB, {counts} where the density is {density:.4g}")
        error = measure_mesh(student.config, teacher.views, mesh_renderer(mesh), student.render, path.with_suffix(""))
    print(error.text())
    if remark := error.remark(chosen.mesh_cells, chosen.mesh_density):
        _log.warning("%s: %s", path, remark)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    chosen = parse_arguments(arguments)
    return run_command(lambda: export(chosen), chosen.debug)


if __name__ == "__main__":
    sys.exit(main())
