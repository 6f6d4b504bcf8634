"""Compact files: what is written comes back, and nothing else that a file may hold gets far."""

import hashlib
import json
import struct
import zlib

import numpy as np
import pytest
import torch

from distill.compact import compact_file, container
from distill.compact.compact_file import compact_bytes, compact_parts, load_compact
from distill.model.checkpoint import load_checkpoint, restore_student
from distill.model.model import restore_model
from distill.model.other_config import evaluated_as
from machine.file_kinds import COMPACT_MAGIC
from settings.errors import InputError
from settings.loading import REPO_ROOT, load_config
from tests.distill.compact.students_at_hand import HASH, KILO, RESOLUTION, SHAPE, integers_of, save_compact, state_of

CPU = torch.device("cpu")
CONFIG = REPO_ROOT / "configs/quickstart.yaml"
STUDENTS = {"hash": HASH, "hash, deferred": HASH.model_copy(update={"shading": "deferred"}), "kilo": KILO}
STUDENTS["kilo, deferred"] = KILO.model_copy(update={"shading": "deferred"})


@pytest.fixture(params=list(STUDENTS))
def state(request):
    return state_of(STUDENTS[request.param])


@pytest.fixture
def written(state, tmp_path):
    path = tmp_path / "a.lrd"
    save_compact(path, state, integers_of(state))
    return path


def test_a_student_comes_back_as_its_integers_say(state, written):
    found = load_compact(written, CPU)
    for part, integers in zip(compact_parts(state, written), integers_of(state), strict=True):
        weights = found["student"]["weights"][part.name].view(part.shape)
        assert weights.equal(torch.from_numpy(integers.weights(part)))
        given = state["student"]["weights"][part.name].view(part.shape)
        stored = torch.from_numpy(part.stored)
        assert (weights - given)[stored].abs().max() < 1 / 64
    occupied = state["occupancy"]["state"]["occupied"]
    assert found["occupancy"]["state"]["occupied"].equal(occupied)
    assert found["compact_bytes"] == written.stat().st_size
    assert {name: found[name] for name in ("step", "config")} == {"step": 7, "config": "scene: toy"}


@pytest.mark.parametrize("size", [1 << 21, -(1 << 31)])
def test_integers_that_would_come_back_as_others_are_not_written(size):
    state = state_of(KILO)
    for name, reason in (("values", "steps are too fine"), ("centre", "weights are too large")):
        content = integers_of(state)
        getattr(content[0], name)[..., 0] = size
        with pytest.raises(InputError, match=f"x.lrd: weights: found density_networks: integers beyond .* {reason}"):
            compact_bytes(state, content, "x.lrd")


def test_how_many_rays_a_pixel_has_is_kept_and_was_one_before_it_was(tmp_path):
    state, path = state_of(HASH), tmp_path / "a.lrd"
    for supersample in (None, 2):
        state["occupancy"] |= {} if supersample is None else {"supersample": supersample}
        save_compact(path, state, integers_of(state))
        model = restore_model(load_config(CONFIG), load_checkpoint(path, CPU), path, CPU)
        assert model.settings.supersample == (supersample or 1)


def test_the_unit_of_density_is_kept_where_it_is_not_the_world_s(state, written, tmp_path):
    for unit in (1.0, 0.125):
        state["student"]["density_unit"] = unit
        save_compact(tmp_path / "b.lrd", state, integers_of(state))
        assert restore_student(load_compact(tmp_path / "b.lrd", CPU), written, CPU).density_unit == unit
        plain, _ = container.read_container(tmp_path / "b.lrd")
        assert plain.get("density_unit") == (None if unit == 1 else unit)


def test_writing_what_was_read_gives_the_same_bytes(state, written, tmp_path):
    save_compact(tmp_path / "again.lrd", load_compact(written, CPU), integers_of(state))
    assert (tmp_path / "again.lrd").read_bytes() == written.read_bytes()


def test_it_is_read_where_a_checkpoint_is_wanted(written):
    state = load_checkpoint(written, CPU)
    model = restore_model(load_config(CONFIG), state, written, CPU)
    assert model.compact_bytes == written.stat().st_size
    assert tuple(model.grid.shape) == SHAPE and model.grid.resolution == RESOLUTION
    restored = restore_student(state, written, CPU)
    places = torch.tensor([[0.5, 0.5, 0.5], [1.2, -1.0, 2.0]])
    assert model.student.density(places).equal(restored.density(places))


def test_what_no_occupied_cell_reaches_is_not_stored(tmp_path):
    for settings in (HASH, KILO):
        state = state_of(settings)
        state["occupancy"]["state"]["occupied"].zero_()[4, 7, 11] = 1
        part = compact_parts(state, tmp_path / "x.lrd")[0]
        share = part.stored.mean()
        assert 0 < share < (0.4 if settings is HASH else 0.1)


def test_an_evaluation_of_it_is_named_in_the_tag(written, tmp_path):
    config = load_config(CONFIG)
    assert evaluated_as(config, written, config).tag == "compact"
    assert evaluated_as(load_config(CONFIG, ["tag=dark"]), written, config).tag == "dark_compact"
    assert evaluated_as(evaluated_as(config, written, config), written, config).tag == "compact"
    other = tmp_path / "other.pth"
    other.write_bytes(b"PK")
    assert evaluated_as(config, other, config) is config
    changed = load_config(CONFIG, ["data.resolution=12"])
    assert [evaluated_as(changed, path, config).tag for path in (other, written)] == ["12px", "12px_compact"]


def sealed(content):
    return content + hashlib.sha256(content).digest()


