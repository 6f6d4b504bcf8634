import errno
import os
import pickle

import pytest
import torch

from distill.model.checkpoint import (
    FORMAT,
    box_state,
    load_checkpoint,
    restore_box,
    restore_student,
    save_checkpoint,
    student_state,
)
from scene.rays import SceneBox
from settings.errors import InputError
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings, KiloUniformStudent
from tests.distill.training.test_optimizer import SETTINGS

CPU = torch.device("cpu")
BOX = SceneBox((-1, -2, -3), (1.5, 2, 3))


class Intruder:
    """Pickled, it makes a folder when it is loaded without care."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.fixture
def student():
    return HashGridStudent((BOX.lower, BOX.upper), HashGridSettings(**SETTINGS))


@pytest.fixture
def state(student):
    return {
        "step": 7,
        "seconds": 1.5,
        "student": student_state(student),
        "box": box_state(BOX),
        "occupancy": {"resolution": 4, "step": 0.1, "state": {"occupied": torch.ones(4, 4, 4, dtype=torch.uint8)}},
        "generator": torch.Generator().manual_seed(3).get_state(),
        "config": "scene: test\n",
    }


@pytest.fixture
def path(tmp_path, state):
    """A good checkpoint."""
    save_checkpoint(tmp_path / "step_000007.pth", state)
    return tmp_path / "step_000007.pth"


def test_what_is_saved_is_loaded(path, state, student):
    loaded = load_checkpoint(path, CPU)
    assert loaded["format"] == FORMAT
    assert (loaded["step"], loaded["seconds"], loaded["config"]) == (7, 1.5, "scene: test\n")
    assert torch.equal(loaded["generator"], state["generator"])
    assert restore_box(loaded) == BOX
    again = restore_student(loaded, path, CPU)
    assert again.settings == student.settings
    for name, value in student.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("before", [True, False])
def test_a_failure_while_saving_leaves_what_was_there(path, state, monkeypatch, before):
    if not before:
        path.unlink()
    good = path.read_bytes() if before else None

    def half(data, file):
        file.write(b"half of a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space left.*step_000007.pth"):
        save_checkpoint(path, state)
    assert os.listdir(path.parent) == ([path.name] if before else [])
    assert not before or path.read_bytes() == good


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="nowhere.pth: checkpoint: found no such file"):
        load_checkpoint(tmp_path / "nowhere.pth", CPU)


def test_a_file_cut_short_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in (0, 1, 3, 20, 64, len(whole) // 4, len(whole) // 2, *(len(whole) - left for left in (200, 71, 1))):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="an empty file|cut short|truncated|checksum"):
            load_checkpoint(path, CPU)


def test_a_flipped_bit_anywhere_is_refused(path):
    whole = path.read_bytes()
    places = [*range(0, len(whole), len(whole) // 100), *range(len(whole) - 75, len(whole))]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(InputError, match="found bytes that do not match its checksum|found a zip archive that is"):
            load_checkpoint(path, CPU)


def test_without_a_checksum_the_archive_is_checked(path, state):
    torch.save({"format": FORMAT, **state}, path)
    whole = path.read_bytes()
    table = whole.find(state["student"]["weights"]["table"].numpy().tobytes())
    assert load_checkpoint(path, CPU)["step"] == 7 and table > 0
    path.write_bytes(whole[:table] + bytes([whole[table] ^ 4]) + whole[table + 1 :])
    with pytest.raises(InputError, match="found a damaged archive"):
        load_checkpoint(path, CPU)


WRONG_PARTS = {
    "step": ("seven", 'step: found "seven"'),
    "seconds": (-1.0, "seconds: found -1.0"),
    "box": ({"lower": [0, 0], "upper": [1, 1, 1]}, "box.lower"),
    "occupancy": ({"resolution": 0, "step": 0.1, "state": {}}, "occupancy.resolution: found 0"),
    "config": (None, "config: found null"),
}


@pytest.mark.parametrize("part", WRONG_PARTS)
def test_a_part_of_another_structure_is_named(path, state, part):
    value, expected = WRONG_PARTS[part]
    save_checkpoint(path, {**state, part: value})
    with pytest.raises(InputError, match=f"step_000007.pth: {expected}"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize(
    "content", [b"\x00" * 500, b"step,loss\n1,2\n" * 30, b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" + b"x" * 90]
)
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="model.pth: checkpoint"):
        load_checkpoint(path, CPU)


@pytest.mark.parametrize("writer", ["torch", "legacy torch", "pickle"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, state, writer):
    path, trap = tmp_path / "model.pth", tmp_path / "trap"
    content = {"format": FORMAT, **state, "extra": Intruder(trap)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(InputError, match="Python code, which is never loaded"):
        load_checkpoint(path, CPU)
    assert not trap.exists()
    # The trap works: plain loading falls into it.
    if writer == "pickle":
        pickle.loads(path.read_bytes())
        assert trap.exists()


@pytest.mark.parametrize("key", ["format", "step", "student", "box", "occupancy", "config"])
def test_a_missing_part_is_named(path, key):
    content = torch.load(path, weights_only=True)
    del content[key]
    torch.save(content, path)
    with pytest.raises(InputError, match=f"step_000007.pth: {key}: found nothing"):
        load_checkpoint(path, CPU)


def test_bare_weights_are_refused(tmp_path, student):
    path = tmp_path / "weights.pth"
    torch.save(student.state_dict(), path)
    with pytest.raises(InputError, match="format, step, student"):
        load_checkpoint(path, CPU)
    torch.save(({"xyz": torch.ones(2)}, 30000), path)  # as graphdeco's training writes its state
    with pytest.raises(InputError, match="a tuple of another program.*teacher.ply"):
        load_checkpoint(path, CPU)
    path.write_bytes(b"ply\nformat binary_little_endian 1.0\n")
    with pytest.raises(InputError, match="found a PLY, expected a whole checkpoint"):
        load_checkpoint(path, CPU)


def test_another_format_is_refused(path, state):
    torch.save({**state, "format": FORMAT + 1}, path)
    with pytest.raises(InputError, match=f"format: found {FORMAT + 1}, expected {FORMAT}"):
        load_checkpoint(path, CPU)


def test_an_unknown_kind_of_student_is_named(path, state):
    state["student"]["kind"] = "nerf_in_a_bottle"
    with pytest.raises(InputError, match="student.kind: found nerf_in_a_bottle, expected one of .*hash_grid"):
        restore_student(state, path, CPU)


@pytest.mark.parametrize(
    ("settings", "field", "found"),
    [
        ({"hidden_width": 16}, "student.weights", "Error.* in loading state_dict"),
        ({"table_size": 1024}, "student.weights", "Error.* in loading state_dict"),
        ({"table_size": 12}, "student.table_size", "12, expected a power of two"),
        ({"levels": None}, "student.levels", "null, expected an integer"),
        ({"grid": 3}, "student.grid", "an unknown key"),
        ({"blend": 0.1}, "student.blend", "0.1, expected 0.0. This setting is gone"),
    ],
)
def test_weights_that_do_not_fit_their_settings_are_refused(path, state, settings, field, found):
    state["student"]["settings"] = {**SETTINGS, **settings}
    with pytest.raises(InputError, match=f"step_000007.pth: {field}: found {found}"):
        restore_student(state, path, CPU)


@pytest.mark.parametrize("grid", [(2, 1, 1), [2, 1, 1]])
def test_settings_are_plain_values_and_lists_do_for_tuples(state, path, grid):
    student = KiloUniformStudent((BOX.lower, BOX.upper), KiloUniformSettings(grid=(2, 1, 1), hidden_width=16))
    stored = student_state(student)
    assert stored["kind"] == "kilo_uniform" and stored["settings"]["grid"] == (2, 1, 1)
    assert "kind" not in stored["settings"]
    stored["settings"] |= {"grid": grid, "blend": 0.0}  # which is gone, and was off
    assert restore_student({**state, "student": stored}, path, CPU).settings == student.settings


def test_damaged_parts_are_refused(path, state):
    for damage in ({"weights": {}}, {"settings": {}}, {"settings": None}, {"weights": None}):
        with pytest.raises(InputError, match="step_000007.pth: student"):
            restore_student({**state, "student": {**state["student"], **damage}}, path, CPU)
    with pytest.raises(InputError, match="step_000007.pth: student"):
        restore_student({**state, "student": None}, path, CPU)
    for box in ({"lower": [0, 0, 0]}, {"lower": [0, 0, 0], "upper": [0, 0, 0]}):
        with pytest.raises(InputError, match="step_000007.pth"):
            restore_student({**state, "box": box}, path, CPU)


def test_the_unit_of_density_is_kept_and_was_the_world_s_before_there_was_one(path, state):
    box = (0.0, 0.0, 0.0), (100.0, 100.0, 100.0)
    stored = student_state(HashGridStudent(box, HashGridSettings(**SETTINGS)))
    wide = {**state, "student": stored, "box": {"lower": box[0], "upper": box[1]}}
    assert stored["density_unit"] == restore_student(wide, path, CPU).density_unit == 1 / 64
    earlier = {name: value for name, value in stored.items() if name != "density_unit"}
    assert restore_student({**wide, "student": earlier}, path, CPU).density_unit == 1
    for damage in (0.0, -1.0, float("nan"), "1"):
        with pytest.raises(InputError, match="step_000007.pth: density_unit"):
            restore_student({**wide, "student": {**stored, "density_unit": damage}}, path, CPU)
