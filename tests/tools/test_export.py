"""Students taken elsewhere from the command line: the three files, what is said of them, and what is refused."""

import json
import sys

import pytest
import torch

from distill.library.scenes import load_student
from distill.model.checkpoint import save_checkpoint
from scene.formats.transforms_json import write_transforms
from settings.errors import InputError
from settings.loading import load_config, to_yaml
from tests.distill.compact.students_at_hand import HASH, SHAPE, state_of
from tests.program import csv_rows
from tests.toy_scene import ring_of_cameras, turned_over, write_toy_scene
from tools.export import main


@pytest.fixture
def checkpoint(tmp_path):
    """A student of the toy scene that is a solid block."""
    config = load_config(write_toy_scene(tmp_path), ["kernels=torch"], tmp_path)
    state = state_of(HASH)
    weights = state["student"]["weights"]
    weights["table"].fill_(1.0)
    for number in range(2):
        weights[f"density_weights.{number}"].fill_(0.3)  # a density of e^(0.3 * 0.3 * 6 * 8) = 75
    occupied = torch.zeros(SHAPE, dtype=torch.uint8)
    occupied[1:3, 3:5, 5:7] = 1
    state["occupancy"]["state"] = {"teacher": occupied, "occupied": occupied, "remembered": torch.zeros(SHAPE)}
    state |= {"seconds": 1.0, "seconds_before": 0.0, "rays_per_step": 8, "config": to_yaml(config)}
    save_checkpoint(tmp_path / "step_000007.pth", state)
    return tmp_path / "step_000007.pth"


def test_three_files_with_their_errors(checkpoint, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    names = {
        option: tmp_path / f"x.{ending}"
        for option, ending in (("--safetensors", "safetensors"), ("--onnx", "onnx"), ("--mesh", "ply"))
    }
    options = [text for option, path in names.items() for text in (option, str(path))]
    assert main([str(checkpoint), *options, "--mesh-cells", "48"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said[:3]] == [str(path) for path in names.values()]
    assert "onnxruntime's results at 2048 points differ by" in said[1] and "triangles where the density is" in said[2]
    assert said[3].startswith("against the teacher in 5 held-out views: mesh ") and "world units" in said[3]
    rows = csv_rows(tmp_path / "x_error.csv")
    assert [row["subject"] for row in rows] == ["mesh", "student"] * 6
    mesh, student = rows[-2:]
    assert mesh["frame"] == "mean" and abs(float(mesh["psnr"]) - float(student["psnr"])) < 3
    assert abs(float(mesh["depth_abs"]) - float(student["depth_abs"])) < 0.125  # a cell
    assert (tmp_path / "x_view.png").is_file()
    again = load_student(names["--safetensors"]).model.student.state_dict()
    assert all(
        torch.equal(value, again[name]) for name, value in load_student(checkpoint).model.student.state_dict().items()
    )


def test_a_mesh_that_shows_no_more_than_a_blank_picture_is_warned_of(checkpoint, tmp_path, caplog):
    options = [str(checkpoint), "--mesh", str(tmp_path / "x.ply"), "--mesh-cells", "24"]
    assert main(options) == 0
    assert "x.ply: the mesh shows no more than a blank picture" in caplog.text
    assert "and so does its student" in caplog.text and "tools/check_alignment.py finds out why" in caplog.text


def test_a_mesh_of_another_size_is_held_to_gaussians_drawn_as_in_training(checkpoint, tmp_path, monkeypatch):
    seen = []

    def stop(config, drawn_as):
        seen.append((config.data.resolution, drawn_as and drawn_as.data.resolution))
        raise InputError("here", "teacher", "asked for", "no more")

    monkeypatch.setattr("tools.export.load_teacher", stop)
    options = [str(checkpoint), "--mesh", str(tmp_path / "x.ply")]
    assert main([*options, "--set", "data.resolution=12"]) == main(options) == 2
    own = load_student(checkpoint).config.data.resolution
    assert seen == [(12, own), (own, None)] and own != 12


def test_a_glb_is_upright_where_it_is_said_what_is_up(checkpoint, tmp_path, caplog):
    cameras = turned_over(ring_of_cameras())
    write_transforms(tmp_path / "data" / "transforms.json", cameras, [f"r_{i}" for i in range(len(cameras))])
    options = [str(checkpoint), "--mesh", str(tmp_path / "x.glb"), "--mesh-cells", "16", "--mesh-density", "20"]
    options += ["--set", "teacher.depth_kind=none"]
    assert main(options) == 0 and "no up direction in common" in caplog.text and "--up" in caplog.text
    caplog.clear()
    assert main([*options, "--up=z"]) == 0 and "up direction" not in caplog.text
    content = (tmp_path / "x.glb").read_bytes()
    gltf = json.loads(content[20 : 20 + int.from_bytes(content[12:16], "little")])
    assert gltf["nodes"][0]["matrix"][8:11] == [0, 1, 0], "the column of z"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "file to write: found none, expected --safetensors, --onnx or --mesh"),
        (["--mesh", "{folder}/x.obj"], "--mesh: file: found x.obj, expected a name that ends in .ply or .glb"),
        (["--onnx", "{folder}/step_000007.pth"], "expected a name that ends in .onnx"),
        (["--safetensors", "{folder}"], "a name that ends in .safetensors"),
        (["--mesh", "{folder}/point_cloud.ply"], "point_cloud.ply, which is read, expected another file"),
        (["--safetensors", "{folder}/toy.yaml/x.safetensors"], "output file: found"),
        (["--mesh", "{folder}/x.ply", "--mesh-cells", "1"], "--mesh-cells: cells: found 1"),
        (["--mesh", "{folder}/x.ply", "--mesh-density", "nan"], "--mesh-density: density: found nan"),
    ],
)
def test_what_cannot_be_is_one_message_and_no_file(checkpoint, tmp_path, options, said, capsys):
    before = sorted(tmp_path.iterdir())
    assert main([str(checkpoint), *(option.format(folder=tmp_path) for option in options)]) == 2
    assert said in capsys.readouterr().err and sorted(tmp_path.iterdir()) == before


def test_without_onnx_it_is_said_what_to_install(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main([str(checkpoint), "--onnx", str(tmp_path / "x.onnx")]) == 2
    assert 'pip install -e ".[export]"' in capsys.readouterr().err
