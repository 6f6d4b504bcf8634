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


def test_a_tool_is_not_led_astray_by_packages_of_the_same_names(tmp_path):
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('of another checkout')\n")
    command = [sys.executable, str(ROOT / "tools" / "config_reference.py"), "--check", str(ROOT / "docs/config.md")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_installing_puts_no_name_in_the_way_of_other_projects():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # Python 3.10 has no reader of TOML
    section = text.partition("[tool.setuptools]")[2].partition("\n[")[0]
    assert "packages = []" in section and "py-modules = []" in section and "package-data" not in text
