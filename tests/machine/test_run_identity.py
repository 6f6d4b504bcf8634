"""A run is its settings and its assets; how long it lasts and where it computes are not among them."""

import logging

import pytest

import distill  # noqa: F401  (the students say what a config may hold)
from machine.run_identity import RunIdentity, identity_of_folder, identity_of_state, identity_state
from settings.config import Config
from settings.errors import InputError
from settings.loading import to_yaml


def identity(assets=None, **changes) -> RunIdentity:
    settings = {"scene": "toy", "run": "first", "data": {"resolution": 8}, "teacher": {"kind": "bricks"}}
    return RunIdentity(Config(**{**settings, **changes}), assets)


def test_budgets_and_devices_may_change(tmp_path):
    begun = identity({})
    free = {"run": "second", "tag": "x", "device": "cpu", "kernels": "torch", "eval": {"lpips": False}}
    free["train"] = {
        "max_steps": 5,
        "max_seconds": 3.0,
        "log_every": 1,
        "checkpoint_every": 7,
        "checkpoint_minutes": 1.0,
    }
    now = identity({}, **free)
    now.check_continues(begun, tmp_path)
    assert now.state()["digest"] == begun.state()["digest"]


def test_what_differs_is_named_with_both_values_and_all_others(tmp_path):
    begun = identity({"teacher.ply": "a"})
    now = identity({"teacher.ply": "b"}, seed=1, train={"lr": 0.5})
    with pytest.raises(InputError) as caught:
        now.check_continues(begun, tmp_path / "step_000007.pth")
    error = caught.value
    assert (error.field, error.found, error.expected) == ("seed", "0", "1, as the config says")
    assert "So are train.lr, teacher.ply." in error.hint
    with pytest.raises(InputError, match="teacher.ply: found another file's contents"):
        identity({"teacher.ply": "b"}).check_continues(begun, tmp_path)


def test_assets_may_be_elsewhere_where_their_contents_are_the_same(tmp_path):
    def of(root):
        data = {"transforms": str(root / "t.json"), "depth": str(root / "depth")}
        return identity({"data.depth": "a"}, data=data, teacher={"kind": "images"})

    of(tmp_path / "moved").check_continues(of(tmp_path / "made"), tmp_path)


def test_another_kind_of_student_is_one_difference_first(tmp_path):
    with pytest.raises(InputError, match='student.kind: found "hash_grid", expected "kilo_uniform"'):
        identity({}, student={"kind": "kilo_uniform"}).check_continues(identity({}), tmp_path)


def test_a_checkpoint_keeps_it(tmp_path):
    begun = identity({"teacher.ply": "a"}, seed=3)
    assert identity_of_state(identity_state(begun), tmp_path / "a.pth") == begun


def test_a_run_with_a_setting_that_is_gone_is_known_by_its_folder_as_by_its_checkpoint(tmp_path, caplog):
    begun = identity({}, seed=3)
    text = to_yaml(begun.config).replace("loss:\n", "loss:\n  distortion: {weight: 0.001}\n")
    assert "distortion" in text
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "identity.json").write_text('{"assets": {}}', encoding="utf-8")
    assert identity_of_folder(tmp_path) == identity_of_state({"config": text, "assets": {}}, "a.pth") == begun
    assert f"{tmp_path / 'config.yaml'}: trained with loss.distortion.weight: 0.001" in caplog.text


def test_of_an_earlier_version_only_the_places_of_assets_are_known(tmp_path, caplog):
    there, gone = tmp_path / "there" / "a.ply", tmp_path / "gone" / "a.ply"
    there.parent.mkdir()
    there.touch()
    teacher = {"kind": "bricks", "ply": str(there)}
    now = identity({"teacher.ply": "a"}, teacher=teacher)
    with caplog.at_level(logging.WARNING):
        now.check_continues(identity(teacher={**teacher, "ply": str(gone)}), tmp_path / "old.pth")
    assert "earlier version" in caplog.text and str(gone) in caplog.text
    for other in (str(tmp_path / "gone" / "b.ply"), None):
        with pytest.raises(InputError, match="teacher.ply"):
            now.check_continues(identity(teacher={**teacher, "ply": other}), tmp_path / "old.pth")
    moved = identity({"teacher.ply": "a"}, teacher={**teacher, "ply": str(gone)})
    with pytest.raises(InputError, match="teacher.ply"):  # the other one is still there
        moved.check_continues(identity(teacher=teacher), tmp_path / "old.pth")
