"""The occupancy's figures on the toy scene."""

from __future__ import annotations

from tests.toy_scene import write_toy_scene
from tools.measure_occupancy import COLUMNS, main


def test_a_block_is_held_tightly_and_whole(tmp_path, capsys) -> None:
    config = str(write_toy_scene(tmp_path))
    more = ["--transforms", "data/transforms.json", "--resolution", "12", "--resolution", "24", "--width", "48"]
    before = sorted(tmp_path.rglob("*"))
    assert main(["--config", config, "--assets", str(tmp_path), *more]) == 0
    assert sorted(tmp_path.rglob("*")) == before
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [dict(zip(COLUMNS, (cell.strip() for cell in line.split("|")[1:-1]), strict=True)) for line in lines[2:]]
    assert [max(int(side) for side in row["cells"].split("x")) for row in rows] == [12, 24]
    for row in rows:
        assert float(row["true %"]) > 0 and float(row["occupied %"]) <= 100
        assert float(row["occupied / true"]) < 1.5
        assert int(row["visible Gaussians"].replace(",", "")) > 200
        assert row["without their cell"] == "0"
        assert float(row["light lost %"]) < 0.1


def test_bad_input_is_one_message(tmp_path, capsys) -> None:
    config = str(write_toy_scene(tmp_path))
    assert main(["--config", config, "--assets", str(tmp_path), "--set", "teacher.ply=null"]) == 2
    assert "teacher.ply" in capsys.readouterr().err
    assert main(["--config", config, "--assets", str(tmp_path), "--transforms", "none.json"]) == 2
    assert "none.json" in capsys.readouterr().err
