"""The manifest of a city: read back as written, and each mistake named."""

from __future__ import annotations

import json

import pytest

from distill.city.manifest import read_manifest, write_manifest
from machine.run_folder import CITY_MANIFEST
from settings.errors import InputError

THIRD = 1 / 3


def block(name, lower, upper, **values):
    own = {"gaussians": 5, "train_cameras": 3, "holdout_cameras": 1, "budget_mib": None, "students": []}
    own |= {"config": f"blocks/{name}/config.yaml", "run": f"blocks/{name}/run", "status": "waiting"}
    return {"name": name, "lower": lower, "upper": upper} | own | values


def city(**values):
    blocks = [
        block("b000", [0, 0, 0], [THIRD, 1, 1], budget_mib=0.5),
        block("b001", [THIRD, 0, 0], [1, 0.5, 1]),
        block("b002", [THIRD, 0.5, 0], [1, 1, 1]),
    ]
    content = {"format": "city", "version": 1, "name": "toy", "config": "city.yaml", "far_field": None}
    content |= {"box": {"lower": [0, 0, 0], "upper": [1, 1, 1]}, "gaussians": {"file": "../all.ply", "count": 12}}
    return content | {"blocks": blocks} | values


def read(tmp_path, content):
    (tmp_path / CITY_MANIFEST).write_text(json.dumps(content))
    return read_manifest(tmp_path)


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    student = {"file": "blocks/b001/run/s.pth", "cell_size": 0.25, "bytes": 7}
    manifest = read(tmp_path, city()).with_block("b001", status="done")
    assert manifest.block("b001").upper == manifest.block("b002").upper[:1] + (0.5, 1.0)
    assert manifest.block("b001").box.lower[0] == manifest.block("b000").box.upper[0] == THIRD
    assert manifest.path("city.yaml") == tmp_path / "city.yaml"
    written = write_manifest(tmp_path / "moved", manifest)
    assert written.folder == tmp_path / "moved" and read_manifest(tmp_path / "moved" / CITY_MANIFEST) == written
    content = json.loads((tmp_path / "moved" / CITY_MANIFEST).read_text())
    content["blocks"][1]["students"] = [student]
    assert read(tmp_path, content).block("b001").students[0].cell_size == 0.25
    assert [block.status for block in written.blocks] == ["waiting", "done", "waiting"]


def changed(index, **values):
    blocks = city()["blocks"]
    blocks[index] |= values
    return city(blocks=blocks)


@pytest.mark.parametrize(
    ("content", "field", "found"),
    [
        ([1], "format", "[1]"),
        (city(format="ply"), "format", "ply"),
        (city(version=2), "version", "2"),
        (city(blocks=3), "blocks", "3"),
        (city(blocks=[]), "blocks", "[]"),
        (city(blocks=[1]), "blocks[0]", "1"),
        (city(colour=1), "colour", "an unknown key"),
        (city(gaussians={"file": "a.ply", "count": 0}), "gaussians.count", "0"),
        (city(far_field={"run": 1, "student": None}), "far_field.run", "1"),
        (changed(1, status="asleep"), "blocks[1].status", "asleep"),
        (changed(2, lower="low"), "blocks[2].lower", "low"),
        (changed(0, students=[{"file": "a", "cell_size": -1, "bytes": 3}]), "blocks[0].students[0].cell_size", "-1"),
        (changed(1, name="b000"), "blocks", "two named b000"),
        (changed(1, upper=[1, 0.6, 1]), "blocks", "overlap"),
        (changed(1, upper=[2, 0.5, 1]), "blocks[1]", "to [2.0, 0.5, 1.0]"),
        (changed(1, lower=[1, 0, 0]), "blocks[1].upper", "[1.0, 0.5, 1.0]"),
        (changed(0, upper=[0.3333333333333333 - 1e-16, 1, 1]), "blocks", "a face at x"),
        (city(blocks=[block("b000", [0, 0, 0], [1, 1, 0.5])]), "blocks", "a face at z = 0.5"),
        (city(blocks=city()["blocks"][1:]), "blocks", "a face at x"),
    ],
)
def test_a_mistake_in_a_manifest_is_named(tmp_path, content, field, found):
    with pytest.raises(InputError) as raised:
        read(tmp_path, content)
    assert raised.value.field == field and found in str(raised.value.found)
    assert raised.value.source == str(tmp_path / CITY_MANIFEST)


def test_a_gap_between_faces_that_match_is_seen(tmp_path):
    corners = [([0, 0], [1, 1]), ([1, 1], [2, 2]), ([1, 0], [2, 1])]
    blocks = [block(f"b{n}", [*low, 0], [*high, 1]) for n, (low, high) in enumerate(corners)]
    box = {"lower": [0, 0, 0], "upper": [2, 2, 1]}
    with pytest.raises(InputError, match="75.0+%"):
        read(tmp_path, city(blocks=blocks, box=box))


@pytest.mark.parametrize(("name", "text"), [("run.yaml", "scene: city\n"), ("a.json", "{}"), ("nowhere.json", None)])
def test_where_a_manifest_is_made_is_said_of_what_is_none(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"tools/distill_city.py makes one: results/<scene>/<run>/city.json\."):
        read_manifest(tmp_path / name)
