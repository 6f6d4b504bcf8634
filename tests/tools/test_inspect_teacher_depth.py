import json
import shutil

import numpy as np
import pytest
import yaml

from scene.images import read_image
from settings.errors import InputError
from tests.program import arguments
from tests.toy_scene import write_toy_scene
from tools.inspect_teacher_depth import main


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_toy_scene(folder, teacher={"depth_kind": "auto"})
    return folder


@pytest.fixture
def toy(made_once, tmp_path):
    """The toy scene's folder: 17 views of a block, depth is accumulated 1/z."""
    return shutil.copytree(made_once, tmp_path / "toy")


@pytest.fixture(autouse=True)
def _one_frame_is_drawn(monkeypatch):
    """In this process: drawing takes most of the time."""
    monkeypatch.setattr("teacher.views.depth_inspection._SHOWN_FRAMES", 1)


def yaml_part(text: str) -> dict:
    return yaml.safe_load(text.split("For the config:")[1].split("Pictures are")[0])


def test_the_report_says_what_the_files_hold(toy, capsys):
    assert main(arguments(toy)) == 0
    text, errors = capsys.readouterr()
    assert errors == ""
    stored = np.stack([np.load(path) for path in sorted((toy / "outputs" / "depth").iterdir())])
    assert f"{(stored > 0).mean():.1%} of pixels have depth" in text
    assert f"{stored[stored > 0].min():.6g} to {stored.max():.6g}, 0 elsewhere" in text
    assert "so the depth is inverse_z" in text and "around the Gaussians" in text
    assert "of 16 neighbouring pairs see" in text and "z 0.0%, distance 0.0%" in text
    # The lines for the config are YAML, and the report is on disk as printed.
    assert yaml_part(text) == {"teacher": {"depth_kind": "inverse_z"}}
    folder = toy / "results" / "toy" / "first" / "teacher_depth"
    assert sorted(path.name for path in folder.iterdir()) == ["depth_maps.png", "histogram.png", "report.txt"]
    assert (folder / "report.txt").read_text() in text
    for name in ("depth_maps.png", "histogram.png"):
        assert read_image(folder / name).std() > 10, "something is drawn"


def test_a_picture_is_drawn_whatever_its_name_is(toy, capsys):
    """Between dollars matplotlib would look for a formula; most fonts lack some letters."""
    json_file = toy / "data/transforms.json"
    content = json.loads(json_file.read_text(encoding="utf-8"))
    (image,) = (path for path in (toy / "data").rglob("r_0.png"))
    image = image.rename(image.with_name("$a^{$ 語.png"))
    content["frames"][0]["file_path"] = image.relative_to(toy / "data").as_posix()
    json_file.write_text(json.dumps(content), encoding="utf-8")
    assert main(arguments(toy)) == 0
    assert capsys.readouterr().err == ""
    assert read_image(toy / "results/toy/first/teacher_depth/depth_maps.png").std() > 10


def test_a_wrong_kind_in_the_config_is_pointed_out(toy, capsys):
    assert main(arguments(toy, "--set", "teacher.depth_kind=z")) == 1
    text = capsys.readouterr().out
    assert "WARNING" in text and "the config says z, the values say inverse_z" in text
    assert " 0.0% of the back-projected points are in the box" in text
    assert "no frame sees the points of a neighbouring one" in text
    assert yaml_part(text) == {"teacher": {"depth_kind": "inverse_z"}}


def test_without_a_ply_a_box_is_proposed(toy, capsys):
    assert main(arguments(toy, "--set", "teacher.ply=null")) == 0
    box = yaml_part(capsys.readouterr().out)["data"]["box"]
    # The block is 0.8 x 0.5 x 0.6, its Gaussians 0.05 wide; at 24 pixels its outline is good to a pixel or two.
    for low, high, half in zip(box["lower"], box["upper"], (0.4, 0.25, 0.3), strict=True):
        assert half < -low < half + 0.35 and half < high < half + 0.35


def test_unclear_depth_still_gets_its_pictures(toy, capsys):
    for path in (toy / "outputs" / "depth").iterdir():
        values = np.load(path)
        np.save(path, values / values.max())  # rescaled for viewing: a picture, no depth
    assert main(arguments(toy)) == 1
    text = capsys.readouterr().out
    assert "unclear" in text and "depth_kind: none  # or" in text and yaml_part(text)["teacher"]["depth_kind"] == "none"
    assert read_image(toy / "results" / "toy" / "first" / "teacher_depth" / "depth_maps.png").std() > 10


@pytest.mark.parametrize(
    ("damage", "more", "message"),
    [
        ("toy.yaml", (), "toy.yaml"),
        ("", ("--set", "teacher.kind=images"), "error: config: teacher.kind: found images, expected views"),
        ("outputs/depth/00003.npy", (), "depth: numbering: found no 00003.npy"),
        ("data/transforms.json", (), "transforms.json: data.transforms: found nothing"),
    ],
)
def test_bad_input_is_one_message(toy, capsys, damage, more, message):
    if damage:
        (toy / damage).unlink()
    assert main(arguments(toy, *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (toy / "results").exists()
    with pytest.raises(InputError):
        main(arguments(toy, *more, "--debug"))


def test_folder_that_cannot_be_written(toy, capsys):
    (toy / "results").write_text("a file in the way")
    assert main(arguments(toy)) == 2
    assert "output folder: found" in capsys.readouterr().err
