"""The command line of tools/render_city.py on a small city."""

import shlex

import pytest
import torch

from distill.city.manifest import read_manifest
from machine.files import read_csv
from scene.formats.transforms_json import write_transforms
from scene.images import read_image
from teacher.export.export_cameras import views_to_export
from tests.toy_city import toy_city
from tools.distill_city import drawing_options
from tools.render_city import main


@pytest.fixture
def city(tmp_path, look_at):
    toy_city(tmp_path, (2, 1, 1))
    write_transforms(tmp_path / "flight.json", look_at([(2.2, 1.4, 1.1), (-1.8, 1.9, 0.7)]), ["a", "b"])
    return tmp_path


def run(city, *more, cameras="flight.json"):
    output = ["--output", str(city / "out")]
    return main([str(city / "city.json"), "--cameras", str(city / cameras), *output, *more])


def test_a_flight_leaves_pictures_and_what_each_took(city, capsys):
    assert run(city, "--frames", "1:2", "--width", "12", "--budget-mib", "500") == 0
    image = read_image(city / "out/renders/00000.png")
    assert image.shape == (10, 12, 3)
    assert image.std() > 5
    (row,) = read_csv(city / "out/flight.csv").rows.values()
    assert (row["frame"], row["blocks"], row["loads"]) == ("0", "2", "2")
    assert float(row["peak_mib"]) < 500
    assert "1 frame, 2 loads; peak memory" in capsys.readouterr().out


def test_a_city_of_an_earlier_version_is_rendered_without_a_setting_that_is_gone(city, caplog):
    with (city / "city.yaml").open("a") as stored:
        stored.write("train: {assistant: 1}\n")
    assert run(city, "--frames", "1:2", "--width", "12", "--assets", str(city)) == 0
    assert "city.yaml: trained with train.assistant: 1. This setting no longer exists" in caplog.text


def test_the_command_that_a_city_ends_with_draws_it(city):
    (city / "flight.json").rename(city / "transforms.json")  # where a block of the toy city has its cameras
    manifest = read_manifest(city / "city.json")
    assert main([*shlex.split(drawing_options(manifest)), "--width", "12"]) == 0
    assert read_image(city / "pictures/renders/00000.png").std() > 5
    seen = manifest.blocks[0].model_copy(update={"config": "blocks/seen/config.yaml"})
    unseen = manifest.blocks[0].model_copy(update={"train_cameras": 0, "holdout_cameras": 0})
    several = manifest.model_copy(update={"blocks": (unseen, seen)})
    assert "blocks/seen/transforms.json" in drawing_options(several)


def test_a_flight_is_read_as_one_through_a_scene_of_the_citys_size(city, monkeypatch):
    read = []

    def reading(config, *rest, **options):
        read.append(config.data.box)
        return views_to_export(config, *rest, **options)

    monkeypatch.setattr("tools.render_city.views_to_export", reading)
    assert run(city, "--frames", "1:2", "--width", "12") == 0
    assert read == [read_manifest(city / "city.json").box]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget-mib", "0"), "--budget-mib: budget: found 0.0, expected more than 0 MiB"),
        (("--budget-mib", "inf"), "--budget-mib: budget: found inf"),
        (("--frames", "5:6"), "--frames"),
        (("--width", "0"), "--width: width: found 0"),
        (("--video", "film.avi"), "--video: file: found film.avi"),
        (("--set", "render.termination=2"), "render.termination"),
        (("--set", "city.coarser=0"), "--set: setting: found city.coarser, expected one of render, data.near, "),
        (("--set", "data.resolution=40"), "--set: setting: found data.resolution, expected one of render, data.near, "),
        (
            ("--set", "data={near: 1}"),
            "--set: setting: found data, expected one of render, data.near, data.far, device",
        ),
    ],
)
def test_options_that_make_no_sense_are_said_in_one_line(city, capsys, options, said):
    assert run(city, *options) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_missing_files_are_said(city, capsys):
    assert run(city, cameras="none.json") == 2
    assert "none.json" in capsys.readouterr().err
    (city / "city.yaml").unlink()
    assert run(city) == 2
    assert "city.yaml" in capsys.readouterr().err
    torch.save({}, city / "city.json")
    assert run(city) == 2
    assert "city.json" in capsys.readouterr().err
