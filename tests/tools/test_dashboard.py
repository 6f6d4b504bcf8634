"""The command line: both files, of many runs within the page's size, with broken files among them."""

from __future__ import annotations

import logging

from tests.distill.reports.dashboard.toy_runs import write_run
from tools.dashboard import main


def test_fifteen_runs_within_three_megabytes(tmp_path, capsys) -> None:
    """As many for their size as fifty within ten."""
    for n in range(15):  # noise is what compresses worst; some of it is too large to stay as it is
        side = 76 if n else 120
        write_run(tmp_path, f"run_{n:02}", 20 + n / 5, side=side, rows=400, seed=n, pictures=n % 5 == 0)
    for n in range(15):
        if n % 5:
            (tmp_path / f"results/toy/run_{n:02}/eval").symlink_to(tmp_path / f"results/toy/run_{n // 5 * 5:02}/eval")
    assert main(["--root", str(tmp_path)]) == 0
    page = (tmp_path / "dashboard.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp") == 15 * 4 * 3 and len(page.encode()) < 3_000_000
    assert (tmp_path / "docs/dashboard.md").read_text().count("\n| run_") == 15


def test_broken_files_are_named_in_both_and_in_the_log(tmp_path, caplog) -> None:
    logs = write_run(tmp_path, "good", pictures=False)
    write_run(tmp_path, "junk", pictures=False)
    (tmp_path / "logs/toy/junk/eval_step_001000.csv").write_bytes(b"\0\1\2")
    (logs / "training_metrics.csv").write_text("step,wall_s,psnr_batch\n1,1,20\n2,2")
    picture = tmp_path / "results/toy/good/eval/step_001000_worst_1_frame_00000.png"
    picture.parent.mkdir()
    picture.write_bytes(b"junk")
    output = tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        assert main(["--root", str(tmp_path), "--output", str(output)]) == 0
    texts = [(output / "docs/dashboard.md").read_text(), (output / "dashboard.html").read_text(), caplog.text]
    for text in texts:
        for name in ("junk/eval_step_001000.csv", "good/training_metrics.csv", "step_001000_worst_1_frame_00000.png"):
            assert name.replace("_", "") in text.replace("\\", "").replace("_", "")


def test_no_runs_and_bad_input(tmp_path, capsys) -> None:
    assert main(["--root", str(tmp_path)]) == 2
    assert "neither logs/ nor results/" in capsys.readouterr().err
    (tmp_path / "logs").mkdir()
    assert main(["--root", str(tmp_path)]) == 2
    assert "--root: runs: found none in" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()
    (tmp_path / "logs/toy/first").mkdir(parents=True)
    (tmp_path / "logs/toy/first/training_metrics.csv").write_text("step,loss\n10,0.5\n")
    (tmp_path / "file").write_text("")
    assert main(["--root", str(tmp_path), "--output", str(tmp_path / "file")]) == 2
    assert "expected a folder that can be written" in capsys.readouterr().err
