"""The script of docs/library.md, run as it stands; and what scripts are told of bad input."""

import re
from dataclasses import replace

import pytest
import torch

from distill.library.scenes import load_cameras, load_splat, load_student
from distill.model.checkpoint import save_checkpoint
from scene.formats.transforms_json import write_transforms
from scene.images import read_image
from settings.data import DataConfig
from settings.errors import InputError
from settings.loading import REPO_ROOT
from teacher.gaussian_files.ply import write_ply
from tests.distill.compact.students_at_hand import HASH, state_of
from tests.toy_scene import block_of_gaussians, ring_of_cameras, write_toy_scene


@pytest.fixture
def scene(tmp_path):
    """The files that the script reads, small: a run's folder, Gaussians, and a folder of cameras."""
    (tmp_path / "results/bricks/quickstart/checkpoints").mkdir(parents=True)
    state = state_of(HASH)
    shape = state["occupancy"]["state"]["occupied"].shape
    state["occupancy"]["state"] |= {"teacher": torch.ones(shape, dtype=torch.uint8), "remembered": torch.zeros(shape)}
    state["config"] = (REPO_ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8") + "kernels: torch\n"
    state |= {"seconds": 1.0, "seconds_before": 0.0, "rays_per_step": 8}
    save_checkpoint(tmp_path / "results/bricks/quickstart/checkpoints/step_000007.pth", state)
    write_ply(tmp_path / "bricks.ply", block_of_gaussians())
    (tmp_path / "bricks_views").mkdir()
    write_transforms(tmp_path / "bricks_views/transforms.json", ring_of_cameras(2), ["a", "b"])
    return tmp_path


def test_the_script_of_the_documentation_runs(scene, monkeypatch, capsys):
    script = re.search(r"```python\n(.*?)```", (REPO_ROOT / "docs/library.md").read_text(encoding="utf-8"), re.DOTALL)[
        1
    ]
    assert script.count("\n") <= 12
    monkeypatch.chdir(scene)
    exec(script.replace("256", "24"), {})
    assert capsys.readouterr().out.startswith("torch.Size([24, 24, 3]) tensor(")
    splat = read_image(scene / "splat.png")
    assert splat.shape == (24, 24, 3) and splat[0, 0].tolist() == [255] * 3 and splat[12, 12].max() < 240
    assert read_image(scene / "student.png").shape == (24, 24, 3)


def test_what_is_loaded_is_what_the_options_say(scene):
    cameras = load_cameras(scene / "bricks_views/transforms.json", resolution=12, frames="1:")
    assert (len(cameras), cameras.width, cameras.height) == (1, 12, 12)
    student = load_student(scene / "results/bricks/quickstart", overrides=["render.termination=0.01"], device="cpu")
    assert (student.step, student.config.render.termination, student.device.type) == (7, 0.01, "cpu")
    view = load_splat(scene / "bricks.ply").render(cameras)
    distance = view.distance[6, 6].item()
    assert view.alpha[6, 6] > 0.99 and 1.5 < distance < 2 and view.distance[0, 0] == 0


def test_what_a_student_was_trained_with_is_not_to_be_changed(scene, caplog):
    overrides = ["student.levels=3", "far_field.kind=contracted", "render.step_size=0.5"]
    student = load_student(scene / "results/bricks/quickstart", overrides=overrides, device="cpu")
    said = caplog.text.partition("is the student that counts, not the config's: ")[2]
    assert student.model.far_field is None
    assert said.startswith('student.levels 3, there 8; far_field.kind "contracted", there "none"; render.step_size 0.5')


def test_the_cameras_of_a_run_are_those_of_its_config(tmp_path):
    write_toy_scene(tmp_path)
    folder = tmp_path / "results/toy/first"
    folder.mkdir(parents=True)
    text = f"scene: toy\nrun: first\nteacher: {{kind: images}}\ndata: {{transforms: {tmp_path}/data/transforms.json}}\n"
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    assert load_cameras(folder).same_as(load_cameras(tmp_path / "data/transforms.json"))
    (folder / "config.yaml").write_text(
        "scene: toy\nrun: first\ndata: {resolution: 8}\nteacher: {kind: bricks}\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match="data.transforms: found null, expected a dataset"):
        load_cameras(folder)


def test_cameras_go_into_the_world_of_a_student(tmp_path):
    ring = ring_of_cameras(2)
    poses = ring.c2w.clone()
    poses[:, 0, 3] += 4096.0
    write_transforms(tmp_path / "far.json", replace(ring, c2w=poses), ["a", "b"])
    moved = load_cameras(tmp_path / "far.json", data=DataConfig(offset=(4096.0, 0.0, 0.0)))
    torch.testing.assert_close(moved.c2w, ring.c2w, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda path: load_student(path / "bricks_views"), "run folder: found no checkpoint"),
        (lambda path: load_student(path / "bricks.ply"), "found a PLY, expected a whole checkpoint"),
        (lambda path: load_splat(path / "bricks_views/transforms.json"), "found JSON text, expected 3D Gaussians"),
        (lambda path: load_cameras(path / "bricks_views", resolution=0), "resolution: width: found 0"),
        (lambda path: load_cameras(path / "bricks_views", frames="9:"), "START:STOP:STEP"),
        (lambda path: load_splat(path / "bricks.ply").render(ring_of_cameras(2), 2), "index: found 2, expected 0 to 1"),
        (lambda path: load_splat(path / "bricks.ply").render(ring_of_cameras(2), -1), "index: found -1"),
    ],
)
def test_bad_input_is_one_message(scene, work, said):
    with pytest.raises(InputError, match=re.escape(said)):
        work(scene)
