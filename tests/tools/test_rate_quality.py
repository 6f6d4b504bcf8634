"""Rate against quality by one command."""

import io
import json
import shlex
import shutil
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

from distill.model.checkpoint import load_checkpoint
from distill.rate_quality import rate_study
from distill.rate_quality.form_measurement import FormMeasurement
from distill.training.trainer import Trainer
from scene.images import read_image, write_image
from teacher.fitting.fit import TeacherFit
from teacher.gaussian_files import read_gaussians, write_gaussians
from teacher.gaussian_files.ply import write_ply
from teacher.rasterizer import Rasterizer
from tests.program import arguments, csv_rows
from tests.toy_scene import add_training_split, block_of_gaussians, write_toy_scene
from tests.toy_sog import packed, splat
from tests.toy_training import CPU, trainer_of
from tools.rate_quality import main

FEW = ("--sizes", "0.006", "--keep", "0.5", "--sh", "0")


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    path = write_toy_scene(folder, compact={"max_steps": 20}, teacher={"scale": 4.0})
    write_ply(folder / "point_cloud.ply", block_of_gaussians().scaled(0.25))
    trainer_of(path, "train.max_steps=30").run(show_progress=False)
    return folder


@pytest.fixture
def trained(trained_once, tmp_path):
    return shutil.copytree(trained_once, tmp_path / "toy") / "toy.yaml"


@pytest.fixture(scope="module")
def study(trained_once, tmp_path_factory):
    """One with all that a command line can ask for: its folder, its rows, what it said, and by what it drew."""
    folder = shutil.copytree(trained_once, tmp_path_factory.mktemp("study") / "toy")
    made, drawn_by = packed(folder / "two.sog", splat()[0]), []
    command = [sys.executable, "-c", f"import shutil, sys; open(sys.argv[1]); shutil.copy({str(made)!r}, sys.argv[2])"]

    def noted(gaussians, name, **options):
        drawn_by.append(name)
        return Rasterizer(gaussians, name, **options)

    options = (*FEW, "--fit-steps", "3", "--file", str(folder / "point_cloud.ply"), "--sog", shlex.join(command))
    with patch("teacher.sources.source.Rasterizer", noted), redirect_stdout(io.StringIO()) as said:
        assert main(arguments(folder, *options, "--set", "teacher.rasterizer=cpu")) == 0
    results = folder / "results/toy/first_rates"
    return SimpleNamespace(
        folder=results, rows=csv_rows(results / "table.csv"), said=said.getvalue(), drawn_by=drawn_by, sog=made
    )


def test_a_student_stands_beside_its_teacher_in_every_form(study):
    forms = [row["form"] for row in study.rows]
    assert sorted(forms) == sorted([".ply", ".npz", ".spz", ".sog"] * 3 + [".ply"] + ["student hash_grid"] * 2)
    rows = [row for row in study.rows if row["form"] != ".sog"]
    for row in rows:
        assert float(row["psnr_teacher"]) > 5 and float(row["fps_median"]) > 0
    small = study.folder / "files/first_0.006MiB.lrd"
    assert small.stat().st_size == int(next(r["bytes"] for r in rows if "20 steps" in r["what"])) <= 0.006 * 2**20
    assert load_checkpoint(small, CPU)["step"] == 30
    weights = load_checkpoint(study.folder.parent / "first/checkpoints/step_000030.pth", CPU)["student"]["weights"]
    stored = next(int(row["bytes"]) for row in rows if row["what"] == "first, float32 weights")
    assert stored == sum(value.nbytes for value in weights.values())
    whole, pruned = (
        next(row for row in rows if row["form"] == ".ply" and row["what"].startswith(what)) for what in ("as", "50 %")
    )
    assert float(whole["psnr_teacher"]) > float(pruned["psnr_teacher"]) and whole["bytes"] != pruned["bytes"]
    assert whole["what"] == "as it is (729)" and pruned["what"] == "50 % of the Gaussians (364)"
    made_elsewhere = next(row for row in rows if "made elsewhere" in row["what"])
    assert made_elsewhere["psnr_teacher"] == whole["psnr_teacher"]
    assert (study.folder / "plot.png").exists()
    assert "Best PSNR against the teacher for its size:" in study.said


