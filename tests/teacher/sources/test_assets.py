"""A teacher's assets: whether they are there, and what tells those of one run from those of another."""

from __future__ import annotations

import pytest

from settings.errors import InputError
from settings.loading import load_config
from teacher.sources import check_assets, source_of
from tests.toy_configs import VIEWS
from tests.toy_scene import add_training_split, write_toy_scene

SPLIT = "data.train_transforms=data/transforms_train.json"


def test_check_assets_names_the_first_one_missing(write, tmp_path):
    def missing(*overrides: str) -> InputError:
        with pytest.raises(InputError) as caught:
            check_assets(load_config(path, overrides, tmp_path))
        return caught.value

    path = write(VIEWS)
    assert missing().field == "data.transforms" and missing().source == str(tmp_path / "t.json")
    write("{}", "t.json")
    assert missing().field == "teacher.outputs"
    write("", "out")
    assert missing().found == "no folder"
    (tmp_path / "out").unlink()
    (tmp_path / "out").mkdir()
    assert missing().field == "teacher.ply" and "--set teacher.ply=null" in missing().hint
    assert "null" not in missing("teacher.kind=gaussians").hint  # there it is the teacher itself
    check_assets(load_config(path, ["teacher.ply=null"], tmp_path))
    check_assets(load_config(path, ["teacher.kind=images"], tmp_path))
    write("", "cloud.ply")
    check_assets(load_config(path, (), tmp_path))


def test_the_json_to_train_on_is_there_and_another(write, tmp_path):
    def refused(*overrides: str) -> InputError:
        with pytest.raises(InputError) as caught:
            check_assets(load_config(path, ["teacher.kind=gaussians", *overrides], tmp_path))
        return caught.value

    path = write(VIEWS.replace("t.json", "transforms_test.json"))
    for name in ("transforms_test.json", "other.json", "cloud.ply"):
        write("{}", name)
    error = refused("teacher.live=true")
    assert (error.field, error.source) == ("data.train_transforms", str(tmp_path / "transforms_train.json"))
    assert "--set data.train_transforms=PATH" in error.hint
    assert "all of which is held out" in refused("data.train_transforms=transforms_test.json").found
    same = refused("data.train_transforms=other.json", "data.ground_truth={split: test}")
    assert same.field == "data.ground_truth" and "held out" in same.found
    assert refused("data.ground_truth={split: train}").field == "data.ground_truth"
    live = ("data.train_transforms=other.json", "teacher.live=true")
    assert refused(*live).field == "teacher.outputs" and "teacher.outputs=null" in refused(*live).hint
    check_assets(load_config(path, ["teacher.kind=gaussians", *live, "teacher.outputs=null"], tmp_path))
    # Of a teacher whose views are of the split itself, the frames that are not held out may be trained on.
    check_assets(load_config(path, ["teacher.kind=gaussians", "data.ground_truth={split: test}"], tmp_path))


def test_which_pictures_are_missing_tells_one_run_from_another(tmp_path) -> None:
    """A run that goes on when a download is complete would be of other frames than it was begun with."""
    path = write_toy_scene(tmp_path)
    config = load_config(path, ["teacher.kind=gaussians"], tmp_path)
    digests = [source_of(config).asset_digests()]
    for index in (3, 4):
        (tmp_path / f"data/r_{index}.png").unlink()
        digests.append(source_of(config).asset_digests())
    assert len({each["data.transforms"] for each in digests}) == 3
    alone = load_config(path, ["teacher.kind=gaussians", "data.ground_truth=false"], tmp_path)
    assert source_of(alone).asset_digests() == digests[0]


@pytest.mark.parametrize(
    ("overrides", "gone"),
    [(["data.frames=0:5"], "r_9.png"), ([SPLIT, "teacher.live=true", "teacher.outputs=null"], "train/r_1.png")],
    ids=["not chosen", "of cameras alone"],
)
def test_pictures_that_a_run_does_not_look_at_tell_no_runs_apart(tmp_path, overrides, gone) -> None:
    """As where a download goes on while frames of what is there already are trained on."""
    path = write_toy_scene(tmp_path)
    add_training_split(tmp_path)
    source = source_of(load_config(path, ["teacher.kind=gaussians", *overrides], tmp_path))
    before = source.asset_digests()
    (tmp_path / "data" / gone).unlink()
    assert source.asset_digests() == before
