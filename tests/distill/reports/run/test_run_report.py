"""The report of a run that the program has made, and what becomes of the run when it cannot be made."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from distill.reports.run.run_report import write_report
from distill.runs.given_run import run_of
from lego_response_distill import main as distil
from machine.run_folder import RunFolder
from scene.images import read_image
from settings.errors import InputError
from tests.program import arguments, csv_rows
from tests.toy_scene import write_toy_scene
from tools import compress, render_path, view
from tools.report import main

RESULTS, LOGS = "results/toy/first", "logs/toy/first"


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("report")
    under = os.path.relpath(root)
    write_toy_scene(root, loss={"depth": {"weight": 0.1}}, logging={"report": True})
    with redirect_stdout(StringIO()) as out:
        box = "data.box={lower: [-0.6, -0.6, -0.6], upper: [0.6, 0.6, 0.6]}"
        assert distil(arguments(root, "--max-steps", "150", "--output", under, "--set", box)) == 0
    for said in (f"report   {under}/{RESULTS}/report.md", f"pictures {under}/{RESULTS}/eval"):  # the paths are alike
        assert f"{said}\n" in out.getvalue()
    written = [line for line in out.getvalue().splitlines() if line.partition(" ")[2].strip().startswith(under)]
    assert [line[:9].rstrip() for line in written] == ["figures", "parity", "pictures", "report"]
    assert {line.index(under) for line in written} == {9}, "in one column"
    (root / "said.txt").write_text(out.getvalue(), encoding="utf-8")
    return root


def test_the_commands_that_a_run_ends_with_find_it(ran) -> None:
    said = (ran / "said.txt").read_text(encoding="utf-8")
    given = dict(re.findall(r"^(look|film|compact) +python tools/(?:view|render_path|compress)\.py (.+)$", said, re.M))
    assert view.parse_arguments(shlex.split(given["look"])).path.resolve() == ran / RESULTS
    for tool, what in ((render_path, "film"), (compress, "compact")):
        chosen = tool.parse_arguments(shlex.split(given[what]))
        config, root, _ = run_of(chosen)
        assert RunFolder(config, root).latest_checkpoint().resolve().is_relative_to(ran / RESULTS)


def test_a_run_ends_with_a_report_of_its_figures_pictures_and_settings(ran) -> None:
    report = (ran / RESULTS / "report.md").read_text(encoding="utf-8")
    holdout, truth = csv_rows(ran / LOGS / "eval_step_000150.csv")[:2]
    assert f"| 150 | holdout | teacher | 5 | {float(holdout['psnr']):.2f} |" in report
    psnr, blank, true, own = (
        f"{float(row[name]):.2f} dB"
        for row, name in ((holdout, "psnr"), (holdout, "psnr_blank"), (truth, "psnr"), (truth, "psnr_teacher"))
    )
    assert f"Its PSNR on held-out frames is {psnr} against the teacher; a blank picture has {blank}." in report
    assert f"On the same frames it is {true} against ground truth, where the teacher has {own}." in report
    student, teacher, ratio = csv_rows(ran / LOGS / "eval_step_000150_parity.csv")
    speed = " | ".join(f"{float(row['fps_median']):.4g}" for row in (student, teacher))
    assert f"| frames/s, median | {speed} | {float(ratio['fps_median']):.3g} |" in report
    assert f"| parameters | {int(student['parameters']):,} | {int(teacher['parameters']):,} |" in report
    assert f"student: {student['source']}; teacher: {teacher['source']}.\n" in report
    assert "GPU peak" not in report
    assert re.search(r"trained 150 steps in (?!0 s)", report) and "COLLAPSED" not in report
    assert "| `loss.depth.weight` | `0.1` | `0.0` |" in report and "`train.lr`" not in report
    assert (
        '| `data.box` | the keys below | `"auto"` |' in report
        and "| `data.box.lower` | `[-0.6, -0.6, -0.6]` |" in report
    )
    assert "| seed | 0 |" in report and "| torch |" in report
    links = re.findall(r"\]\(([^)]+)\)", report)
    assert len(links) == 7 and all((ran / RESULTS / link).is_file() for link in links)
    assert sum("worst_" in link for link in links) == 3
    assert read_image(ran / RESULTS / "report_curves.png").shape[1] > 800


def test_the_training_log_has_the_occupied_fraction(ran) -> None:
    fractions = [float(row["occupied_fraction"]) for row in csv_rows(ran / LOGS / "training_metrics.csv")]
    assert len(fractions) == 15 and all(0 < fraction <= 1 for fraction in fractions)


def test_the_tool_makes_it_again(ran, capsys) -> None:
    path = ran / RESULTS / "report.md"
    before = path.read_text(encoding="utf-8")
    path.unlink()
    assert main([str(ran / RESULTS)]) == 0
    assert path.read_text(encoding="utf-8") == before
    assert str(path) in capsys.readouterr().out


def test_the_tool_makes_it_again_where_results_are_a_link_to_another_disk(ran, tmp_path) -> None:
    report = (ran / RESULTS / "report.md").read_text(encoding="utf-8")
    shutil.copytree(ran / "results", tmp_path / "disk")
    shutil.copytree(ran / "logs", tmp_path / "home/logs")
    (tmp_path / "home/results").symlink_to(tmp_path / "disk")
    (tmp_path / "home" / RESULTS / "report.md").unlink()
    assert main([str(tmp_path / "home" / RESULTS)]) == 0
    assert (tmp_path / "disk/toy/first/report.md").read_text(encoding="utf-8") == report


def test_a_run_that_was_not_evaluated_says_so(ran, tmp_path) -> None:
    (tmp_path / "training_metrics.csv").write_bytes((ran / LOGS / "training_metrics.csv").read_bytes())
    (tmp_path / "eval_step_000090.csv").write_bytes((ran / LOGS / "eval_step_000150.csv").read_bytes())
    results = shutil.copytree(ran / RESULTS, tmp_path / "results")
    report = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "Not evaluated at its last step." in report and "## Pictures" not in report


def test_a_run_that_ended_between_two_rows_has_its_evaluation(ran, tmp_path) -> None:
    log = (ran / LOGS / "training_metrics.csv").read_text().splitlines(keepends=True)
    (tmp_path / "training_metrics.csv").write_text("".join(log[:-1]))  # to step 140, a row every 10
    evaluation = (ran / LOGS / "eval_step_000150.csv").read_text().replace("\n150,", "\n147,")
    (tmp_path / "eval_step_000147.csv").write_text(evaluation)
    results = shutil.copytree(ran / RESULTS, tmp_path / "results")
    report = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "trained 147 steps" in report and "| 147 | holdout |" in report


def test_the_figures_of_another_evaluation_and_the_size_of_a_runs_file_are_said(ran, tmp_path) -> None:
    for name, stem in (("training_metrics", ""), ("eval_step_000150", ""), ("eval_step_000150", "_compact")):
        shutil.copy(ran / LOGS / f"{name}.csv", tmp_path / f"{name}{stem}.csv")
    os.utime(tmp_path / "eval_step_000150.csv", (0, 0))
    results = shutil.copytree(ran / RESULTS, tmp_path / "results")
    report = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "seed 0. The figures are those of step_000150_compact, the evaluation that was written last. Its" in report
    config = (results / "config.yaml").read_text(encoding="utf-8")
    (results / "config.yaml").write_text(config.replace("target_mib: null", "target_mib: 0.5"), encoding="utf-8")
    (results / "checkpoints/step_000150.lrd").write_bytes(bytes(1 << 18))
    (tmp_path / "eval_step_000150_compact.csv").unlink()
    report = write_report(results, tmp_path).read_text(encoding="utf-8")
    assert "seed 0; its compact file, step_000150.lrd, has 0.250 MiB. Its PSNR on" in report


def test_text_of_a_runs_files_stays_text(ran, tmp_path) -> None:
    """A command and a path with what Markdown would take for markup, and letters that JSON would escape."""
    results = tmp_path / RESULTS
    shutil.copytree(ran / RESULTS, results)
    shutil.copytree(ran / LOGS, tmp_path / LOGS)
    versions = json.loads((results / "versions.json").read_text(encoding="utf-8"))
    versions["command"] = "python x.py --set 'a=<b>|*c*'"
    (results / "versions.json").write_text(json.dumps(versions), encoding="utf-8")
    config = (results / "config.yaml").read_text(encoding="utf-8")
    config = config.replace("  images: null", "  images: 'Möbel |`x`'", 1)
    (results / "config.yaml").write_text(config, encoding="utf-8")
    report = write_report(results).read_text(encoding="utf-8")
    assert r"| command | python x.py --set 'a=&lt;b&gt;\|\*c\*' |" in report
    assert re.search(r"\| `data\.images` \| `` \".*Möbel \\\|`x`\" `` \| `null` \|", report)


def test_a_folder_without_a_run_is_one_message(tmp_path, capsys) -> None:
    assert main([str(tmp_path)]) == 2
    assert "config.yaml" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_of_a_fitted_teacher_it_is_said_what_it_is(ran, tmp_path) -> None:
    results = tmp_path / RESULTS
    (results / "point_cloud/iteration_7").mkdir(parents=True)
    (results / "point_cloud/iteration_7/point_cloud.ply").touch()
    shutil.copy(ran / RESULTS / "config.yaml", results)
    with pytest.raises(InputError, match=r"found a teacher that .* fitted, .*--model \S+/first distils it"):
        write_report(results)
    shutil.rmtree(results / "point_cloud")
    (results / "checkpoints").mkdir()
    (results / "checkpoints/fit_latest.pth").touch()
    with pytest.raises(InputError, match=r"found a teacher whose fit .* was stopped, .*--resume"):
        write_report(results)


def test_damaged_versions_are_named(ran, tmp_path) -> None:
    results = tmp_path / RESULTS
    results.mkdir(parents=True)
    (results / "config.yaml").write_bytes((ran / RESULTS / "config.yaml").read_bytes())
    (results / "versions.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"versions\.json"):
        write_report(results)
    (results / "versions.json").unlink()
    with pytest.raises(InputError, match=r"versions\.json: file: found No such file or directory, expected what"):
        write_report(results)


def test_of_a_folder_above_runs_one_of_them_is_to_be_named(ran):
    with pytest.raises(InputError, match=r"above 1 run: first, .*Name it: .*toy.first\."):
        write_report((ran / RESULTS).parent)


@pytest.mark.parametrize("folder", ["/", "/nowhere"])
def test_what_is_no_runs_folder_is_bad_input(folder) -> None:
    with pytest.raises(InputError, match="the folder of a run"):
        write_report(Path(folder))


@pytest.mark.parametrize(("steps", "status"), [("150", 0), ("1", 3)], ids=["DONE", "COLLAPSED"])
def test_a_report_that_fails_is_a_warning_and_keeps_the_exit_status(
    tmp_path, monkeypatch, caplog, steps, status
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no fonts")

    monkeypatch.setattr("distill.reports.run.run_report.draw_curves", fail)
    write_toy_scene(tmp_path, logging={"report": True})
    assert distil(arguments(tmp_path, "--max-steps", steps)) == status
    assert "no report: RuntimeError: no fonts" in caplog.text and "tools/report.py" in caplog.text
    assert not (tmp_path / RESULTS / "report.md").exists()


def test_no_report_where_none_is_wanted(tmp_path) -> None:
    write_toy_scene(tmp_path, logging={"report": True})
    distil(arguments(tmp_path, "--max-steps", "5", "--set", "logging.report=false"))
    assert csv_rows(tmp_path / LOGS / "eval_step_000005.csv")
    assert not list((tmp_path / RESULTS).glob("report*"))