def test_forms_are_drawn_by_the_rasterizer_that_the_config_names(study):
    assert len(study.drawn_by) >= 8 and set(study.drawn_by) == {"cpu"}


def test_a_command_makes_each_form_a_sog_too(study):
    sogs = [row for row in study.rows if row["form"] == ".sog"]
    assert len(sogs) == 3 and {row["bytes"] for row in sogs} == {str(study.sog.stat().st_size)}


def test_a_file_that_is_given_in_a_smaller_form_is_a_form_too(trained, study):
    assert not [row for row in study.rows if "as given" in row["what"]]  # of a PLY
    given = trained.parent / "small.npz"
    write_gaussians(given, read_gaussians(trained.parent / "point_cloud.ply"))
    command = arguments(trained, *FEW, "--fit-steps", "2", "--set", "teacher.ply=small.npz")
    assert main(command) == 0
    table = csv_rows(trained.parent / "results/toy/first_rates/table.csv")
    (row,) = (row for row in table if row["what"].startswith("small.npz, as given"))
    assert float(row["psnr_teacher"]) > 40 and int(row["bytes"]) == given.stat().st_size
    assert main([*command, "--file", str(given)]) == 0  # named too, it is not there twice
    table = csv_rows(trained.parent / "results/toy/first_rates/table.csv")
    assert [row["what"].partition(" (")[0] for row in table if "small" in row["what"]] == ["small.npz, made elsewhere"]


def test_a_student_is_trained_for_each_size_where_that_is_wanted(trained):
    options = ("--anew", "--sizes", "0.006,0.01", "--set", "train.max_steps=30", "--set", "compact.share=0.9")
    assert main(arguments(trained, *options, "--keep", "0.5", "--sh", "0", "--fit-steps", "3")) == 0
    results = trained.parent / "results/toy"
    table = csv_rows(results / "first_rates/table.csv")
    rows = [row for row in table if row["what"] == "first, trained for this size in 30 steps"]
    for size, row in zip((0.006, 0.01), rows, strict=True):  # rows are from small to large
        made = (results / f"first_{size}MiB/checkpoints/step_000030.lrd").read_bytes()
        assert made == (results / f"first_rates/files/first_{size}MiB.lrd").read_bytes()
        assert 0.9 * size * 2**20 < len(made) == int(row["bytes"]) <= size * 2**20


def test_a_study_that_was_stopped_goes_on_from_what_it_has_measured(trained, monkeypatch, capsys, caplog):
    command, folder = arguments(trained, *FEW, "--fit-steps", "3"), trained.parent / "results/toy/first_rates"
    caplog.set_level("INFO")

    def known() -> int:
        """Runs it; how many of the files it had measured before."""
        caplog.clear()
        assert main(command) == 0
        return caplog.text.count("measured before")

    with monkeypatch.context() as stopping:
        stopping.setattr(TeacherFit, "run", lambda fit, *_: setattr(fit, "stopped_by", signal.SIGTERM))
        assert main(command) == 128 + signal.SIGTERM
    assert "run it again to go on" in capsys.readouterr().err
    before = figures_in(folder)
    with monkeypatch.context() as again:
        again.delattr(rate_study, "compress")
        assert known() == len(before)
    whole = figures_in(folder)
    assert before.items() < whole.items() and len(whole) == len(before) + 3
    (folder / "files/kept0.5.npz").unlink()
    assert known() == len(whole) - 3 and (folder / "files/kept0.5.npz").is_file()
    write_ply(trained.parent / "point_cloud.ply", block_of_gaussians().scaled(0.24))  # another teacher than before
    assert known() == 0


