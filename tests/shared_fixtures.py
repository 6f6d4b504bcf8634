"""What the tests of several packages share, and how each process that runs some of them is set up."""

import gc
import os
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from distill.evaluation.render_files import write_gallery
from kernels.threads import available_threads, limit_threads
from scene.cameras import Cameras
from settings.sections import Section
from students.base import Student

if not torch.cuda.is_available():
    # Before anything imports triton, which decides then: its kernels are interpreted on the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Compiling a kernel makes and drops a great many objects; looking through all of torch's for garbage each time takes a
# tenth of it.
gc.set_threshold(100_000, 50, 1000)

if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # Tests side by side share the cores, with the programs that they start.
    share = max(1, available_threads() // workers)
    limit_threads(share)
    os.environ["OMP_NUM_THREADS"] = str(share)


@pytest.fixture(autouse=True)
def _single_threaded_torch():
    """The tensors here are small: torch's own threads cost more than they give, above all on a busy machine.

    Numba's parallel kernels in other packages set how many they are; what calls such a package sets it back.
    """
    torch.set_num_threads(1)
    yield
    assert torch.get_num_threads() == 1, "torch is left with other threads than it had"


@pytest.fixture(autouse=True)
def _seeded():
    """Random inputs are the same in every run and in any order of tests."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _small_galleries():
    """Evaluations enlarge views to 160 pixels, not to the 400 that people see: a fifth of a short run's time.

    What is said of pictures that are enlarged is tested with ``comparison_pictures`` itself.
    """

    def write_small(*given):
        with patch("distill.evaluation.comparison_pictures._SHOWN_SIDE", 160):
            write_gallery(*given)

    with patch("distill.evaluation.evaluator.write_gallery", write_small):
        yield


@pytest.fixture
def three_torch_threads():
    """torch has three threads of its own, and one again afterwards."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def use_threads(monkeypatch):
    """Sets how many threads kernels run on, whatever the machine has."""
    return lambda count: monkeypatch.setattr("kernels.threads.available_threads", lambda: count)


@pytest.fixture
def look_at():
    """Makes cameras at the given positions that look at a point."""

    def make(positions, target=(0.0, 0.0, 0.0), width=24, height=20, focal=30.0):
        poses = []
        for position in torch.tensor(positions, dtype=torch.float32):
            back = torch.nn.functional.normalize(position - torch.tensor(target), dim=0)
            aside = torch.tensor([0.0, 0.0, 1.0]) if abs(back[2]) < 0.9 else torch.tensor([0.0, 1.0, 0.0])
            right = torch.nn.functional.normalize(torch.linalg.cross(aside, back), dim=0)
            pose = torch.eye(4)
            pose[:3] = torch.stack([right, torch.linalg.cross(back, right), back, position], dim=1)
            poses.append(pose)
        ones = torch.ones(len(poses))
        return Cameras(
            torch.stack(poses), ones * focal, ones * focal, ones * width / 2, ones * height / 2, width, height
        )

    return make


class _Field(Student):
    """Density given as a function of the position, one colour, nothing to train; counts what it is asked."""

    kind = "field"

    def __init__(self, box, density, color):
        super().__init__(box, Section())
        self.density_at, self.batches = density, []
        self.register_buffer("color", torch.tensor(color))

    def forward(self, positions, directions, ray_index):
        self.batches.append(len(positions))
        return self.density_at(positions), self.color.expand(len(positions), 3)

    def density(self, positions, directions=None):
        return self.density_at(positions)

    def parameter_groups(self):
        return {"table": [], "mlp": []}

    def encoding_width(self):
        return 0


@pytest.fixture
def field():
    """Makes a student whose density is a function of the position (N, 3) -> (N,)."""

    def make(density, color=(0.25, 0.5, 1.0), box=((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))):
        return _Field(box, density, color)

    return make


@pytest.fixture
def write(tmp_path: Path):
    """Writes a text to a file of the test's own folder, ``run.yaml`` if nothing else is said; returns its path."""

    def _write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return _write