def with_header(path, **changes):
    """The file with another header, sealed anew."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<I", content, 8)
    header = json.loads(zlib.decompress(content[12 : 12 + length]))
    for name, value in changes.items():
        inner, names = header, name.split("__")
        for each in names[:-1]:
            inner = inner[each]
        inner[names[-1]] = value
    packed = zlib.compress(json.dumps(header).encode())
    path.write_bytes(sealed(COMPACT_MAGIC + struct.pack("<I", len(packed)) + packed + content[12 + length : -32]))
    return path


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_compact(path, CPU)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return caught.value


def test_every_truncation_is_refused(tmp_path):
    state = state_of()
    content_path = tmp_path / "a.lrd"
    save_compact(content_path, state, integers_of(state, -8))
    content = content_path.read_bytes()
    for length in range(len(COMPACT_MAGIC), len(content), 7):
        content_path.write_bytes(content[:length])
        refusal(content_path)


def test_a_flipped_bit_is_refused_by_the_checksum(written):
    content = bytearray(written.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(50):
        place, bit = int(rng.integers(8, len(content))), int(rng.integers(8))
        content[place] ^= 1 << bit
        written.write_bytes(content)
        assert "checksum" in refusal(written).found
        content[place] ^= 1 << bit


def test_mutated_bytes_under_a_true_checksum_give_a_student_or_one_message(written):
    content = written.read_bytes()[:-32]
    rng, refused = np.random.default_rng(1), 0
    for _ in range(150):
        mutated = bytearray(content)
        for place in rng.integers(8, len(content), rng.integers(1, 4)):
            mutated[place] = rng.integers(256)
        if rng.random() < 0.3:
            mutated = mutated[: rng.integers(8, len(mutated))]
        written.write_bytes(sealed(bytes(mutated)))
        try:
            load_compact(written, CPU)
        except InputError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"format": 1}, "format"),
        ({"extra": 1}, "extra"),
        ({"step": -1}, "step"),
        ({"student__kind": "other"}, "student.kind"),
        ({"student__levels": 33}, "student.levels"),
        ({"student__table_size": 1 << 40}, "student.table_size"),
        ({"student__table_size": 1 << 26, "student__finest_resolution": 10**6}, "student"),
        ({"student__hidden_width": 10**9}, "student.hidden_width"),
        ({"student__density_layers": 10**9}, "student.density_layers"),
        ({"student__levels": 4}, "compact file"),
        ({"student__hidden_width": 16}, "compact file"),
        ({"scales": []}, "compact file"),
        ({"scales": [3.0, 8.8, 23.5]}, "compact file"),
        ({"occupancy__resolution": 300}, "compact file"),
        ({"occupancy__resolution": 4096}, "occupancy.resolution"),
        ({"occupancy__resolution": 1 << 40}, "occupancy.resolution"),
        ({"occupancy__step": 0}, "occupancy.step"),
        ({"box__upper": [1e300, 1, 1]}, "box.upper"),
        ({"box__upper": [-5.0, 1, 1]}, "compact file"),
        ({"box__upper": [1.5, 2.0, 1e12]}, "compact file"),
        ({"sections": {"occupancy": 1}}, "header"),
        ({"sections": {"occupancy": -1, "weights": 1}}, "header"),
        ({"sections": []}, "header"),
    ],
)
def test_a_header_that_its_bytes_do_not_bear_out_is_refused_before_there_is_room_for_it(change, field, tmp_path):
    state = state_of()
    path = tmp_path / "a.lrd"
    save_compact(path, state, integers_of(state))
    assert refusal(with_header(path, **change)).field.startswith(field)


def test_more_networks_than_any_student_may_have_are_refused(tmp_path):
    state = state_of(KILO)
    path = tmp_path / "a.lrd"
    save_compact(path, state, integers_of(state))
    assert refusal(with_header(path, student__grid=[10**9, 10**9, 10**9])).field == "student"


def test_a_setting_that_is_gone_is_passed_over_where_it_was_off(tmp_path):
    state = state_of(KILO)
    path = tmp_path / "a.lrd"
    save_compact(path, state, integers_of(state))
    assert (
        load_compact(with_header(path, student__blend=0.0), CPU)["student"]["settings"] == state["student"]["settings"]
    )
    assert refusal(with_header(path, student__blend=0.1)).field == "student.blend"


def test_a_header_that_unpacks_to_more_than_any_is_refused(tmp_path):
    packed = zlib.compress(b" " * (1 << 24))
    path = tmp_path / "a.lrd"
    path.write_bytes(sealed(COMPACT_MAGIC + struct.pack("<I", len(packed)) + packed))
    assert refusal(path).field == "header"


@pytest.mark.parametrize("text", [b"[]", b"3", b"[" * 100_000, b"{}", b'{"sections": 3}', b"\xff", b'{"sections": {}}'])
def test_a_header_of_other_json_is_refused(text, tmp_path):
    packed = zlib.compress(text)
    path = tmp_path / "a.lrd"
    path.write_bytes(sealed(COMPACT_MAGIC + struct.pack("<I", len(packed)) + packed))
    refusal(path)


@pytest.mark.parametrize("limit", ["MAX_PARAMETERS", "MAX_CELLS"])
def test_a_student_too_large_for_a_compact_file_is_not_written(limit, monkeypatch, tmp_path):
    monkeypatch.setattr(compact_file, limit, 100)
    state = state_of()
    with pytest.raises(InputError, match="at most 100"):
        save_compact(tmp_path / "a.lrd", state, [])
    assert not (tmp_path / "a.lrd").exists()


def test_another_kind_of_file_is_none(tmp_path):
    (tmp_path / "a.lrd").write_bytes(b"ply\n")
    assert not container.is_compact(tmp_path / "a.lrd") and not container.is_compact(tmp_path / "none")
