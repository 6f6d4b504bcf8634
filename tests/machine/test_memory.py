"""Pictures that no memory holds are refused before they are made; and how much this process takes."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from machine import memory
from machine.memory import (
    ResidentMemory,
    available_bytes,
    check_pictures_fit,
    children_cost,
    give_back_freed,
    size_in_words,
)
from settings.errors import InputError


def write_group(folder, limit, taken=0, pages=0, version=2):
    """A control group's files, in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    names = "memory.max", "memory.current", "inactive_file"
    if version == 1:
        names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
    (folder / names[0]).write_text(limit)
    (folder / names[1]).write_text(f"{taken}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {pages}\n")


@pytest.fixture
def gib_free(monkeypatch, tmp_path):
    """Sets what the system tells of memory: GiB available, of swap, and the container's limit in bytes."""
    groups = tmp_path / "groups"
    groups.mkdir()
    monkeypatch.setattr(memory, "_GROUPS", groups)
    monkeypatch.setattr(memory, "_GROUP", tmp_path / "nowhere")

    def tell(available: int, swap: int, limit: str) -> None:
        lines = ("MemTotal:  99 kB", f"MemAvailable:  {available << 20} kB", f"SwapFree:  {swap << 20} kB")
        (tmp_path / "meminfo").write_text("\n".join(lines) + "\n")
        write_group(groups, limit)
        monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")

    return tell


def test_memory_is_what_is_free_with_swap_under_the_containers_limit(gib_free, monkeypatch, tmp_path):
    gib_free(6, 2, "max\n")
    assert available_bytes() == 8 * 2**30
    gib_free(6, 2, f"{3 * 2**30}\n")
    assert available_bytes() == 3 * 2**30
    for name in ("_MEMINFO", "_GROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / "none")
    assert available_bytes() is None
    check_pictures_fit((10**9, 10**9), 10**9, 8, "data.resolution")  # nothing tells: it is tried


@pytest.mark.parametrize("version", [1, 2])
def test_what_the_groups_about_this_process_have_taken_is_not_free(gib_free, monkeypatch, tmp_path, version):
    gib = 2**30
    gib_free(90, 0, "max\n")
    (tmp_path / "own").write_text("4:cpu:/\n3:memory:/slurm/job/step\n" if version == 1 else "0::/slurm/job/step\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path / "own")
    root = tmp_path / "groups" / ("memory" if version == 1 else "")
    write_group(root / "slurm" / "job", f"{8 * gib}\n", 5 * gib, gib, version)
    assert available_bytes() == 4 * gib  # its files' pages make room
    write_group(root / "slurm" / "job" / "step", f"{4 * gib}\n", 3 * gib, 0, version)
    assert available_bytes() == gib
    write_group(root, f"{6 * gib}\n", 7 * gib, 0, version)
    assert available_bytes() == 0


def test_what_clearly_does_not_fit_is_refused_with_the_width_that_does(gib_free):
    gib_free(8, 0, "max\n")
    check_pictures_fit((16384, 16384), 4, 8, "data.resolution")  # 8 GiB: it may fit
    with pytest.raises(InputError) as caught:
        check_pictures_fit((16384, 16384), 8, 8, "data.resolution")
    assert str(caught.value) == (
        "config: data.resolution: found 16384: 8 of 16384x16384 pixels, which take 16.0 GiB of memory, "
        "expected at most the 8.0 GiB that are free. Set it to 8192 or less, or use fewer frames."
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (840, "840 bytes"), (2048, "2.00 KiB"), (3 * 2**19, "1.50 MiB"), (5 * 2**30, "5.00 GiB")],
)
def test_a_size_is_in_the_unit_that_suits_it(count, words):
    assert size_in_words(count) == words


def test_the_peak_of_a_stretch_is_what_was_held_in_it():
    watched, mib = ResidentMemory(), 2**20
    if watched.base is None:
        pytest.skip("this system does not tell what a process takes, or does not let its peak be set back")
    held = np.ones(40 * mib, np.uint8)
    assert 40 * mib <= watched.stretch() < 60 * mib
    del held
    give_back_freed()
    watched.stretch()
    assert watched.stretch() < 20 * mib
    assert watched.peak >= 40 * mib


def test_a_system_that_does_not_tell_leaves_memory_unmeasured(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert ResidentMemory().stretch() is None


def test_what_ended_programs_took_is_told():
    subprocess.run([sys.executable, "-c", "x = b'1' * 2**26; print(sum(range(10**6)))"], check=True)
    seconds, most = children_cost()
    assert seconds > 0 and most > 2**26


def test_the_cpu_peak_does_not_fall():
    before = memory.cpu_peak_gib()
    block = torch.ones(2**26)  # 256 MiB
    after = memory.cpu_peak_gib()
    assert block.sum() > 0 and after >= before > 0.05
    assert after >= 0.25, "in GiB, the block included"
