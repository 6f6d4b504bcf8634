"""The reference of all settings, docs/config.md."""

from tools.config_reference import BEGIN, END, config_reference, main


def test_reference_tells_type_default_and_meaning():
    lines = config_reference().splitlines()
    far = "| `far` | a number > 0 and <= 1000000000 | `1000000.0` | farthest distance along a ray, world units; "
    assert far + "without a far field rays end at the scene box in any case |" in lines
    assert "| `scene` | at most 200 of A-Z, a-z, 0-9, `.`, `_`, `-` | required | " in config_reference()
    assert any(line.startswith("| `table_size` | a power of two, at least 8 | `32768` |") for line in lines)
    assert any(line.startswith("| `box.lower` | 3 values, each a number | required |") for line in lines)
    depth = lines.index("**`loss.depth`: expected distance**")
    assert "| `kind` | one of `l1`, `l2`, `smooth_l1` | `l1` |" in "\n".join(lines[depth : depth + 12])


def test_reference_in_a_file_is_checked_and_replaced(tmp_path, capsys):
    page = tmp_path / "config.md"
    page.write_text("no place\n")
    assert main(["--write", str(page)]) == 2 and page.read_text() == "no place\n"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--check", str(page)]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["--write", str(page)]) == 0 and main(["--check", str(page)]) == 0
    assert page.read_text() == f"before\n{BEGIN}\n{config_reference()}{END}\nafter\n"
    assert [path.name for path in tmp_path.iterdir()] == ["config.md"]
