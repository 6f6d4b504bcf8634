"""Students as safetensors files: the same bits back, and nothing else taken for one."""

import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from distill.model.checkpoint import load_checkpoint, rendering_only, restore_student
from distill.model.other_config import evaluated_as
from distill.model.safetensors_file import save_safetensors
from distill.rendering.far_field import FarField
from settings.errors import InputError
from settings.far_field import FarFieldConfig
from settings.loading import REPO_ROOT, load_config
from settings.rendering import OccupancyConfig
from tests.distill.compact.students_at_hand import BOX, HASH, KILO, state_of

CPU = torch.device("cpu")


def tensors_in(state, prefix=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from tensors_in(value, f"{prefix}{name}.")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value


@pytest.fixture
def path(tmp_path):
    save_safetensors(tmp_path / "x.safetensors", state_of())
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("settings", [HASH, KILO], ids=["hash_grid", "kilo_uniform"])
def test_what_is_written_is_read_to_the_last_bit(settings, tmp_path):
    state, path = state_of(settings), tmp_path / "x.safetensors"
    far_settings = FarFieldConfig(table_size=64, finest_resolution=32, occupancy_resolution=8)
    state["far_field"] = FarField(BOX, far_settings, OccupancyConfig()).state()
    assert save_safetensors(path, state) == path.stat().st_size
    again = load_checkpoint(path, CPU)
    written, read = dict(tensors_in(state)), dict(tensors_in(again))
    assert written.keys() == read.keys()
    for name, value in written.items():
        assert value.dtype == read[name].dtype and torch.equal(value, read[name])
    plain = ("step", "box", "config", "format")
    assert [again[name] for name in plain] == [*(state[name] for name in plain[:3]), 1]
    assert again["far_field"]["settings"] == state["far_field"]["settings"]
    assert restore_student(again, path, CPU).settings == settings


def test_any_reader_of_safetensors_finds_the_documented_layout(path):
    with safe_open(path, framework="np") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert {"student.table", "student.box", "student.density_weights.0", "occupancy.occupied"} <= names
    assert metadata["step"] == "7" and '"kind": "hash_grid"' in metadata["student"]


def test_a_file_made_of_a_compact_one_has_figures_apart_from_its_and_one_of_a_checkpoint_has_the_checkpoints(
    path, tmp_path
):
    config, rounded = load_config(REPO_ROOT / "configs/quickstart.yaml"), tmp_path / "y.safetensors"
    save_safetensors(rounded, {**state_of(), "compact_bytes": 100})
    assert [evaluated_as(config, each, config).tag for each in (path, rounded)] == ["", "compact-safetensors"]
    again = evaluated_as(evaluated_as(config, rounded, config), rounded, config)
    assert again.tag == "compact-safetensors"
    assert rendering_only(rounded) == "a safetensors file"


def test_a_flipped_bit_anywhere_and_a_file_cut_short_are_refused(path):
    whole = path.read_bytes()
    for place in range(8, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 7]) + whole[place + 1 :])
        with pytest.raises(InputError):
            load_checkpoint(path, CPU)
    for length in (9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_checkpoint(path, CPU)


def test_another_programs_file_and_settings_beyond_the_file_are_refused(tmp_path):
    other, large = tmp_path / "other.safetensors", tmp_path / "large.safetensors"
    save_file({"unet.weight": torch.ones(2)}, other)
    with pytest.raises(InputError, match=r"one of another program \(tensors: unet.weight\)"):
        load_checkpoint(other, CPU)
    state = state_of()
    state["student"] = {**state["student"], "settings": {**state["student"]["settings"], "table_size": 1 << 26}}
    state["student"]["settings"]["finest_resolution"] = 1_000_000
    save_safetensors(large, state)
    with pytest.raises(InputError, match=re.escape("parameters, where") + r" [\d,]+ values are stored"):
        load_checkpoint(large, CPU)
