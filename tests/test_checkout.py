"""Every script runs the packages of the checkout that it stands in, whatever is installed or on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted((ROOT / "tools").glob("*.py"))
LINE = "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))"
PACKAGES = ("distill", "kernels", "machine", "scene", "settings", "students", "teacher")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_a_tool_puts_its_checkout_first_before_it_imports_from_it(tool):
    lines = tool.read_text(encoding="utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(tuple(f"from {name}" for name in PACKAGES)))
    assert any(line.startswith(LINE) for line in lines[:first])


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_a_tool_imports_distill_before_all_that_takes_time(tool):
    lines = tool.read_text(encoding="utf-8").splitlines()
    imports = [line.split()[1] for line in lines if line.startswith(("import ", "from "))]
    before = {name.partition(".")[0] for name in imports[: next(i for i, s in enumerate(imports) if "distill" in s)]}
    assert before <= {*sys.stdlib_module_names, "tqdm"}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_a_tool_ends_with_the_status_of_its_main(tool):
    assert tool.read_text(encoding="utf-8").endswith('\n\nif __name__ == "__main__":\n    sys.exit(main())\n')


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)
def test_the_help_of_a_tool_names_its_exit_statuses(tool):
    assert 'epilog="Exit status' in tool.read_text(encoding="utf-8")


@pytest.mark.parametrize("script", ["lego_response_distill.py", "tools/evaluate.py"])
def test_ctrl_c_during_the_imports_ends_a_program_without_a_traceback(tmp_path, script):
    (tmp_path / "torch.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, ROOT / script, "--help"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_program_imports_at_its_start_only_what_it_needs_then():
    """The kernels too, which touch neither Triton nor CUDA before they are asked to."""
    slow = {"lpips", "matplotlib", "onnx", "scipy.linalg", "scipy.ndimage", "skimage", "torchvision", "triton", "viser"}
    code = f"""import gc, sys
sys.path.insert(0, {str(ROOT)!r})
import lego_response_distill, tools.view, torch
import kernels.compositing.compositing, kernels.encoding.hash_encoding, kernels.marching.ray_marching
import kernels.optimization.adam
found = sorted({slow!r} & sys.modules.keys())
assert not found, found
assert not torch.cuda.is_initialized()
assert gc.isenabled() and gc.get_freeze_count()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_tool_is_not_led_astray_by_packages_of_the_same_names(tmp_path):
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('of another checkout')\n")
    (tmp_path / "torch.py").write_text("raise SystemExit('as far as torch')\n")  # which would take most of the time
    command = [sys.executable, ROOT / "tools/config_reference.py"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == "as far as torch\n"


def test_installing_puts_no_name_in_the_way_of_other_projects():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # Python 3.10 has no reader of TOML
    section = text.partition("[tool.setuptools]")[2].partition("\n[")[0]
    assert "packages = []" in section and "py-modules = []" in section and "package-data" not in text