def test_files_that_a_stopped_study_has_replaced_are_made_again(trained, monkeypatch, caplog):
    first, other = (arguments(trained, *FEW, "--fit-steps", steps) for steps in "34")
    assert main(first) == 0
    measured = FormMeasurement._point
    caplog.set_level("INFO")

    def stopped(study, form, words, *of):
        if "fitted on for 4 steps" in words:
            raise KeyboardInterrupt
        return measured(study, form, words, *of)

    with monkeypatch.context() as stopping:
        stopping.setattr(FormMeasurement, "_point", stopped)
        assert main(other) == 130
    caplog.clear()
    assert main(first) == 0
    told = [line for line in caplog.messages if "fitted on for 3 steps" in line]
    assert len(told) == 3 and not any("measured before" in line for line in told)


def test_figures_are_of_the_teacher_as_it_was_when_the_study_began(trained, monkeypatch, caplog):
    command, compress = arguments(trained, *FEW, "--fit-steps", "3"), rate_study.compress

    def replaced_meanwhile(*given):
        made, gaussians = compress(*given), block_of_gaussians().scaled(0.25)
        write_ply(trained.parent / "point_cloud.ply", replace(gaussians, sh=gaussians.sh / 2))
        return made

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(rate_study, "compress", replaced_meanwhile)
        assert main(command) == 0
    caplog.set_level("INFO")
    assert main(command) == 0
    assert "measured before" not in caplog.text


def figures_in(folder):
    """What the table of a study says of each file, by the form and how it was made; the front is of all of them."""
    rows = csv_rows(folder / "table.csv")
    own = [{name: value for name, value in row.items() if not name.startswith("pareto")} for row in rows]
    return {(row["form"], row["what"]): row for row in own}


def test_a_student_that_is_trained_for_a_size_is_gone_on_with(trained, monkeypatch, caplog):
    train, take, begun = rate_study.train_and_evaluate, Trainer.take_step, []

    def noted(config, root, resume, going_on):
        begun.append((config.run, resume))
        return train(config, root, resume, going_on)

    def stopped(trainer):
        if trainer.config.run == "first_0.01MiB" and trainer.progress.step == 10:
            signal.raise_signal(signal.SIGINT)
        return take(trainer)

    monkeypatch.setattr(rate_study, "train_and_evaluate", noted)
    options = ("--anew", "--sizes", "0.006,0.01", "--set", "train.max_steps=30", "--set", "compact.share=0.9")
    command = arguments(trained, *options, "--keep", "0.5", "--sh", "0", "--fit-steps", "3")
    with monkeypatch.context() as stopping:
        stopping.setattr(Trainer, "take_step", stopped)
        assert main(command) == 130
    assert "stopped at step 11; the study goes on with it" in caplog.text and "--resume" not in caplog.text
    assert main(command) == 0
    assert begun == [("first_0.006MiB", None), ("first_0.01MiB", None), ("first_0.01MiB", "auto")]

    def stopped_before(config, root, resume, going_on):
        begun.append((config.run, resume))
        raise KeyboardInterrupt

    (trained.parent / "results/toy/first_rates/record.jsonl").unlink()
    monkeypatch.setattr(rate_study, "train_and_evaluate", stopped_before)
    assert [main(command), main(command)] == [130, 130]
    assert begun[3:] == [("first_0.006MiB", None)] * 2  # what is in its folder is another study's


@pytest.mark.parametrize("supersample", [1, 3])
def test_a_teacher_is_drawn_at_the_width_that_it_was_fitted_at(tmp_path, supersample):
    few = {"train": {"max_steps": 30}, "compact": {"max_steps": 5}, "occupancy": {"resolution": 8}}
    path = write_toy_scene(tmp_path, data={"resolution": 8}, render={"supersample": supersample}, **few)
    trainer_of(path).run(show_progress=False)
    assert main(arguments(path, *FEW, "--fit-steps", "20")) == 0
    table = csv_rows(path.parent / "results/toy/first_rates/table.csv")
    psnr = {row["what"].split(" (")[0]: float(row["psnr_teacher"]) for row in table}
    # Its pictures are stored at three times the size; drawn at the small one it has 14 dB to their averages.
    assert psnr["as it is"] > 45
    assert psnr["50 % of the Gaussians, SH 0, fitted on for 20 steps"] > 30


def test_gaussians_are_fitted_on_to_the_images_that_a_student_sees(tmp_path):
    few = {"train": {"max_steps": 30}, "compact": {"max_steps": 5}, "occupancy": {"resolution": 8}}
    path = write_toy_scene(tmp_path, data={"ground_truth": {"split": "train", "weight": 8.0}}, **few)
    add_training_split(tmp_path)
    for image in (tmp_path / "data/train").glob("*.png"):  # of another scene, a wall
        write_image(image, np.full_like(read_image(image), 40))
    trainer_of(path).run(show_progress=False)
    assert main(arguments(path, *FEW, "--fit-steps", "60")) == 0
    table = csv_rows(path.parent / "results/toy/first_rates/table.csv")
    psnr = {row["what"].split(" (")[0]: float(row["psnr_teacher"]) for row in table}
    assert psnr["50 % of the Gaussians, SH 0, fitted on for 60 steps"] < psnr["50 % of the Gaussians"] - 3


def test_a_run_that_cannot_end_with_a_file_is_refused_at_once(trained, capsys):
    assert main(arguments(trained, "--anew", "--sizes", "0.006", "--set", "far_field.kind=contracted")) == 2
    assert "--anew: compact.target_mib: found 0.006, expected null, since there is" in capsys.readouterr().err


def test_what_gaussians_cannot_be_fitted_on_to_is_refused_at_once(tmp_path, capsys):
    path = write_toy_scene(tmp_path, train={"max_steps": 2})
    add_training_split(tmp_path)
    trainer_of(path).run(show_progress=False)
    live = ("--set", "teacher.kind=gaussians", "--set", "teacher.live=true")
    live += ("--set", "data.train_transforms=data/transforms_train.json")
    assert main(arguments(path, *live)) == 2
    assert "views held out, as those of a live teacher are" in capsys.readouterr().err
    split = tmp_path / "data/transforms_train.json"
    split.write_text(json.dumps(json.loads(split.read_text()) | {"h": 22}))
    for image in (tmp_path / "data/train").glob("*.png"):
        write_image(image, read_image(image)[:-2])
    assert main(arguments(path, "--set", "data.ground_truth={split: train}")) == 2
    assert "data.ground_truth: found images of" in capsys.readouterr().err


def test_a_command_that_makes_no_sog_is_told_of_by_its_last_words(trained, capsys):
    command = shlex.join([sys.executable, "-c", "raise SystemExit('no adapter found')"])
    assert main(arguments(trained, "--sizes", "0.006", "--sog", command)) == 2
    assert "ended with: no adapter found" in capsys.readouterr().err


def test_a_command_that_is_not_there_is_told_of_at_once(trained, capsys):
    assert main(arguments(trained, "--sog", "splat-transformer -q")) == 2
    assert "--sog: splat-transformer: found no such program" in capsys.readouterr().err
    assert not (trained.parent / "results/toy/first_rates").exists()


@pytest.mark.parametrize(
    "options", [("--sizes", "0"), ("--keep", "0.5,1.5"), ("--sh", "4"), ("--sh", "1.5"), ("--fit-steps", "0")]
)
def test_a_number_out_of_range_is_refused(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--config", str(tmp_path / "none.yaml"), *options])
    assert stopped.value.code == 2 and options[0] in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_refused_at_once(trained, capsys):
    assert main(arguments(trained, "--file", str(trained))) == 2
    assert "toy.yaml" in capsys.readouterr().err
    assert main(arguments(trained, "--file", str(trained.with_name("meta.json")))) == 2
    assert "meta.json: found an unpacked SOG, expected one file" in capsys.readouterr().err


def test_a_run_that_was_not_trained_is_refused(tmp_path, capsys):
    assert main(arguments(write_toy_scene(tmp_path))) == 2
    assert "Train first." in capsys.readouterr().err
